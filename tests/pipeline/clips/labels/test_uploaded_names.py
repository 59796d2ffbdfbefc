"""Keypoint files whose names an upload to an annotation tool changed."""

import pytest

import cache
from tests.pipeline.datasets.by_hand import write_video

N = 40
HASH = ".rf.0a1b2c3d4e5f60718293"
MATCHED = "files matched without the prefix or hash of an upload in 1 video"
NO_FILE = "no_keypoints"


@pytest.fixture
def converted(tmp_path, types):
    """What `convert` prints of clips and files of one person each, and the clips with a track."""

    def convert(clips, files, dataset="videos"):
        for clip in [*clips, "train/x/other.mp4"]:
            write_video(tmp_path / "raw" / clip, N, step=0)
        for name in [*files, "train/x/other.csv"]:
            file = tmp_path / "raw/keypoints" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"1,{t},{10 + t / 10},40,30,60" for t in range(N)]
            file.write_text("\n".join(["track,frame,x,y,w,h", *lines]))
        shown = types(f"convert {dataset}/train --raw TMP/raw --cache CACHE")
        tracks = cache.open(tmp_path / "cache")[f"{dataset}/train"].tracks
        return shown, sorted(track.video for track in tracks if "other" not in track.video)

    return convert


@pytest.mark.parametrize(
    ("clip", "file"),
    [
        ("dance.mp4", f"dance_mp4{HASH}.csv"),
        ("lab/dance.mp4", f"lab/dance{HASH}.csv"),
        ("dance.mp4", "0a1b2c3d-dance.csv"),
        ("dance.mp4", "93847561-dance.csv"),
        ("dance.mp4", "0a1b2c3d-dance.mp4.csv"),
        ("My dance (1).mp4", f"My-dance-1-_mp4{HASH}.csv"),
    ],
)
def test_a_file_is_the_clip_s_but_for_what_an_upload_adds(converted, types, clip, file):
    shown, videos = converted([clip], [file])
    name = file.rpartition("/")[2]
    assert f"{MATCHED} ({clip}): {name} (1)" in shown
    assert videos == [clip]
    checked = types(f"check 'TMP/raw/keypoints/{file}' 'TMP/raw/{clip}'")
    assert f"name files matched without the prefix or hash of an upload: {name} (1)" in checked


@pytest.mark.parametrize(
    ("clips", "files", "read", "said"),
    [  # the clip's own name is used, and clips that are called so have theirs
        (["a.mp4"], ["a.csv", f"a_mp4{HASH}.csv"], ["a.mp4"], ""),
        (["a.rf.abc.mp4", "a.mp4"], ["a.rf.abc.csv"], ["a.rf.abc.mp4"], NO_FILE),
        (["0a1b2c3d-a.mp4", "a.mp4"], ["0a1b2c3d-a.csv"], ["0a1b2c3d-a.mp4"], NO_FILE),
        # a date is no prefix of an upload
        (["a.mp4"], ["20240131-a.csv"], [], NO_FILE),
        (["a.mp4"], ["31012024-a.csv"], [], NO_FILE),
        # a folder's files are of its own clips
        (["lab/a.mp4"], [f"a{HASH}.csv"], [], NO_FILE),
        # several clips or files
        (["a.mp4", "a.mov"], [f"a{HASH}.csv", f"a_mp4{HASH}.csv"], [], "a.mov, a.mp4"),
        (["a-b.mp4", "ab.mp4"], [f"a-b_mp4{HASH}.csv"], [], "found a-b.mp4, ab.mp4"),
        (
            ["a.mp4"],
            [f"a_mp4{HASH}.csv", "a_mp4.rf.1.csv", "0a1b2c3d-a.json"],
            [],
            f"expected one file of a.mp4, found 0a1b2c3d-a.json, a_mp4{HASH}.csv, a_mp4.rf.1.csv",
        ),
    ],
)
def test_no_other_file_is_taken(converted, clips, files, read, said):
    shown, videos = converted(clips, files)
    assert videos == read
    assert said in shown
    assert MATCHED not in shown


def test_a_matched_file_is_up_to_date_and_may_be_renamed(converted, tmp_path, types):
    converted(["a.mp4"], [f"a_mp4{HASH}.csv"])
    assert MATCHED in types("status --cache CACHE")
    types("prepare videos --raw TMP/raw --cache CACHE --detector none --plan", "up to date")
    (tmp_path / f"raw/keypoints/a_mp4{HASH}.csv").rename(tmp_path / "raw/keypoints/a.csv")
    shown, videos = converted([], [])
    assert videos == ["a.mp4"]
    assert MATCHED not in shown + types("status --cache CACHE")


def test_every_dataset_of_clips_that_lists_them_matches_such_names(converted):
    clips = ["train/dance/a.mp4"]
    files = [f"train/dance/a_mp4{HASH}.csv"]
    shown, videos = converted(clips, files, "insta_variety")
    assert (videos, MATCHED in shown) == (clips, True)
    # Kinetics finds a clip's file in several folders
    shown, videos = converted(clips, files, "kinetics")
    assert (videos, NO_FILE in shown) == ([], True)
