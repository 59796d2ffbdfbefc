"""BEDLAM and BEDLAM2: rendered people with known bodies and cameras.  [raw -> tracks] -> features
-> windows

Black et al.: BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike Animated Motion,
CVPR 2023.

    all_npz_12_smpl_training/<scene>.npz      SMPL: a row is one person in one image; other folders:
    LABELS all_npz_12_training/<scene>.npz           SMPL-X; <scene> ends in _6fps or _30fps
    <scene>/png/seq_<6 digits>/seq_<6 digits>_<4 digits>.png       other folders: IMAGES; with or
    without _6fps
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import smplx
from pipeline.accounting import VideoAccount
from pipeline.cameras import is_rigid
from pipeline.datasets.base import (
    EXTRINSICS,
    UP,
    Dataset,
    Mistake,
    Origin,
    ReleasePart,
    finite_joints,
    smpl_labels,
)
from pipeline.datasets.pixels import other_frames, require_rate, require_size
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_npz, numbers, state_of
from pipeline.files.pixels.frames import Pictures
from pipeline.files.pixels.sources import TurnedPictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import scan_folder
from pipeline.skeletons import JOINTS, LARGEST, convert
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

AGAIN: Final = "Unpack the labels again."
OTHER_JOINTS: Final = "Use the labels of the official release: other joint orders are unknown."
KEYS: Final = (
    "imgname",
    "center",
    "scale",
    "pose_cam",
    "shape",
    "trans_cam",
    "cam_int",
    "cam_ext",
    "gtkps",
)
UNNAMED: Final = "shape_"  # prefix of subjects without a `sub`
N_POSE = 72
N_BETAS = 10
# BEDLAM2's labels have 68 scenes, its release 66: github.com/pixelite1201/BEDLAM/issues/69
UNRELEASED: Final = (
    "20240805_5-10_250_busstation_orbit_zoom",
    "20240621_1_250_archmodelsvol8_tracking",
)
STILL: Final = 1e-4  # tolerance of a static camera, m and entries of a rotation
# in `gtkps` -> used: SMPL's, SMPL's, SMPL-X's, OpenPose's
N_JOINTS: Final = {24: 22, 45: 22, 127: 22, 44: 25}


def _folders_of(*names: str) -> tuple[str, ...]:
    """Label folders in a raw folder: as unpacked by hand, and by the releases' scripts."""
    return tuple(
        f"{f}{name}"
        for name in names
        for f in ("", "training_labels/", "training-labels/", "bedlam_labels/")
    )


LABELS: Final = (  # SMPL's first
    *_folders_of("all_npz_12_smpl_training", "bedlam-labels"),
    "bedlam_labels",
    *_folders_of("all_npz_12_training"),
)
LABELS2: Final = _folders_of("all_npz_12_smpl_training", "bedlam_v2", "all_npz_12_training")
SKIPPED: Final = "bedlam-labels-v2-format"  # another layout of the same labels
IMAGES: Final = ("", "training_images", "training-images", "training-images/bedlam_v2")

FPS: Final = 30.0  # of the rendered videos; image numbers count these frames, also at 6 fps
STEP: Final = 5  # frames between the images of a file at 6 fps
CROP_SCALE: Final = 1.2  # included in the release's boxes: center and 200 * scale describe the crop
# the world has the camera's axes without roll and pitch
WORLD_UP: Final = np.array([0, -1, 0], np.float32)
INTRINSICS: Final = cache.ExtraColumn(  # not mirrored, like boxes and a track's intrinsics
    name="intrinsics",
    about="camera matrix of the row, if the camera zooms",
    unit="px",
    shape=(3, 3),
)
SHARED: Final = JOINTS["smpl"][:22]  # joints of SMPL and of SMPL-X
PICTURES: Final = ReleasePart(
    "sequences' images",
    tuple(str(Path(f, "<scene>/png/seq_<000000>")) + "/" for f in IMAGES),
    "<scene>_png.tar",
)
SMPLX: Final = (
    "SMPL-X bodies, whose parameters differ from SMPL's: in smplx_pose, smplx_betas and smplx_trans"
)


