"""BEDLAM and BEDLAM2: rendered people with known bodies and cameras.  [raw -> tracks] -> features
-> windows

Black et al.: BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike Animated Motion,
CVPR 2023.

    all_npz_12_smpl_training/<scene>.npz      SMPL: a row is one person in one image; other folders:
                                              LABELS
    all_npz_12_training/<scene>.npz           SMPL-X; <scene> ends in _6fps or _30fps
    <scene>/png/seq_<6 digits>/seq_<6 digits>_<4 digits>.png       other folders: IMAGES; with or
        without _6fps

A label file has the rows of all sequences of a scene (`labels.bedlam`). `read` selects those of one
sequence, checks its images, and makes a track of each subject's rows.

A scene may have rows of sequences whose images are missing. They belong to no video, and are
counted in the scene's first one: `videos` gives it alone the scene's folder as `label_folders`.

SMPL-X labels fill other columns than SMPL's, so each of both datasets has a second class for them
(`detect_layout`).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import (
    REGISTERED,
    Dataset,
    ImageFolders,
    Mistake,
    Origin,
    Release,
    ReleasePart,
)
from pipeline.datasets.labels.bedlam import (
    AGAIN,
    SKIPPED,
    UNNAMED,
    SceneLabels,
)
from pipeline.datasets.shared.checks import LabelRules, finite_joints, finite_rows
from pipeline.datasets.shared.images import require_size
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.numbering import frame_mismatch, require_numbers, require_rate
from pipeline.datasets.shared.smpl import (
    BODIES,
    EXTRINSICS,
    INTRINSICS,
    SMPLX_NAMES,
    SMPLX_UNMIRRORED,
    UP,
    is_smplx,
    smpl_labels,
    smplx_columns,
    smplx_labels,
)
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import FileState
from pipeline.files.formats.names import shown_names
from pipeline.files.pixels.pictures import Pictures, TurnedPictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import scan_names
from pipeline.people.cameras import is_rigid
from pipeline.people.skeletons import JOINTS, Doubles, Ints
from pipeline.people.smpl_files import N_BETAS, N_POSE
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body


def _folders_of(*names: str) -> tuple[str, ...]:
    """Possible paths of label folders: as unpacked by hand, and by the releases' scripts."""
    folders: list[str] = []
    for name in names:
        for parent in ("", "training_labels/", "training-labels/", "bedlam_labels/"):
            folders.append(f"{parent}{name}")
    return tuple(folders)


# BEDLAM2's labels have 68 scenes, its release 66: github.com/pixelite1201/BEDLAM/issues/69
UNRELEASED: Final = (
    "20240805_5-10_250_busstation_orbit_zoom",
    "20240621_1_250_archmodelsvol8_tracking",
)
LABELS: Final = (  # SMPL's first
    *_folders_of("all_npz_12_smpl_training", "bedlam-labels"),
    "bedlam_labels",
    *_folders_of("all_npz_12_training"),
)
LABELS2: Final = _folders_of("all_npz_12_smpl_training", "bedlam_v2", "all_npz_12_training")
IMAGES: Final = ("", "training_images", "training-images", "training-images/bedlam_v2")

