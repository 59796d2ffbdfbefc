"""`prepare` of a labelled dataset: what it takes for its features, and what it leaves as it is."""

import shutil

import pytest

import cache
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.clips.files import MADE_BY
from pipeline.files.raw.files import file_digest
from pipeline.show import page
from tests.pipeline.datasets.by_hand import write_coco, write_video

PREPARE = "prepare penn_action --raw RAW/penn_action --cache CACHE"


@pytest.mark.promise("problems of All datasets")
def test_real_data_without_weights_become_tracks_and_existing_features_need_the_same_weights(
    penn, types, network
):
    penn.without_marker()
    shown = types(PREPARE, "no features: no weights are named")
    assert shown.count("features none") == 2
    assert not cache.open(penn.root)["penn_action/test"].streams
    shown = types(f"{PREPARE} --weights untrained:0")
    assert shown.count("✓ extract") == shown.count("features resnet50 (untrained)") == 2
    shutil.rmtree(penn.root / "penn_action/test")
    shown = types(f"{PREPARE} --weights untrained:0", "✓ penn_action/train: up to date")
    assert "no features" not in shown
    assert "hours not known" not in shown, "another split has told the speed"
    assert (penn.root.parent / f"{penn.root.name}-penn_action-test/index.html").is_file()
    assert list(cache.open(penn.root)["penn_action/test"].streams) == ["resnet50"]
    types(f"{PREPARE} --weights untrained:1", "was extracted differently", code=2)
    shutil.rmtree(penn.root / "penn_action/test")
    types(PREPARE, "no features: no weights are named")  # a new split has to be given them


def test_a_file_in_the_place_of_a_page_stays_and_ends_the_command_before_it_converts(penn, types):
    penn.without_marker()
    own = penn.root.parent / f"{penn.root.name}-penn_action-train/index.html"
    own.parent.mkdir()
    own.write_text("<p>my notes</p>")
    said = f"{own}: expected nothing, or what `prepare` wrote; found something else"
    types(PREPARE, said, code=2)
    assert own.read_text() == "<p>my notes</p>"
    assert not penn.root.exists()


def test_pages_of_an_earlier_version_are_written_anew_and_others_not(penn, types, monkeypatch):
    penn.without_marker()
    for n_pages in 2, 0:
        assert types(PREPARE).count("✓ show") == n_pages
    monkeypatch.setattr(page, "VERSION", page.VERSION + 1)
    for n_pages in 2, 0:
        shown = types(PREPARE)
        assert (shown.count("✓ show"), shown.count("up to date")) == (n_pages, 2)


@pytest.mark.parametrize("command", ["prepare penn_action", "convert penn_action/train"])
@pytest.mark.parametrize(
    ("raw", "root", "how"),
    [
        ("raw", "raw/../raw", "they are the same folder"),
        ("raw", "link", "they are the same folder"),
        ("raw", "link/new/cache", "the cache is in the raw folder"),
        ("raw/labels", "raw", "the raw folder is in the cache"),
    ],
)
def test_a_cache_within_its_raw_folder_or_around_it_is_refused(
    command, raw, root, how, penn, types, tmp_path
):
    (tmp_path / "link").symlink_to("raw")
    before = sorted(tmp_path.rglob("*"))
    said = f"expected two separate folders, but {how}", "Name a cache beside the raw folder"
    types(f"{command} --raw TMP/{raw} --cache TMP/{root}", *said, code=2)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_cache_that_is_in_a_raw_folder_already_goes_on(penn, types):
    penn.convert()
    penn.root.rename(penn.raw / "cache")
    convert = "convert penn_action/train --raw RAW/penn_action --cache RAW/penn_action/cache"
    types(convert, "up to date")


def test_one_split_that_cannot_be_converted_does_not_stop_the_others(
    penn, command_line, network, monkeypatch
):
    from pipeline.steps.conversion import convert

    convert_plan = convert.convert

    def broken(plan, **options):
        if plan.recipe.split == "train":
            raise OSError(28, "No space left on device", str(penn.root / "penn_action"))
        return convert_plan(plan, **options)

    monkeypatch.setattr(convert, "convert", broken)
    shown = command_line(PREPARE, code=1)
    (error,) = shown.err.splitlines()
    assert "no space left on its disk" in error
    assert cache.open(penn.root).splits == ("penn_action/test",)
    assert "✓ extract    penn_action/test" in shown.out


@pytest.mark.parametrize("downloads", [False, True])
@pytest.mark.parametrize("made_by", ["blaze_pose", "rtmpose"])
def test_keypoints_of_another_detector_are_replaced_and_read_where_one_is_named(
    types, monkeypatch, tmp_path, made_by, downloads
):
    """Also before the weights are downloaded, which a plan does not do."""
    monkeypatch.setattr(RTMPose, "downloads", downloads)
    monkeypatch.setattr(RTMPose, "identity", lambda self: {"every": self.every})
    monkeypatch.setattr(RTMPose, "terms", lambda self: [])
    for name, n_frames in (("a", 3), ("b", 4)):
        write_video(tmp_path / f"clips/{name}.mp4", n_frames)
    info = {"description": MADE_BY, "clip_digest": file_digest(tmp_path / "clips/a.mp4")}
    info |= {"detector": made_by, "options": {"every": 4}}
    write_coco(tmp_path / "clips/keypoints/a.mp4.json", {"images": []}, **info)
    plan = "prepare videos --raw TMP/clips --cache CACHE --plan"
    types(f"{plan} --detector rtmpose", "detect 2 clips")
    types(plan, "detect 1 clip")
    types("convert videos/train --raw TMP/clips --cache CACHE --workers 1", code=1)
    words = f"{plan} --detector rtmpose --every 2"
    types(words, "detect 2 clips", "convert 2 videos to read of 2", code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("3dpw", "--body DIR"),
        ("penn_action --stream resnet50", "Name trained weights"),
        ("penn_action --weights file:absent.pt", "absent.pt"),
        ("penn_action --weights untrained:0 --device cuda:9", "cuda:9"),
    ],
)
def test_a_mistake_is_known_before_anything_is_done(words, said, penn, types):
    penn.without_marker()
    types(f"prepare {words} --raw RAW/penn_action --cache CACHE", said, code=2)
    assert not penn.root.exists()
