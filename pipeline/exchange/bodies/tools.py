"""Results of GVHMR, WHAM, PHALP / 4D-Humans, VIBE and TCMR in one form, known by their keys.

Nothing here was tried on a real result: keys, units and frames are those of the tools' sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import RawDataError
from pipeline.exchange.bodies.files import AGAIN, EXPECTED, load_results
from pipeline.files.formats.arrays import numbers
from pipeline.skeletons import Doubles, Ints

N_POSE: Final = 72
N_SMPLX: Final = 66  # numbers of SMPL-X's pelvis to wrists
N_BETAS: Final = 10
CROP: Final = 256  # px, of PHALP's crops
FOCAL: Final = 5000.0  # px, of HMR's crops
LARGER_CROP: Final = 1.1  # VIBE's crop side / side of the boxes that it writes
READ: Final = "GVHMR's, WHAM's, PHALP's, VIBE's and TCMR's are read (docs/results.md)."


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One person in N frames of a clip, as a tool estimated it."""

    tool: str
    person: str
    frames: Ints  # (N,) from 0, ascending, in the pictures that the tool saw
    pose: Doubles  # (N, 72) of SMPL, (N, 66) of SMPL-X; axis-angle in rad, in the camera
    betas: Doubles  # (N, 10)
    trans: Doubles | None = None  # (N, 3) m in the camera; None: only `crop_camera`
    # (3, 3) px; None: f is the image's diagonal, and the centre the image's
    intrinsics: Doubles | None = None
    size: tuple[int, int] | None = None  # width, height px of the pictures that the tool saw
    boxes: Doubles | None = None  # (N, 4) cx cy w h px
    crop_camera: Doubles | None = None  # (N, 3) s tx ty of a weak-perspective camera in the crop
    dropped: Mapping[str, int] = field(default_factory=dict)  # reason -> frames

    @property
    def is_smplx(self) -> bool:
        return bool(self.pose.shape[1] == N_SMPLX)

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
        camera = self.camera(size)
        away = 2 * camera[0, 0] / (scale * self.boxes[:, 2] * margin)  # m
        aside = (self.boxes[:, :2] - camera[:2, 2]) * (away / camera[0, 0])[:, None]
        return np.column_stack([x + aside[:, 0], y + aside[:, 1], away])


def pinhole(focal: float, size: tuple[int, int]) -> Doubles:
    """(3, 3) px, with the centre in the middle of the image."""
    width, height = size
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def read_estimates(file: Path) -> list[Estimate]:
    """The people in a result file, whatever its name. Raises RawDataError and UnsafePickle."""
    content = load_results(file)
    if not isinstance(content, dict) or not content:
        raise _error(file, "file", "a dict of results", type(content).__name__, READ)
    keys = _keys_of(content)
    for needed, reader in _READERS:
        if needed <= keys:
            people = reader(file, content)
            if not people:
                raise _error(file, "file", "people", "none")
            return people
    for needed, owner in _NOT_READ:
        if needed <= keys:
            raise _error(file, "file", EXPECTED, f"{owner}: not read", READ)
    listed = ", ".join(sorted(map(str, keys))[:12])
    raise _error(file, "file", EXPECTED, f"a dict with {listed}", READ)


def clip_of(file: Path, tool: str) -> str:
    """The clip's name without its ending: the folder's, or for PHALP the file's.

    >>> clip_of(Path("outputs/results/demo_walk.pkl"), "PHALP")
    'walk'
    """
    if tool == "PHALP":
        return file.name.partition(".")[0].removeprefix("demo_")
    return file.absolute().parent.name


def _keys_of(content: Mapping[Any, Any]) -> frozenset[Any]:
    """Keys of the top, else of the first person or frame below it."""
    first = next(iter(content.values()))
    texts = frozenset(key for key in content if isinstance(key, str))
    return texts | frozenset(first) if isinstance(first, dict) else texts


