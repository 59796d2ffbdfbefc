"""Read result files of body estimators as `BodyEstimate`.  [files of other programs] -> tracks

`read_estimates` loads a file as plain dicts; its keys tell which tool wrote it, and so which of the
readers below makes the record. A reader takes entries by `_ResultDict`, which checks them.

Keys, units and coordinate frames are taken from the tools' source code. docs/results.md says which
tools' real results were tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.cli import pages
from pipeline.clips.labels import sam_3d_body
from pipeline.errors import RawDataError
from pipeline.extras.exchange.bodies.estimate import N_BODY, BodyEstimate, pinhole
from pipeline.extras.exchange.bodies.people_in_frames import read_estimate
from pipeline.extras.exchange.pickled_arrays import RESULTS, RESULTS_AGAIN, load_results
from pipeline.files.formats.arrays import numbers, reading
from pipeline.files.formats.names import shown_names
from pipeline.files.formats.other_formats import owner_of
from pipeline.people.cameras import is_rotation, rigid
from pipeline.people.skeletons import Doubles, Ints
from pipeline.people.smpl_files import N_BETAS, N_POSE

CROP: Final = 256  # px, of PHALP's crops
FOCAL: Final = 5000.0  # px, of HMR's crops
_READ: Final = (
    "GVHMR's, WHAM's, TRAM's, PHALP's, PromptHMR's, VIBE's, TCMR's and SAM 3D Body's are read "
    f"({pages.RESULTS})."
)


def read_estimates(file: Path) -> Iterator[BodyEstimate]:
    """The people in a result file, whatever its name, one at a time. Raises RawDataError and
    UnsafePickle.
    """
    with reading(file, RESULTS, do=RESULTS_AGAIN):
        is_of_sam = sam_3d_body.is_of_tool(file)
    if is_of_sam:
        yield read_estimate([file])
        return
    content = load_results(file)
    keys = _keys_of(content)
    for needed, reader in _READERS:
        if keys.issuperset(needed):
            with reading(file, RESULTS, do=RESULTS_AGAIN):
                for estimate in reader(_ResultDict(file, "", content)):
                    # ffmpeg repeats frames of a variable rate
                    _, first = np.unique(estimate.frames, return_index=True)
                    yield estimate.only(first, "repeated frame")
            return
    owner = owner_of(keys)
    if not owner:
        named = shown_names(keys) if keys else "no keys"
        owner = f"{type(content).__name__} with {named}"
        for needed, _ in _READERS:
            absent = {*needed} - keys
            if len(absent) == 1:
                owner += f", without {absent.pop()!r}"
    raise RawDataError(file, "file", RESULTS, owner, _READ)


def _keys_of(content: object) -> frozenset[str]:
    """Keys of the top, and of the first person or frame below it, by which `_READERS` are chosen.

    Only texts count: WHAM's `{1: {"pose": ..., "trans": ...}}` has "pose" and "trans". The top or
    the level below it may also be a list.
    """
    keys: set[str] = set()
    for _ in range(2):
        if isinstance(content, dict):
            keys |= {key for key in content if isinstance(key, str)}
            content = list(content.values())
        if isinstance(content, list) and content:
            content = content[0]
    return frozenset(keys)


@dataclass(frozen=True, slots=True)
class _ResultDict:
    """A dict in a result file; `path` leads to its keys, for messages."""

    file: Path
    path: str
    content: Any

    def __post_init__(self) -> None:
        if not isinstance(self.content, dict):
            raise self.error("", "a dict", type(self.content).__name__)

    def error(self, key: str, expected: str, found: str) -> RawDataError:
        key = (self.path + key).strip(".") or "file"
        return RawDataError(self.file, key, expected, found, RESULTS_AGAIN)

    def below(self, key: object) -> _ResultDict:
        """The dict below a key. Raises RawDataError if there is none."""
        return _ResultDict(self.file, f"{self.path}{key}.", self.content.get(key))

    def people(self) -> Iterator[tuple[str, _ResultDict]]:
        """Yield each key with the dict below it."""
        for person in self.content:
            yield str(person), self.below(person)

    def take(self, key: str, *shape: int | None) -> Doubles:
        """Read finite numbers of this shape. Raises RawDataError for others."""
        read = numbers(self.file, self.path + key, self.content.get(key), shape, do=RESULTS_AGAIN)
        if not np.isfinite(read).all():
            raise self.error(key, "finite numbers", "NaN or infinity")
        return read

    def frames(self, key: str) -> Ints:
        """Read frame numbers. Raises RawDataError unless they are whole and ascend from 0."""
        stored = self.take(key, None)
        frames = stored.astype(np.int64)
        is_wrong = (frames != stored) | (frames < 0)
        if is_wrong.any() or (np.diff(frames) < 0).any():
            first = int(is_wrong.argmax())
            actual = str(stored[first : first + 8].tolist())
            raise self.error(key, "whole frame numbers from 0, ascending", actual)
        return frames

    def rotations(self, key: str, *shape: int) -> Doubles:
        """Rotations (..., 3, 3); of one axis if no shape is given."""
        matrices = self.take(key, *(shape or [None]), 3, 3)
        if not is_rotation(matrices.reshape(-1, 3, 3)).all():
            raise self.error(key, "rotations", "other matrices")
        return matrices

    def rotation_vectors(self, key: str, *shape: int) -> Doubles:
        """Read rotations (..., 3, 3) as axis-angle, (..., 3) rad."""
        from scipy.spatial.transform import Rotation  # takes 0.4 s

        matrices = self.rotations(key, *shape)
        rotvec = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec()
        return np.asarray(rotvec.reshape(matrices.shape[:-1]))

    def select_frames(self, values: Doubles, frames: Ints, key: str) -> Doubles:
        """The rows of a person's frames in values with a row for each image. key: for errors."""
        if len(frames) and frames[-1] >= len(values):
            raise self.error(key, f"one for each of {frames[-1] + 1} frames", str(len(values)))
        return values[frames]


