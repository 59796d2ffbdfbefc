"""A committed video that is missing, changed or unreadable costs its own rows, and those only until
it is back.
"""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal, assert_equal

import cache
from pipeline.features.engine.shards import StreamRun
from pipeline.features.extract import extract_together
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources
from tests.pipeline.features import made_up

PENN = "penn_action/train"
STREAMS = ("resnet50", "homography")


@pytest.fixture(autouse=True)
def quick(network, small_shards):
    """A network that costs nothing, and 16 rows a shard: two videos."""


@pytest.fixture
def extract(penn, ran):
    """`extract` of one kind of stream; what it prints."""

    def run(kind, *more, code=0, root=penn.root):
        weights = ["--weights", "untrained:0"] if kind == "resnet50" else []
        words = ["--kind", kind, "--raw", penn.raw, "--workers", 2, *weights]
        return str(ran("extract", PENN, "--cache", root, *words, *more, code=code).out)

    return run


def features(root, kind):
    """Track -> flags of its rows."""
    split = cache.open(root)[PENN]
    flags = split.column(f"features/{kind}_ok")
    return {track.name: np.asarray(flags[track.start : track.stop]) for track in split.tracks}


def arrays_of(into, root, kind):
    """Bytes of a stream's shards."""
    wanted = [f"{PENN}/features/{kind}{part}/c/" for part in ("", "_ok", "_key")]
    return {name: data for name, data in into.tree(root).items() if name.startswith(tuple(wanted))}


def written(into, root):
    """Files of a cache, without folders, with their sizes and times."""
    return {name: about for name, about in into.everything(root).items() if (root / name).is_file()}


def arrays_of_all(root):
    """Shards of all streams, and when they were written."""
    files = (root / PENN / "features").glob("*/c/**/*")
    return {str(file): file.stat().st_mtime_ns for file in files if file.is_file()}


def hide(penn, video, at):
    shutil.move(penn.frames(video), at / f"frames-{video}")
    shutil.move(penn.label(video), at / f"label-{video}")


def put_back(penn, video, at):
    shutil.move(at / f"frames-{video}", penn.frames(video))
    shutil.move(at / f"label-{video}", penn.label(video))


def test_a_lost_clip_costs_itself_and_after_it_is_back_the_bytes_are_those_of_an_undisturbed_cache(
    penn, ran, into, extract, tmp_path
):
    convert = ["convert", PENN, *penn.places]
    calm = tmp_path / "calm"
    ran(*convert)
    ran(*convert[:-1], calm)
    extract("resnet50")
    extract("resnet50", root=calm)
    penn.add("0007", "0009")
    ran(*convert[:-1], calm)
    for kind in STREAMS:
        extract(kind, root=calm)

    hide(penn, "0003", tmp_path)  # beside 0001 in the first shard
    ran(*convert, code=1)
    assert "16 rows computed" in extract("resnet50"), "it has the lost clip's rows"
    shown = extract("homography", code=1)
    assert "✗ penn_action/train: homography: 7 rows of 1 video wait for images: 0003 (no " in shown
    flags = features(penn.root, "homography")
    assert [name for name, of in flags.items() if not of.all()] == ["0003/0"]
    assert flags["0003/0"].tolist() == [2, *[0] * 7], (
        "the first frame needs no image: it has none before it"
    )
    held = written(into, penn.root)
    again = extract("homography", code=1)
    assert (again.count("\n"), "7 rows of 1 video wait for images" in again) == (1, True)
    assert written(into, penn.root) == held, "nothing is computed or written twice"

    put_back(penn, "0003", tmp_path)
    ran(*convert)
    assert "extracted, 7 rows computed" in extract("homography")
    assert "homography is up to date" in extract("homography")
    for kind in STREAMS:
        assert arrays_of(into, penn.root, kind) == arrays_of(into, calm, kind)
    assert cache.verify(penn.root).ok


def test_a_copy_has_every_row_of_a_lagging_stream_and_the_numbers_that_it_prints_are_right(
    penn, ran, into, extract, tmp_path
):
    convert = ["convert", PENN, *penn.places]
    copied = tmp_path / "copied"
    copy = ["copy", PENN, "--cache", penn.root, "--to", copied]
    ran(*convert)
    extract("homography")  # 24 rows, the last shard half full
    penn.add("0007", "0009")
    hide(penn, "0007", tmp_path)
    ran(*convert)
    put_back(penn, "0007", tmp_path)
    ran(*convert)
    shown = ran(*copy).out
    assert f"{PENN}: copied 40 rows with homography\n" in shown
    assert (
        "! homography of penn_action/train is incomplete: 24 of 40 rows copied, 16 missing in "
        in shown
    )
    for track, rows in into.rows(penn.root, PENN, "features/homography").items():
        if track not in ("0007/0", "0009/0"):
            assert_array_equal(into.rows(copied, PENN, "features/homography")[track], rows)
    assert f"{PENN}: up to date\n" in ran(*copy).out
    assert cache.verify(copied).ok

    alone = Path(shutil.copytree(copied, tmp_path / "alone"))
    assert "extracted, 16 rows computed" in extract("homography", root=alone)
    extract("homography")
    assert f"{PENN}: copied homography\n" in ran(*copy).out
    for root in (copied, alone):
        found = into.rows(root, PENN, "features/homography")
        for track, rows in into.rows(penn.root, PENN, "features/homography").items():
            assert_array_equal(found[track], rows)
    assert arrays_of(into, copied, "homography") == arrays_of(into, alone, "homography")
    assert f"{PENN}: up to date\n" in ran(*copy).out


