"""BEDLAM and BEDLAM2: rendered people whose bodies and cameras are known.  [raw -> tracks] -> features -> windows

Black et al.: BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike Animated Motion, CVPR 2023.

    all_npz_12_smpl_training/<scene>.npz      SMPL: a row is one person in one picture; in training_labels/ or not
    all_npz_12_training/<scene>.npz           SMPL-X; <scene> ends in _6fps or _30fps
    <scene>/png/seq_<6 digits>/seq_<6 digits>_<4 digits>.png       in training_images/ or not; without _6fps or with it
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.accounting import VideoAccount
from pipeline.cameras import is_rigid
from pipeline.datasets.base import EXTRINSICS, UP, Dataset, Origin, ReleasePart, finite_joints, smpl_labels
from pipeline.datasets.pixels import other_frames, require_size
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_npz, numbers, state_of
from pipeline.files.pixels.frames import Pictures
from pipeline.files.pixels.sources import TurnedPictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.listing import listed
from pipeline.skeletons import JOINTS, LARGEST, convert
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

AGAIN: Final = "Unpack the labels again."
KEYS: Final = ("imgname", "sub", "center", "scale", "pose_cam", "shape", "trans_cam", "cam_int", "cam_ext", "gtkps")
N_POSE, N_POSE_X, N_BETAS = 72, 165, 10
UNRELEASED: Final = (  # BEDLAM2's labels have 68 scenes, its release 66: github.com/pixelite1201/BEDLAM/issues/69
    "20240805_5-10_250_busstation_orbit_zoom",
    "20240621_1_250_archmodelsvol8_tracking",
)
STILL: Final = 1e-4  # m, and entries of a rotation: what a camera that stands may differ by
LABELS: Final = tuple(  # folders of a raw folder, SMPL's first
    f"{folder}{name}"
    for name in ("all_npz_12_smpl_training", "all_npz_12_training")
    for folder in ("", "training_labels/")
)
FPS: Final = 30.0  # of the rendered videos: pictures are counted in these frames, also where every fifth was kept
STEP: Final = 5  # between the pictures of a file at 6 fps
CROP_SCALE: Final = 1.2  # the release's boxes have it in them: center and 200 * scale are those of the crop
WORLD_UP: Final = np.array([0, -1, 0], np.float32)  # the world's axes are the camera's without its roll and pitch
INTRINSICS: Final = cache.ExtraColumn(  # not mirrored: px of the picture as it is, like boxes and a track's intrinsics
    name="intrinsics", about="camera matrix of the row, where the camera zooms", unit="px", shape=(3, 3)
)
SMPLX: Final = "SMPL-X bodies: their pose, shape and translation are no SMPL's, so the rows have no body"


@dataclass(frozen=True)
class Bedlam(Dataset):
    """A video is a sequence of a scene, a track one of its subjects. The body is neutral, in spite of `gender`."""

    name: ClassVar[str] = "bedlam"
    splits: ClassVar[tuple[str, ...]] = ("train",)
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://bedlam.is.tue.mpg.de"
    uses_body: ClassVar[bool] = True
    recording: ClassVar[str] = "sequence"
    people: ClassVar[str] = "bedlam"  # also of its successor, which has some of its bodies
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        ReleasePart("label files", tuple(f"{f}/<scene>.npz" for f in LABELS), "all_npz_12_smpl_training.zip"),
        ReleasePart(
            "sequences' pictures",
            ("<scene>/png/seq_<000000>/", "training_images/<scene>/png/seq_<000000>/"),
            "<scene>_png.tar",
        ),
    )
    optional_extra: ClassVar[tuple[str, ...]] = (EXTRINSICS.name, UP.name, INTRINSICS.name)
    turned: ClassVar[str] = "closeup"  # in the name of scenes whose pictures are stored on their side
    joints: ClassVar[tuple[str, ...]] = JOINTS["smpl"][:22]  # with which gtkps begins: shared by SMPL and SMPL-X

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "pose", "betas", "trans", "has_smpl")
        return (*labels, "kp_3d", "has_3d") if body else labels

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        return EXTRINSICS, UP, INTRINSICS

    def origin(self, video: str) -> Origin:
        """The sequence, under one name at both rates. Bodies are not in its name.

        >>> Bedlam().origin("20221010_3_1000_batch01hand_6fps/seq_000000")
        Origin(subject=None, recording='20221010_3_1000_batch01hand/seq_000000')
        """
        scene, _, sequence = video.partition("/")
        return Origin(recording=f"{without_rate(scene)}/{sequence}")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        videos: list[RawVideo] = []
        for scene, file in label_files(raw).items():
            if split_of(scene) != split:
                continue
            pictures = pictures_of(raw, scene)
            names = sequences_in(raw / pictures) or ["seq_000000"]  # rejected where there are no pictures
            first, *more = (RawVideo(f"{scene}/{name}", (file,), (pictures / name,)) for name in names)
            videos += [replace(first, label_folders=(pictures,)), *more]  # it counts what no folder is there for
        return sorted(videos, key=lambda video: video.name)

    def read(self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None) -> Sequence[Track]:
        (scene, sequence), file = video.name.split("/"), raw / video.files[0]
        stored = load_scene(file, len(self.joints))
        rows = np.flatnonzero(stored["sequence"] == sequence)
        labels = {key: values[rows] for key, values in stored.items()}
        account.found = len(rows)
        for folder in video.label_folders:  # of the scene's first sequence: the rows that no video would count
            absent = stored["sequence"][~np.isin(stored["sequence"], [sequence, *sequences_in(raw / folder)])]
            account.found += len(absent)
            account.drop("no_picture", len(absent))
            if names := np.unique(absent).tolist():
                account.notes.append(f"{len(absent)} rows are of sequences without a folder: {', '.join(names[:9])}")
        kind = TurnedPictures if self.turned in scene else Pictures
        pictures = kind(raw, f"{video.folders[0].as_posix()}/{sequence}_{{:04d}}.png")
        if not len(rows):
            account.notes.append("there are pictures, but no row of the labels is of this sequence")
            return []
        if scene.endswith("_6fps") and (off := labels["number"] % STEP).any():
            expected = f"pictures at 6 fps, so multiples of {STEP} of the frames at 30 fps"
            raise other_frames(file, expected, f"picture {labels['number'][off.argmax()]}", AGAIN)
        there = pictures.indices()
        require_size(pictures, pictures.size(), file, "Unpack the pictures as they are.", labels["cam_int"][0])
        if labels["pose_cam"].shape[1] != N_POSE:
            account.notes.append(SMPLX)
        still = camera_stands(labels) and "orbit" not in scene
        if not still:
            account.notes.append("the camera moves, and the labels' world with it: no extrinsics, no up")
        labels["no_picture"] = ~np.isin(labels["number"], there)
        persons = [np.flatnonzero(labels["sub"] == sub) for sub in np.unique(labels["sub"])]
        tracks = (self._track(split, video, {k: v[p] for k, v in labels.items()}, account) for p in persons)
        return [
            self.track(split, video, person, frames=pictures, **_fields(kept, body, still=still, joints=self.joints))
            for person, kept in filter(None, tracks)
        ]

    def _track(
        self, split: str, video: RawVideo, labels: Mapping[str, NDArray[Any]], account: VideoAccount
    ) -> tuple[str, dict[str, NDArray[Any]]] | None:
        """A subject's rows that are kept, in the order of time; None where there is none."""
        order = np.argsort(labels["number"], kind="stable")
        rows = {key: values[order] for key, values in labels.items()}
        n_rows, number = len(order), rows["number"]
        floats = ["center", "scale", "pose_cam", "trans_cam", "cam_int"]
        floats += ["shape"] if rows["pose_cam"].shape[1] == N_POSE else []
        stated = np.concatenate([rows[key].reshape(n_rows, -1) for key in floats], axis=1)
        kp_2d = finite_joints(rows["gtkps"], account)
        twice = np.isin(number, number[1:][np.diff(number) == 0])  # which of them it is, nothing says
        kept = account.keep_rows(
            {
                "duplicate_person": twice,
                "no_picture": rows["no_picture"],
                "label_not_finite": ~(np.abs(stated) < LARGEST).all(axis=1),  # comparisons with NaN are false
                "degenerate_box": ~(rows["scale"] * 200 >= 1),
                "bad_camera": ~is_rigid(rows["cam_ext"]),
                "no_visible_joint": ~(kp_2d[..., 2] > 0).any(axis=1),
            }
        )
        rows["gtkps"] = kp_2d
        return (str(rows["sub"][0]), {key: values[kept] for key, values in rows.items()}) if len(kept) else None


