"""`gc --erase`: the rows of a removed video are in no file of the cache, and nothing that stays is
computed again.
"""

import numpy as np
import pytest

import cache
from cache.format.pins import find_missing, pinned_commits, write_pin
from pipeline.grades.stored import StoredGrades
from tests.trees import contents

pytestmark = pytest.mark.promise("erase")

NAME = "penn_action/train"
CONVERT = f"convert {NAME} --raw RAW/penn_action --cache CACHE"
EXTRACT = f"extract {NAME} --raw RAW/penn_action --cache CACHE --precision exact"


@pytest.fixture(autouse=True)
def videos_share_shards(penn, network, monkeypatch):
    """8 rows each, in shards of 12."""
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_SHARD", 12)
    monkeypatch.setattr("cache.write.split_writer.ROWS_PER_CHUNK", 4)
    penn.converted("exact")


def digests(penn):
    return [cache.content_digest(penn.split, stream) for stream in (None, "resnet50")]


def files_with(root, values):
    """Names of the files that hold one of these bytes."""
    files = [file for file in root.rglob("*") if file.is_file()]
    return [file for file in files if any(value in file.read_bytes() for value in values)]


def test_a_removed_video_is_erased_and_no_network_runs(penn, network, types):
    track = next(track for track in penn.split.tracks if track.video == "0003")
    boxes = penn.split.rows("bbox", track.start, track.stop)
    features = penn.split.rows("features/resnet50", track.start, track.stop)
    values = [b"0003/", *(row.tobytes() for row in [*boxes, *features])]
    penn.remove("0003")
    types(f"{CONVERT} --drop-removed")
    before = digests(penn)
    network.batches.clear()
    found = files_with(penn.root, values)
    assert len(found) > 2
    said = types(
        "gc --erase --dry-run --cache CACHE",
        f"{NAME}: 8 rows of removed tracks; written again: 16 rows, ",
        "copies, snapshots and runs keep their rows",
    )
    assert said.count("KiB") >= 2
    assert files_with(penn.root, values) == found
    types("gc --erase --cache CACHE", "16 rows", "removed")
    assert files_with(penn.root, values) == []
    assert digests(penn) == before
    assert StoredGrades(penn.split).is_current
    types("gc --erase --cache CACHE", f"{NAME}: 0 rows of removed tracks; written again: 0 rows")
    types("verify --cache CACHE", "intact")
    types(CONVERT, "up to date")
    types(EXTRACT, "up to date")
    assert network.batches == []
    assert penn.split.provenance["raw"] == str(penn.raw)


def test_a_track_in_the_list_is_erased_but_for_its_place_in_the_account(penn, tmp_path, types):
    track = next(track for track in penn.split.tracks if track.video == "0003")
    boxes = penn.split.rows("bbox", track.start, track.stop)
    (tmp_path / "left_out.txt").write_text(f"{track.name}\n")
    types(f"{CONVERT} --set convert.leave_out={tmp_path / 'left_out.txt'}")
    types("gc --erase --cache CACHE")
    assert files_with(penn.root, [row.tobytes() for row in boxes]) == []
    account = penn.split.videos.account(penn.split.videos.names.index("0003"))
    ((place,),) = account["corrections"].values()
    np.testing.assert_array_equal(place, [4, *boxes[4, :3].tolist()])


def test_what_is_left_is_a_problem(penn, types):
    """Bytes of removed rows may be in it."""
    penn.remove("0003")
    types(f"{CONVERT} --drop-removed")
    with penn.split.store.lock(f"{NAME}/features/resnet50/.writing"):
        types("gc --erase --cache CACHE", "busy:", code=75)
    types("gc --erase --older-than 3600 --cache CACHE", "error:", "younger than 3600 s", code=1)
    types("gc --erase --cache CACHE")
    assert penn.split.open_stream("resnet50").manifest["split_digest"] == penn.split.commit.digest


def test_trainings_and_tags_that_lose_rows_are_named_before_anything_begins(
    penn, tmp_path, types, luigi_cfg
):
    luigi_cfg()
    types("tag whole --cache CACHE")
    pins = {}
    for run in ("begun", "of-other-data"):
        pins[run] = cache.store_at(tmp_path / f"runs/{run}/pin-1")
    write_pin(pins["begun"], [penn.split.commit])
    (tmp_path / "runs/of-other-data/pin-1").mkdir(parents=True)
    penn.remove("0003")
    types(f"{CONVERT} --drop-removed")
    before = contents(penn.root)
    said = types("gc --erase --dry-run --cache CACHE", f"{penn.root}/.tags/whole loses rows")
    assert f"{pins['begun'].root} loses rows of {NAME}: a training cannot be resumed" in said
    assert "of-other-data" not in said
    assert contents(penn.root) == before
    types("gc --erase --cache CACHE", "begun/pin-1 loses rows")
    (commit, *_) = pinned_commits(penn.split.store, pins["begun"])
    assert find_missing(commit)
    types("tag whole --delete --cache CACHE")
    said = types("gc --erase --cache CACHE", "begun/pin-1 loses rows")
    assert ".tags" not in said
