"""The contract of damaged releases, for clips with keypoint files: each kept row has the label of
its own frame, or the clip is refused with a reason.
"""

import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video

N_FRAMES = 40


def read(raw):
    report = Accounting()
    reader = datasets.get("videos", cuts=False, min_frames=5)
    tracks = {track.video: track for track in reader.tracks(raw, "train", report=report)}
    report.video("a.mp4").check()
    return tracks, report.video("a.mp4")


@pytest.fixture
def raw(tmp_path):
    write_video(tmp_path / "a.mp4", N_FRAMES, step=0)
    (tmp_path / "keypoints").mkdir()
    return tmp_path


def people_in(start=30):
    """Somebody who walks a pixel a frame."""
    return {t: standing("coco", start + t, 60) for t in range(N_FRAMES)}


def test_clips_and_labels_that_differ_in_case_alone_belong_together(raw):
    write_video(raw / "A.mp4", N_FRAMES, step=0)
    for name, start in (("a", 30), ("A", 90)):
        write_alphapose(raw / f"keypoints/{name}.mp4.json", people_in(start))
    tracks, _ = read(raw)
    left = {video: float(track.kp_2d[0, :, 0].max()) for video, track in tracks.items()}
    assert left == {"a.mp4": pytest.approx(45, abs=1), "A.mp4": pytest.approx(105, abs=1)}
