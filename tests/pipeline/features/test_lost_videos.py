"""A committed video that is missing, changed or unreadable costs its own rows, and those only until
it is back.
"""

import re
import shlex
import shutil

import numpy as np
import pytest
from numpy.testing import assert_equal

import cache
from pipeline.features.engine.shards import StreamRun
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.pipeline.features import made_up
from tests.trees import contents

PENN = "penn_action/train"
OPTIONS = {"resnet50": "--kind resnet50 --weights untrained:0", "homography": "--kind homography"}
CONVERT = f"convert {PENN} --raw RAW/penn_action --cache"
WAITS = "homography: 7 rows of 1 video wait for images: 0003 (no "


@pytest.fixture(autouse=True)
def quick(network, small_shards):
    """A network that costs nothing, and 16 rows a shard: two videos."""


@pytest.fixture
def extract(types):
    """`extract` of one kind of stream; what it prints."""

    def run(kind, *texts, more="", code=0, root="CACHE"):
        place = f"extract {PENN} --raw RAW/penn_action --workers 2 --cache {root}"
        return types(f"{place} {OPTIONS[kind]} {more}", *texts, code=code)

    return run


def lacking(penn, kind):
    """Tracks that lack features."""
    return [name for name, ok in penn.rows(f"features/{kind}_ok").items() if not ok.all()]


def arrays_of(into, root, kind):
    """Bytes of a stream's shards."""
    wanted = tuple(f"{PENN}/features/{kind}{part}/c/" for part in ("", "_ok", "_key"))
    return {name: data for name, data in into.tree(root).items() if name.startswith(wanted)}


def written(into, root):
    """Files of a cache, without folders, with their sizes and times."""
    return {name: about for name, about in into.everything(root).items() if (root / name).is_file()}


def hide(penn, video, at):
    shutil.move(penn.frames(video), at / f"frames-{video}")
    shutil.move(penn.label(video), at / f"label-{video}")


def put_back(penn, video, at):
    shutil.move(at / f"frames-{video}", penn.frames(video))
    shutil.move(at / f"label-{video}", penn.label(video))


@pytest.mark.promise("lost video")
def test_a_lost_clip_costs_itself_and_after_it_is_back_the_bytes_are_those_of_an_undisturbed_cache(
    penn, types, into, extract, tmp_path
):
    for root in "CACHE", "TMP/calm":
        types(f"{CONVERT} {root}")
        extract("resnet50", root=root)
    penn.add("0007", "0009")
    types(f"{CONVERT} TMP/calm")
    for kind in OPTIONS:
        extract(kind, root="TMP/calm")

    hide(penn, "0003", tmp_path)  # beside 0001 in the first shard
    types(f"{CONVERT} CACHE", code=1)
    extract("resnet50", "16 rows computed")  # it has the lost clip's rows
    extract("homography", f"error: penn_action/train: {WAITS}", code=1)
    assert lacking(penn, "homography") == ["0003/0"]
    # the first frame needs no image: it has none before it
    assert penn.rows("features/homography_ok")["0003/0"].tolist() == [2, *[0] * 7]
    held = written(into, penn.root)
    extract("homography", WAITS, code=1)
    assert written(into, penn.root) == held, "nothing is computed or written twice"

    put_back(penn, "0003", tmp_path)
    types(f"{CONVERT} CACHE")
    extract("homography", "extracted, 7 rows computed")
    extract("homography", "homography is up to date")
    for kind in OPTIONS:
        assert arrays_of(into, penn.root, kind) == arrays_of(into, tmp_path / "calm", kind)
    assert cache.verify(penn.root).ok


def test_a_copy_has_every_row_of_a_lagging_stream_and_the_numbers_that_it_prints_are_right(
    penn, types, into, extract, tmp_path
):
    copy = f"copy {PENN} --cache CACHE --to TMP/copied"
    types(f"{CONVERT} CACHE")
    extract("homography")  # 24 rows, the last shard half full
    penn.add("0007", "0009")
    hide(penn, "0007", tmp_path)
    types(f"{CONVERT} CACHE")
    put_back(penn, "0007", tmp_path)
    types(f"{CONVERT} CACHE")
    lacks = f"! homography of {PENN}: 16 of 40 rows missing. Compute them in the copy: "
    types(copy, f"{PENN}: copied 40 rows with homography", lacks)

    def rows(name):
        return into.rows(tmp_path / name, PENN, "features/homography")

    copied = rows("copied")
    known = {track: of for track, of in rows("cache").items() if track not in ("0007/0", "0009/0")}
    assert_equal({track: copied[track] for track in known}, known)
    extract("homography")
    lacks = lacks.replace("16", "8")  # the others are in a shard that the copy has
    types(copy, f"{PENN}: copied homography", lacks)
    assert cache.verify(tmp_path / "copied").ok
    extract("homography", "extracted, 8 rows computed", root="TMP/copied")
    assert_equal(rows("copied"), rows("cache"))
    types(copy, f"{PENN}: up to date")


def other_images(penn):
    penn.convert()
    for image in penn.frames("0003").iterdir():
        image.write_bytes((penn.frames("0001") / image.name).read_bytes() + b"more")


def no_answer(penn):
    image = penn.frames("0003") / "000003.jpg"
    image.unlink()
    image.symlink_to("/proc/self/mem")  # no error but its first byte: input/output error
    penn.convert()


