"""A video that is missing, bad or unreadable does not keep Luigi from the features of all
others.
"""

import shutil

import pytest

import cache
from tests.fixtures import embedded  # noqa: F401
from tests.pipeline.datasets.label_files import edit_labels

FAILED = 30
TRAIN = "penn_action/train"


@pytest.fixture
def lab(bare, embedded):  # noqa: F811
    """Demo data of Penn Action in a folder of its own."""
    embedded.copy("penn_action", bare.folder / "raw/penn_action")
    bare.configure("[data]\ndatasets = penn_action\n[embedded]\nenabled = false")
    return bare


def label(lab, video):
    return lab.folder / f"raw/penn_action/labels/{video}.mat"


def frames(lab, video):
    return lab.folder / f"raw/penn_action/frames/{video}"


def add(lab, video):
    shutil.copy(label(lab, "0001"), label(lab, video))
    shutil.copytree(frames(lab, "0001"), frames(lab, video))


def without_features(lab, stream="resnet50"):
    """Tracks with a row that has no features."""
    split = cache.open(lab.folder / "cache")[TRAIN]
    flags = split.column(f"features/{stream}_ok")
    return {track.name for track in split.tracks if not flags[track.start : track.stop].all()}


def lost(lab, aside):
    shutil.move(frames(lab, "0003"), aside)
    shutil.move(label(lab, "0003"), aside)


def unreadable(lab, aside):
    shutil.copy(label(lab, "0003"), aside)
    label(lab, "0003").unlink()
    # a read of it is an input/output error, also for root
    label(lab, "0003").symlink_to("/proc/self/mem")


def failure(ran):
    """The one failure of the split."""
    assert ran.code == FAILED, ran.shown
    assert "Traceback" not in ran.shown
    (line,) = [line for line in ran.failures if line.startswith(f"error: extract    {TRAIN} ")]
    return line


def mend(lab, aside):
    for kept, at in (
        (aside / "0003", frames(lab, "0003")),
        (aside / "0003.mat", label(lab, "0003")),
    ):
        if kept.exists():
            at.unlink(missing_ok=True)
            shutil.move(kept, at)


@pytest.mark.promise("lost video")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lost, "1 video missing from"),
        (unreadable, "not converted yet: 1 changed video. The next run tries it again."),
    ],
)
def test_other_videos_get_features_night_after_night_while_one_is_spoilt(
    spoil, says, lab, build, tmp_path
):
    assert build(lab, "Data").code == 0
    aside = tmp_path / "aside"
    aside.mkdir()
    spoil(lab, aside)
    for new in ("0031", "0033"):
        add(lab, new)
        ran = build(lab, "Data")
        assert says in failure(ran)
        assert any(line.startswith(f"! convert    {TRAIN}") for line in ran.lines), (
            "no plain success"
        )
        assert without_features(lab) == set()

    lab.configure("[features]\nstreams = resnet50 homography")
    has_images = frames(lab, "0003").exists()
    assert says in failure(build(lab, "Data"))
    assert without_features(lab, "homography") == (set() if has_images else {"0003/0"})

    mend(lab, aside)
    ran = build(lab, "Data")
    assert (ran.code, ran.failures) == (0, [])
    assert without_features(lab, "homography") == set()
    assert build(lab, "Data").done == []


def test_nights_end_quiet_after_a_video_has_moved_to_the_other_split_and_back(lab, build):
    def rows(split):
        return {track.name for track in cache.open(lab.folder / "cache")[split].tracks}

    def move(train):
        """Three nights: Luigi chooses which split comes first."""
        edit_labels(label(lab, "0001"), lambda stored: stored | {"train": train})
        for night in range(3):
            ran = build(lab, "Data")
            assert ran.code in ((0, FAILED) if night == 0 else (0,)), ran.shown
            assert "0001/0" in rows(TRAIN) | rows("penn_action/test")
        assert ran.done == []

    assert build(lab, "Data").code == 0
    before = rows(TRAIN), rows("penn_action/test")
    move(-1)
    assert "0001/0" in rows("penn_action/test") - rows(TRAIN)
    move(1)
    assert (rows(TRAIN), rows("penn_action/test")) == before
    assert without_features(lab) == set()
