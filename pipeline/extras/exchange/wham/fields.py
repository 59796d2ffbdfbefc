"""Arrays of WHAM's files, computed from rows of a split.  tracks, features -> [files of other
programs]

`export` names for each array of a file the method of `RowFields` that computes it for some rows.
Some need `Bodies`: SMPL's files in a folder, and perhaps WHAM's regressor J_regressor_wham.npy.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import cache
from pipeline.extras.exchange.rows import RowCheck, Segments, SplitRows
from pipeline.extras.exchange.vibe_db.database import PICTURE
from pipeline.extras.exchange.vibe_db.export import to_crop_pixels
from pipeline.files.formats.arrays import numbers, reading
from pipeline.people import cameras, smpl_files
from pipeline.people.body import Body, PosedJoints, rotations_of
from pipeline.people.cameras import compose
from pipeline.people.skeletons import JOINTS, Array, Doubles, Ints, convert, opposite_joints

GENDERS: Final = ("male", "female")
_EMDB_FACTOR: Final = 1.1  # box / WHAM's box (lib/data_utils/emdb_eval_utils.py)
_SCALE_PX: Final = 200  # px, the unit of a box's size in crops of InstaVariety
_OPENPOSE: Final = JOINTS["body_25b"][:17]  # OpenPose's joints in COCO's order
NO_GENDER: Final = RowCheck(
    "no gender (male or female)",
    test=lambda split, rows: np.isin(split.genders(rows), GENDERS),
)
_REGRESSOR_FILE: Final = "J_regressor_wham.npy"
REGRESSED: Final = 31  # its joints: 17 of COCO's, 14 of LSP's
# files that a field needs, as messages name them
SMPL_FILES: Final = "SMPL's files"
REGRESSOR_FILES: Final = f"{SMPL_FILES} with {_REGRESSOR_FILE} ({REGRESSED}, 6890)"


class RowFields(SplitRows):
    """Computes arrays of n rows of a split."""

    def __init__(
        self,
        split_rows: SplitRows,
        segments: Segments,
        stationary: str | None,
        bodies: Bodies | None,
    ) -> None:
        """segments: all exported rows. stationary: The stream of `contacts`; None without. bodies:
        for fields that need a body; None without.
        """
        split = split_rows.split
        super().__init__(split, split_rows.stream)
        self.bodies = bodies
        self._segments = segments
        self._stationary = stationary
        # Whether the labels use the neutral body: BEDLAM's, and 3DPW's by default.
        reader: Mapping[str, Any] = split.manifest.get("reader", {})
        model = reader.get("parameters", {}).get("model")
        self._uses_neutral_body = self.dataset == "bedlam" or model == "neutral"

    def boxes(self, rows: range) -> Array:
        """Boxes (n, 4): centre x, y, width, height in px.

        For EMDB and BEDLAM (n, 3): centre and side. For InstaVariety likewise, of whole crops, with
        the side in units of 200 px.
        """
        if self.dataset == "insta_variety":
            middle = PICTURE / 2
            box = [middle, middle, PICTURE / _SCALE_PX]
            return np.tile(box, (len(rows), 1))
        bbox = self.column("bbox", rows)
        if self.dataset == "emdb":
            return bbox[:, :3] / (1, 1, _EMDB_FACTOR)
        if self.dataset == "bedlam":  # the release's scale includes the crop scale
            side = bbox[:, 2] * self.column("crop_scale", rows)
            return np.column_stack([bbox[:, :2], side])
        return bbox

    def resolutions(self, rows: range) -> Array:
        """Width and height px of the images, (n, 2). InstaVariety's are crops."""
        if self.dataset == "insta_variety":
            return np.full((len(rows), 2), PICTURE)
        return super().resolutions(rows)

    def segment_numbers(self, rows: range) -> Ints:
        """The number of each row's segment, (n,)."""
        return self._segments.numbers(rows)

    def keypoints(self, rows: range) -> Array:
        """Keypoints in COCO's order, (n, 17, 3) px px confidence.

        Those of InstaVariety are in pixels of crops of 224 x 224.
        """
        kp_2d = self.column("kp_2d", rows)
        if self.dataset == "insta_variety":
            bbox = self.column("bbox", rows)
            kp_2d = to_crop_pixels(kp_2d, bbox)
        return _coco(kp_2d)

    def labelled_joints_2d(self, rows: range) -> Array:
        """Labelled 2D joints, (n, 49, 3) px px confidence; those of InstaVariety as `keypoints`."""
        if self.dataset == "insta_variety":
            return self.keypoints(rows)
        return self.column("kp_2d", rows)

    def are_female(self, rows: range) -> Array:
        """(n,) whether the actor is female."""
        return np.asarray(self.genders(rows) == GENDERS[1])

    def labelled_joints(self, rows: range) -> Array:
        """Labelled 3D joints, (n, 49, 3) m."""
        kp_3d = self.column("kp_3d", rows)
        return kp_3d[..., :3]

    def flipped_boxes(self, rows: range) -> Array:
        """Boxes (n, 3) px in the mirrored image: centre and side, which is the last number of
        `boxes`.
        """
        boxes = self.boxes(rows)
        width = self.resolutions(rows)[:, 0]
        x = width - boxes[:, 0]
        y = boxes[:, 1]
        side = boxes[:, -1]
        return np.column_stack([x, y, side])

    def flipped_keypoints(self, rows: range) -> Array:
        """Keypoints (n, 17, 3) in the mirrored image: left and right are swapped, and x is mirrored
        except for joints without confidence.
        """
        keypoints = self.keypoints(rows)
        kp2d = keypoints[:, opposite_joints("coco")]
        width = self.resolutions(rows)[:, :1]
        x, y, score = np.moveaxis(kp2d, -1, 0)
        mirrored_x = np.where(score > 0, width - x, x)
        return np.stack([mirrored_x, y, score], axis=-1)

    def _place_bodies(self, rows: range) -> tuple[Doubles, Doubles]:
        """Translation (n, 3) of the gendered body and its joints (n, 31, 3), m, in camera axes.

        A translation into the camera depends on the body's pelvis p in its rest pose
        (`cameras.to_camera`): trans = R (world trans + p) + t - p. If labels use the neutral body,
        (R - 1) (p - neutral p) is added.
        """
        assert self.bodies is not None
        pose = self.column("pose", rows)
        betas = self.column("betas", rows)
        trans = self.column("trans", rows).astype(np.float64)
        rotation = self._rotations(rows)
        n_joints = 0
        if self.bodies.regressor is not None:
            n_joints = REGRESSED
        joints = np.zeros((len(rows), n_joints, 3))
        genders = self.genders(rows)
        for gender in np.unique(genders).tolist():
            chosen = np.flatnonzero(genders == gender)
            pelvis, posed = self.bodies.joints(gender, pose[chosen], betas[chosen])
            if self._uses_neutral_body:
                neutral_pelvis, _ = self.bodies.joints("neutral", pose[chosen], betas[chosen])
                shift = pelvis - neutral_pelvis
                rotated = np.einsum("nij,nj->ni", rotation[chosen], shift)
                trans[chosen] += rotated - shift
            joints[chosen] = posed + trans[chosen, None]
        return trans, joints

    def body_places(self, rows: range) -> Doubles:
        """Translation (n, 3) m of the gendered body."""
        return self._place_bodies(rows)[0]

    def body_joints(self, rows: range) -> Doubles:
        """Joints (n, 31, 3) m of the gendered body."""
        return self._place_bodies(rows)[1]

    def project_joints(self, rows: range) -> Doubles:
        """Projected joints of the gendered body, (n, 31, 2) px."""
        intrinsics = self.intrinsics(rows)
        return cameras.project(self.body_joints(rows), intrinsics[:, None])

    def contacts(self, rows: range) -> Array:
        """Contacts (n, 4), 0 to 1, of left toe and heel, right toe and heel; -1 if unknown."""
        if self._stationary is None:
            return np.full((len(rows), 4), -1)
        return self.column(f"features/{self._stationary}", rows)

    def world_roots(self, rows: range) -> Doubles:
        """Global orientation (n, 3) rad in the world."""
        to_world = self._rotations(rows).transpose(0, 2, 1)
        return compose(to_world, self.column("pose", rows)[:, :3])

    def world_places(self, rows: range) -> Doubles:
        """Translation (n, 3) m of the neutral body in the world."""
        assert self.bodies is not None
        names = ("pose", "betas", "trans", "extrinsics")
        columns = [self.column(name, rows) for name in names]
        pose, betas, trans, extrinsics = columns
        pelvis, _ = self.bodies.joints("neutral", pose, betas)
        root = pose[:, :3]
        _, world_trans = cameras.to_world(root, trans, extrinsics, pelvis)
        return world_trans

    def _rotations(self, rows: range) -> Doubles:
        """Rotations from world to camera, (n, 3, 3)."""
        extrinsics = self.column("extrinsics", rows)
        return extrinsics[:, :3, :3].astype(np.float64)