@pytest.mark.parametrize(
    ("kind", "spoil", "says"),
    [
        ("resnet50", other_images, "has other images than those"),
        ("homography", no_answer, "Input/output error"),
    ],
)
def test_a_changed_or_unreadable_clip_costs_itself_and_the_next_run_computes_it(
    kind, spoil, says, penn, into, extract, tmp_path
):
    shutil.copytree(penn.frames("0003"), tmp_path / "aside")
    spoil(penn)
    for _ in range(2):
        extract(kind, "rows of 1 video wait for images: 0003 (", says, code=1)
        assert lacking(penn, kind) == ["0003/0"]
    shutil.rmtree(penn.frames("0003"))
    shutil.copytree(tmp_path / "aside", penn.frames("0003"))
    penn.convert()
    extract(kind)
    calm = tmp_path / "calm"
    shutil.copytree(penn.root, calm)
    shutil.rmtree(calm / PENN / "features")
    extract(kind, root="TMP/calm")
    for part in ("", "_ok", "_key"):
        expected = into.rows(calm, PENN, f"features/{kind}{part}")
        assert_equal(into.rows(penn.root, PENN, f"features/{kind}{part}"), expected)


def test_a_clip_that_goes_while_its_split_is_extracted_costs_itself(penn, into, tmp_path):
    penn.converted()
    plan = plan_extraction(penn.root, PENN, into.spec())

    def go(*_):
        if penn.frames("0003").exists():
            hide(penn, "0003", tmp_path)

    (done,) = extract_together([plan], Resources(workers=1), progress=go)
    assert (done.computed, done.lost.keys()) == (16, {"0003"})
    assert "8 rows of 1 video wait for images: 0003 (no " in done.problem
    put_back(penn, "0003", tmp_path)
    assert into.extract(penn.root).computed == 8


def test_features_of_a_lost_clip_are_not_deleted_and_its_windows_are_left_out(
    penn, types, ran, into, extract, tmp_path
):
    types(f"{CONVERT} CACHE")
    extract("resnet50")
    hide(penn, "0003", tmp_path)
    shown = extract("homography", code=1)
    assert len(penn.split.windows(seqlen=8, stride=8, stream="homography")) == 2
    held = [arrays_of(into, penn.root, kind) for kind in OPTIONS]
    for kind in OPTIONS:
        extract(kind, more="--replace", code=2)
    assert [arrays_of(into, penn.root, kind) for kind in OPTIONS] == held
    advice = re.search(r"-m pipeline (convert .*?--drop-removed)", shown)
    ran(*shlex.split(advice[1]))
    extract("homography", "homography is up to date")


def test_parts_leave_a_lost_clip_to_the_last_command_and_that_to_the_next(
    penn, into, extract, tmp_path
):
    penn.converted()
    shutil.copytree(penn.root, tmp_path / "calm")
    extract("homography", root="TMP/calm")
    hide(penn, "0003", tmp_path)
    for part in ("1/2", "2/2"):
        extract("homography", "not yet in the cache", more=f"--part {part}")
    extract("homography", "extracted, 0 rows computed", WAITS, code=1)
    put_back(penn, "0003", tmp_path)
    for part in ("1/2", "2/2"):
        extract("homography", more=f"--part {part}")
    extract("homography")
    calm = arrays_of(into, tmp_path / "calm", "homography")
    assert arrays_of(into, penn.root, "homography") == calm


@pytest.mark.parametrize(
    ("folder", "held"),
    [
        ("features", ""),
        ("features", "lost+found"),
        ("features/resnet50", "a dead link"),
        ("features/resnet50", "MARKER"),
    ],
)
def test_a_stream_whose_disk_is_not_mounted_is_a_problem_and_nothing_is_computed_into_it(
    folder, held, penn, types, extract, tmp_path
):
    penn.converted("fast")
    place, aside = penn.root / PENN / folder, tmp_path / "aside"
    place.rename(aside)
    if held == "a dead link":
        place.symlink_to(tmp_path / "not mounted")
    else:
        (place / held if held == "lost+found" else place).mkdir(parents=True)
    if held == "MARKER":
        (place / held).write_text("mount me")
    before = contents(penn.root)
    said = f"{place}: expected features, found none. Mount its disk"
    for command in ("status", "status --digest", "verify --fast --repair", "gc", "gc --dry-run"):
        types(f"{command} --cache CACHE", said, code=1)
    for more in "", "--replace", "--part 1/2":
        extract("resnet50", said, more=more, code=2)
    types("copy --streams resnet50 --to TMP/copy --cache CACHE", said, code=2)
    types("copy --to TMP/copy --cache CACHE", f"{PENN}: copied ", said, code=1)
    assert contents(penn.root) == before
    penn.add("0007")
    types(f"{CONVERT} CACHE --part 1/1")
    types(f"{CONVERT} CACHE")
    assert not place.is_dir() or [path.name for path in place.iterdir()] == [held] * bool(held)

    place.unlink() if place.is_symlink() else shutil.rmtree(place)
    if folder == "features":
        shutil.copytree(aside, place)
    extract("resnet50", "extracted, 8 rows" if folder == "features" else "rows computed")
    types("status --cache CACHE")


def test_rows_that_are_lost_after_a_checkpoint_are_not_kept(tmp_path):
    made_up.convert(tmp_path, n_videos=2, n_frames=8)
    split = cache.open(tmp_path)[made_up.SPLIT]

    def opened():
        files = cache.StreamShards(
            tmp_path, made_up.SPLIT, "colour", cache.StreamForm(3, "float32"), plan="as before"
        )
        run = StreamRun(split, made_up.Colour(), files, [0], None)
        return run, run.open(0)

    def save(run):
        for write in run.save():
            write()

    run, shard = opened()
    rows = shard.missing
    run.store(rows, run.check(np.ones((16, 3)), np.ones(16, bool)))
    save(run)
    assert opened()[1].count().kept == 16
    run.lose(1, "it has changed")
    save(run)
    kept = opened()[1]  # as after a kill
    assert (kept.count().kept, kept.missing.tolist()) == (8, [*range(8, 16)])
    assert [*run.save()] == []