def other_images(penn):
    for image in penn.frames("0003").iterdir():
        image.write_bytes((penn.frames("0001") / image.name).read_bytes() + b"more")


def no_answer(penn):
    image = penn.frames("0003") / "000003.jpg"
    image.unlink()
    image.symlink_to("/proc/self/mem")  # no error but its first byte: input/output error


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(other_images, "has other images than those"), (no_answer, "Input/output error")],
)
@pytest.mark.parametrize("kind", STREAMS)
def test_a_changed_or_unreadable_clip_costs_itself_and_the_next_run_computes_it(
    kind, spoil, says, penn, into, extract, tmp_path
):
    shutil.copytree(penn.frames("0003"), tmp_path / "aside")
    if spoil is other_images:
        penn.convert()
    spoil(penn)
    if spoil is no_answer:
        penn.convert()
    shown = extract(kind, code=1)
    assert re.search(rf"✗ .*{kind}: \d rows of 1 video wait for images: 0003 \(.*{says}", shown)
    flags = features(penn.root, kind)
    assert [name for name, of in flags.items() if not of.all()] == ["0003/0"]
    assert "wait for images: 0003" in extract(kind, code=1)
    shutil.rmtree(penn.frames("0003"))
    shutil.copytree(tmp_path / "aside", penn.frames("0003"))
    penn.convert()
    extract(kind)
    calm = tmp_path / "calm"
    shutil.copytree(penn.root, calm)
    shutil.rmtree(calm / PENN / "features")
    extract(kind, root=calm)
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
    penn, ran, extract, tmp_path
):
    ran("convert", PENN, *penn.places)
    extract("resnet50")
    hide(penn, "0003", tmp_path)
    shown = extract("homography", code=1)
    assert len(penn.split.windows(seqlen=8, stride=8, stream="homography")) == 2
    held = arrays_of_all(penn.root)
    for stream in STREAMS:
        extract(stream, "--replace", code=2)
    assert arrays_of_all(penn.root) == held
    advice = re.search(r"-m pipeline (convert [^\n]*--drop-removed)", shown)
    ran(*shlex.split(advice[1]))
    assert "homography is up to date" in extract("homography")


def test_parts_leave_a_lost_clip_to_the_last_command_and_that_to_the_next(
    penn, ran, into, extract, tmp_path
):
    penn.converted()
    calm = Path(shutil.copytree(penn.root, tmp_path / "calm"))
    extract("homography", root=calm)
    hide(penn, "0003", tmp_path)
    for part in ("1/2", "2/2"):
        assert "not committed" in extract("homography", "--part", part)
    shown = extract("homography", code=1)
    assert "extracted, 0 rows computed" in shown
    assert "7 rows of 1 video wait for images: 0003" in shown
    put_back(penn, "0003", tmp_path)
    for part in ("1/2", "2/2"):
        extract("homography", "--part", part)
    extract("homography")
    assert arrays_of(into, penn.root, "homography") == arrays_of(into, calm, "homography")


@pytest.mark.parametrize("folder", ["features", "features/resnet50"])
@pytest.mark.parametrize("as_link", [False, True])
def test_a_stream_whose_disk_is_not_mounted_is_a_problem_and_nothing_is_computed_into_it(
    folder, as_link, penn, ran, extract, tmp_path
):
    ran("convert", PENN, *penn.places)
    extract("resnet50")
    place, aside = penn.root / PENN / folder, tmp_path / "aside"
    place.rename(aside)
    if as_link:
        place.symlink_to(tmp_path / "not mounted")
    else:
        place.mkdir()
    for words in (["status"], ["verify", "--fast"]):
        assert (
            f"{place}: expected features, found none. Mount"
            in ran(*words, "--cache", penn.root, code=1).out
        )
    ran("gc", "--cache", penn.root)
    for more in [], ["--replace"]:
        words = ["extract", PENN, "--cache", penn.root, "--weights", "untrained:0", *more]
        shown = ran(*words, code=2)
        assert "Mount its disk" in shown.err + shown.out
    assert not place.is_dir() or not [*place.iterdir()]
    assert as_link == place.is_symlink()
    place.unlink() if as_link else place.rmdir()
    if folder == "features":
        shutil.copytree(aside, place)
        assert "up to date" in extract("resnet50")
    else:
        assert "rows computed" in extract("resnet50")
    ran("status", "--cache", penn.root)


def test_rows_that_are_lost_after_a_checkpoint_are_not_kept(tmp_path):
    made_up.convert(tmp_path, n_videos=2, n_frames=8)
    split = cache.open(tmp_path)[made_up.SPLIT]

    def opened():
        files = cache.StreamShards(
            tmp_path, made_up.SPLIT, "colour", dim=3, dtype="float32", plan="as before"
        )
        run = StreamRun(split, made_up.Colour(), files, [0], files.stage, None)
        return run, run.open(0)

    run, shard = opened()
    rows = shard.missing
    run.store(rows, run.check(np.ones((16, 3)), np.ones(16, bool)))
    for save in run.save():
        save()
    assert opened()[1].count().kept == 16
    run.lose(1, "it has changed")
    for save in run.save():
        save()
    kept = opened()[1]  # as after a kill
    assert kept.count().kept == 8
    assert kept.missing.tolist() == [*range(8, 16)]
    assert [*run.save()] == []
