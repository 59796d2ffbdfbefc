"""A folder of clips as phones write them, from its first line in the documentation to features in a
cache.

The clips are demo people, so that the demo detector sees them: turned by metadata, in HEVC, at an
uneven rate.
"""

import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.files.pixels.frames import Video
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video
from tests.pipeline.files.made_clips import with_matrix

N = 48  # frames: more than the 40 that a stretch needs


@pytest.mark.parametrize("is_turned", [True, False])
def test_keypoints_of_the_picture_before_it_is_turned_are_refused(is_turned, tmp_path):
    """AlphaPose's file states no size. Joints right of the image by less than a tenth of its width
    are possible in any other clip, and noted.
    """
    clip = write_video(tmp_path / "a.mov", N, size=(160, 120) if is_turned else (120, 160), step=0)
    if is_turned:
        clip.write_bytes(with_matrix(clip.read_bytes(), "a quarter turn"))
    assert Video(tmp_path, "a.mov").size() == (120, 160)
    joints = standing("coco", 117, 60)  # between 102 and 132
    write_alphapose(tmp_path / "keypoints/a.json", dict.fromkeys(range(N), joints))
    report = Accounting()
    tracks = list(datasets.get("videos").tracks(tmp_path, "train", report=report))
    (account,) = report
    if is_turned:
        assert account.set_aside == "keypoints_outside" and not tracks
        words = "joints beyond it: those of the stored 160 x 120 image. Run the detector on"
        assert words in account.message
    else:
        assert "29% of the joints are beyond the border of the image" in account.notes