FPS: Final = 30.0  # of the rendered videos; image numbers count these frames, also at 6 fps
STEP: Final = 5  # frames between the images of a file at 6 fps
STATED_PX: Final = 200  # px: a crop's side is `scale` times as long
CROP_SCALE: Final = 1.2  # crop side / box side: the release states the crop
# y points down in the labels' world, as in the camera, but the world has no roll and no pitch
WORLD_UP: Final = np.array([0, -1, 0], np.float32)
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
    """A video is one sequence of a scene; a track is one of its subjects.

    All bodies use the neutral model, whatever the labels' `gender` states.
    """

    name = "bedlam"
    splits: ClassVar[tuple[str, ...]] = ("train",)
    version = 4  # 4, 3: images under other numbers are refused
    uses = Dataset.uses | BODIES
    release = Release(
        page="https://bedlam.is.tue.mpg.de",
        access="registration",
        licence=REGISTERED._replace(page="https://bedlam.is.tue.mpg.de/license.html"),
        parts=(
            ReleasePart(
                "label files", tuple(f"{f}/<scene>.npz" for f in LABELS), "bedlam-labels-smpl.zip"
            ),
            PICTURES,
        ),
        mistakes=(
            *(
                Mistake(
                    f"{folder}/",
                    "has labels in a layout that is skipped",
                    "Unpack bedlam-labels-smpl.zip beside it.",
                )
                for folder in _folders_of(SKIPPED)
            ),
            Mistake(
                "<scene>/mp4/<sequence>.mp4",
                "is a video to look at, which is not read",
                "Unpack the scene's PNG archive beside it.",
            ),
        ),
        recording="sequence",
        people="bedlam",  # also for BEDLAM2, which shares bodies
        image_folders=ImageFolders(),
    )
    labels = LabelRules(
        uses_body=True,
        columns=("frame_index", "bbox", "kp_2d", "pose", "betas", "trans", "has_smpl"),
        body_columns=("kp_3d", "has_3d"),
        extra=(EXTRINSICS, UP, INTRINSICS),
        optional_extra=(EXTRINSICS.name, UP.name, INTRINSICS.name, *SMPLX_NAMES),
        unmirrored=(INTRINSICS.name, *SMPLX_UNMIRRORED),
    )
    turned: ClassVar[str] = "closeup"  # in the names of scenes with rotated images
    folders: ClassVar[tuple[str, ...]] = LABELS  # of label files, the preferred first
    # number of joints of gtkps that are used; None: it depends on how many there are
    n_joints: ClassVar[int | None] = None

    def detect_layout(self, raw: Path, split: str) -> Bedlam:
        """Return a reader with SMPL-X columns if the header of a label file says SMPL-X."""
        reader = _Smplx2 if isinstance(self, Bedlam2) else _Smplx
        with contextlib.suppress(RawDataError):  # without labels, which `videos` reports
            for scene, file in _label_files(raw, self.folders).items():
                if _split_of(scene) == split and is_smplx(raw / file, "pose_cam"):
                    return reader(**asdict(self))
        return self

    def origin(self, video: str) -> Origin:
        """The recording is the sequence, with one name for both frame rates. Subject: unknown.

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
            scene_folder = _find_scene_folder(raw, scene)
            # without any sequence, `read` rejects this one
            sequences = _list_sequences(raw / scene_folder) or ["seq_000000"]
            for sequence in sequences:
                label_folders = (scene_folder,) if sequence == sequences[0] else ()
                folders = (scene_folder / sequence,)
                videos.append(RawVideo(f"{scene}/{sequence}", (file,), folders, label_folders))
        return sorted(videos, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        scene, sequence = video.name.split("/")
        file = raw / video.files[0]
        scene_labels = SceneLabels.read(file, self.n_joints, FileState.read(file))
        labels = scene_labels.select(scene_labels.sequence == sequence)
        account.found = len(labels.number)
        for folder in video.label_folders:  # the scene's, in its first video
            sequences = [sequence, *_list_sequences(raw / folder)]
            _count_rows_without_folder(scene_labels, sequences, account)
        if not len(labels.number):
            account.note("the labels have no row for this sequence's images")
            return []

        pictures_type = TurnedPictures if self.turned in scene else Pictures
        pictures = pictures_type(raw, f"{video.folders[0].as_posix()}/{sequence}_{{:04d}}.png")
        if scene.endswith("_6fps"):
            _require_numbers_of_6_fps(file, labels, pictures)
        elif pictures.count_frames() <= labels.number.max():  # more images may lack people
            require_rate(pictures, int(labels.number.max()) + 1)
        require_numbers(pictures, int(labels.number.min()), int(labels.number.max()))
        do = "Unpack the images without changing them."
        require_size(pictures, pictures.size(), file, do, labels.intrinsics[0])

        labels = _note_format(labels, account)
        is_still = labels.is_camera_static() and "orbit" not in scene
        if not is_still:
            account.note("the camera moves, and the labels' world with it: no extrinsics, no up")
        tracks: list[Track] = []
        for subject in np.unique(labels.subject):
            rows = labels.select(labels.subject == subject)
            rows = rows.select(np.argsort(rows.number, kind="stable"))
            kp_2d = finite_joints(rows.keypoints, account)
            kp_2d[..., 2] = kp_2d[..., 2] > 0  # confidence: annotated or not
            side = rows.scale[:, None] * STATED_PX / CROP_SCALE
            tracks += labelled_track(
                self,
                split,
                video,
                account,
                pictures,
                subject,
                reasons=_reasons_to_drop(rows, kp_2d, pictures.indices()),
                # OpenPose's 25 joints, or those that all bodies share
                skeleton="body_25" if kp_2d.shape[1] == len(JOINTS["body_25"]) else SHARED,
                kp_2d=kp_2d,
                frame_index=rows.number,
                bbox=np.column_stack([rows.center, side, side]),
                extrinsics=rows.extrinsics if is_still else None,
                labels_of=functools.partial(_labels_of, rows, body),
                fps=FPS,
                crop_scale=CROP_SCALE,
                extra={"up": WORLD_UP} if is_still else {},
            )
        return tracks


@dataclass(frozen=True)
class Bedlam2(Bedlam):
    """BEDLAM's successor, with other rotated scenes; `gtkps` always begins with OpenPose's 25
    joints.
    """

    name = "bedlam2"
    splits = ("train", "unreleased")
    release = replace(
        Bedlam.release,
        page="https://bedlam2.is.tue.mpg.de",
        licence=REGISTERED,
        access="registration",
        parts=(
            ReleasePart("label files", tuple(f"{f}/<scene>.npz" for f in LABELS2), "its labels"),
            PICTURES,
        ),
    )
    turned = "portrait"
    folders = LABELS2
    n_joints = len(JOINTS["body_25"])


def _smplx_labels(betas: str) -> LabelRules:
    """The rules of a raw folder with SMPL-X labels. betas: as in `smplx_columns`."""
    return replace(Bedlam.labels, extra=(*Bedlam.labels.extra, *smplx_columns(betas, trans=True)))


@dataclass(frozen=True)
class _Smplx(Bedlam):
    """The reader of a raw folder with SMPL-X labels."""

    labels = _smplx_labels("the release's 11 numbers")


@dataclass(frozen=True)
class _Smplx2(Bedlam2):
    """The reader of a raw folder with SMPL-X labels of BEDLAM2.

    Its neutral body model differs from BEDLAM's.
    """

    labels = _smplx_labels("the release's 16 numbers")


def _count_rows_without_folder(
    scene_labels: SceneLabels, sequences: Sequence[str], account: VideoAccount
) -> None:
    """Count a scene's rows that belong to none of the `sequences` with images."""
    absent = scene_labels.sequence[~np.isin(scene_labels.sequence, sequences)]
    account.found += len(absent)
    account.drop("no_picture", len(absent))
    if len(absent):
        names = shown_names(np.unique(absent).tolist())
        account.note(f"{len(absent)} rows belong to sequences without a folder: {names}")