def _gvhmr(content: _ResultDict) -> Iterator[BodyEstimate]:
    """GVHMR's result: one person in all frames, as SMPL-X with hands at their mean."""
    body = content.below("smpl_params_incam")
    root = body.take("global_orient", None, 3)
    n = len(root)
    cameras = content.take("K_fullimg", n, 3, 3)
    if (cameras != cameras[:1]).any():
        raise content.error("K_fullimg", "one camera for all frames", "several")
    intrinsics = cameras[0]
    world = content.below("smpl_params_global")
    yield BodyEstimate(
        tool="GVHMR",
        person="0",
        frames=np.arange(n),
        pose=np.hstack([root, body.take("body_pose", n, N_BODY - 3)]),
        betas=body.take("betas", n, N_BETAS),
        trans=body.take("transl", n, 3),
        intrinsics=intrinsics,
        size=_size_around(intrinsics[:2, 2]),
        world_root=world.take("global_orient", n, 3),
        world_place=world.take("transl", n, 3),
    )


def _size_around(center: Doubles) -> tuple[int, int]:
    """Width and height px of pictures with this center."""
    width, height = np.rint(2 * center).astype(int).tolist()
    return width, height


def _image_and_camera(stored: _ResultDict) -> tuple[tuple[int, int], Doubles]:
    """Width and height px of the images, and the intrinsics, of TRAM's and PromptHMR's cameras."""
    size = _size_around(stored.take("img_center", 2))
    return size, pinhole(float(stored.take("img_focal")), size)


def _posed_people(tool: str, content: _ResultDict) -> Iterator[tuple[_ResultDict, BodyEstimate]]:
    """Yield each person's entry, with its frames, poses and betas."""
    for person, entry in content.people():
        frames = entry.frames("frame_ids")
        n = len(frames)
        yield (
            entry,
            BodyEstimate(
                tool=tool,
                person=person,
                frames=frames,
                pose=entry.take("pose", n, N_POSE),
                betas=entry.take("betas", n, N_BETAS),
            ),
        )


def _wham(content: _ResultDict) -> Iterator[BodyEstimate]:
    """WHAM's result. `trans` is SMPL's translation, `trans_world` the position of the mid-hip."""
    for entry, estimate in _posed_people("WHAM", content):
        n = len(estimate.frames)
        yield replace(
            estimate,
            trans=entry.take("trans", n, 3),
            world_root=entry.take("pose_world", n, N_POSE)[:, :3],
            world_place=entry.take("trans_world", n, 3),
            is_place_of_hips=True,
        )


def _tram(content: _ResultDict) -> Iterator[BodyEstimate]:
    """TRAM's result: one person. The camera, shared by all people, is in another file."""
    frames = content.frames("frame")
    n = len(frames)
    camera_file = content.file.absolute().parent.parent / "camera.npy"
    stored = _ResultDict(camera_file, "", load_results(camera_file))
    size, intrinsics = _image_and_camera(stored)
    extrinsics = None
    if "world_cam_R" in stored.content:
        to_world = stored.rotations("world_cam_R")
        rotation = np.swapaxes(to_world, -1, -2)
        shift = -np.einsum("nij,nj->ni", rotation, stored.take("world_cam_T", len(rotation), 3))
        extrinsics = stored.select_frames(rigid(rotation, shift), frames, "world_cam_R")
    person = content.file.stem.rpartition("_")[2]
    yield BodyEstimate(
        tool="TRAM",
        person=person,
        frames=frames,
        pose=content.rotation_vectors("pred_rotmat", n, 24).reshape(n, N_POSE),
        betas=content.take("pred_shape", n, N_BETAS),
        trans=content.take("pred_trans", n, 1, 3)[:, 0],
        intrinsics=intrinsics,
        size=size,
        extrinsics=extrinsics,
        camera_file=camera_file,
    )


