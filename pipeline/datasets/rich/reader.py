"""RICH: people in scanned scenes, seen by static cameras, with gendered SMPL-X bodies.  [raw ->
tracks] -> features -> windows

Huang et al.: Capturing and Inferring Dense Full-Body Human-Scene Contact, CVPR 2022.

    images/<split>/<sequence>/cam_<2 digits>/<frame, 5 digits>_<camera, 2 digits>.jpeg (jpg, png)
    bodies/<split>/<sequence>/<frame, 5 digits>/<subject, 3 digits>.pkl
    scan_calibration/<scene>/calibration/<camera, 3 digits>.xml

A sequence is `<scene>_<subject>_<action>`, or of two people `<scene>_<subject>_<subject>_<action>`.
Nothing is labelled in the images: boxes and 2D joints are those of the projected bodies
(`rich.labels`). The release's moving cameras have no calibration by frame, and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

import cache
from cache.read.labels import MIRRORED_SMPL
from pipeline.accounting import VideoAccount
from pipeline.datasets.base import REGISTERED, Dataset, ImageFolders, Origin, Release, ReleasePart
from pipeline.datasets.rich.labels import (
    N_SHARED,
    UNPACK,
    SeenBodies,
    read_camera,
    see_body,
)
from pipeline.datasets.shared.checks import LabelRules
from pipeline.datasets.shared.images import no_pictures, require_size
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.numbering import require_numbers, require_rate
from pipeline.datasets.shared.smpl import BODIES, EXTRINSICS
from pipeline.errors import RawDataError
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import find
from pipeline.people.cameras import mirrored_axis
from pipeline.people.skeletons import JOINTS, Floats
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.smplx_body import SmplxBody

FPS: Final = 30.0
CROP_SCALE: Final = 1.2
SUFFIXES: Final = (".jpeg", ".jpg", ".png")
# by subject (the toolkit's gender.json)
FEMALE: Final = frozenset({9, 10, 12, 13, 16, 17, 18, 19, 21})
GENDERS: Final = {f"{n:03d}": "female" if n in FEMALE else "male" for n in range(22)}
SHARED: Final = JOINTS["smpl"][:N_SHARED]
SEQUENCE: Final = "<scene>_<subject>_<action>"
BODY_FILE: Final = f"{'[0-9]' * 5}/{'[0-9]' * 3}.pkl"  # <frame>/<subject>
SAME_NAMES: Final = "Unpack the images without changing names or sizes."


def _mirror_joints(joints: Floats) -> Floats:
    """Mirror joints (N, 22, 3) in camera axes: left and right joints are exchanged, and x is -x."""
    return mirrored_axis(joints[:, list(MIRRORED_SMPL[:N_SHARED])])


SMPLX_JOINTS: Final = cache.ExtraColumn(
    name="smplx_joints",
    about="SMPL-X's first 22 joints, pelvis to wrists, in camera axes",
    unit="m",
    shape=(N_SHARED, 3),
    mirror=_mirror_joints,
)


@dataclass(frozen=True)
class Rich(Dataset):
    """A video is a camera's view of a sequence; a track is one of its people."""

    name = "rich"
    splits = ("train", "val", "test")
    version = 1
    uses = Dataset.uses | BODIES
    release = Release(
        page="https://rich.is.tue.mpg.de",
        access="registration",
        licence=REGISTERED,
        parts=(
            *(
                ReleasePart(
                    f"cameras' images of {split}",
                    (f"images/{split}/{SEQUENCE}/cam_<00>/",),
                    "the split's JPEG images, unpacked in images/",
                    (split,),
                )
                for split in splits
            ),
            ReleasePart(
                "bodies", (f"bodies/<split>/{SEQUENCE}/<00000>/",), "the splits' bodies, in bodies/"
            ),
            ReleasePart(
                "calibrations",
                ("scan_calibration/<scene>/calibration/<000>.xml",),
                "scan_calibration.zip",
            ),
        ),
        recording="sequence",
        image_folders=ImageFolders(),
    )
    labels = LabelRules(
        keypoints_from="projected",
        uses_body=True,
        body_model="smplx",
        needs_body=True,
        extra=(EXTRINSICS, SMPLX_JOINTS),
    )

    @property
    def genders(self) -> tuple[str, ...]:
        return ("male", "female")

    def origin(self, video: str) -> Origin:
        """The recording is the sequence, of all cameras. Of two people, none is named.

        >>> Rich().origin("Gym_010_lunge1/cam_03")
        Origin(subject='010', recording='Gym_010_lunge1')
        """
        sequence = video.partition("/")[0]
        people = re.findall(r"_([0-9]{3})(?=_)", sequence)
        return Origin(people[0] if len(people) == 1 else None, sequence)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        folders = sorted(map(Path, find(raw, f"images/{split}/*/cam_[0-9]*/", {})))
        if not folders:
            expected = f"images/{split}/{SEQUENCE}/cam_<00>/"
            do = "Set the raw folder to the one with images/, bodies/ and scan_calibration/."
            raise RawDataError(raw, "folder", expected, "none", do)
        videos = []
        bodies: dict[str, tuple[Path, ...]] = {}  # by sequence: its cameras share them
        for folder in folders:
            sequence = folder.parent.name
            if sequence not in bodies:
                found = find(raw, f"bodies/{split}/{sequence}/{BODY_FILE}", {})
                bodies[sequence] = tuple(sorted(Path(file).relative_to(raw) for file in found))
            scene = sequence.partition("_")[0]
            number = folder.name.removeprefix("cam_").zfill(3)
            calibration = Path("scan_calibration", scene, "calibration", f"{number}.xml")
            name = f"{sequence}/{folder.name}"
            files = (calibration, *bodies[sequence])
            videos.append(RawVideo(name, files, (folder.relative_to(raw),)))
        return sorted(videos, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: SmplxBody
    ) -> Sequence[Track]:
        calibration, *files = video.files
        camera = read_camera(raw / calibration)
        if not files:
            folder = raw / "bodies" / split
            raise RawDataError(folder, "file", "bodies", "none", UNPACK, reason="no_label")
        account.found = len(files)
        frames = np.array([int(file.parent.name) for file in files])
        subjects = np.array([file.stem for file in files])
        unknown = {*subjects.tolist()} - GENDERS.keys()
        if unknown:
            expected = "subjects 000 to 021"
            raise RawDataError(raw / files[0], "file", expected, min(unknown), UNPACK)
        pictures = _find_pictures(raw, video)
        require_rate(pictures, frames.max() + 1)
        require_numbers(pictures, frames.min(), frames.max())
        require_size(pictures, None, raw / calibration, SAME_NAMES, camera.intrinsics)

        tracks: list[Track] = []
        for subject in np.unique(subjects).tolist():
            own = np.flatnonzero(subjects == subject)
            size, gendered = pictures.size(), body.of(GENDERS[subject])
            bodies = [see_body(raw / files[i], gendered, camera, size) for i in own]
            seen = SeenBodies(*map(np.concatenate, zip(*bodies, strict=True)))
            reasons = {
                "no_picture": ~np.isin(frames[own], pictures.indices()),
                "label_not_finite": ~seen.is_finite,
                "no_box": seen.is_behind,
                "no_visible_joint": ~(seen.kp_2d[..., 2] > 0).any(axis=1),
            }
            tracks += labelled_track(
                self,
                split,
                video,
                account,
                pictures,
                subject,
                reasons=reasons,
                skeleton=SHARED,
                kp_2d=seen.kp_2d,
                frame_index=frames[own],
                bbox=seen.boxes,
                extrinsics=camera.extrinsics,
                fps=FPS,
                gender=GENDERS[subject],
                crop_scale=CROP_SCALE,
                intrinsics=camera.intrinsics,
                extra={"smplx_joints": seen.joints},
            )
        return tracks


def _find_pictures(raw: Path, video: RawVideo) -> Pictures:
    """The camera's images, of one of SUFFIXES. Raises RawDataError if there are none."""
    folder = video.folders[0]
    number = folder.name.removeprefix("cam_")
    for suffix in SUFFIXES:
        pictures = Pictures(raw, f"{folder.as_posix()}/{{:05d}}_{number}{suffix}")
        if len(pictures.indices()):
            return pictures
    expected = f"<frame>_{number}.jpeg, jpg or png"
    raise no_pictures(raw / folder, expected, "Unpack the release's JPEG images.")