def _error(file: Path, key: str, expected: str, found: str, do: str = AGAIN) -> RawDataError:
    return RawDataError(file, key, expected, found, do)


def _read(file: Path, key: str, values: object, *shape: int | None) -> Doubles:
    """Finite numbers of a shape."""
    read = numbers(file, key, values, shape, do=AGAIN)
    if not np.isfinite(read).all():
        raise _error(file, key, "finite numbers", "NaN or infinity")
    return read


def _frames(file: Path, key: str, values: object) -> Ints:
    frames = _read(file, key, values, None).astype(np.int64)
    if (frames < 0).any() or (np.diff(frames) < 0).any():
        raise _error(file, key, "frames from 0, ascending", str(frames[:8].tolist()))
    return frames


def _without_repeats(frames: Ints) -> tuple[Ints, dict[str, int]]:
    """Rows of the first of equal frames, and how many are left out."""
    rows = np.unique(frames, return_index=True)[1]
    n_repeated = len(frames) - len(rows)
    return rows, {"repeated_frame": n_repeated} if n_repeated else {}


def _vector(file: Path, key: str, rotations: object) -> Doubles:
    """(24, 3, 3) -> (72,) rad."""
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    turns = Rotation.from_matrix(_read(file, key, rotations, 24, 3, 3))
    return np.asarray(turns.as_rotvec().reshape(-1))


def _gvhmr(file: Path, content: Mapping[Any, Any]) -> list[Estimate]:
    """One person in all frames; SMPL-X, whose hands are at their mean."""
    body = content["smpl_params_incam"]
    turn = _read(file, "smpl_params_incam.global_orient", body.get("global_orient"), None, 3)
    n = len(turn)
    joints = _read(file, "smpl_params_incam.body_pose", body.get("body_pose"), n, 63)
    cameras = _read(file, "K_fullimg", content.get("K_fullimg"), n, 3, 3)
    size = tuple(np.rint(2 * cameras[0, :2, 2]).astype(int).tolist())
    return [
        Estimate(
            "GVHMR",
            "0",
            np.arange(n),
            np.hstack([turn, joints]),
            _read(file, "smpl_params_incam.betas", body.get("betas"), n, N_BETAS),
            _read(file, "smpl_params_incam.transl", body.get("transl"), n, 3),
            cameras[0],
            (size[0], size[1]),
        )
    ]


def _wham(file: Path, content: Mapping[Any, Any]) -> list[Estimate]:
    """`trans` is SMPL's translation; `trans_world` is the mid-hip's place and is not taken."""
    people = []
    for person, entry in content.items():
        frames = _frames(file, f"{person}.frame_ids", entry.get("frame_ids"))
        n = len(frames)
        pose = _read(file, f"{person}.pose", entry.get("pose"), n, N_POSE)
        betas = _read(file, f"{person}.betas", entry.get("betas"), n, N_BETAS)
        trans = _read(file, f"{person}.trans", entry.get("trans"), n, 3)
        rows, dropped = _without_repeats(frames)
        people.append(
            Estimate(
                "WHAM",
                str(person),
                frames[rows],
                pose[rows],
                betas[rows],
                trans[rows],
                dropped=dropped,
            )
        )
    return people


def _vibe(file: Path, content: Mapping[Any, Any]) -> list[Estimate]:
    """Also TCMR's, whose keys are the same. `orig_cam` is not taken: VIBE's is of a smaller box."""
    people = []
    for person, entry in content.items():
        frames = _frames(file, f"{person}.frame_ids", entry.get("frame_ids"))
        n = len(frames)
        pose = _read(file, f"{person}.pose", entry.get("pose"), n, N_POSE)
        betas = _read(file, f"{person}.betas", entry.get("betas"), n, N_BETAS)
        boxes = _read(file, f"{person}.bboxes", entry.get("bboxes"), n, 4)
        camera = _read(file, f"{person}.pred_cam", entry.get("pred_cam"), n, 3)
        rows, dropped = _without_repeats(frames)  # ffmpeg's, of a variable rate
        people.append(
            Estimate(
                "VIBE or TCMR",
                str(person),
                frames[rows],
                pose[rows],
                betas[rows],
                boxes=boxes[rows],
                crop_camera=camera[rows],
                dropped=dropped,
            )
        )
    return people


