"""`prepare` of a labelled dataset: what it takes for its features, and what it leaves as it is."""

import json
import shutil

import pytest

import cache
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.clips.files import MADE_BY
from pipeline.files.raw.files import file_digest
from pipeline.show import page
from tests.pipeline.datasets.by_hand import write_video


def test_real_data_without_weights_become_tracks_and_existing_features_need_the_same_weights(
    penn, ran, network
):
    penn.without_marker()
    words = ("prepare", "penn_action", *penn.places)
    shown = ran(*words).out
    assert "no features: no weights are named" in shown
    assert shown.count("features none") == 2
    assert not cache.open(penn.root)["penn_action/test"].streams
    shown = ran(*words, "--weights", "untrained:0").out
    assert shown.count("✓ extract") == shown.count("features resnet50 (untrained)") == 2
    shutil.rmtree(penn.root / "penn_action/test")
    shown = ran(*words, "--weights", "untrained:0").out
    assert "no features" not in shown
    assert "hours not known" not in shown, "another split has told the speed"
    assert penn.root.with_name(f"{penn.root.name}-penn_action-test.html").is_file()
    assert "✓ penn_action/train: up to date" in shown
    assert list(cache.open(penn.root)["penn_action/test"].streams) == ["resnet50"]
    shown = ran(*words, "--weights", "untrained:1", code=2)
    assert "was extracted differently" in shown.err
    shutil.rmtree(penn.root / "penn_action/test")
    assert "no features: no weights are named" in ran(*words).out, (
        "a new split has to be given them"
    )


def test_a_file_in_the_place_of_a_page_stays_and_ends_the_command_before_it_converts(penn, ran):
    penn.without_marker()
    own = penn.root.with_name(f"{penn.root.name}-penn_action-train.html")
    own.write_text("<p>my notes</p>")
    words = ("prepare", "penn_action", *penn.places)
    shown = ran(*words, code=2)
    assert f"{own}: expected no file, or an earlier page of tracks; found another file" in shown.err
    assert own.read_text() == "<p>my notes</p>"
    assert not penn.root.exists()
    (penn.root.parent / "pages").mkdir()
    assert "✓ convert" in ran(*words, "--pages", penn.root.parent / "pages").out


def test_pages_of_an_earlier_version_are_written_anew_and_others_not(penn, ran, monkeypatch):
    penn.without_marker()
    words = ("prepare", "penn_action", *penn.places)
    assert ran(*words).out.count("✓ show") == 2
    assert "✓ show" not in ran(*words).out
    monkeypatch.setattr(page, "VERSION", page.VERSION + 1)
    shown = ran(*words).out
    assert shown.count("✓ show") == 2
    assert shown.count("up to date") == 2
    assert "✓ show" not in ran(*words).out


@pytest.mark.parametrize(
    "words", [("prepare", "penn_action"), ("prepare", "videos"), ("convert", "penn_action/train")]
)
@pytest.mark.parametrize(
    ("raw", "root", "how"),
    [
        ("raw", "raw", "they are the same folder"),
        ("raw", "raw/../raw", "they are the same folder"),
        ("raw", "link", "they are the same folder"),
        ("raw", "raw/cache", "the cache is in the raw folder"),
        ("raw", "link/new/cache", "the cache is in the raw folder"),
        ("raw/labels", "raw", "the raw folder is in the cache"),
    ],
)
def test_a_cache_within_its_raw_folder_or_around_it_is_refused(
    words, raw, root, how, penn, ran, tmp_path
):
    (tmp_path / "link").symlink_to("raw")
    before = sorted(tmp_path.rglob("*"))
    shown = ran(*words, "--raw", tmp_path / raw, "--cache", tmp_path / root, code=2)
    assert f"expected two separate folders, but {how}" in shown.err
    assert "Name a cache beside the raw folder" in shown.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_that_is_in_a_raw_folder_already_goes_on(penn, ran):
    words = ("convert", "penn_action/train", "--raw", penn.raw)
    ran(*words, "--cache", penn.root)
    penn.root.rename(penn.raw / "cache")
    assert "up to date" in ran(*words, "--cache", penn.raw / "cache").out


def test_one_split_that_cannot_be_converted_does_not_stop_the_others(
    penn, ran, network, monkeypatch
):
    from pipeline.conversion import convert

    convert_plan = convert.convert

    def broken(plan, **options):
        if plan.split == "train":
            raise OSError(28, "No space left on device", str(penn.root / "penn_action"))
        return convert_plan(plan, **options)

    monkeypatch.setattr(convert, "convert", broken)
    shown = ran("prepare", "penn_action", *penn.places, code=1)
    (error,) = shown.err.splitlines()
    assert "no space left on its disk" in error
    assert cache.open(penn.root).splits == ("penn_action/test",)
    assert "✓ extract    penn_action/test" in shown.out


@pytest.fixture
def of_clips(tmp_path):
    """The command's words for a clip without keypoints."""
    write_video(tmp_path / "clips/a.mp4", 3)
    where = ("--raw", tmp_path / "clips", "--cache", tmp_path / "cache")
    return ("prepare", "videos", *where, "--detector", "rtmpose")


@pytest.mark.parametrize("downloads", [False, True])
@pytest.mark.parametrize(
    "made_by, shown", [("blaze_pose", "blaze_pose"), ("rtmpose", "rtmpose with another every")]
)
def test_keypoints_replaced_or_kept_are_counted(
    of_clips, ran, monkeypatch, tmp_path, made_by, shown, downloads
):
    """Also before the weights are downloaded, which a plan does not do."""
    monkeypatch.setattr(RTMPose, "downloads", downloads)
    monkeypatch.setattr(RTMPose, "identity", lambda self: {"every": self.every})
    monkeypatch.setattr(RTMPose, "terms", lambda self: [])
    info = {"description": MADE_BY, "clip_digest": file_digest(tmp_path / "clips/a.mp4")}
    info |= {"detector": made_by, "options": {"every": 4}}
    (tmp_path / "clips/keypoints").mkdir()
    (tmp_path / "clips/keypoints/a.mp4.json").write_text(
        f'{{"info": {json.dumps(info)},\n"images": []}}\n'
    )
    write_video(tmp_path / "clips/b.mp4", 4)
    planned = ran(*of_clips, "--plan").out
    assert (
        f"! replaces keypoints of 1 clip by {shown}\n" in planned and "detect   2 clips" in planned
    )
    planned = ran(*of_clips[:-2], "--plan").out
    kept = (
        f"! keeps, as no --detector is named, keypoints of 1 clip by {shown}; other clips "
        "get rtmpose, --every 1\n"
    )
    assert kept in planned and "detect   1 clip" in planned
    to = ("--out", tmp_path / "clips/keypoints")
    assert (
        f"! replaces keypoints of 1 clip by {shown}\n"
        in ran("detect", tmp_path / "clips", *to, code=2).err
    )