@dataclass(frozen=True)
class Bedlam(Dataset):
    """A video is a sequence of a scene, a track one of its subjects. The body is neutral despite
    `gender`.
    """

    name: ClassVar[str] = "bedlam"
    splits: ClassVar[tuple[str, ...]] = ("train",)
    version: ClassVar[int] = 3  # 3: images at 6 fps that were numbered again are refused
    page: ClassVar[str] = "https://bedlam.is.tue.mpg.de"
    uses_body: ClassVar[bool] = True
    recording: ClassVar[str] = "sequence"
    people: ClassVar[str] = "bedlam"  # also for BEDLAM2, which shares bodies
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        ReleasePart(
            "label files", tuple(f"{f}/<scene>.npz" for f in LABELS), "bedlam-labels-smpl.zip"
        ),
        PICTURES,
    )
    mistakes: ClassVar[tuple[Mistake, ...]] = tuple(
        Mistake(
            f"{folder}/",
            "has labels in a layout that is skipped",
            "Unpack bedlam-labels-smpl.zip beside it.",
        )
        for folder in _folders_of(SKIPPED)
    )
    has_image_folders: ClassVar[bool] = True
    optional_extra: ClassVar[tuple[str, ...]] = (
        EXTRINSICS.name,
        UP.name,
        INTRINSICS.name,
        *smplx.NAMES,
    )
    smplx_columns: ClassVar[tuple[cache.ExtraColumn, ...]] = ()
    turned: ClassVar[str] = "closeup"  # in the names of scenes with rotated images
    folders: ClassVar[tuple[str, ...]] = LABELS
    n_joints: ClassVar[int | None] = None  # to use of gtkps; None: from their number

    def detect_layout(self, raw: Path, split: str) -> Bedlam:
        """With SMPL-X columns if a label file of the split is SMPL-X, by its header."""
        with contextlib.suppress(RawDataError):  # without labels, which `videos` reports
            scenes = _label_files(raw, self.folders).items()
            if any(
                smplx.is_smplx(raw / file, "pose_cam")
                for scene, file in scenes
                if _split_of(scene) == split
            ):
                return (_Smplx2 if isinstance(self, Bedlam2) else _Smplx)(**asdict(self))
        return self

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "pose", "betas", "trans", "has_smpl")
        return (*labels, "kp_3d", "has_3d") if body else labels

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        return EXTRINSICS, UP, INTRINSICS, *self.smplx_columns

    def origin(self, video: str) -> Origin:
        """The sequence, with the same name at both rates; the subject is unknown.

        >>> Bedlam().origin("20221010_3_1000_batch01hand_6fps/seq_000000")
        Origin(subject=None, recording='20221010_3_1000_batch01hand/seq_000000')
        """
        scene, _, sequence = video.partition("/")
        return Origin(recording=f"{_strip_rate(scene)}/{sequence}")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        videos: list[RawVideo] = []
        for scene, file in _label_files(raw, self.folders).items():
            if _split_of(scene) != split:
                continue
            pictures = _images_folder(raw, scene)
            # rejected if there are no images
            names = _list_sequences(raw / pictures) or ["seq_000000"]
            first, *more = (
                RawVideo(f"{scene}/{name}", (file,), (pictures / name,)) for name in names
            )
            # it also counts rows without a folder
            videos += [replace(first, label_folders=(pictures,)), *more]
        return sorted(videos, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        (scene, sequence), file = video.name.split("/"), raw / video.files[0]
        stored = _load_scene(file, self.n_joints, state_of(file))
        rows = np.flatnonzero(stored["sequence"] == sequence)
        labels = {key: values[rows] for key, values in stored.items()}
        account.found = len(rows)
        # first sequence only: count rows that belong to no video
        for folder in video.label_folders:
            absent = stored["sequence"][
                ~np.isin(stored["sequence"], [sequence, *_list_sequences(raw / folder)])
            ]
            account.found += len(absent)
            account.drop("no_picture", len(absent))
            if names := np.unique(absent).tolist():
                account.notes.append(
                    f"{len(absent)} rows belong to sequences without a folder: "
                    f"{', '.join(names[:9])}"
                )
        kind = TurnedPictures if self.turned in scene else Pictures
        pictures = kind(raw, f"{video.folders[0].as_posix()}/{sequence}_{{:04d}}.png")
        if not len(rows):
            account.notes.append("the labels have no row for this sequence's images")
            return []
        if scene.endswith("_6fps") and (off := labels["number"] % STEP).any():
            expected = f"images at 6 fps, numbered in multiples of {STEP}"
            raise other_frames(file, expected, f"image {labels['number'][off.argmax()]}", AGAIN)
        images = pictures.indices()
        is_numbered_again = scene.endswith("_6fps") and (images % STEP).any()
        if is_numbered_again:  # or all images at 30 fps, which reach as far as the labels
            require_rate(pictures, int(labels["number"].max()) + 1, whole=True)
        require_size(
            pictures,
            pictures.size(),
            file,
            "Unpack the images without changing them.",
            labels["cam_int"][0],
        )
        if labels["pose_cam"].shape[1] != N_POSE:
            account.notes.append(SMPLX)
        elif labels["shape"].shape[1] > N_BETAS:
            account.notes.append("`shape` has 11 numbers, of which the first 10 are used")
            labels["shape"] = labels["shape"][:, :N_BETAS]
        if labels["sub"][0].startswith(UNNAMED):
            account.notes.append(
                "the labels have no `sub`: rows with the same `shape` are one subject"
            )
        still = _is_camera_static(labels) and "orbit" not in scene
        if not still:
            account.notes.append(
                "the camera moves, and the labels' world with it: no extrinsics, no up"
            )
        labels["no_picture"] = ~np.isin(labels["number"], images)
        persons = [np.flatnonzero(labels["sub"] == sub) for sub in np.unique(labels["sub"])]
        tracks = (
            self._track(split, video, {k: v[p] for k, v in labels.items()}, account)
            for p in persons
        )
        return [
            self.track(split, video, person, frames=pictures, **_fields(kept, body, still=still))
            for person, kept in filter(None, tracks)
        ]

    def _track(
        self, split: str, video: RawVideo, labels: Mapping[str, NDArray[Any]], account: VideoAccount
    ) -> tuple[str, dict[str, NDArray[Any]]] | None:
        """A subject's name and kept rows in temporal order; None if there are none."""
        order = np.argsort(labels["number"], kind="stable")
        rows = {key: values[order] for key, values in labels.items()}
        n_rows = len(order)
        number = rows["number"]
        floats = ["center", "scale", "pose_cam", "shape", "trans_cam", "cam_int"]
        stated = np.concatenate([rows[key].reshape(n_rows, -1) for key in floats], axis=1)
        kp_2d = finite_joints(rows["gtkps"], account)
        twice = np.isin(number, number[1:][np.diff(number) == 0])  # ambiguous
        kept = account.keep_rows(
            {
                "duplicate_person": twice,
                "no_picture": rows["no_picture"],
                # comparisons with NaN are false
                "label_not_finite": ~(np.abs(stated) < LARGEST).all(axis=1),
                "degenerate_box": ~(rows["scale"] * 200 >= 1),
                "bad_camera": ~is_rigid(rows["cam_ext"]),
                "no_visible_joint": ~(kp_2d[..., 2] > 0).any(axis=1),
            }
        )
        rows["gtkps"] = kp_2d
        return (
            (str(rows["sub"][0]), {key: values[kept] for key, values in rows.items()})
            if len(kept)
            else None
        )


@dataclass(frozen=True)
class Bedlam2(Bedlam):
    """BEDLAM's successor, with other rotated scenes; `gtkps` always begins with OpenPose's 25
    joints.
    """

    name: ClassVar[str] = "bedlam2"
    splits: ClassVar[tuple[str, ...]] = ("train", "unreleased")
    page: ClassVar[str] = "https://bedlam2.is.tue.mpg.de"
    turned: ClassVar[str] = "portrait"
    folders: ClassVar[tuple[str, ...]] = LABELS2
    n_joints: ClassVar[int | None] = len(JOINTS["body_25"])
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        ReleasePart("label files", tuple(f"{f}/<scene>.npz" for f in LABELS2), "its labels"),
        PICTURES,
    )


