"""Arrays of WHAM's files, computed from rows of a split.  tracks, features -> [files of other
programs]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import cache
from pipeline import cameras
from pipeline.body import Body, PosedJoints
from pipeline.cameras import compose, pose_in_camera, resample_linear, resample_rotations
from pipeline.exchange.rows import Rows, Segments
from pipeline.exchange.vibe_db.export import to_crop_pixels
from pipeline.exchange.vibe_db.layouts import PICTURE
from pipeline.exchange.wham.layouts import NO_GENDER, NO_RATE, NO_SIZE, REGRESSED
from pipeline.files.formats import smpl_files
from pipeline.files.formats.arrays import numbers, reading
from pipeline.skeletons import JOINTS, convert, opposite_joints

Array = NDArray[Any]
Doubles = NDArray[np.float64]
Compute = Callable[[int, int], Array]  # of rows [start, stop)

REGRESSOR_FILE: Final = "J_regressor_wham.npy"
FPS: Final = 30.0
MIN_FRAMES: Final = 25  # least number of frames of a motion, at 30 fps
TOO_SHORT: Final = f"motion of fewer than {MIN_FRAMES} frames at 30 per second"
RATE_NOISE: Final = 0.1  # treats 29.97 as 30
MALE_FIRST: Final = ("male", "female")
EMDB_FACTOR: Final = 1.1  # box / WHAM's box (lib/data_utils/emdb_eval_utils.py)
OPENPOSE: Final = JOINTS["body_25b"][:17]  # OpenPose's joints in COCO's order
Y_DOWN: Final = np.array(  # transform from a world with z up to one with y down
    [
        [1.0, 0, 0, 0],
        [0, 0, -1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]
)


def coco(kp_2d: Array) -> Array:
    """(..., 49, 3) -> (..., 17, 3) in COCO's order: annotated joints, else OpenPose's."""
    named = convert(kp_2d, source="spin49", target="coco")
    openpose = convert(kp_2d, source="spin49", target=OPENPOSE)
    is_annotated = named[..., 2:] > 0
    return np.where(is_annotated, named, openpose)


class RowFields:
    """Arrays of a split's rows [start, stop), by their names in `layouts.FIELDS`."""

    def __init__(
        self, split: cache.Split, stream: str, stationary: str, bodies: Bodies | None = None
    ) -> None:
        """stream, stationary: Streams for `features` and `stationaries`; "" for none."""
        self.split = split
        self.stationary = stationary
        self.bodies = bodies
        self.dataset = split.name.partition("/")[0]
        tracks = split.tracks
        width = split.videos.tables["video_width"]
        height = split.videos.tables["video_height"]
        self.sizes = np.stack([width, height], axis=1)
        self.genders = np.array([track.gender for track in tracks])
        self.rates = tracks.fps / tracks.step
        self.track_intrinsics: Doubles = tracks.tables["track_intrinsics"]  # NaN if unknown
        # Whether the labels use the neutral body: BEDLAM's, and 3DPW's by default.
        reader: Mapping[str, Any] = split.manifest.get("reader", {})
        model = reader.get("parameters", {}).get("model")
        self.uses_neutral_body = self.dataset == "bedlam" or model == "neutral"
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
            "gender": lambda start, stop: self.genders_of(start, stop) == MALE_FIRST[1],
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

    def has(self, need: str, start: int, stop: int) -> NDArray[np.bool_]:
        """(n,) whether rows have an image size, a gender, 30 frames per second, or finite numbers
        in a column.
        """
        if need == NO_SIZE:
            sizes = self.resolutions(start, stop)
            return np.asarray((sizes > 0).all(axis=1))
        if need == NO_GENDER:
            return np.isin(self.genders_of(start, stop), MALE_FIRST)
        if need == NO_RATE:
            rates = self.rates[self._tracks(start, stop)]
            return np.asarray(np.abs(rates - FPS) < RATE_NOISE)
        name = need.removeprefix("no ")
        if name == "intrinsics":
            values: Array = self.intrinsics(start, stop)
        else:
            values = self.split.rows(name, start, stop)
        is_finite = np.isfinite(values.reshape(stop - start, -1))
        return np.asarray(is_finite.all(axis=1))

    def boxes(self, start: int, stop: int) -> Array:
        """(n, 4) centre, width, height px; for EMDB and BEDLAM (n, 3) centre, side; InstaVariety's
        in its crops.
        """
        if self.dataset == "insta_variety":
            middle = PICTURE / 2
            box = [middle, middle, PICTURE / 200]
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
        return np.asarray(self.sizes[videos])

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
        """(n, 3) centre and side in the mirrored image (of 3DPW's four numbers, the last)."""
        boxes = self.boxes(start, stop)
        width = self.resolutions(start, stop)[:, 0]
        x = width - boxes[:, 0]
        y = boxes[:, 1]
        side = boxes[:, -1]
        return np.column_stack([x, y, side])

    def flipped_keypoints(self, start: int, stop: int) -> Array:
        """(n, 17, 3): left and right swapped, x mirrored except for joints without confidence."""
        kp2d = self.keypoints(start, stop)[:, opposite_joints("coco")]
        width = self.resolutions(start, stop)[:, :1]
        x, y, score = np.moveaxis(kp2d, -1, 0)
        mirrored_x = np.where(score > 0, width - x, x)
        return np.stack([mirrored_x, y, score], axis=-1)

    def place_bodies(self, start: int, stop: int) -> tuple[Doubles, Doubles]:
        """Translation (n, 3) of the gendered body and its joints (n, 31, 3), m, in camera axes.

        The translation of a neutral body depends on its pelvis; the correction is (R - 1) (pelvis -
        neutral pelvis).
        """
        assert self.bodies is not None
        rows = self.split.rows
        pose = rows("pose", start, stop)
        betas = rows("betas", start, stop)
        trans = rows("trans", start, stop).astype(np.float64)
        rotation = self._rotations(start, stop)
        n_joints = 0 if self.bodies.regressor is None else REGRESSED
        joints = np.zeros((stop - start, n_joints, 3))
        genders = self.genders_of(start, stop)
        for gender in np.unique(genders).tolist():
            chosen = np.flatnonzero(genders == gender)
            parameters = (pose[chosen], betas[chosen])
            pelvis, posed = self.bodies.joints(gender, *parameters)
            if self.uses_neutral_body:
                neutral, _ = self.bodies.joints("neutral", *parameters)
                shift = pelvis - neutral
                turned = np.einsum("nij,nj->ni", rotation[chosen], shift)
                trans[chosen] += turned - shift
            joints[chosen] = posed + trans[chosen, None]
        return trans, joints

    def project_joints(self, start: int, stop: int) -> Doubles:
        """Joints (n, 31, 2) px."""
        _, joints = self.place_bodies(start, stop)
        intrinsics = self.intrinsics(start, stop)
        return cameras.project(joints, intrinsics[:, None])

    def contacts(self, start: int, stop: int) -> Array:
        """Contacts (n, 4), 0 to 1, of left toe and heel, right toe and heel; -1 if unknown."""
        if not self.stationary:
            return np.full((stop - start, 4), -1)
        return self.split.rows(f"features/{self.stationary}", start, stop)

    def world_roots(self, start: int, stop: int) -> Doubles:
        """Global orientation (n, 3) rad in the world."""
        to_camera = self._rotations(start, stop)
        to_world = to_camera.transpose(0, 2, 1)
        pose = self.split.rows("pose", start, stop)
        return compose(to_world, pose[:, :3])

    def world_places(self, start: int, stop: int) -> Doubles:
        """Translation (n, 3) m of the neutral body in the world."""
        assert self.bodies is not None
        pose = self.split.rows("pose", start, stop)
        betas = self.split.rows("betas", start, stop)
        trans = self.split.rows("trans", start, stop)
        extrinsics = self.split.rows("extrinsics", start, stop)
        pelvis, _ = self.bodies.joints("neutral", pose, betas)
        root = pose[:, :3]
        _, world_trans = cameras.to_world(root, trans, extrinsics, pelvis)
        return world_trans

    def intrinsics(self, start: int, stop: int) -> Doubles:
        """Intrinsics (n, 3, 3) px of the row (if the camera zooms), else of the track."""
        track_cameras = self.track_intrinsics[self._tracks(start, stop)]
        if "intrinsics" not in self.split.columns:
            return track_cameras
        row_cameras = self.split.rows("intrinsics", start, stop)
        is_known = np.isfinite(row_cameras)
        return np.where(is_known, row_cameras, track_cameras)

    def genders_of(self, start: int, stop: int) -> NDArray[np.str_]:
        return self.genders[self._tracks(start, stop)]

    def _rotations(self, start: int, stop: int) -> Doubles:
        """Rotations from world to camera, (n, 3, 3)."""
        extrinsics = self.split.rows("extrinsics", start, stop)
        return extrinsics[:, :3, :3].astype(np.float64)

    def _tracks(self, start: int, stop: int) -> Rows:
        return self.split.track_of(np.arange(start, stop))

    def _column(self, name: str) -> Callable[[int, int], Array]:
        return lambda start, stop: self.split.rows(name, start, stop)


