"""Results of body estimators in one form, each tool known by its keys.

Nothing here was tried on a real result: keys, units and frames are those of the tools' sources.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.cameras import is_rotation
from pipeline.errors import RawDataError
from pipeline.exchange.bodies.files import AGAIN, EXPECTED, load_results
from pipeline.files.formats.arrays import numbers, reading
from pipeline.files.formats.known_files import owner_of
from pipeline.skeletons import Doubles, Ints

N_POSE: Final = 72
N_BODY: Final = 66  # numbers of SMPL-X's pelvis to wrists
N_BETAS: Final = 10
CROP: Final = 256  # px, of PHALP's crops
FOCAL: Final = 5000.0  # px, of HMR's crops
LARGER_CROP: Final = 1.1  # VIBE's crop side / side of the boxes that it writes
MOST_FPS: Final = 60.0  # of the pictures that PromptHMR reads
FIRST_DOT: Final = ("PHALP", "TRAM", "PromptHMR")  # cut the clip's name there, others at the last
ALIKE: Final = 0.02  # how much the sides of resized pictures may differ in their scales
ROWS: Final = (  # fields of `Estimate`
    "frames",
    "pose",
    "betas",
    "trans",
    "boxes",
    "crop_camera",
    "extrinsics",
    "world_root",
    "world_place",
)
READ: Final = (
    "GVHMR's, WHAM's, TRAM's, PHALP's, PromptHMR's, VIBE's and TCMR's are read (docs/results.md)."
)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One person in N frames of a clip, as a tool estimated it."""

    tool: str
    person: str
    frames: Ints  # (N,) from 0, ascending, in the pictures that the tool saw
    # (N, 72) of SMPL; of SMPL-X (N, 66) without hands, or (N, 165); axis-angle in rad, in the
    # camera
    pose: Doubles
    betas: Doubles  # (N, 10)
    trans: Doubles | None = None  # (N, 3) m in the camera; None: only `crop_camera`
    # (3, 3) px; None: f is the image's diagonal, and the centre the image's
    intrinsics: Doubles | None = None
    size: tuple[int, int] | None = None  # width, height px of the pictures that the tool saw
    is_reduced: bool = False  # the tool made them smaller and fewer, as `in_clip` undoes
    boxes: Doubles | None = None  # (N, 4) cx cy w h px
    crop_camera: Doubles | None = None  # (N, 3) s tx ty of a weak-perspective camera in the crop
    # (N, 4, 4) m, from a world of all people, whose y is up, to the camera
    extrinsics: Doubles | None = None
    # The same person in a world of its own, whose y is up: (N, 3) rad global orientation, and
    # (N, 3) m the translation, or the middle of the hips.
    world_root: Doubles | None = None
    world_place: Doubles | None = None
    is_place_of_hips: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> frames

    @property
    def name(self) -> str:
        return f"{self.tool}'s person {self.person}"

    @property
    def is_smplx(self) -> bool:
        return bool(self.pose.shape[1] != N_POSE)

    def camera(self, size: tuple[int, int]) -> Doubles:
        """(3, 3) px, for pictures of this width and height."""
        if self.intrinsics is not None:
            return self.intrinsics
        return pinhole(float(np.hypot(*size)), size)

    def position(self, size: tuple[int, int], margin: float = 1.0) -> Doubles:
        """`trans` (N, 3) m; else that of the weak-perspective camera, for crops of `margin` times
        the box.
        """
        if self.trans is not None:
            return self.trans
        assert self.crop_camera is not None and self.boxes is not None
        scale, x, y = self.crop_camera.T
        box_x, box_y, width, _ = self.boxes.T
        camera = self.camera(size)
        focal = camera[0, 0]
        away = 2 * focal / (scale * width * margin)  # m
        m_per_px = away / focal
        x = x + (box_x - camera[0, 2]) * m_per_px
        y = y + (box_y - camera[1, 2]) * m_per_px
        return np.column_stack([x, y, away])

    def has_size(self, size: tuple[int, int]) -> bool:
        """Whether the tool saw pictures of this width and height, as far as it is known."""
        if self.size is None or not self.is_reduced:
            return self.size in (None, size)
        across, down = np.divide(size, self.size)
        return bool(abs(across / down - 1) < ALIKE)

    def in_clip(self, size: tuple[int, int], fps: float) -> Estimate:
        """The frames and the camera of the clip, of this width, height and rate, where the tool
        reduced both.
        """
        if not self.is_reduced or self.size is None or self.intrinsics is None:
            return self
        across, down = np.divide(size, self.size)
        intrinsics = np.diag([across, down, 1]) @ self.intrinsics
        every = math.ceil(max(1.0, fps) / MOST_FPS)  # 1 for an unknown rate, NaN
        frames = self.frames * every + every - 1
        return replace(self, frames=frames, intrinsics=intrinsics, size=size)

    def only(self, rows: Ints, reason: str) -> Estimate:
        """These rows; the others are counted under the reason."""
        n_left_out = len(self.frames) - len(rows)
        if not n_left_out:
            return self
        arrays = {name: getattr(self, name) for name in ROWS}
        arrays = {name: values[rows] for name, values in arrays.items() if values is not None}
        return replace(self, **arrays, dropped={**self.dropped, reason: n_left_out})