@dataclass(frozen=True)
class _Smplx(Bedlam):
    """The reader of a raw folder with SMPL-X labels."""

    smplx_columns: ClassVar[tuple[cache.ExtraColumn, ...]] = smplx.columns(
        "the release's 11 numbers", trans=True
    )


@dataclass(frozen=True)
class _Smplx2(Bedlam2):
    """As `_Smplx`; its neutral body is another one than BEDLAM's."""

    smplx_columns: ClassVar[tuple[cache.ExtraColumn, ...]] = smplx.columns(
        "the release's 16 numbers", trans=True
    )


def _fields(rows: Mapping[str, NDArray[Any]], body: Body | None, *, still: bool) -> dict[str, Any]:
    """Fields of a track from its kept rows."""
    n_rows = len(rows["number"])
    camera = rows["cam_ext"]
    intrinsics = rows["cam_int"].astype(np.float32)
    side = rows["scale"][:, None] * 200 / CROP_SCALE
    kp_2d = rows["gtkps"].copy()
    kp_2d[..., 2] = kp_2d[..., 2] > 0
    joints = JOINTS["body_25"] if kp_2d.shape[1] == len(JOINTS["body_25"]) else SHARED
    extra: dict[str, Any] = {}
    if still:
        extra |= {"extrinsics": camera.astype(np.float32), "up": WORLD_UP}
    zooms = bool((intrinsics != intrinsics[0]).any())
    if zooms:
        extra["intrinsics"] = intrinsics
    # cam_ext is per person: its world's origin is at the body
    trans = rows["trans_cam"] + camera[:, :3, 3]
    if rows["pose_cam"].shape[1] == N_POSE:
        smpl = smpl_labels(
            rows["pose_cam"], rows["shape"], trans, np.eye(4), body, evaluation=False
        )
        smpl["trans"] = trans.astype(np.float32)
    else:
        widths = {"pose": N_POSE, "betas": N_BETAS, "trans": 3}
        smpl = {name: np.zeros((n_rows, width), np.float32) for name, width in widths.items()}
        smpl["has_smpl"] = np.zeros(n_rows, np.bool_)
        extra |= {
            **smplx.labels(rows["pose_cam"], rows["shape"]),
            "smplx_trans": trans.astype(np.float32),
        }
        if body is not None:
            smpl |= {
                "kp_3d": np.zeros((n_rows, 49, 4), np.float32),
                "has_3d": np.zeros(n_rows, np.bool_),
            }
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