class Motions:
    """AMASS's segments in WHAM's format: 30 fps, y down, the first frame's lowest vertex on the
    ground.
    """

    def __init__(self, split: cache.Split, segments: Segments, bodies: Bodies | None) -> None:
        """Drop segments of fewer than 25 frames. bodies: for `transl`. Raises PipelineError for
        duplicate names.
        """
        self.split = split
        self.segments = segments
        self.bodies = bodies
        n_segments = len(segments.start)
        n_frames = [len(self.positions(number)) for number in range(n_segments)]
        lengths = np.array(n_frames, np.int64)
        is_long = lengths >= MIN_FRAMES
        self.segments = segments.only(is_long, TOO_SHORT)
        self.lengths: list[int] = lengths[is_long].tolist()  # at 30 fps
        track_names = [track.video.replace("/", "_") for track in split.tracks]
        self.names = self.segments.names(split, track_names)
        names = np.array(self.names)
        self.computed: Mapping[str, Compute] = {  # of the segments [number, number + 1)
            "vid": lambda number, stop: np.repeat(names[number:stop], self.lengths[number]),
            "pose": lambda number, _: self.pose(number),
            "betas": lambda number, _: self.betas(number),
            "transl": lambda number, _: self.transl(number),
        }

    def positions(self, number: int) -> Doubles:
        """Positions (m,) of the frames at 30 fps among a segment's rows; fractions are between two
        rows.
        """
        track = self.segments.track[number]
        tracks = self.split.tracks
        rate = float(tracks.fps[track] / tracks.step[track])
        start = self.segments.start[number]
        n_rows = self.segments.stop[number] - start
        if abs(rate - FPS) < RATE_NOISE:
            return np.arange(float(n_rows))
        duration = (n_rows - 1) * FPS / rate  # in frames at 30 fps
        last = np.floor(duration + 1e-9)
        return np.arange(last + 1) * rate / FPS

    def pose(self, number: int) -> Doubles:
        """Poses at 30 fps, (m, 72) rad, in a world with y down."""
        stored = self.read_column("pose", number)
        joints = stored.reshape(-1, 24, 3)
        pose = resample_rotations(joints, self.positions(number))
        rotation = Y_DOWN[:3, :3]
        return pose_in_camera(pose.reshape(-1, 72), rotation)

    def betas(self, number: int) -> Doubles:
        """Betas at 30 fps, (m, 10)."""
        rows = self.positions(number).astype(np.int64)
        return self.read_column("betas", number)[rows]

    def transl(self, number: int) -> Doubles:
        """Translations at 30 fps, (m, 3) m, y down, with the first frame on the ground."""
        assert self.bodies is not None
        row = int(self.segments.track[number])
        track = self.split.tracks[row]
        pose = self.pose(number)
        betas = self.betas(number)
        pelvis, _ = self.bodies.joints(track.gender, pose[:1], betas[:1])
        stored = self.read_column("trans", number)
        in_world = resample_linear(stored, self.positions(number))
        _, trans = cameras.to_camera(np.zeros(3), in_world, Y_DOWN, pelvis)
        lowest = self.bodies.lowest(track.gender, pose[0], betas[0], trans[0])
        trans[:, 1] -= lowest
        return trans

    def read_column(self, column: str, number: int) -> Doubles:
        start = int(self.segments.start[number])
        stop = int(self.segments.stop[number])
        return self.split.rows(column, start, stop).astype(np.float64)


