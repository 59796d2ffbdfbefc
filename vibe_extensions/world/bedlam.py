"""BEDLAM and BEDLAM2: rendered people with known bodies and cameras.  [raw -> tracks] -> features -> windows

Black et al.: BEDLAM: A Synthetic Dataset of Bodies Exhibiting Detailed Lifelike Animated Motion, CVPR 2023.

    all_npz_12_smpl_training/<scene>.npz      SMPL: a row is one person in one image; other folders: scenes.LABELS
    all_npz_12_training/<scene>.npz           SMPL-X; <scene> ends in _6fps or _30fps
    <scene>/png/seq_<6 digits>/seq_<6 digits>_<4 digits>.png       other folders: scenes.IMAGES; with or without _6fps
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.accounting import VideoAccount
from pipeline.cameras import is_rigid
from pipeline.datasets.base import EXTRINSICS, UP, Dataset, Mistake, Origin, ReleasePart, finite_joints, smpl_labels
from pipeline.datasets.pixels import other_frames, require_size
from pipeline.files.pixels.frames import Pictures
from pipeline.files.pixels.sources import TurnedPictures
from pipeline.files.raw import RawVideo
from pipeline.skeletons import JOINTS, LARGEST, convert
from pipeline.track import Track
from vibe_extensions.world import bedlam_labels as scenes

if TYPE_CHECKING:
    from pipeline.body import Body

FPS: Final = 30.0  # of the rendered videos; image numbers count these frames, also at 6 fps
STEP: Final = 5  # frames between the images of a file at 6 fps
CROP_SCALE: Final = 1.2  # included in the release's boxes: center and 200 * scale describe the crop
WORLD_UP: Final = np.array([0, -1, 0], np.float32)  # the world has the camera's axes without roll and pitch
INTRINSICS: Final = cache.ExtraColumn(  # not mirrored, like boxes and a track's intrinsics
    name="intrinsics", about="camera matrix of the row, if the camera zooms", unit="px", shape=(3, 3)
)
SHARED: Final = JOINTS["smpl"][:22]  # joints of SMPL and of SMPL-X
PICTURES: Final = ReleasePart(
    "sequences' images",
    tuple(str(Path(f, "<scene>/png/seq_<000000>")) + "/" for f in scenes.IMAGES),
    "<scene>_png.tar",
)
SMPLX: Final = "SMPL-X bodies, whose parameters differ from SMPL's: the rows have no body"


@dataclass(frozen=True)
class Bedlam(Dataset):
    """A video is a sequence of a scene, a track one of its subjects. The body is neutral despite `gender`."""

    name: ClassVar[str] = "bedlam"
    splits: ClassVar[tuple[str, ...]] = ("train",)
    version: ClassVar[int] = 2  # 2: 44 joints in gtkps are OpenPose's 25 and 19 more
    page: ClassVar[str] = "https://bedlam.is.tue.mpg.de"
    uses_body: ClassVar[bool] = True
    recording: ClassVar[str] = "sequence"
    people: ClassVar[str] = "bedlam"  # also for BEDLAM2, which shares bodies
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        ReleasePart("label files", tuple(f"{f}/<scene>.npz" for f in scenes.LABELS), "bedlam-labels-smpl.zip"),
        PICTURES,
    )
    mistakes: ClassVar[tuple[Mistake, ...]] = tuple(
        Mistake(f"{folder}/", "has labels in a layout that is skipped", "Unpack bedlam-labels-smpl.zip beside it.")
        for folder in scenes.folders_of(scenes.SKIPPED)
    )
    optional_extra: ClassVar[tuple[str, ...]] = (EXTRINSICS.name, UP.name, INTRINSICS.name)
    turned: ClassVar[str] = "closeup"  # in the names of scenes with rotated images
    folders: ClassVar[tuple[str, ...]] = scenes.LABELS
    n_joints: ClassVar[int | None] = None  # to use of gtkps; None: from their number

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "pose", "betas", "trans", "has_smpl")
        return (*labels, "kp_3d", "has_3d") if body else labels

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        return EXTRINSICS, UP, INTRINSICS

    def origin(self, video: str) -> Origin:
        """The sequence, with the same name at both rates; the subject is unknown.

        >>> Bedlam().origin("20221010_3_1000_batch01hand_6fps/seq_000000")
        Origin(subject=None, recording='20221010_3_1000_batch01hand/seq_000000')
        """
        scene, _, sequence = video.partition("/")
        return Origin(recording=f"{scenes.strip_rate(scene)}/{sequence}")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        videos: list[RawVideo] = []
        for scene, file in scenes.label_files(raw, self.folders).items():
            if scenes.split_of(scene) != split:
                continue
            pictures = scenes.images_folder(raw, scene)
            names = scenes.list_sequences(raw / pictures) or ["seq_000000"]  # rejected if there are no images
            first, *more = (RawVideo(f"{scene}/{name}", (file,), (pictures / name,)) for name in names)
            videos += [replace(first, label_folders=(pictures,)), *more]  # it also counts rows without a folder
        return sorted(videos, key=lambda video: video.name)

    def read(self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None) -> Sequence[Track]:
        (scene, sequence), file = video.name.split("/"), raw / video.files[0]
        stored = scenes.load_scene(file, self.n_joints)
        rows = np.flatnonzero(stored["sequence"] == sequence)
        labels = {key: values[rows] for key, values in stored.items()}
        account.found = len(rows)
        for folder in video.label_folders:  # first sequence only: count rows that belong to no video
            absent = stored["sequence"][~np.isin(stored["sequence"], [sequence, *scenes.list_sequences(raw / folder)])]
            account.found += len(absent)
            account.drop("no_picture", len(absent))
            if names := np.unique(absent).tolist():
                account.notes.append(f"{len(absent)} rows belong to sequences without a folder: {', '.join(names[:9])}")
        kind = TurnedPictures if self.turned in scene else Pictures
        pictures = kind(raw, f"{video.folders[0].as_posix()}/{sequence}_{{:04d}}.png")
        if not len(rows):
            account.notes.append("the labels have no row for this sequence's images")
            return []
        if scene.endswith("_6fps") and (off := labels["number"] % STEP).any():
            expected = f"images at 6 fps, numbered in multiples of {STEP}"
            raise other_frames(file, expected, f"image {labels['number'][off.argmax()]}", scenes.AGAIN)
        there = pictures.indices()
        require_size(pictures, pictures.size(), file, "Unpack the images without changing them.", labels["cam_int"][0])
        if labels["pose_cam"].shape[1] != scenes.N_POSE:
            account.notes.append(SMPLX)
        elif labels["shape"].shape[1] > scenes.N_BETAS:
            account.notes.append("`shape` has 11 numbers, of which the first 10 are used")
            labels["shape"] = labels["shape"][:, : scenes.N_BETAS]
        if labels["sub"][0].startswith(scenes.UNNAMED):
            account.notes.append("the labels have no `sub`: rows with the same `shape` are one subject")
        still = scenes.is_camera_static(labels) and "orbit" not in scene
        if not still:
            account.notes.append("the camera moves, and the labels' world with it: no extrinsics, no up")
        labels["no_picture"] = ~np.isin(labels["number"], there)
        persons = [np.flatnonzero(labels["sub"] == sub) for sub in np.unique(labels["sub"])]
        tracks = (self._track(split, video, {k: v[p] for k, v in labels.items()}, account) for p in persons)
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
        n_rows, number = len(order), rows["number"]
        floats = ["center", "scale", "pose_cam", "trans_cam", "cam_int"]
        floats += ["shape"] if rows["pose_cam"].shape[1] == scenes.N_POSE else []
        stated = np.concatenate([rows[key].reshape(n_rows, -1) for key in floats], axis=1)
        kp_2d = finite_joints(rows["gtkps"], account)
        twice = np.isin(number, number[1:][np.diff(number) == 0])  # ambiguous
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
    """BEDLAM's successor, with other rotated scenes; `gtkps` always begins with OpenPose's 25 joints."""

    name: ClassVar[str] = "bedlam2"
    splits: ClassVar[tuple[str, ...]] = ("train", "unreleased")
    page: ClassVar[str] = "https://bedlam2.is.tue.mpg.de"
    turned: ClassVar[str] = "portrait"
    folders: ClassVar[tuple[str, ...]] = scenes.LABELS2
    n_joints: ClassVar[int | None] = len(JOINTS["body_25"])
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        ReleasePart("label files", tuple(f"{f}/<scene>.npz" for f in scenes.LABELS2), "its labels"),
        PICTURES,
    )


def _fields(rows: Mapping[str, NDArray[Any]], body: Body | None, *, still: bool) -> dict[str, Any]:
    """Fields of a track from its kept rows."""
    n_rows, camera, intrinsics = len(rows["number"]), rows["cam_ext"], rows["cam_int"].astype(np.float32)
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
    if rows["pose_cam"].shape[1] == scenes.N_POSE:
        trans = rows["trans_cam"] + camera[:, :3, 3]  # cam_ext is per person: its world's origin is at the body
        smpl = smpl_labels(rows["pose_cam"], rows["shape"], trans, np.eye(4), body, evaluation=False)
        smpl["trans"] = trans.astype(np.float32)
    else:
        widths = {"pose": scenes.N_POSE, "betas": scenes.N_BETAS, "trans": 3}
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