def _label_files(raw: Path, folders: Sequence[str]) -> dict[str, Path]:
    """Scene -> its file in the first of `folders`, without AGORA's. Raises RawDataError if there is
    none.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((raw / folder).glob("[!.]*.npz")):
            if not file.stem.startswith("agora"):
                files.setdefault(file.stem, file.relative_to(raw))
    if not files:
        skipped = next((folder for folder in _folders_of(SKIPPED) if (raw / folder).is_dir()), "")
        found = f"only {skipped}/, which is skipped" if skipped else "none"
        expected = " or ".join(f"{folder}/<scene>.npz" for folder in folders if "/" not in folder)
        raise RawDataError(raw, "folder", expected=expected, found=found, do="Unpack the labels.")
    return files


def _images_folder(raw: Path, scene: str) -> Path:
    """The folder of a scene's sequences relative to `raw`; the usual one if none exists."""
    names = (scene, _strip_rate(scene))
    folders = [Path(folder, name, "png") for name in names for folder in IMAGES]
    return next((folder for folder in folders if (raw / folder).is_dir()), folders[0])


def _strip_rate(scene: str) -> str:
    """A scene's name without `_6fps` or `_30fps`.

    >>> _strip_rate("20221010_3_1000_batch01hand_6fps")
    '20221010_3_1000_batch01hand'
    """
    return re.sub(r"_[0-9]+fps$", "", scene)


def _split_of(scene: str) -> str:
    """The split of a scene. Scenes without a release may belong to a hidden test set, so they are
    no training data.
    """
    return "unreleased" if _strip_rate(scene) in UNRELEASED else "train"


