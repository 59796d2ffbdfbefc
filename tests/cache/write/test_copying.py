"""`copy_split` writes what is live of a split and its streams into another cache, and goes on after
a kill.
"""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest

import cache
from cache import MissingSplit
from tests.cache import toy
from tests.raising import cache_refuses

SPLIT = "toy/train"


@pytest.fixture(scope="module")
def replaced(made, tmp_path_factory):
    """Six videos and features of them; then b and d got other lengths, f went, and features
    followed.
    """
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("replaced") / "cache"))
    others = [
        toy.video(name, *lengths, seed=5) for name, lengths in {"b": [40], "d": [1, 30]}.items()
    ]
    of_second = {"plan": "second", "provenance": {"raw": "/raw"}}
    toy.write(root, others, drop=["b", "d", "f"], **of_second)
    toy.write_stream(root, bad_rows=[170, 200])
    (root / SPLIT / "stamps.json").write_text("{}")
    return root


@pytest.fixture
def root(replaced, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(replaced, tmp_path / "cache"))


@pytest.fixture
def to(tmp_path):
    return tmp_path / "other/cache"


def contents(root, *streams):
    """Every number of every track, by its name; of these streams where they have its rows, too."""
    split = toy.opened(root)
    size = split.manifest["geometry"]["rows_per_shard"]
    numbers = {}
    for track in split.tracks:
        shards = {track.start // size, (track.stop - 1) // size}
        has = [name for name in streams if shards <= set(split.open_stream(name).shards)]
        names = [
            *split.columns,
            *(f"features/{name}{part}" for name in has for part in ("", "_ok", "_key")),
        ]
        numbers[track.name] = (
            (track.fps, track.step, track.crop_scale),
            {name: split.rows(name, track.start, track.stop).tobytes() for name in names},
        )
    return numbers


def test_it_keeps_every_number_of_every_track_and_none_of_what_was_replaced(replaced, to):
    old, done = toy.opened(replaced), cache.copy_split(replaced, SPLIT, to)
    split = toy.opened(to)
    assert contents(to, "resnet50") == contents(replaced, "resnet50")
    assert split.manifest["extent"] == split.manifest["rows"] == done.rows < old.manifest["extent"]
    assert [video.name for video in split.videos] == ["a", "b", "c", "d", "e"]
    assert len(split.manifest["commits"]) == 1
    assert (cache.verify(to).ok, cache.verify(to).notes) == (True, [])
    # The callers' entries, notes and stamps go along.
    assert (split.manifest["plan"], split.manifest["stand_in"]) == ("second", True)
    assert split.open_stream("resnet50").manifest["weights"] == "known"
    assert split.open_stream("resnet50").manifest["split_digest"] == split.manifest["digest"]
    assert (split.provenance["raw"], split.provenance["copied"]["digest"]) == (
        "/raw",
        old.manifest["digest"],
    )
    assert (to / SPLIT / "stamps.json").read_text() == "{}"
    assert (done.wrote_rows, done.streams, done.missing) == (True, ("resnet50",), {})


def test_a_sum_that_no_video_has_stays_unknown(tmp_path, to):
    unknown = {"rows": 9.0, "seconds": math.nan}
    entry, tracks = toy.video("a", 9)
    root = tmp_path / "cache"
    toy.write(root, [(dataclasses.replace(entry, sums=unknown), tracks)])
    cache.copy_split(root, SPLIT, to)
    first, copied = (toy.opened(one).manifest for one in (root, to))
    assert (copied["sums"], copied["tables"]) == (first["sums"], first["tables"])
    assert first["sums"] == {"rows": 9.0, "seconds": None}


def test_labels_that_one_track_does_not_have_stay_missing(tmp_path, to):
    entry, (track,) = toy.video("b", 40)
    columns = {
        column: rows for column, rows in track.columns.items() if column not in ("kp_3d", "has_3d")
    }
    root = tmp_path / "cache"
    toy.write(root, [toy.video("a", 9), (entry, [dataclasses.replace(track, columns=columns)])])
    toy.add(root, "a", 9, seed=2, drop=["a"], plan="again")
    cache.copy_split(root, SPLIT, to)
    assert contents(to) == contents(root)
    assert (toy.opened(to).rows("has_3d", 9, 49) == 255).all()


def test_a_split_or_stream_that_is_there_is_not_overwritten(root, to):
    toy.write(to, toy.videos())
    before = toy.tree(to)
    with cache_refuses("another state of it, or another split"):
        cache.copy_split(root, SPLIT, to)
    assert toy.tree(to) == before
    other = to.with_name("with a stream")
    cache.copy_split(root, SPLIT, other, streams=())
    toy.write_stream(other, dim=2)
    with cache_refuses("made differently"):
        cache.copy_split(root, SPLIT, other)
    gone = to.with_name("without its manifest")
    cache.copy_split(root, SPLIT, gone)
    (gone / SPLIT / "manifest.json").unlink()
    with cache_refuses("the manifest of the data saved here"):
        cache.copy_split(root, SPLIT, gone)
    with pytest.raises(MissingSplit):
        cache.copy_split(root, "toy/val", to)
    with cache_refuses("no feature stream 'c3d'"):
        cache.copy_split(root, SPLIT, to, streams=["c3d"])


def test_two_machines_work_is_merged(root, to):
    cache.copy_split(root, SPLIT, to, streams=())
    # extracted there, and brought back into rows that are in other places
    toy.write_stream(to, stream="c3d", dim=2)
    done = cache.copy_split(to, SPLIT, root)
    assert (done.wrote_rows, done.streams) == (False, ("c3d",))
    assert contents(root, "c3d") == contents(to, "c3d")
    assert cache.copy_split(root, SPLIT, to).streams == ("resnet50",)
    assert contents(root, "c3d", "resnet50") == contents(to, "c3d", "resnet50")


@pytest.mark.usefixtures("memory")
def test_into_an_object_store_and_back(replaced, to):
    cache.copy_split(replaced, SPLIT, "s3://bucket/cache")
    assert cache.verify("s3://bucket/cache").ok
    assert contents("s3://bucket/cache", "resnet50") == contents(replaced, "resnet50")
    cache.copy_split("s3://bucket/cache", SPLIT, to)
    directly = to.with_name("directly")
    cache.copy_split(replaced, SPLIT, directly)
    assert toy.tree(to) == toy.tree(directly)


# ------------------------------------------- copied file by file: docs/backups.md has the order,
# small files first


def back_up(root, to, *, shards):
    """One of the two passes: all but shards, replacing what is there; or what is not there yet."""
    for file in sorted(file for file in root.rglob("*") if file.is_file()):
        place = file.relative_to(root)
        small = "c" not in place.parts
        if ".writing" not in place.parts and (not (to / place).exists() if shards else small):
            (to / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, to / place)


def test_a_copy_has_the_commit_of_its_small_files_and_all_that_it_names(root, tmp_path):
    backup = tmp_path / "backup"
    for names, drop in (("x", ["b"]), ("yz", [])):  # the second one updates an earlier copy
        expected = contents(root, "resnet50")
        back_up(root, backup, shards=False)
        toy.write(root, [toy.video(name, 40) for name in names], drop=drop, plan=names)
        toy.write_stream(root)
        back_up(root, backup, shards=True)
        assert cache.verify(backup).ok
        assert contents(backup, "resnet50") == expected
        cache.gc(backup)  # shards of the commit in between
        assert cache.verify(backup).ok