def pinhole(focal: float, size: tuple[int, int]) -> Doubles:
    """(3, 3) px, with the centre in the middle of the image."""
    width, height = size
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def read_estimates(file: Path) -> Iterator[Estimate]:
    """The people in a result file, whatever its name, one at a time. Raises RawDataError and
    UnsafePickle.
    """
    content = load_results(file)
    keys = _keys_of(content)
    for needed, reader in _READERS:
        if keys.issuperset(needed.split()):
            with reading(file, EXPECTED, do=AGAIN):
                for estimate in reader(_Entry(file, "", content)):
                    # ffmpeg repeats frames of a variable rate
                    _, first = np.unique(estimate.frames, return_index=True)
                    yield estimate.only(first, "repeated frame")
            return
    owner = owner_of(keys)
    if not owner:
        listed = ", ".join(sorted(keys)[:12]) or "no keys"
        owner = f"{type(content).__name__} with {listed}"
    raise RawDataError(file, "file", EXPECTED, owner, READ)


def clip_of(file: Path, tool: str) -> str:
    """The clip's name without its ending: the folder's, or for PHALP the file's.

    >>> clip_of(Path("outputs/results/demo_walk.pkl"), "PHALP")
    'walk'
    """
    if tool == "PHALP":
        return file.name.partition(".")[0].removeprefix("demo_")
    folder = file.absolute().parent
    if tool == "TRAM":
        folder = folder.parent
    return folder.name


def stem_of(name: str, tool: str) -> str:
    """A clip's file name as the tool shortens it for its results.

    >>> stem_of("walk.v2.mp4", "WHAM"), stem_of("walk.v2.mp4", "TRAM")
    ('walk.v2', 'walk')
    """
    if tool in FIRST_DOT:
        return name.partition(".")[0]
    return name.rpartition(".")[0] or name


def camera_file(file: Path) -> Path:
    """TRAM's file of the camera, of the results of a person."""
    return file.absolute().parent.parent / "camera.npy"


def _keys_of(content: object) -> frozenset[str]:
    """Keys of the top, and of the first person or frame below it."""
    keys: set[str] = set()
    for _ in range(2):
        if isinstance(content, dict):
            keys |= {key for key in content if isinstance(key, str)}
            content = list(content.values())
        if isinstance(content, list) and content:
            content = content[0]
    return frozenset(keys)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A dict in a result file; `path` leads to its keys, for messages."""

    file: Path
    path: str
    content: Any

    def __post_init__(self) -> None:
        if not isinstance(self.content, dict):
            raise self.error("", "a dict", type(self.content).__name__)

    def error(self, key: str, expected: str, found: str) -> RawDataError:
        key = (self.path + key).strip(".") or "file"
        return RawDataError(self.file, key, expected, found, AGAIN)

    def below(self, key: object) -> _Entry:
        return _Entry(self.file, f"{self.path}{key}.", self.content.get(key))

    def people(self) -> Iterator[tuple[str, _Entry]]:
        for person in self.content:
            yield str(person), self.below(person)

    def take(self, key: str, *shape: int | None) -> Doubles:
        """Finite numbers of a shape."""
        read = numbers(self.file, self.path + key, self.content.get(key), shape, do=AGAIN)
        if not np.isfinite(read).all():
            raise self.error(key, "finite numbers", "NaN or infinity")
        return read

    def frames(self, key: str) -> Ints:
        frames = self.take(key, None).astype(np.int64)
        if (frames < 0).any() or (np.diff(frames) < 0).any():
            raise self.error(key, "frames from 0, ascending", str(frames[:8].tolist()))
        return frames

    def rotations(self, key: str, *shape: int) -> Doubles:
        """Rotations (..., 3, 3); of one axis if no shape is given."""
        matrices = self.take(key, *(shape or [None]), 3, 3)
        if not is_rotation(matrices.reshape(-1, 3, 3)).all():
            raise self.error(key, "rotations", "other matrices")
        return matrices

    def turns(self, key: str, *shape: int) -> Doubles:
        """Rotations (..., 3, 3) -> (..., 3) rad."""
        from scipy.spatial.transform import Rotation  # takes 0.4 s

        matrices = self.rotations(key, *shape).reshape(-1, 3, 3)
        rotvec = Rotation.from_matrix(matrices).as_rotvec()
        return np.asarray(rotvec.reshape(*shape, 3))

    def in_frames(self, of_pictures: Doubles, frames: Ints, key: str) -> Doubles:
        """The rows of a person's frames, of one for each picture."""
        if len(frames) and frames[-1] >= len(of_pictures):
            raise self.error(key, f"one for each of {frames[-1] + 1} frames", str(len(of_pictures)))
        return of_pictures[frames]


