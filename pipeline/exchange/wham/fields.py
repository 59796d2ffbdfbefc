"""Arrays of WHAM's files, computed from rows of a split.  tracks, features -> [files of other
programs]

A `WhamField` names the method of `RowFields` that computes its array for some rows, as `export`
needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline import cameras
from pipeline.cameras import compose
from pipeline.exchange.rows import RowCheck, Segments, SplitRows
from pipeline.exchange.vibe_db.export import to_crop_pixels
from pipeline.exchange.vibe_db.layouts import PICTURE
from pipeline.exchange.wham.bodies import REGRESSED, Bodies
from pipeline.skeletons import JOINTS, Array, Doubles, Ints, convert, opposite_joints

GENDERS: Final = ("male", "female")
EMDB_FACTOR: Final = 1.1  # box / WHAM's box (lib/data_utils/emdb_eval_utils.py)
SCALE_PX: Final = 200  # px, the unit of a box's size in crops of InstaVariety
OPENPOSE: Final = JOINTS["body_25b"][:17]  # OpenPose's joints in COCO's order
NO_GENDER: Final = RowCheck(
    "no gender (male or female)",
    test=lambda rows, start, stop: np.isin(rows.genders(start, stop), GENDERS),
)


@dataclass(frozen=True)
class WhamField:
    """One array or entry of WHAM's files."""

    # `RowFields`, start, stop -> values of the rows [start, stop); of motions: `MotionFields`
    compute: Callable[[Any, int, int], Array]
    checks: tuple[RowCheck, ...] = ()  # that exported rows must pass
    columns: tuple[str, ...] = ()  # required columns of the cache, besides those of the checks
    needs: str | None = None  # files of the body, as `Bodies.has` names them
    dtype: str | None = "<f4"  # as written; None: as computed


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that no cache has."""

    needs: str


def _coco(kp_2d: Array) -> Array:
    """(..., 49, 3) -> (..., 17, 3) in COCO's order: annotated joints, else OpenPose's."""
    named = convert(kp_2d, source="spin49", target="coco")
    openpose = convert(kp_2d, source="spin49", target=OPENPOSE)
    is_annotated = named[..., 2:] > 0
    return np.where(is_annotated, named, openpose)


class RowFields(SplitRows):
    """Computes arrays of a split's rows [start, stop)."""

    def __init__(
        self,
        rows: SplitRows,
        segments: Segments,
        stationary: str | None,
        bodies: Bodies | None,
    ) -> None:
        """segments: all exported rows. stationary: The stream of `contacts`; None without. bodies:
        for fields that need a body; None without.
        """
        split = rows.split
        super().__init__(split, rows.stream)
        self.bodies = bodies
        self._segments = segments
        self._stationary = stationary
        # Whether the labels use the neutral body: BEDLAM's, and 3DPW's by default.
        reader: Mapping[str, Any] = split.manifest.get("reader", {})
        model = reader.get("parameters", {}).get("model")
        self._uses_neutral_body = self.dataset == "bedlam" or model == "neutral"

    def boxes(self, start: int, stop: int) -> Array:
        """Boxes (n, 4): centre x, y, width, height in px.

        For EMDB and BEDLAM (n, 3): centre and side. For InstaVariety likewise, of whole crops, with
        the side in units of 200 px.
        """
        if self.dataset == "insta_variety":
            middle = PICTURE / 2
            box = [middle, middle, PICTURE / SCALE_PX]
            return np.tile(box, (stop - start, 1))
        bbox = self.split.rows("bbox", start, stop)
        if self.dataset == "emdb":
            return bbox[:, :3] / (1, 1, EMDB_FACTOR)
        if self.dataset == "bedlam":  # the release's scale includes the crop scale
            tracks = self.tracks(start, stop)
            side = bbox[:, 2] * self.split.tracks.crop_scale[tracks]
            return np.column_stack([bbox[:, :2], side])
        return bbox

    def resolutions(self, start: int, stop: int) -> Array:
        """Width and height px of the images, (n, 2). InstaVariety's are crops."""
        if self.dataset == "insta_variety":
            return np.full((stop - start, 2), PICTURE)
        return super().resolutions(start, stop)

    def segment_numbers(self, start: int, stop: int) -> Ints:
        """The number of each row's segment, (n,)."""
        return self._segments.numbers(start, stop)

    def keypoints(self, start: int, stop: int) -> Array:
        """Keypoints in COCO's order, (n, 17, 3) px px confidence.

        Those of InstaVariety are in pixels of crops of 224 x 224.
        """
        kp_2d = self.split.rows("kp_2d", start, stop)
        if self.dataset == "insta_variety":
            bbox = self.split.rows("bbox", start, stop)
            kp_2d = to_crop_pixels(kp_2d, bbox)
        return _coco(kp_2d)

    def labelled_joints_2d(self, start: int, stop: int) -> Array:
        """Labelled 2D joints, (n, 49, 3) px px confidence; those of InstaVariety as `keypoints`."""
        if self.dataset == "insta_variety":
            return self.keypoints(start, stop)
        return self.split.rows("kp_2d", start, stop)

    def are_female(self, start: int, stop: int) -> Array:
        """(n,) whether the actor is female."""
        return self.genders(start, stop) == GENDERS[1]

    def labelled_joints(self, start: int, stop: int) -> Array:
        """Labelled 3D joints, (n, 49, 3) m."""
        kp_3d = self.split.rows("kp_3d", start, stop)
        return kp_3d[..., :3]

    def flipped_boxes(self, start: int, stop: int) -> Array:
        """Boxes (n, 3) px in the mirrored image: centre and side, which is the last number of
        `boxes`.
        """
        boxes = self.boxes(start, stop)
        width = self.resolutions(start, stop)[:, 0]
        x = width - boxes[:, 0]
        y = boxes[:, 1]
        side = boxes[:, -1]
        return np.column_stack([x, y, side])

    def flipped_keypoints(self, start: int, stop: int) -> Array:
        """Keypoints (n, 17, 3) in the mirrored image: left and right are swapped, and x is mirrored
        except for joints without confidence.
        """
        keypoints = self.keypoints(start, stop)
        kp2d = keypoints[:, opposite_joints("coco")]
        width = self.resolutions(start, stop)[:, :1]
        x, y, score = np.moveaxis(kp2d, -1, 0)
        mirrored_x = np.where(score > 0, width - x, x)
        return np.stack([mirrored_x, y, score], axis=-1)

    def _place_bodies(self, start: int, stop: int) -> tuple[Doubles, Doubles]:
        """Translation (n, 3) of the gendered body and its joints (n, 31, 3), m, in camera axes.

        A translation into the camera depends on the body's pelvis p in its rest pose
        (`cameras.to_camera`): trans = R (world trans + p) + t - p. If labels use the neutral body,
        (R - 1) (p - neutral p) is added.
        """
        assert self.bodies is not None
        pose = self.split.rows("pose", start, stop)
        betas = self.split.rows("betas", start, stop)
        trans = self.split.rows("trans", start, stop).astype(np.float64)
        rotation = self._rotations(start, stop)
        n_joints = 0
        if self.bodies.regressor is not None:
            n_joints = REGRESSED
        joints = np.zeros((stop - start, n_joints, 3))
        genders = self.genders(start, stop)
        for gender in np.unique(genders).tolist():
            rows = np.flatnonzero(genders == gender)
            pelvis, posed = self.bodies.joints(gender, pose[rows], betas[rows])
            if self._uses_neutral_body:
                neutral_pelvis, _ = self.bodies.joints("neutral", pose[rows], betas[rows])
                shift = pelvis - neutral_pelvis
                rotated = np.einsum("nij,nj->ni", rotation[rows], shift)
                trans[rows] += rotated - shift
            joints[rows] = posed + trans[rows, None]
        return trans, joints

    def body_places(self, start: int, stop: int) -> Doubles:
        """Translation (n, 3) m of the gendered body."""
        return self._place_bodies(start, stop)[0]

    def body_joints(self, start: int, stop: int) -> Doubles:
        """Joints (n, 31, 3) m of the gendered body."""
        return self._place_bodies(start, stop)[1]

    def project_joints(self, start: int, stop: int) -> Doubles:
        """Projected joints of the gendered body, (n, 31, 2) px."""
        intrinsics = self.intrinsics(start, stop)
        return cameras.project(self.body_joints(start, stop), intrinsics[:, None])

    def contacts(self, start: int, stop: int) -> Array:
        """Contacts (n, 4), 0 to 1, of left toe and heel, right toe and heel; -1 if unknown."""
        if self._stationary is None:
            return np.full((stop - start, 4), -1)
        return self.split.rows(f"features/{self._stationary}", start, stop)

    def world_roots(self, start: int, stop: int) -> Doubles:
        """Global orientation (n, 3) rad in the world."""
        to_world = self._rotations(start, stop).transpose(0, 2, 1)
        return compose(to_world, self.split.rows("pose", start, stop)[:, :3])

    def world_places(self, start: int, stop: int) -> Doubles:
        """Translation (n, 3) m of the neutral body in the world."""
        assert self.bodies is not None
        names = ("pose", "betas", "trans", "extrinsics")
        columns = [self.split.rows(name, start, stop) for name in names]
        pose, betas, trans, extrinsics = columns
        pelvis, _ = self.bodies.joints("neutral", pose, betas)
        root = pose[:, :3]
        _, world_trans = cameras.to_world(root, trans, extrinsics, pelvis)
        return world_trans

    def _rotations(self, start: int, stop: int) -> Doubles:
        """Rotations from world to camera, (n, 3, 3)."""
        extrinsics = self.split.rows("extrinsics", start, stop)
        return extrinsics[:, :3, :3].astype(np.float64)
