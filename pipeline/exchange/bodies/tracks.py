"""Tracks of clips that get estimated bodies as labels."""

from __future__ import annotations

from typing import Final

import numpy as np

import cache
from pipeline.datasets.labels.smpl import smplx_labels
from pipeline.exchange.bodies.estimate import N_BETAS, N_POSE, BodyEstimate
from pipeline.exchange.bodies.projection import Keypoints
from pipeline.skeletons import Array, Doubles, Ints

# fields that a track has in both caches, besides its columns
COPIED: Final = ("name", "video", "step", "fps", "crop_scale", "gender", "intrinsics")
WORLD_UP: Final = np.array([0, 1, 0], np.float32)  # the direction up in the tools' worlds


class ImportedTrack:
    """A track of the new split: its copied labels, and bodies, which `fill` adds.

    Rows without a body have pose, betas and trans NaN. SMPL-X's bodies are extra columns, and leave
    SMPL's columns as they are; no imported row is `valid`, as that is for labels.
    """

    def __init__(self, split: cache.Split, track: cache.TrackRecord) -> None:
        self.track = track
        self.n_rows = track.stop - track.start
        self.columns: dict[str, Array] = {}
        for name in split.columns:
            self.columns[name] = np.array(split.rows(name, track.start, track.stop))
        self.columns["pose"] = self._unknown(N_POSE)
        self.columns["betas"] = self._unknown(N_BETAS)
        self.columns["trans"] = self._unknown(3)
        self.columns["has_smpl"] = np.zeros(self.n_rows, np.uint8)
        self.columns["valid"] = np.zeros(self.n_rows, np.uint8)
        self.extra: dict[str, Array] = {}  # by name; those that a person's file has
        self.has_body = np.zeros(self.n_rows, bool)

    def _unknown(self, *shape: int) -> Array:
        """A column (n_rows, *shape) of NaN."""
        return np.full((self.n_rows, *shape), np.nan, np.float32)

    @property
    def keypoints(self) -> Keypoints:
        """The track's 2D joints, with which bodies are compared."""
        columns = self.columns
        return Keypoints(columns["frame_index"], columns["kp_2d"], columns["bbox"][:, 3])

    def fill(
        self,
        estimate: BodyEstimate,
        rows: Ints,
        trans: Doubles,
        whole_pose: Doubles,
        intrinsics: Doubles,
        extrinsics: Doubles | None,
    ) -> int:
        """Write a person's bodies into the rows of their frames that have no body yet, so that the
        person who is given first stays. Returns the number of written rows.

        rows: the bodies of the estimate that lie on the track, in frames of the track. For all N
        bodies of the estimate: trans (N, 3) m, whole_pose (N, 72) or (N, 165) rad, and extrinsics
        (N, 4, 4) m from the world to the camera. intrinsics: (3, 3) px.
        """
        track_rows = np.searchsorted(self.columns["frame_index"], estimate.frames[rows])
        is_free = ~self.has_body[track_rows]
        rows = rows[is_free]
        track_rows = track_rows[is_free]

        self.has_body[track_rows] = True
        cameras = self.extra.setdefault("intrinsics", self._unknown(3, 3))
        cameras[track_rows] = intrinsics
        if extrinsics is not None:
            worlds = self.extra.setdefault("extrinsics", self._unknown(4, 4))
            worlds[track_rows] = extrinsics[rows]
            self.extra["up"] = WORLD_UP

        if estimate.is_smplx:
            labels = smplx_labels(whole_pose[rows], estimate.betas[rows])
            labels["smplx_trans"] = trans[rows].astype(np.float32)
            for name, values in labels.items():
                if values.ndim:
                    column = self.extra.setdefault(name, self._unknown(values.shape[1]))
                    column[track_rows] = values
                else:  # one value for the track
                    self.extra[name] = values
        else:
            self.columns["pose"][track_rows] = whole_pose[rows]
            self.columns["betas"][track_rows] = estimate.betas[rows]
            self.columns["trans"][track_rows] = trans[rows]
            self.columns["has_smpl"][track_rows] = 1
        return len(rows)

    def rows(self) -> cache.TrackRows:
        """The track as the writer of the split takes it."""
        copied = {name: getattr(self.track, name) for name in COPIED}
        return cache.TrackRows(**copied, columns=self.columns, extra=self.extra)
