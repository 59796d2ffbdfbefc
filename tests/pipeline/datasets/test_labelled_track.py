"""3D joints that labels lack are told by name, and their rows weigh nothing in 3D."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.datasets.shared.checks import MISSING_3D
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.grades.sums import sums_of
from pipeline.people.skeletons import JOINTS
from tests import made_splits

N = 5


@dataclass(frozen=True)
class Walks(Dataset):
    """One person in N images."""

    given: dict[str, Any] = field(default_factory=dict)

    name = "walks"
    splits = ("train",)
    version = 1

    def columns(self, split, *, body):
        return (*self.labels.columns, "kp_3d", "has_3d")

    def videos(self, raw, split):
        return [RawVideo("a", folders=(Path("a"),), files=())]

    def read(self, raw, split, video, account, body):
        account.found = N
        frames = Pictures(raw, "a/{:03d}.jpg")
        return labelled_track(
            self, split, video, account, frames, reasons={}, fps=25.0, **self.given
        )


@pytest.fixture
def read(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(N):
        cv2.imwrite(str(tmp_path / f"a/{number:03d}.jpg"), np.zeros((120, 160, 3), np.uint8))

    def read_by(given):
        reader = Walks(given)
        tracks, account = reader.read_accounted(tmp_path, "train", reader.videos(tmp_path, "")[0])
        assert account.set_aside == "", account.message
        return tracks, account

    return read_by


def weights_of(track, folder):
    """What 3D losses and metrics weigh the rows of a track with, read from a cache."""
    entry = cache.VideoEntry(name=track.video)
    split = made_splits.write_split(folder / "cache", "walks/train", [(entry, [track.rows])])
    return split.read([[0, len(track.frame_index)]], stream=None)["w_3d"][0]


@pytest.mark.parametrize(
    ("skeleton", "root", "missing"),
    [
        ("smpl", "smpl_pelvis", {"rhip": N, "lhip": N, "neck": N, "headtop": N}),
        ("h36m", "hip", {}),
    ],
)
def test_3d_joints_that_rows_lack_are_told_by_name_and_their_rows_counted(
    skeleton, root, missing, read, tmp_path
):
    joints = np.random.default_rng(0).uniform(-0.8, 0.8, (N, len(JOINTS[skeleton]), 3))
    kp_2d = np.concatenate([60 + 50 * joints[..., :2], np.ones((*joints.shape[:2], 1))], axis=-1)
    given = {"skeleton": skeleton, "kp_2d": kp_2d, "kp_3d": joints, "root": root}
    (track,), account = read(given)
    assert track.has_3d.all()
    assert account.unread == ({MISSING_3D: missing} if missing else {})
    used = weights_of(track, tmp_path)
    assert (used == (0 if missing else 1)).all()
    sums = sums_of([track.rows])
    assert sums["rows_3d"] == used.sum()
    assert sums.get("rows_some_3d") == (N if missing else None)  # as before it was there
    again = VideoAccount.from_dict(account.as_dict())
    assert again.unread == account.unread
