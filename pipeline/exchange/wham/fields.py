"""Arrays of WHAM's files, computed from rows of a split.  tracks, features -> [files of other
programs]

`RowFields.computed` has a function for each field of `layouts.FIELDS`, which computes its array for
some rows, as `export` needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import cameras
from pipeline.cameras import compose
from pipeline.exchange.vibe_db.export import to_crop_pixels
from pipeline.exchange.vibe_db.layouts import PICTURE
from pipeline.exchange.wham.bodies import Bodies
from pipeline.exchange.wham.layouts import NO_GENDER, NO_RATE, NO_SIZE, REGRESSED
from pipeline.skeletons import JOINTS, Array, Bools, Doubles, Ints, convert, opposite_joints

Compute = Callable[[int, int], Array]  # (start, stop) -> values of the rows [start, stop)

FPS: Final = 30.0
RATE_NOISE: Final = 0.1  # treats 29.97 as 30
GENDERS: Final = ("male", "female")
EMDB_FACTOR: Final = 1.1  # box / WHAM's box (lib/data_utils/emdb_eval_utils.py)
SCALE_PX: Final = 200  # px, the unit of a box's size in crops of InstaVariety
OPENPOSE: Final = JOINTS["body_25b"][:17]  # OpenPose's joints in COCO's order


def coco(kp_2d: Array) -> Array:
    """(..., 49, 3) -> (..., 17, 3) in COCO's order: annotated joints, else OpenPose's."""
    named = convert(kp_2d, source="spin49", target="coco")
    openpose = convert(kp_2d, source="spin49", target=OPENPOSE)
    is_annotated = named[..., 2:] > 0
    return np.where(is_annotated, named, openpose)


class RowFields:
    """Computes arrays of a split's rows [start, stop)."""

    def __init__(
        self, split: cache.Split, stream: str, stationary: str, bodies: Bodies | None = None
    ) -> None:
        """stream, stationary: Streams for `features` and `stationaries`; "" for none. bodies: for
        fields that need a body.
        """
        self.split = split
        self.bodies = bodies
        self.dataset = split.name.partition("/")[0]
        self._stationary = stationary
        width = split.videos.tables["video_width"]
        height = split.videos.tables["video_height"]
        self._video_sizes = np.stack([width, height], axis=1)
        tracks = split.tracks
        self._track_genders = np.array([track.gender for track in tracks])
        self._track_rates = tracks.fps / tracks.step
        self._track_intrinsics: Doubles = tracks.tables["track_intrinsics"]  # NaN if unknown
        # Whether the labels use the neutral body: BEDLAM's, and 3DPW's by default.
        reader: Mapping[str, Any] = split.manifest.get("reader", {})
        model = reader.get("parameters", {}).get("model")
        self._uses_neutral_body = self.dataset == "bedlam" or model == "neutral"
        # field of `layouts.FIELDS` -> the function that computes its array
        self.computed: dict[str, Compute] = {
            "frame_id": self._column("frame_index"),
            "bbox": self.boxes,
            "res": self.resolutions,
            "pose": self._column("pose"),
            "betas": self._column("betas"),
            "body_transl": lambda start, stop: self.place_bodies(start, stop)[0],
            "kp2d": self.keypoints,
            "joints3D": self.labelled_joints,
            "joints2D": self._column("kp_2d"),
            "body_joints3D": lambda start, stop: self.place_bodies(start, stop)[1],
            "body_joints2D": self.project_joints,
            "cam_poses": self._column("extrinsics"),
            # whether the actor is female
            "gender": lambda start, stop: self.genders_of(start, stop) == GENDERS[1],
            "features": self._column(f"features/{stream}"),
            "stationaries": self.contacts,
            "root": self.world_roots,
            "w_trans": self.world_places,
            "c_trans": self._column("trans"),
            "extrinsics": self._column("extrinsics"),
            "intrinsics": self.intrinsics,
            "flipped_bbox": self.flipped_boxes,
            "flipped_kp2d": self.flipped_keypoints,
        }
        if self.dataset == "insta_variety":
            self.computed["joints2D"] = self.keypoints

    def has(self, need: str, start: int, stop: int) -> Bools:
        """(n,) whether rows have what a field needs.

        need: the reason that is counted for rows without it: NO_SIZE (of the image), NO_GENDER,
        NO_RATE (30 frames per second), or "no COLUMN", such as "no trans", for rows without finite
        numbers in a column.
        """
        if need == NO_SIZE:
            sizes = self.resolutions(start, stop)
            return np.asarray((sizes > 0).all(axis=1))
        if need == NO_GENDER:
            return np.isin(self.genders_of(start, stop), GENDERS)
        if need == NO_RATE:
            tracks = self._tracks(start, stop)
            rates = self._track_rates[tracks]
            return np.asarray(np.abs(rates - FPS) < RATE_NOISE)
        name = need.removeprefix("no ")
        if name == "intrinsics":
            values: Array = self.intrinsics(start, stop)
        else:
            values = self.split.rows(name, start, stop)
        is_finite = np.isfinite(values.reshape(stop - start, -1))
        return np.asarray(is_finite.all(axis=1))

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
            tracks = self._tracks(start, stop)
            side = bbox[:, 2] * self.split.tracks.crop_scale[tracks]
            return np.column_stack([bbox[:, :2], side])
        return bbox

    def resolutions(self, start: int, stop: int) -> Array:
        """Width and height px of the images, (n, 2)."""
        if self.dataset == "insta_variety":
            return np.full((stop - start, 2), PICTURE)
        tracks = self._tracks(start, stop)
        videos = self.split.tracks.video[tracks]
        return np.asarray(self._video_sizes[videos])

    def keypoints(self, start: int, stop: int) -> Array:
        """Keypoints in COCO's order, (n, 17, 3) px px confidence.

        Those of InstaVariety are in pixels of crops of 224 x 224.
        """
        kp_2d = self.split.rows("kp_2d", start, stop)
        if self.dataset == "insta_variety":
            bbox = self.split.rows("bbox", start, stop)
            kp_2d = to_crop_pixels(kp_2d, bbox)
        return coco(kp_2d)

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

    def place_bodies(self, start: int, stop: int) -> tuple[Doubles, Doubles]:
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
        genders = self.genders_of(start, stop)
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

    def project_joints(self, start: int, stop: int) -> Doubles:
        """Projected joints of the gendered body, (n, 31, 2) px."""
        _, joints = self.place_bodies(start, stop)
        intrinsics = self.intrinsics(start, stop)
        return cameras.project(joints, intrinsics[:, None])

    def contacts(self, start: int, stop: int) -> Array:
        """Contacts (n, 4), 0 to 1, of left toe and heel, right toe and heel; -1 if unknown."""
        if not self._stationary:
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

    def intrinsics(self, start: int, stop: int) -> Doubles:
        """Intrinsics (n, 3, 3) px of the row (if the camera zooms), else of the track."""
        track_cameras = self._track_intrinsics[self._tracks(start, stop)]
        if "intrinsics" not in self.split.columns:
            return track_cameras
        row_cameras = self.split.rows("intrinsics", start, stop)
        is_known = np.isfinite(row_cameras)
        return np.where(is_known, row_cameras, track_cameras)

    def genders_of(self, start: int, stop: int) -> NDArray[np.str_]:
        """(n,) male, female or neutral."""
        return self._track_genders[self._tracks(start, stop)]

    def _rotations(self, start: int, stop: int) -> Doubles:
        """Rotations from world to camera, (n, 3, 3)."""
        extrinsics = self.split.rows("extrinsics", start, stop)
        return extrinsics[:, :3, :3].astype(np.float64)

    def _tracks(self, start: int, stop: int) -> Ints:
        """The number of each row's track, (n,)."""
        return self.split.track_of(np.arange(start, stop))

    def _column(self, name: str) -> Callable[[int, int], Array]:
        return lambda start, stop: self.split.rows(name, start, stop)