@dataclass(frozen=True)
class Bedlam2(Bedlam):
    """Its successor: other scenes are on their side, and `gtkps` begins with OpenPose's 25 joints."""

    name: ClassVar[str] = "bedlam2"
    splits: ClassVar[tuple[str, ...]] = ("train", "unreleased")
    page: ClassVar[str] = "https://bedlam2.is.tue.mpg.de"
    turned: ClassVar[str] = "portrait"
    joints: ClassVar[tuple[str, ...]] = JOINTS["body_25"]


def _fields(
    rows: Mapping[str, NDArray[Any]], body: Body | None, *, still: bool, joints: tuple[str, ...]
) -> dict[str, Any]:
    """Fields of a track, of its kept rows."""
    n_rows, camera, intrinsics = len(rows["number"]), rows["cam_ext"], rows["cam_int"].astype(np.float32)
    side = rows["scale"][:, None] * 200 / CROP_SCALE
    kp_2d = rows["gtkps"].copy()
    kp_2d[..., 2] = kp_2d[..., 2] > 0
    extra: dict[str, Any] = {}
    if still:
        extra |= {"extrinsics": camera.astype(np.float32), "up": WORLD_UP}
    zooms = bool((intrinsics != intrinsics[0]).any())
    if zooms:
        extra["intrinsics"] = intrinsics
    if rows["pose_cam"].shape[1] == N_POSE:
        trans = rows["trans_cam"] + camera[:, :3, 3]  # cam_ext is of this person: its world begins at the body
        smpl = smpl_labels(rows["pose_cam"], rows["shape"], trans, np.eye(4), body, evaluation=False)
        smpl["trans"] = trans.astype(np.float32)
    else:
        widths = {"pose": N_POSE, "betas": N_BETAS, "trans": 3}
        smpl = {name: np.zeros((n_rows, width), np.float32) for name, width in widths.items()}
        smpl["has_smpl"] = np.zeros(n_rows, np.bool_)
        if body is not None:
            smpl |= {"kp_3d": np.zeros((n_rows, 49, 4), np.float32), "has_3d": np.zeros(n_rows, np.bool_)}
    return {
        "fps": FPS,
        "frame_index": rows["number"],
        "bbox": np.column_stack([rows["center"], side, side]).astype(np.float32),
        "kp_2d": convert(kp_2d, source=joints, target="spin49").astype(np.float32),
        "crop_scale": CROP_SCALE,
        "intrinsics": None if zooms else intrinsics[0],
        "extra": extra,
        **smpl,
    }