def _list_sequences(pictures: Path) -> list[str]:
    """Names of the sequences with a folder of images."""
    return sorted(
        entry.name
        for entry in scan_folder(pictures, {})
        if re.fullmatch("seq_[0-9]{6}", entry.name)
    )


@functools.lru_cache(maxsize=1)
def _load_scene(
    file: Path, n_joints: int | None, _state: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a scene, N rows, with the image's `sequence` and `number` instead of
    `imgname`.

    Uses the first `n_joints` of `gtkps` (None: 22 or 25, depending on their number). Without `sub`,
    rows with the same `shape` are one subject. Raises RawDataError, also for pickled objects.
    """
    stored = load_npz(file, KEYS, ("sub",))

    def array(key: str, *shape: int | None) -> NDArray[np.float64]:
        return numbers(file, key, stored[key], shape, do=AGAIN)

    def texts(key: str, pattern: str, expected: str) -> list[re.Match[str]]:
        values = stored[key]
        found = (
            [re.fullmatch(pattern, str(v)) for v in values]
            if values.dtype.kind == "U" and values.ndim == 1
            else []
        )
        if len(found) != n or not all(found):
            bad = (
                str(values[found.index(None)])
                if None in found
                else f"{values.shape} {values.dtype}"
            )
            raise RawDataError(
                file, key, expected=f"{n} texts like {expected}", found=bad, do=AGAIN
            )
        return [match for match in found if match]

    pose = array("pose_cam", None, None)
    n = len(pose)
    if pose.shape[1] not in (N_POSE, smplx.N_POSE):
        expected = f"{N_POSE} (SMPL) or {smplx.N_POSE} (SMPL-X) numbers per row"
        raise RawDataError(file, "pose_cam", expected=expected, found=str(pose.shape[1]), do=AGAIN)
    names = texts("imgname", r"(seq_[0-9]{6})/\1_([0-9]{4})\.png", "seq_000000/seq_000000_0125.png")
    keypoints = array("gtkps", n, None, 3)
    n_found = keypoints.shape[1]
    n_used = n_joints or N_JOINTS.get(n_found)
    if n_used is None or n_found < n_used:
        expected = (
            f"at least {n_joints} joints" if n_joints else f"{', '.join(map(str, N_JOINTS))} joints"
        )
        raise RawDataError(file, "gtkps", expected=expected, found=str(n_found), do=OTHER_JOINTS)
    shape = array("shape", n, None)
    if pose.shape[1] == N_POSE and shape.shape[1] not in (N_BETAS, N_BETAS + 1):
        raise RawDataError(
            file, "shape", expected="10 or 11 numbers per row", found=str(shape.shape[1]), do=AGAIN
        )
    if pose.shape[1] == smplx.N_POSE and not 1 <= shape.shape[1] <= smplx.N_BETAS:
        raise RawDataError(
            file, "shape", expected="up to 16 numbers per row", found=str(shape.shape[1]), do=AGAIN
        )
    if "sub" in stored:
        sub = [match[0] for match in texts("sub", r"[\w.-]+", "rp_emma_posed_008")]
    else:
        sub = [f"{UNNAMED}{hashlib.sha256(row.tobytes()).hexdigest()[:12]}" for row in shape]
    return {
        "sequence": np.array([name[1] for name in names], str),
        "number": np.array([int(name[2]) for name in names], np.int64),
        "sub": np.array(sub, str),
        "center": array("center", n, 2),
        "scale": array("scale", n),
        "pose_cam": pose,
        "shape": shape,
        "trans_cam": array("trans_cam", n, 3),
        "cam_int": array("cam_int", n, 3, 3),
        "cam_ext": array("cam_ext", n, 4, 4),
        "gtkps": keypoints[:, :n_used].copy(),
    }


def _is_camera_static(labels: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the camera is known to be static: `cam_ext` is constant per person, and some person
    is in two images.
    """
    subs, first, person = np.unique(labels["sub"], return_index=True, return_inverse=True)
    camera = labels["cam_ext"]
    return len(subs) < len(person) and np.allclose(
        camera, camera[first][person], rtol=0, atol=STILL
    )