def _gvhmr(content: _Entry) -> Iterator[Estimate]:
    """One person in all frames; SMPL-X, whose hands are at their mean."""
    body = content.below("smpl_params_incam")
    turn = body.take("global_orient", None, 3)
    n = len(turn)
    pose = np.hstack([turn, body.take("body_pose", n, N_BODY - 3)])
    betas = body.take("betas", n, N_BETAS)
    trans = body.take("transl", n, 3)
    camera = content.take("K_fullimg", n, 3, 3)[0]
    world = content.below("smpl_params_global")
    yield Estimate(
        "GVHMR",
        "0",
        np.arange(n),
        pose,
        betas,
        trans,
        camera,
        _size(camera[:2, 2]),
        world_root=world.take("global_orient", n, 3),
        world_place=world.take("transl", n, 3),
    )


def rigid(rotation: Doubles, shift: Doubles) -> Doubles:
    """Rotations (N, 3, 3) and shifts (N, 3) -> (N, 4, 4)."""
    matrices = np.tile(np.eye(4), (len(rotation), 1, 1))
    matrices[:, :3, :3] = rotation
    matrices[:, :3, 3] = shift
    return matrices


def _size(center: Doubles) -> tuple[int, int]:
    width, height = np.rint(2 * center).astype(int).tolist()
    return width, height


def _wham(content: _Entry) -> Iterator[Estimate]:
    """`trans` is SMPL's translation; `trans_world` is the mid-hip's place."""
    for person, entry in content.people():
        frames = entry.frames("frame_ids")
        n = len(frames)
        pose = entry.take("pose", n, N_POSE)
        betas = entry.take("betas", n, N_BETAS)
        trans = entry.take("trans", n, 3)
        yield Estimate(
            "WHAM",
            person,
            frames,
            pose,
            betas,
            trans,
            world_root=entry.take("pose_world", n, N_POSE)[:, :3],
            world_place=entry.take("trans_world", n, 3),
            is_place_of_hips=True,
        )


def _tram(content: _Entry) -> Iterator[Estimate]:
    """One person; the camera of all is in another file."""
    frames = content.frames("frame")
    n = len(frames)
    pose = content.turns("pred_rotmat", n, 24).reshape(n, N_POSE)
    betas = content.take("pred_shape", n, N_BETAS)
    trans = content.take("pred_trans", n, 1, 3)[:, 0]
    place = camera_file(content.file)
    stored = _Entry(place, "", load_results(place))
    size = _size(stored.take("img_center", 2))
    camera = pinhole(float(stored.take("img_focal")), size)
    extrinsics = None
    if "world_cam_R" in stored.content:
        to_world = stored.rotations("world_cam_R")
        rotation = np.swapaxes(to_world, -1, -2)
        shift = -np.einsum("nij,nj->ni", rotation, stored.take("world_cam_T", len(rotation), 3))
        extrinsics = stored.in_frames(rigid(rotation, shift), frames, "world_cam_R")
    person = content.file.stem.rpartition("_")[2]
    yield Estimate("TRAM", person, frames, pose, betas, trans, camera, size, extrinsics=extrinsics)