def _require_numbers_of_6_fps(file: Path, labels: SceneLabels, pictures: Pictures) -> None:
    """Refuse labels and images at 6 fps whose numbers do not count the frames at 30 fps: 0, 5, 10.

    Images with other numbers may be those at 30 fps: 0, 1, 2, ... as far as the labels. Images at
    6 fps that were numbered again are 0, 1, 2, ..., too, but end at a fifth of the labels.
    """
    is_off = labels.number % STEP != 0
    if is_off.any():
        expected = f"images at 6 fps, numbered in multiples of {STEP}"
        raise frame_mismatch(file, expected, f"image {labels.number[is_off.argmax()]}", AGAIN)
    if (pictures.indices() % STEP).any():
        n_frames = int(labels.number.max()) + 1
        require_rate(
            pictures, n_frames, whole=True
        )  # whole: refuse those that end early without a gap


def _note_format(labels: SceneLabels, account: VideoAccount) -> SceneLabels:
    """Note how the labels differ from SMPL's usual form, and return them with at most 10 betas."""
    if labels.is_smplx:
        account.note(SMPLX)
    elif labels.betas.shape[1] > N_BETAS:
        account.note("`shape` has 11 numbers, of which the first 10 are used")
        labels = replace(labels, betas=labels.betas[:, :N_BETAS])
    if labels.subject[0].startswith(UNNAMED):
        account.note("the labels have no `sub`: rows with the same `shape` are one subject")
    return labels