def _prompthmr(content: _ResultDict) -> Iterator[BodyEstimate]:
    """PromptHMR's result: SMPL-X with hands, 55 joints and so 165 numbers of pose, in frames of
    images that the tool may have reduced.

    Two entries are not used: `smplx_world` is another body, and `Twc` is wrong after the tool's
    optimisation.
    """
    stored = content.below("camera")
    size, intrinsics = _image_and_camera(stored)
    world = content.below("camera_world")
    rotation = world.rotations("Rcw")
    extrinsics = rigid(rotation, world.take("Tcw", len(rotation), 3))
    for person, entry in content.below("people").people():
        frames = entry.frames("frames")
        n = len(frames)
        body = entry.below("smplx_cam")
        estimate = BodyEstimate(
            tool="PromptHMR",
            person=person,
            frames=frames,
            pose=body.rotation_vectors("rotmat", n, 55).reshape(n, 165),
            betas=body.take("shape", n, N_BETAS),
            trans=body.take("trans", n, 3),
            intrinsics=intrinsics,
            size=size,
            is_reduced=True,
            extrinsics=world.select_frames(extrinsics, frames, "Rcw"),
        )
        is_detected = entry.take("detected", n) > 0
        yield estimate.only(np.flatnonzero(is_detected), "not detected")


def _vibe(content: _ResultDict) -> Iterator[BodyEstimate]:
    """The result of VIBE or TCMR, whose keys are the same.

    `orig_cam` is not used, because VIBE computes it for a smaller box.
    """
    for entry, estimate in _posed_people("VIBE or TCMR", content):
        n = len(estimate.frames)
        yield replace(
            estimate,
            boxes=entry.take("bboxes", n, 4),
            crop_camera=entry.take("pred_cam", n, 3),
        )


@dataclass(slots=True)
class _PersonBodies:
    """A person's bodies, collected image by image."""

    frames: list[int] = field(default_factory=list)
    pose: list[Doubles] = field(default_factory=list)
    betas: list[Doubles] = field(default_factory=list)
    trans: list[Doubles] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, frame: int, body: _ResultDict) -> None:
        parts = body.rotation_vectors("global_orient", 1), body.rotation_vectors("body_pose", 23)
        self.frames.append(frame)
        self.pose.append(np.concatenate(parts).reshape(N_POSE))
        self.betas.append(body.take("betas", N_BETAS))
        self.trans.append(body.take("camera", 3))

    def estimate(self, person: str, size: tuple[int, int]) -> BodyEstimate:
        order = np.argsort(self.frames, kind="stable")  # a track's first frames come later
        return BodyEstimate(
            tool="PHALP",
            person=person,
            frames=np.array(self.frames, np.int64)[order],
            pose=np.stack(self.pose)[order],
            betas=np.stack(self.betas)[order],
            trans=np.stack(self.trans)[order],
            intrinsics=pinhole(FOCAL / CROP * max(size), size),
            size=size,
            dropped=dict(self.dropped),
        )


def _phalp(content: _ResultDict) -> Iterator[BodyEstimate]:
    """PHALP's result: a dict from an image's path to lists with an item for each of its people, in
    the same order: {"tid": [1, 2], "smpl": [{...}, {...}], "camera": [...], "tracked_time": [...]}.
    `tid` is the person's number, `tracked_time` the number of images since the person was seen.

    In images in which a person was not seen, the file repeats the last body ("ghosts").
    """
    people: dict[str, _PersonBodies] = {}
    size: tuple[int, int] | None = None
    for name in content.content:
        picture = content.below(name)
        lists = picture.content
        for k, person in enumerate(lists["tid"]):
            bodies = people.setdefault(str(person), _PersonBodies())
            if lists["tracked_time"][k] != 0:
                bodies.dropped["ghost"] += 1
                continue
            row = {**lists["smpl"][k], "camera": lists["camera"][k], "size": lists["size"][k]}
            row["time"] = [lists["time"]]
            body = _ResultDict(content.file, f"{name}[{k}].", row)
            bodies.add(int(body.frames("time")[0]), body)
            height, width = np.rint(body.take("size", 2)).astype(int).tolist()
            size = size or (width, height)
            if size != (width, height):
                raise body.error("size", f"{size[::-1]} as in other images", str((height, width)))
    for person, bodies in people.items():
        if size is not None and bodies.frames:
            yield bodies.estimate(person, size)


_Reader = Callable[[_ResultDict], Iterator[BodyEstimate]]
# (keys, reader): a file is read by the first reader whose keys it has
_READERS: Final[tuple[tuple[tuple[str, ...], _Reader], ...]] = (
    (("smpl_params_incam", "K_fullimg"), _gvhmr),
    (("pose", "trans", "trans_world", "frame_ids"), _wham),
    (("pred_rotmat", "pred_shape", "pred_trans", "frame"), _tram),
    (("people", "camera", "camera_world"), _prompthmr),
    (("pose", "pred_cam", "bboxes", "frame_ids"), _vibe),
    (("tid", "smpl", "camera", "tracked_time"), _phalp),
)