# -------------------------------------------------------------------------------------- scenes in a raw folder


def label_files(raw: Path) -> dict[str, Path]:
    """Scene -> its file below `raw`, SMPL's where there are both. Raises RawDataError where there is none."""
    files: dict[str, Path] = {}
    for folder in LABELS:
        for file in sorted((raw / folder).glob("[!.]*.npz")):
            files.setdefault(file.stem, file.relative_to(raw))
    if not files:
        expected = " or ".join(f"{folder}/<scene>_6fps.npz" for folder in LABELS[::2])
        raise RawDataError(raw, "folder", expected=expected, found="none", do="Unpack the labels.")
    return files


def pictures_of(raw: Path, scene: str) -> Path:
    """The folder of a scene's sequences, below `raw`; the usual one where there is none."""
    names = (scene, without_rate(scene))
    folders = [Path(folder, name, "png") for name in names for folder in ("", "training_images")]
    return next((folder for folder in folders if (raw / folder).is_dir()), folders[0])


def without_rate(scene: str) -> str:
    """A scene's name without `_6fps` or `_30fps`.

    >>> without_rate("20221010_3_1000_batch01hand_6fps")
    '20221010_3_1000_batch01hand'
    """
    return re.sub(r"_[0-9]+fps$", "", scene)


def split_of(scene: str) -> str:
    """What was not released is no one's training: whom it shows may be of a test that is kept back."""
    return "unreleased" if without_rate(scene) in UNRELEASED else "train"