def _coco(kp_2d: Array) -> Array:
    """(..., 49, 3) -> (..., 17, 3) in COCO's order: annotated joints, else OpenPose's."""
    named = convert(kp_2d, source="spin49", target="coco")
    openpose = convert(kp_2d, source="spin49", target=_OPENPOSE)
    is_annotated = named[..., 2:] > 0
    return np.where(is_annotated, named, openpose)


class Bodies:
    """Bodies of the files in `folder`, each loaded once. Methods raise what `Body.load` raises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._load_body = functools.cache(functools.partial(Body.load, folder))
        self._load_joints = functools.cache(self._posed_joints)

    def digests(self) -> dict[str, str]:
        """Gender -> SHA-256 of its files, for existing files."""
        digests = {}
        for gender in cache.GENDERS:
            if any(self._folder.glob(f"SMPL_{gender.upper()}.*")):
                digests[gender] = smpl_files.body_files(self._folder, gender).digest
        return digests

    @functools.cached_property
    def regressor(self) -> Doubles | None:
        """Regressor (31, 6890) from posed vertices to WHAM's joints; None without a file. Raises
        RawDataError.
        """
        file = self._folder / _REGRESSOR_FILE
        if not file.is_file():
            return None
        do = "Copy it from WHAM's dataset/body_models again."
        with reading(file, "an array, as numpy.save writes it", do=do):
            stored = np.load(file, allow_pickle=False)
        return numbers(file, _REGRESSOR_FILE, stored, (REGRESSED, smpl_files.N_VERTICES))

    def has(self, files: str) -> bool:
        """Whether the folder has SMPL_FILES or REGRESSOR_FILES."""
        return files == SMPL_FILES or self.regressor is not None

    def joints(self, gender: str, pose: Array, betas: Array) -> tuple[Doubles, Doubles]:
        """The pelvis (n, 3) m of the rest pose, and WHAM's joints (n, 31, 3) m without translation,
        of bodies with pose (n, 72) rad and betas (n, 10). Without a regressor there are no joints.
        """
        shape = torch.tensor(betas).float()
        with torch.no_grad():
            posed = self._load_joints(gender)(shape, rotations_of(pose))
        joints = posed.double().numpy()
        return joints[:, 0], joints[:, 1:]  # SMPL rotates about its pelvis, which does not move

    def lowest(self, gender: str, pose: Array, betas: Array, trans: Array) -> float:
        """y in m of a body's lowest vertex (y points down), for pose (72,), betas (10,), trans
        (3,).
        """
        body = self._load_body(gender)
        shape = torch.tensor(betas[None]).float()
        with torch.no_grad():
            posed = body(betas=shape, rotmat=rotations_of(pose))
        lowest = posed.verts[0, :, 1].max()
        return float(lowest + trans[1])

    def _posed_joints(self, gender: str) -> PosedJoints:
        """A gender's body that computes the pelvis and WHAM's joints."""
        regressor = self.regressor
        if regressor is None:
            regressor = np.zeros((0, smpl_files.N_VERTICES))
        body = smpl_files.load(self._folder, gender)
        n_joints = smpl_files.N_JOINTS
        regressed = range(n_joints, n_joints + len(regressor))  # they come after SMPL's own
        return PosedJoints(body, regressor, [0, *regressed])
