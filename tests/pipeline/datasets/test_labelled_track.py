"""The end that readers of labelled frames share: which frames stay, and what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cache
from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.datasets.shared.checks import MISSING_3D, LabelRules
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.smpl import EXTRINSICS, UP
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.grades.sums import sums_of
from pipeline.people.skeletons import JOINTS
from tests import made_splits
from tests.pipeline.datasets.by_hand import standing

N = 5
HIP = JOINTS["spin49"].index("hip")
ELBOW = JOINTS["spin49"].index("lelbow")
CONTACT = cache.ExtraColumn(
    name="contact", about="which foot", shape=(2,), dtype="uint8", mirror=((0, 1),)
)


def in_images(skeleton):
    """(N, J, 3) a person who stands at (60, 70), and in frame f is f px further right."""
    return np.stack([standing(skeleton, 60 + f, 70, 1) for f in range(N)])


def in_space(skeleton):
    """(N, J, 3) m: (column of the image - row, ...) of `in_images`, 4 m away."""
    points = in_images(skeleton)[..., :2] / 40
    return np.concatenate([points, np.full((*points.shape[:2], 1), 4.0)], axis=-1)


@dataclass(frozen=True)
class Walks(Dataset):
    """One person in N images."""

    given: dict[str, Any] = field(default_factory=dict)
    labels_of: Callable[[Any], dict[str, Any]] = lambda _: {}

    name = "walks"
    splits = ("train",)
    version = 1
    labels = LabelRules(
        extra=(EXTRINSICS, UP, CONTACT), optional_extra=("extrinsics", "up", "contact")
    )

    def columns(self, split, *, body):
        names = [*self.labels.columns, *self.given.keys() & {"valid", "kp_3d"}]
        names += ["has_3d"] if "kp_3d" in names else []
        return (*names, "kp_3d_eval") if "evaluation" in self.given else tuple(names)

    def videos(self, raw, split):
        return [RawVideo("a", folders=(Path("a"),), files=())]

    def read(self, raw, split, video, account, body):
        account.found = N
        given = {"skeleton": "coco", "kp_2d": in_images("coco"), "reasons": {}} | self.given
        frames = Pictures(raw, "a/{:03d}.jpg")
        return labelled_track(
            self, split, video, account, frames, labels_of=self.labels_of, fps=25.0, **given
        )


@pytest.fixture
def read(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(N):
        cv2.imwrite(str(tmp_path / f"a/{number:03d}.jpg"), np.zeros((120, 160, 3), np.uint8))

    def read_by(given, **more):
        reader = Walks(given, **more)
        tracks, account = reader.read_accounted(tmp_path, "train", reader.videos(tmp_path, "")[0])
        assert account.set_aside == "", account.message
        return tracks, account

    return read_by


def test_frames_stay_to_which_no_reason_applies_and_each_counts_under_the_first(read):
    reasons = {"no_picture": np.arange(N) == 1, "bad_camera": np.isin(np.arange(N), (1, 3))}
    (track,), account = read({"reasons": reasons, "frame_index": np.arange(N) * 10})
    assert track.frame_index.tolist() == [0, 20, 40]
    assert account.dropped == {"no_picture": 1, "bad_camera": 1}
    nose = JOINTS["spin49"].index("nose")
    expected = in_images("coco")[[0, 2, 4], 0]
    np.testing.assert_allclose(track.kp_2d[:, nose], expected)
    assert (track.kp_2d.dtype, track.bbox.dtype, track.fps) == (np.float32, np.float32, 25)


def test_without_a_frame_left_there_is_no_track_and_no_label_is_computed(read):
    tracks, account = read(
        {"reasons": {"not_good": np.ones(N, bool)}}, labels_of=lambda _: pytest.fail("asked")
    )
    assert (tracks, account.tracks_dropped) == ([], {"no_frame_left": 1})
    assert account.dropped == {"not_good": N}


def test_boxes_are_the_joints_extent_and_frames_without_one_are_dropped(read):
    kp_2d = in_images("coco")
    kp_2d[1, :, 2] = 0
    kp_2d[2, :, :2] = 50
    (track,), account = read({"kp_2d": kp_2d, "box_factor": 1.5})
    assert account.dropped == {"no_visible_joint": 1, "degenerate_box": 1}
    seen = kp_2d[[0, 3, 4]]
    seen = np.where(seen[..., 2:] > 0, seen, np.nan)[..., :2]
    low, high = np.nanmin(seen, axis=1), np.nanmax(seen, axis=1)
    side = 1.5 * (high - low).max(axis=1, keepdims=True)
    np.testing.assert_allclose(track.bbox, np.hstack([(low + high) / 2, side, side]))


def test_boxes_that_the_labels_have_are_taken_and_no_frame_is_dropped_for_its_joints(read):
    kp_2d = in_images("coco")
    kp_2d[1, 1:, 2] = 0
    boxes = np.tile([60.0, 70, 80, 80], (N, 1)) + np.arange(N)[:, None] * [1, 0, 0, 0]
    (track,), _ = read({"kp_2d": kp_2d, "bbox": boxes, "reasons": {"no_box": np.arange(N) == 4}})
    np.testing.assert_allclose(track.bbox, boxes[:4])


def test_columns_of_all_frames_lose_the_same_ones_and_values_of_the_track_stay(read):
    valid = np.arange(N) % 2 == 0
    contact = np.stack([valid, ~valid], axis=1).astype(np.uint8)
    camera = np.eye(4)
    camera[:3, 3] = 0, 0, 2
    given = {"reasons": {"no_box": np.arange(N) == 0}, "valid": valid, "extrinsics": camera}
    extra = {"up": np.float32([0, -1, 0]), "contact": contact}

    def labels_of(rows):
        assert rows.tolist() == [1, 2, 3, 4]
        return {"gender": "female", "extra": {"contact": contact[rows] + 0}}

    (track,), _ = read(given | {"extra": extra})
    assert track.valid.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(track.extra["contact"], contact[1:])
    np.testing.assert_array_equal(track.extra["up"], [0, -1, 0])
    np.testing.assert_array_equal(track.extra["extrinsics"], np.tile(camera, (4, 1, 1)))
    assert track.extra["extrinsics"].dtype == np.float32
    by_frame = np.tile(camera, (N, 1, 1))
    by_frame[:, 0, 3] = np.arange(N)
    del extra["contact"]
    (track,), _ = read(given | {"extra": extra, "extrinsics": by_frame}, labels_of=labels_of)
    assert track.extra["extrinsics"][:, 0, 3].tolist() == [1, 2, 3, 4]
    assert (track.gender, {*track.extra}) == ("female", {"extrinsics", "up", "contact"})


def test_3d_joints_are_about_their_root_and_a_frame_of_which_one_is_not_finite_has_none(read):
    joints = in_space("h36m")
    joints[1, 4] = np.inf
    given = {"skeleton": "h36m", "kp_2d": in_images("h36m"), "kp_3d": joints}
    (track,), account = read(given | {"evaluation": True})
    names = JOINTS["h36m"]
    elbow, hip = (joints[:, names.index(name)] for name in ("lelbow", "hip"))
    assert track.has_3d.tolist() == [True, False, True, True, True]
    known = track.has_3d
    np.testing.assert_allclose(track.kp_3d[known, ELBOW, :3], (elbow - hip)[known], atol=1e-6)
    assert not track.kp_3d[known, HIP, :3].any()
    assert np.isnan(track.kp_3d[~known]).all()
    place = JOINTS["common14"].index("lelbow")
    np.testing.assert_array_equal(track.kp_3d_eval[known, place], track.kp_3d[known, ELBOW, :3])
    assert account.notes == ["1 of the kept frames are not finite in 3D: without kp_3d"]


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