class Bodies:
    """Bodies of the files in `folder`, each loaded once. Methods raise what `Body.load` raises."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.load = functools.cache(functools.partial(Body.load, folder))
        self._posed = functools.cache(self._posed_joints)

    def digests(self) -> dict[str, str]:
        """Gender -> SHA-256 of its files, for existing files."""
        digests = {}
        for gender in smpl_files.GENDERS:
            if any(self.folder.glob(f"SMPL_{gender.upper()}.*")):
                digests[gender] = smpl_files.body_files(self.folder, gender).digest
        return digests

    @functools.cached_property
    def regressor(self) -> Doubles | None:
        """Regressor (31, 6890) from posed vertices to WHAM's joints; None without a file. Raises
        RawDataError.
        """
        file = self.folder / REGRESSOR_FILE
        if not file.is_file():
            return None
        do = "Copy it from WHAM's dataset/body_models again."
        with reading(file, "an array, as numpy.save writes it", do=do):
            stored = np.load(file, allow_pickle=False)
        return numbers(file, REGRESSOR_FILE, stored, (REGRESSED, smpl_files.N_VERTICES))

    def joints(self, gender: str, pose: Array, betas: Array) -> tuple[Doubles, Doubles]:
        """pose (n, 72) rad, betas (n, 10) -> rest pelvis (n, 3) m, and WHAM's joints (n, 31, 3) m
        without translation.

        Without a regressor there are no joints.
        """
        shape = torch.tensor(betas).float()
        with torch.no_grad():
            posed = self._posed(gender)(shape, _rotations(pose))
        joints = posed.double().numpy()
        return joints[:, 0], joints[:, 1:]  # SMPL rotates about its pelvis, which does not move

    def lowest(self, gender: str, pose: Array, betas: Array, trans: Array) -> float:
        """y in m of a body's lowest vertex (y points down), for pose (72,), betas (10,), trans
        (3,).
        """
        body = self.load(gender)
        shape = torch.tensor(betas[None]).float()
        rotmat = _rotations(pose[None])
        with torch.no_grad():
            posed = body(betas=shape, rotmat=rotmat)
        lowest = posed.verts[0, :, 1].max()
        return float(lowest + trans[1])

    def _posed_joints(self, gender: str) -> PosedJoints:
        regressor = self.regressor
        if regressor is None:
            regressor = np.zeros((0, smpl_files.N_VERTICES))
        body = smpl_files.load(self.folder, gender)
        n_joints = smpl_files.N_JOINTS
        take = [0, *range(n_joints, n_joints + len(regressor))]
        return PosedJoints(body, regressor, take)


def _rotations(pose: Array) -> torch.Tensor:
    """Convert poses (n, 72) rad to rotation matrices (n, 24, 3, 3)."""
    rotvec = np.asarray(pose, np.float64).reshape(-1, 3)
    matrices = Rotation.from_rotvec(rotvec).as_matrix()
    rotmat = torch.tensor(matrices).float()
    return rotmat.reshape(-1, smpl_files.N_JOINTS, 3, 3)
