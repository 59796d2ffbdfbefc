"""One person's body as a tool, such as WHAM or PHALP, estimated it, and its joints.  [files of
tools] -> bodies

The readers of the tools' files (`pipeline.extras.exchange.bodies.tools`) make one `BodyEstimate`
for each person; `matching` undoes the tool's reduction of the clip (`convert_to_clip`), poses the
body model (`BodyModels`), and matches the person with the tracks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import numpy as np

from pipeline.clips.labels.sam_3d_body import TOOL, number_of
from pipeline.datasets.shared.smpl import load_smplx_rest_joints
from pipeline.files.formats.arrays import load_npz, numbers
from pipeline.files.raw.files import whole_file_digest
from pipeline.people.body import Body
from pipeline.people.skeletons import JOINTS, Doubles, Ints, correspondence
from pipeline.people.smpl_files import N_BETAS, N_POSE

N_BODY: Final = 66  # numbers of SMPL-X's pelvis to wrists
_MOST_FPS: Final = 60.0  # PromptHMR leaves out frames until the rate is at most this
_N_JOINTS: Final = N_BODY // 3  # of SMPL-X: pelvis to wrists, in SMPL's order
_N_FACE: Final = 9  # numbers of SMPL-X's jaw and eyes, which come before the hands
ALIKE: Final = 0.02  # largest difference between the scales of width and height of resized images
# tools that cut a clip's name at its first dot; the others cut it at the last one
_FIRST_DOT: Final = ("PHALP", "TRAM", "PromptHMR")
_OF_FRAMES: Final = (  # fields with one row for each frame
    "frames",
    "pose",
    "betas",
    "trans",
    "boxes",
    "crop_camera",
    "extrinsics",
    "world_root",
    "world_place",
    "joints",
    "projected",
    "focals",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BodyEstimate:
    """One person in N frames of a clip, as a tool estimated it."""

    tool: str
    person: str
    # (N,) from 0, ascending, in the pictures that the tool saw
    frames: Ints
    # (N, 72) of SMPL; of SMPL-X (N, 66) without hands, or (N, 165); axis-angle in rad, in the
    # camera
    pose: Doubles
    betas: Doubles  # (N, 10)
    # (N, 3) m in the camera; None: only `crop_camera`
    trans: Doubles | None = None
    # (3, 3) px, or (N, 3, 3); None: the tool assumes the image's diagonal as focal length, and the
    # image's centre
    intrinsics: Doubles | None = None
    size: tuple[int, int] | None = None  # width, height px of the pictures that the tool saw
    # the tool may have resized the images and left out frames; `convert_to_clip` undoes both
    is_reduced: bool = False
    boxes: Doubles | None = None  # (N, 4) cx cy w h px
    # (N, 3) s tx ty of a weak-perspective camera in the crop
    crop_camera: Doubles | None = None
    # (N, 4, 4) m, from a world of all people, whose y is up, to the camera
    extrinsics: Doubles | None = None
    # The same person in a world of its own, whose y is up: (N, 3) rad global orientation, and
    # (N, 3) m the translation, or the middle of the hips.
    world_root: Doubles | None = None
    world_place: Doubles | None = None
    is_place_of_hips: bool = False
    # In place of a body, whose pose and betas are NaN then: (N, 49, 3) m in spin49 and the camera's
    # axes, without `trans`; and all joints of the tool (N, J, 5), x y z m in the camera, x y px
    joints: Doubles | None = None
    projected: Doubles | None = None
    focals: Doubles | None = None  # (N,) px, which the tool stated; NaN: it did not
    # extra columns of the new split (N, ...) by name, as the tool has them
    extra: Mapping[str, Doubles] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> frames
    camera_file: Path | None = None  # which the tool wrote besides the person's file

    @property
    def name(self) -> str:
        """The person, as notes name it."""
        return f"{self.tool}'s person {self.person}"

    @property
    def is_smplx(self) -> bool:
        return bool(self.pose.shape[1] != N_POSE)

    def clip_of(self, file: Path) -> str:
        """The clip's name without its ending, from its result file: the folder's, or for PHALP the
        file's, as walk of demo_walk.pkl.
        """
        if self.tool == "PHALP":
            return file.name.partition(".")[0].removeprefix("demo_")
        folder = file.absolute().parent
        if self.tool == TOOL and number_of(file.name) is None:
            return file.stem
        if self.tool == "TRAM":
            folder = folder.parent
        return folder.name

    def stem_of(self, name: str) -> str:
        """A clip's file name as the tool shortens it for its results: of walk.v2.mp4, walk.v2 or
        walk.
        """
        if self.tool in _FIRST_DOT:
            return name.partition(".")[0]
        return name.rpartition(".")[0] or name

    def pixel_intrinsics(self, size: tuple[int, int]) -> Doubles:
        """The intrinsics (3, 3) px, stated or assumed, for images of this width and height."""
        if self.intrinsics is not None:
            return self.intrinsics
        return pinhole(float(np.hypot(*size)), size)

    def position(self, size: tuple[int, int], margin: float) -> Doubles:
        """The translation (N, 3) m in the camera: `trans`, or else computed from `crop_camera`.

        The latter is a weak-perspective camera (s, tx, ty) in crops that are `margin` times as
        large as boxes: at the body's depth, the crop's side is 2 / s m. So depth = focal * (2 / s)
        / crop side in px.
        """
        if self.trans is not None:
            return self.trans
        assert self.crop_camera is not None and self.boxes is not None
        scale, x, y = self.crop_camera.T
        box_x, box_y, width, _ = self.boxes.T
        intrinsics = self.pixel_intrinsics(size)
        focal = intrinsics[0, 0]
        depth = 2 * focal / (scale * width * margin)  # m
        m_per_px = depth / focal
        x = x + (box_x - intrinsics[0, 2]) * m_per_px
        y = y + (box_y - intrinsics[1, 2]) * m_per_px
        return np.column_stack([x, y, depth])

    def has_size(self, size: tuple[int, int]) -> bool:
        """Whether the tool saw images of this width and height; True if its size is unknown.

        Images that the tool may have resized need only the same aspect ratio.
        """
        if self.size is None:
            return True
        if not self.is_reduced:
            return self.size == size
        scale_x, scale_y = np.divide(size, self.size)
        return bool(abs(scale_x / scale_y - 1) < ALIKE)

    def convert_to_clip(self, size: tuple[int, int], fps: float) -> BodyEstimate:
        """Convert frame numbers and intrinsics to those of the clip, if the tool reduced the clip.

        A tool that reduces clips (PromptHMR) states a size and intrinsics. size: width and height
        px of the clip. fps: rate of the clip; NaN: unknown, then no frames were left out.
        """
        if not self.is_reduced:
            return self
        assert self.size is not None and self.intrinsics is not None
        scale_x, scale_y = np.divide(size, self.size)
        intrinsics = np.diag([scale_x, scale_y, 1]) @ self.intrinsics
        # The tool keeps the last frame of each `step` frames: 1, 3, 5, ... if step is 2.
        step = math.ceil(max(1.0, fps) / _MOST_FPS)  # max(1.0, NaN) is 1.0
        frames = self.frames * step + (step - 1)
        return replace(self, frames=frames, intrinsics=intrinsics, size=size)

    def only(self, rows: Ints, reason: str) -> BodyEstimate:
        """Keep only these rows; the others are counted as dropped for `reason`."""
        n_left_out = len(self.frames) - len(rows)
        if not n_left_out:
            return self
        chosen = {}
        for name in _OF_FRAMES:
            values = getattr(self, name)
            if values is not None:
                chosen[name] = values[rows]
        if self.intrinsics is not None and self.intrinsics.ndim == 3:
            chosen["intrinsics"] = self.intrinsics[rows]
        chosen["extra"] = {name: values[rows] for name, values in self.extra.items()}
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + n_left_out}
        return replace(self, **chosen, dropped=dropped)


def pinhole(focal: float, size: tuple[int, int]) -> Doubles:
    """The intrinsics (3, 3) px of a camera whose principal point is the middle of the image."""
    width, height = size
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


@dataclass(frozen=True, slots=True, eq=False)
class BodyModels:
    """The body models by which estimated bodies are posed."""

    smpl: Body
    smplx: _SmplxJoints | None  # None: no file of it was given

    @classmethod
    def load(cls, smpl: Body, smplx_file: Path | None) -> Self:
        """SMPL's body, and SMPL-X's of SMPLX_NEUTRAL.npz. Raises RawDataError for another file."""
        smplx = None
        if smplx_file is not None:
            smplx = _SmplxJoints.load(smplx_file)
        return cls(smpl, smplx)

    def joints(self, estimate: BodyEstimate) -> Doubles:
        """Joints of the estimated bodies in spin49, (N, 49, 3) m, without translation."""
        if estimate.joints is not None:
            return estimate.joints
        if not estimate.is_smplx:
            return self.smpl.posed_joints(estimate.pose, estimate.betas)[0]
        assert self.smplx is not None
        parents = self.smpl.smpl.parents.tolist()
        return self.smplx.joints(estimate.pose, estimate.betas, parents)


@dataclass(frozen=True, slots=True, eq=False)
class _SmplxJoints:
    """SMPL-X's skeleton. Pavlakos et al., CVPR 2019."""

    rest: Doubles  # (22, 3) m
    by_beta: Doubles  # (22, 3, 10) m
    hands: Doubles  # (90,) rad: the hands' mean pose, of fingers relative to flat ones
    digest: str

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read SMPLX_NEUTRAL.npz. Raises RawDataError for another file."""
        rest, by_beta = load_smplx_rest_joints(file, N_BETAS)
        stored = load_npz(file, ("hands_meanl", "hands_meanr"))
        hands = [numbers(file, key, values, (45,)) for key, values in stored.items()]
        mean = np.concatenate(hands)
        return cls(rest[:_N_JOINTS], by_beta[:_N_JOINTS], mean, whole_file_digest(file))

    def joints(self, pose: Doubles, betas: Doubles, parents: Sequence[int]) -> Doubles:
        """pose (N, 66 or more) rad, betas (N, 10) -> spin49 (N, 49, 3) m without translation; NaN
        for joints that are not of the skeleton. parents: of SMPL's joints, which are the same.
        """
        from scipy.spatial.transform import Rotation  # takes 0.4 s

        n = len(pose)
        rest = self.rest + np.einsum("jcb,nb->njc", self.by_beta, betas)
        rotvec = pose[:, :N_BODY].reshape(-1, 3)
        local = Rotation.from_rotvec(rotvec).as_matrix()
        rotations = local.reshape(n, _N_JOINTS, 3, 3)  # relative to the parent; then in the camera
        posed = rest.copy()
        for joint in range(1, _N_JOINTS):
            parent = parents[joint]
            bone = rest[:, joint] - rest[:, parent]
            posed_bone = np.einsum("nij,nj->ni", rotations[:, parent], bone)
            posed[:, joint] = posed[:, parent] + posed_bone
            rotations[:, joint] = rotations[:, parent] @ rotations[:, joint]
        from_columns, to_columns = correspondence(JOINTS["smpl"][:_N_JOINTS], "spin49")
        joints = np.full((n, len(JOINTS["spin49"]), 3), np.nan)
        joints[:, to_columns] = posed[:, from_columns]
        return joints

    def whole_pose(self, pose: Doubles) -> Doubles:
        """A pose (N, 66) with face and hands, (N, 165) rad: the hands at their mean. A whole pose
        stays as it is.
        """
        if pose.shape[1] != N_BODY:
            return pose
        face = np.zeros(_N_FACE)
        face_and_hands = np.concatenate([face, self.hands])
        face_hand_poses = np.tile(face_and_hands, (len(pose), 1))
        return np.hstack([pose, face_hand_poses])
