"""Bodies of several models over the same frames, drawn from files of predictions that were written
by hand.
"""

import json

import numpy as np
import pytest

from tasks.report.bodies import TILE_PX, bodies_section, portraits
from tasks.report.data import OpenedCache
from tasks.report.runs import TrainingRun
from tests.tasks.report.runs_by_hand import make_run

SPLIT, TRACK = "penn_action/train", "0001/0"
GREY = 5  # times a frame's number: the pictures of the cache made by hand


@pytest.fixture
def body(embedded):
    return embedded.body


def run(parent, name, *, file="predictions.npz", steps=()):
    """A run that predicted the mean pose in the 30 frames of a track, upright in the middle of each
    crop.
    """
    folder = make_run(parent, name)
    row = {
        "split": SPLIT,
        "track": TRACK,
        "frames": 16,
    }
    rows = []
    for pa_mpjpe, first in ((70.0, 4), (60.0, 14)):  # the track is in two pieces
        piece = {"pa_mpjpe": pa_mpjpe, "first_frame": first, "last_frame": first + 15}
        rows.append({**row, **piece, "predictions": file})
    (folder / "sequences.json").write_text(json.dumps({"sequences": rows}))
    pose = np.zeros((30, 72), np.float32)
    pose[:, 0] = np.pi  # pictures have y down
    arrays = {
        "frame_index": np.arange(30),
        "bbox": np.tile(np.float32([160, 120, 100, 100]), (30, 1)),
    }
    arrays |= {
        "camera": np.tile(np.float32([0.9, 0, 0]), (30, 1)),
        "betas": np.zeros((30, 10), np.float32),
    }
    arrays |= dict.fromkeys(("pose", *(f"pose_{step}" for step in steps)), pose)
    np.savez(parent / "predictions.npz", **arrays)
    np.savez(folder / "predictions.npz", about=np.array(json.dumps({"crop_scale": 1.3})), **arrays)
    return TrainingRun.read(folder, name)


def test_every_model_is_drawn_over_the_same_frames_with_past_and_future_where_it_has_them(
    root, tmp_path, body
):
    runs = [run(tmp_path, "VIBE"), run(tmp_path, "HMMR", steps=("minus5", "plus5"))]
    data = bodies_section(OpenedCache.read(root), runs, raw=root.parent / "raw", body=body).data
    assert (data["problems"], data["without"]) == ([], [])
    (median, _), (worst, strips) = data["drawn"]
    assert median.why == "median track by VIBE's errors"
    assert (median.first, worst.first) == (14, 4)
    assert worst.why == "worst track by VIBE's errors"
    around = "HMMR at frame 13: 5 frames before, now, 5 frames later"
    assert [label for label, _ in strips] == ["frames", "VIBE", "HMMR", around]
    frames, vibe, _, three = (image for _, image in strips)
    half = TILE_PX // 2
    for i, frame in enumerate((4, 7, 10, 13, 16, 19)):
        assert np.abs(frames[half, i * TILE_PX + half].astype(int) - GREY * frame).max() <= 4
        assert np.abs(vibe[4, i * TILE_PX + 4].astype(int) - GREY * frame).max() <= 4, (
            "no body in the corner"
        )
    drawn = np.abs(vibe.astype(int) - frames).max(axis=2) > 30
    assert drawn[half - 20 : half + 20, half - 20 : half + 20].mean() > 0.3, (
        "the body is in the middle of the crop"
    )
    rows = np.flatnonzero(drawn[:, :TILE_PX].any(axis=1))
    assert 0.6 * TILE_PX < rows[-1] - rows[0] < TILE_PX  # 0.9 of [-1, 1] is 1.8 m a crop
    for i, frame in enumerate((8, 13, 18)):
        assert np.abs(three[4, i * TILE_PX + 4].astype(int) - GREY * frame).max() <= 4


def test_people_of_the_data_are_of_different_tracks_and_rows(root, tmp_path):
    opened = OpenedCache.read(root)
    shown = portraits(opened, root.parent / "raw")
    assert shown.splits == [SPLIT]
    middles = shown.image[TILE_PX // 2, TILE_PX // 2 :: TILE_PX].astype(int).mean(axis=1)
    frames = (0, 3, 7, 11, 5, 6, 7, 8)  # of tracks of 30 and 10 frames
    assert np.abs(middles - np.multiply(GREY, frames)).max() <= 4
    assert portraits(opened, tmp_path) is not None  # the raw folder that conversion recorded
    assert portraits(OpenedCache.read(tmp_path / "none"), None) is None


def test_what_cannot_be_drawn_is_reported_and_no_file_outside_the_run_is_read(root, tmp_path, body):
    opened, outside = OpenedCache.read(root), run(tmp_path, "VIBE", file="../predictions.npz")
    data = bodies_section(opened, [outside], raw=None, body=body).data
    assert data["drawn"] == []
    assert data["problems"] != []
    data = bodies_section(opened, [run(tmp_path, "other")], raw=None, body=tmp_path / "none").data
    assert data["problems"][0].startswith("Bodies are not drawn: ")
    data = bodies_section(opened, [run(tmp_path, "third")], raw=tmp_path, body=body).data
    assert len(data["drawn"]) == 2, "the pictures are where they were at conversion"