def _reasons_to_drop(rows: SceneLabels, kp_2d: Doubles, images: Ints) -> dict[str, ArrayLike]:
    """Reasons to drop a subject's rows, in temporal order. images: numbers of existing images."""
    number = rows.number
    is_finite = finite_rows(
        rows.center, rows.scale, rows.pose, rows.betas, rows.trans, rows.intrinsics
    )
    has_joint = (kp_2d[..., 2] > 0).any(axis=1)
    return {
        "duplicate_person": np.isin(number, number[1:][np.diff(number) == 0]),  # ambiguous
        "no_picture": ~np.isin(number, images),
        "label_not_finite": ~is_finite,
        # comparisons with NaN are false
        "degenerate_box": ~(rows.scale * STATED_PX >= 1),
        "bad_camera": ~is_rigid(rows.extrinsics),
        "no_visible_joint": ~has_joint,
    }


def _labels_of(labels: SceneLabels, body: Body | None, kept: Ints) -> dict[str, Any]:
    """Make the fields of a track from these rows of one subject's labels: body, intrinsics."""
    rows = labels.select(kept)
    extra: dict[str, Any] = {}
    intrinsics = rows.intrinsics.astype(np.float32)
    zooms = bool((intrinsics != intrinsics[0]).any())
    if zooms:
        extra["intrinsics"] = intrinsics

    # (n, 3) m, in camera coordinates: `trans_cam` is relative to the origin of the person's own
    # world, which is at the translation of `cam_ext`
    trans = rows.trans + rows.extrinsics[:, :3, 3]
    if rows.is_smplx:
        smpl = _empty_smpl(len(rows.number), has_body=body is not None)
        extra |= smplx_labels(rows.pose, rows.betas)
        extra["smplx_trans"] = trans.astype(np.float32)
    else:
        smpl = smpl_labels(rows.pose, rows.betas, trans, np.eye(4), body, evaluation=False)
        smpl["trans"] = trans
    return {"intrinsics": None if zooms else intrinsics[0], "extra": extra, **smpl}


def _empty_smpl(n_rows: int, *, has_body: bool) -> dict[str, Any]:
    """The columns of `smpl_labels` for rows without SMPL's parameters."""
    widths = {"pose": N_POSE, "betas": N_BETAS, "trans": 3}
    smpl: dict[str, Any] = {"has_smpl": np.zeros(n_rows, np.bool_)}
    for name, width in widths.items():
        smpl[name] = np.zeros((n_rows, width), np.float32)
    if has_body:
        smpl["kp_3d"] = np.zeros((n_rows, 49, 4), np.float32)
        smpl["has_3d"] = np.zeros(n_rows, np.bool_)
    return smpl


def _find_scene_folder(raw: Path, scene: str) -> Path:
    """The folder of a scene's sequences relative to `raw`; the usual one if none exists."""
    for name in (scene, _strip_rate(scene)):
        for parent in IMAGES:
            folder = Path(parent, name, "png")
            if (raw / folder).is_dir():
                return folder
    return Path(scene, "png")


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


def _label_files(raw: Path, folders: Sequence[str]) -> dict[str, Path]:
    """Scene -> its label file, from the first of `folders` that has one. Skips AGORA's scenes.

    Raises RawDataError if no folder has a label file.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((raw / folder).glob("[!.]*.npz")):
            if not file.stem.startswith("agora"):
                files.setdefault(file.stem, file.relative_to(raw))
    if not files:
        actual = "none"
        for folder in reversed(_folders_of(SKIPPED)):
            if (raw / folder).is_dir():
                actual = f"only {folder}/, which is skipped"
        expected = " or ".join(f"{folder}/<scene>.npz" for folder in folders if "/" not in folder)
        raise RawDataError(raw, "folder", expected, actual, "Unpack the labels.")
    return files


def _list_sequences(pictures: Path) -> list[str]:
    """Names of the sequences with a folder of images."""
    return sorted(name for name in scan_names(pictures) if re.fullmatch("seq_[0-9]{6}", name))
