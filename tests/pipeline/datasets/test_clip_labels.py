"""The contract of damaged releases, for clips with keypoint files: each kept row has the label of
its own frame, or the clip is refused with a reason.
"""

import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video

N_FRAMES = 40


def without(people, *frames):
    return {number: joints for number, joints in people.items() if number not in frames}


def shifted(people, n):
    return {number + n: joints for number, joints in people.items()}


LABELS = {
    "all": lambda people: people,
    "first missing": lambda people: without(people, 0),
    "middle missing": lambda people: without(people, 20, 21),
    "last missing": lambda people: without(people, N_FRAMES - 1),
    "from 1": lambda people: shifted(people, 1),
    "half": lambda people: without(people, *range(N_FRAMES // 2, N_FRAMES)),
    "more than frames": lambda people: people | shifted(people, 5),
}
REFUSED = {"from 1", "more than frames"}


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


@pytest.mark.parametrize("damage", LABELS)
def test_each_row_has_its_own_frame_s_label_or_the_clip_is_refused(damage, raw):
    labels = LABELS[damage](people_in())
    write_alphapose(raw / "keypoints/a.mp4.json", labels)
    tracks, account = read(raw)
    if damage in REFUSED:
        assert (tracks, account.set_aside) == ({}, "frame_count_mismatch"), account
        return
    track = tracks["a.mp4"]
    assert set(labels) <= set(track.frame_index.tolist()) <= set(range(N_FRAMES))
    left = track.kp_2d[..., 0].max(axis=1)  # of the frame's own person, or between two that are
    np.testing.assert_allclose(left - left[0], track.frame_index - track.frame_index[0], atol=1e-3)
    assert abs(left[0] - track.frame_index[0] - 45) <= 1


def test_clips_and_labels_that_differ_in_case_alone_belong_together(raw):
    write_video(raw / "A.mp4", N_FRAMES, step=0)
    for name, start in (("a", 30), ("A", 90)):
        write_alphapose(raw / f"keypoints/{name}.mp4.json", people_in(start))
    tracks, _ = read(raw)
    left = {video: float(track.kp_2d[0, :, 0].max()) for video, track in tracks.items()}
    assert left == {"a.mp4": pytest.approx(45, abs=1), "A.mp4": pytest.approx(105, abs=1)}