@dataclass(slots=True)
class _Rows:
    """A person's frames, while pictures are read."""

    frames: list[int] = field(default_factory=list)
    pose: list[Doubles] = field(default_factory=list)
    betas: list[Doubles] = field(default_factory=list)
    trans: list[Doubles] = field(default_factory=list)
    boxes: list[Doubles] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def _phalp(file: Path, content: Mapping[Any, Any]) -> list[Estimate]:
    """Pictures by path. People who were not seen in one repeat their last body there: ghosts."""
    people: dict[str, _Rows] = {}
    size = (0, 0)
    for name, picture in content.items():
        # `tracked_ids` is shorter than the other lists
        for k, person in enumerate(picture.get("tid", ())):
            rows = people.setdefault(str(person), _Rows())
            key = f"{name}.smpl[{k}]"
            if int(picture["tracked_time"][k]) != 0:
                rows.dropped["ghost"] += 1
                continue
            body = picture["smpl"][k]
            turn = _read(file, key, body["global_orient"], 1, 3, 3)
            joints = _read(file, key, body["body_pose"], 23, 3, 3)
            x, y, width, height = _read(file, f"{name}.bbox[{k}]", picture["bbox"][k], 4)
            rows.frames.append(int(picture["time"]))
            rows.pose.append(_vector(file, key, np.concatenate([turn, joints])))
            rows.betas.append(_read(file, key, body["betas"], N_BETAS))
            rows.trans.append(_read(file, f"{name}.camera[{k}]", picture["camera"][k], 3))
            rows.boxes.append(np.array([x + width / 2, y + height / 2, width, height]))
            high, wide = picture["size"][k]
            size = (int(wide), int(high))
    focal = FOCAL / CROP * max(size)
    return [_of_phalp(person, rows, focal, size) for person, rows in people.items() if rows.frames]


def _of_phalp(person: str, rows: _Rows, focal: float, size: tuple[int, int]) -> Estimate:
    order = np.argsort(rows.frames, kind="stable")  # a track's first frames are appended later
    return Estimate(
        "PHALP",
        person,
        np.array(rows.frames, np.int64)[order],
        np.stack(rows.pose)[order],
        np.stack(rows.betas)[order],
        np.stack(rows.trans)[order],
        pinhole(focal, size),
        size,
        np.stack(rows.boxes)[order],
        dropped=dict(rows.dropped),
    )


_Reader = Callable[[Path, Mapping[Any, Any]], list[Estimate]]
_READERS: Final[tuple[tuple[frozenset[str], _Reader], ...]] = (
    (frozenset({"smpl_params_incam", "K_fullimg"}), _gvhmr),
    (frozenset({"pose", "trans", "trans_world", "frame_ids"}), _wham),
    (frozenset({"pose", "pred_cam", "bboxes", "frame_ids"}), _vibe),
    (frozenset({"tid", "smpl", "camera", "tracked_time"}), _phalp),
)
_NOT_READ: Final = (
    (frozenset({"people", "camera_world"}), "PromptHMR's results"),
    (frozenset({"pred_rotmat", "pred_trans"}), "TRAM's results"),
    (frozenset({"body_params_incam"}), "GEM-X's results, of SOMA's body"),
    (frozenset({"mhr_model_params"}), "SAM 3D Body's results, of MHR's body"),
    (frozenset({"root_pos", "root_rot", "dof_pos"}), "a robot's motion (GMR)"),
    (frozenset({"pose_aa", "root_trans_offset"}), "a motion for PHC"),
    (frozenset({"poses_body", "frame_id"}), "results of wham_api.py, without trans"),
    (frozenset({"smpl_poses", "smpl_scaling"}), "a motion of AIST++"),
)
