"""Of a video that has moved to another split one line says what to do, of a missing one another."""

import pytest

from tests.pipeline.datasets.by_hand import coco, standing, write_coco, write_video

N = 60
CONVERT = "convert videos/train --raw RAW --cache CACHE"


@pytest.fixture
def clips(tmp_path):
    """Write clips with keypoints of one person each, of its own size, into the raw folder."""

    def write(*names):
        for k, name in enumerate(names):
            write_video(tmp_path / f"raw/{name}", N, step=k + 1)
            people = coco([standing("coco", 30 + t, 60, 1 + k / 10) for t in range(N)])
            write_coco(tmp_path / f"raw/keypoints/{name}.json", people)

    return write


@pytest.fixture
def move(tmp_path):
    def move(name, to):
        for before, now in ((name, to), (f"keypoints/{name}.json", f"keypoints/{to}.json")):
            place = tmp_path / "raw" / now
            place.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / before).rename(place)

    return move


def test_a_video_that_no_split_took_is_missing_beside_one_that_moved(clips, move, types, tmp_path):
    clips("train/a.mp4", "train/b.mp4", "train/c.mp4")
    types(f"{CONVERT} --set videos.cuts=false")
    move("train/a.mp4", "val/a.mp4")
    (tmp_path / "raw/train/b.mp4").unlink()
    (tmp_path / "raw/keypoints/train/b.mp4.json").unlink()
    said = types(f"{CONVERT} --set videos.cuts=false", "1 video moved to another split", code=1)
    assert "1 video missing from" in said
    assert "the rows are kept: train/b.mp4. Restore them" in said


def test_a_missing_video_whose_name_another_split_always_had_has_not_moved(clips, types, tmp_path):
    clips("train/a.mp4", "train/b.mp4", "val/a.mp4")
    types(f"{CONVERT} --set videos.cuts=false")
    types(f"{CONVERT.replace('train', 'val')} --set videos.cuts=false")
    (tmp_path / "raw/train/a.mp4").unlink()
    (tmp_path / "raw/keypoints/train/a.mp4.json").unlink()
    said = types(f"{CONVERT} --set videos.cuts=false", "1 video missing from", code=1)
    assert "moved to" not in said