def sequences_in(pictures: Path) -> list[str]:
    """Names of the sequences that have a folder of pictures there."""
    return sorted(entry.name for entry in listed(pictures, {}) if re.fullmatch("seq_[0-9]{6}", entry.name))


def load_scene(file: Path, n_joints: int) -> dict[str, NDArray[Any]]:
    """The used arrays of a scene, N rows, with `sequence` and `number` of the picture for `imgname`.

    Read once for all sequences of the scene. Raises RawDataError, also for pickled objects, which are not read.
    """
    return _cached(file, n_joints, state_of(file))


@functools.lru_cache(maxsize=1)
def _cached(file: Path, n_joints: int, state: tuple[int, int]) -> dict[str, NDArray[Any]]:  # noqa: ARG001
    stored = load_npz(file, KEYS)

    def array(key: str, *shape: int | None) -> NDArray[np.float64]:
        return numbers(file, key, stored[key], shape, do=AGAIN)

    def texts(key: str, pattern: str, expected: str) -> list[re.Match[str]]:
        values = stored[key]
        found = [re.fullmatch(pattern, str(v)) for v in values] if values.dtype.kind == "U" and values.ndim == 1 else []
        if len(found) != n or not all(found):
            bad = str(values[found.index(None)]) if None in found else f"{values.shape} {values.dtype}"
            raise RawDataError(file, key, expected=f"{n} texts like {expected}", found=bad, do=AGAIN)
        return [match for match in found if match]

    pose = array("pose_cam", None, None)
    n = len(pose)
    if pose.shape[1] not in (N_POSE, N_POSE_X):
        expected = f"{N_POSE} numbers a row (SMPL) or {N_POSE_X} (SMPL-X)"
        raise RawDataError(file, "pose_cam", expected=expected, found=str(pose.shape[1]), do=AGAIN)
    names = texts("imgname", r"(seq_[0-9]{6})/\1_([0-9]{4})\.png", "seq_000000/seq_000000_0125.png")
    keypoints = array("gtkps", n, None, 3)
    if keypoints.shape[1] < n_joints:
        found = str(keypoints.shape[1])
        raise RawDataError(file, "gtkps", expected=f"at least {n_joints} joints", found=found, do=AGAIN)
    return {
        "sequence": np.array([name[1] for name in names], str),
        "number": np.array([int(name[2]) for name in names], np.int64),
        "sub": np.array([match[0] for match in texts("sub", r"[\w.-]+", "rp_emma_posed_008")], str),
        "center": array("center", n, 2),
        "scale": array("scale", n),
        "pose_cam": pose,
        "shape": array("shape", n, N_BETAS if pose.shape[1] == N_POSE else None),
        "trans_cam": array("trans_cam", n, 3),
        "cam_int": array("cam_int", n, 3, 3),
        "cam_ext": array("cam_ext", n, 4, 4),
        "gtkps": keypoints[:, :n_joints].copy(),
    }


def camera_stands(labels: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the camera is seen to stand: some person is in two pictures, and each has one `cam_ext` in all."""
    subs, first, person = np.unique(labels["sub"], return_index=True, return_inverse=True)
    camera = labels["cam_ext"]
    return len(subs) < len(person) and np.allclose(camera, camera[first][person], rtol=0, atol=STILL)