def _prompthmr(content: _Entry) -> Iterator[Estimate]:
    """`smplx_world` is another body, and `Twc` is wrong after the tool's optimisation: neither is
    taken.
    """
    stored = content.below("camera")
    size = _size(stored.take("img_center", 2))
    camera = pinhole(float(stored.take("img_focal")), size)
    world = content.below("camera_world")
    rotation = world.rotations("Rcw")
    extrinsics = rigid(rotation, world.take("Tcw", len(rotation), 3))
    for person, entry in content.below("people").people():
        frames = entry.frames("frames")
        n = len(frames)
        body = entry.below("smplx_cam")
        pose = body.turns("rotmat", n, 55).reshape(n, 165)
        betas = body.take("shape", n, N_BETAS)
        trans = body.take("trans", n, 3)
        estimate = Estimate(
            "PromptHMR",
            person,
            frames,
            pose,
            betas,
            trans,
            camera,
            size,
            is_reduced=True,
            extrinsics=world.in_frames(extrinsics, frames, "Rcw"),
        )
        is_detected = entry.take("detected", n) > 0
        yield estimate.only(np.flatnonzero(is_detected), "not detected")


def _vibe(content: _Entry) -> Iterator[Estimate]:
    """Also TCMR's, whose keys are the same. `orig_cam` is not taken: VIBE's is of a smaller box."""
    for person, entry in content.people():
        frames = entry.frames("frame_ids")
        n = len(frames)
        pose = entry.take("pose", n, N_POSE)
        betas = entry.take("betas", n, N_BETAS)
        boxes = entry.take("bboxes", n, 4)
        camera = entry.take("pred_cam", n, 3)
        yield Estimate("VIBE or TCMR", person, frames, pose, betas, boxes=boxes, crop_camera=camera)


@dataclass(slots=True)
class _Bodies:
    """A person's bodies, while pictures are read."""

    frames: list[int] = field(default_factory=list)
    pose: list[Doubles] = field(default_factory=list)
    betas: list[Doubles] = field(default_factory=list)
    trans: list[Doubles] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def _phalp(content: _Entry) -> Iterator[Estimate]:
    """Pictures by path. People who were not seen in one repeat their last body there: ghosts."""
    people: dict[str, _Bodies] = {}
    size = (0, 0)
    for name in content.content:
        picture = content.below(name)
        lists = picture.content
        # `tracked_ids` is shorter than the other lists
        for k, person in enumerate(lists["tid"]):
            bodies = people.setdefault(str(person), _Bodies())
            if lists["tracked_time"][k] != 0:
                bodies.dropped["ghost"] += 1
                continue
            row = dict(lists["smpl"][k])
            row["camera"] = lists["camera"][k]
            row["size"] = lists["size"][k]
            body = _Entry(content.file, f"{name}[{k}].", row)
            turn = body.turns("global_orient", 1)
            joints = body.turns("body_pose", 23)
            bodies.frames.append(int(picture.take("time")))
            bodies.pose.append(np.concatenate([turn, joints]).reshape(N_POSE))
            bodies.betas.append(body.take("betas", N_BETAS))
            bodies.trans.append(body.take("camera", 3))
            size = _size(body.take("size", 2)[::-1] / 2)
    camera = pinhole(FOCAL / CROP * max(size), size)
    for person, bodies in people.items():
        if not bodies.frames:
            continue
        order = np.argsort(bodies.frames, kind="stable")  # a track's first ones come later
        yield Estimate(
            "PHALP",
            person,
            np.array(bodies.frames, np.int64)[order],
            np.stack(bodies.pose)[order],
            np.stack(bodies.betas)[order],
            np.stack(bodies.trans)[order],
            camera,
            size,
            dropped=dict(bodies.dropped),
        )


_Reader = Callable[[_Entry], Iterator[Estimate]]
_READERS: Final[tuple[tuple[str, _Reader], ...]] = (
    ("smpl_params_incam K_fullimg", _gvhmr),
    ("pose trans trans_world frame_ids", _wham),
    ("pred_rotmat pred_shape pred_trans frame", _tram),
    ("people camera camera_world", _prompthmr),
    ("pose pred_cam bboxes frame_ids", _vibe),
    ("tid smpl camera tracked_time", _phalp),
)
