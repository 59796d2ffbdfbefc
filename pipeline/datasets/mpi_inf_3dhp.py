"""MPI-INF-3DHP: 8 subjects before 8 cameras, 6 test videos, 3D joints without markers.  [raw -> tracks] -> features

Mehta et al.: Monocular 3D Human Pose Estimation In The Wild Using Improved CNN Supervision, 3DV 2017.

    S<1..8>/Seq<1,2>/annot.mat, camera.calibration
    S<1..8>/Seq<1,2>/imageFrames/video_<camera>/frame_<6 digits>.jpg, or video_<camera>/*.jpg, or
    S<1..8>/Seq<1,2>/imageSequence/video_<camera>.avi
    mpi_inf_3dhp_test_set/TS<1..6>/annot_data.mat
    mpi_inf_3dhp_test_set/TS<1..6>/imageSequence/img_<6 digits from 1>.jpg
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.boxes import tight_boxes
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.mpi_inf_3dhp_labels import CAMERAS, Calibration, Labels, read_calibration, read_test, read_train
from pipeline.datasets.mpi_inf_3dhp_release import (
    EXTRACT,
    PARTS,
    SEQUENCES,
    TEST_SETS,
    TOTALS,
    folders_below,
    mistakes,
    places,
)
from pipeline.datasets.pixels import frames_there, inputs, pictures_or_video
from pipeline.datasets.release import Mistake, Part, Totals
from pipeline.errors import RawDataError
from pipeline.pixels.frames import Pictures, Video
from pipeline.skeletons import JOINTS, LARGEST, convert, correspondence
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

BOX_FACTOR: Final = 1.1


@dataclass(frozen=True)
class MpiInf3dhp(Dataset):
    """One track a video. In train a video is a sequence before one of the 8 cameras that are usually used."""

    name: ClassVar[str] = "mpi_inf_3dhp"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://vcai.mpi-inf.mpg.de/3dhp-dataset"
    parts: ClassVar[tuple[Part, ...]] = PARTS
    totals: ClassVar[Mapping[str, Totals]] = TOTALS

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        labels = ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d")
        return labels if split == "train" else (*labels, "kp_3d_eval", "valid")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        listed = list(_train_videos(raw) if split == "train" else _test_videos(raw))
        if not listed:
            expected = "S<1..8>/Seq<1,2>/" if split == "train" else f"{TEST_SETS[0]}/TS<1..6>/"
            do = "Point the raw folder at the unpacked download."
            raise RawDataError(raw, "folder", expected=expected, found="none", do=do)
        return sorted(listed, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        found, filmed = _train(raw, video, account) if split == "train" else _test(raw, video, account)
        kept = _kept(found, filmed, account)
        if not kept.any():
            account.drop_track("no_frame_left", 0)
            return []
        account.keep_track(int(kept.sum()))
        labels = found.rows(kept)
        kp_3d = _kp_3d(labels)
        evaluation = convert(kp_3d[..., :3], source="spin49", target="common14") if split == "test" else None
        return [
            Track(
                dataset=self.name,
                split=split,
                name=f"{video.name}/0",
                video=video.name,
                fps=filmed.fps,
                frame_index=np.flatnonzero(kept).astype(np.int64),
                bbox=tight_boxes(_joints(labels), BOX_FACTOR)[0],
                kp_2d=convert(_with_ones(labels.kp_2d), source=labels.skeleton, target="spin49").astype(np.float32),
                kp_3d=kp_3d,
                kp_3d_eval=evaluation,
                has_3d=np.ones(len(kp_3d), np.bool_),
                valid=labels.valid,
                intrinsics=filmed.intrinsics,
                frames=filmed.source,
            )
        ]

    def mistakes(self, raw: Path) -> Iterator[Mistake]:
        return mistakes(raw)


@dataclass(frozen=True, slots=True, eq=False)
class _Filmed:
    """Where a video's frames are, and what is known of its camera."""

    source: Pictures | Video
    size: tuple[int, int]  # width, height px
    fps: float  # nan where the release does not say
    intrinsics: NDArray[np.float32] | None = None  # (3, 3) px


def _train_videos(raw: Path) -> Iterator[RawVideo]:
    """Every sequence before every camera of which there is something; before all, when there are labels alone."""
    for sequence in folders_below(raw, r"S[0-9]+", r"Seq[0-9]+"):
        labels = tuple(Path(sequence, name) for name in ("annot.mat", "camera.calibration"))
        found = {camera: inputs(raw, *places(sequence, camera)) for camera in CAMERAS}
        there = [camera for camera, (files, folders) in found.items() if files or folders]
        if not there and (raw / labels[0]).exists():
            there = list(CAMERAS)
        for camera in there:
            files, folders = found[camera]
            yield RawVideo(f"{sequence}/video_{camera}", files=(*labels, *files), folders=folders)


def _test_videos(raw: Path) -> Iterator[RawVideo]:
    for test in TEST_SETS:
        names = folders_below(raw / test, r"TS[0-9]+")
        for name in names:
            folder = Path(test, name)
            yield RawVideo(name, files=(folder / "annot_data.mat",), folders=(folder / "imageSequence",))
        if names:
            return


def _train(raw: Path, video: RawVideo, account: VideoAccount) -> tuple[Labels, _Filmed]:
    sequence, _, number = video.name.rpartition("/video_")
    camera = int(number)
    labels = read_train(raw / video.files[0], camera)
    account.found = len(labels.kp_2d)
    source = pictures_or_video(raw, *places(sequence, camera), account)
    fps = float(SEQUENCES[sequence][0]) if sequence in SEQUENCES else math.nan
    if isinstance(source, Video):
        source.require_decodable()
        fps = source.header().fps
    size = source.size()
    known = _calibrated(raw / video.files[1], camera, account)
    if known is not None and known.size != size:
        # The labels count the pixels of the calibrated pictures.
        raise RawDataError(
            source.place,
            "size",
            expected="{} x {} px, as camera.calibration says".format(*known.size),
            found="{} x {}".format(*size),
            do=EXTRACT,
            reason="other_picture_size",
        )
    return labels, _Filmed(source, size, fps, None if known is None else known.intrinsics)


def _calibrated(file: Path, camera: int, account: VideoAccount) -> Calibration | None:
    """What is known of the camera; None, and noted, where nothing is: labels do not need it."""
    try:
        return read_calibration(file, camera)
    except (OSError, RawDataError) as error:
        account.notes.append(f"no camera intrinsics: {error}")
        return None


def _test(raw: Path, video: RawVideo, account: VideoAccount) -> tuple[Labels, _Filmed]:
    labels = read_test(raw / video.files[0])
    account.found = len(labels.kp_2d)
    source = Pictures(raw, f"{video.folders[0].as_posix()}/img_{{:06d}}.jpg", first=1)
    return labels, _Filmed(source, source.size(), math.nan)


def _kept(labels: Labels, filmed: _Filmed, account: VideoAccount) -> NDArray[np.bool_]:
    """(N,) which frames are kept. Each dropped one counts under one reason."""
    used = correspondence(labels.skeleton, "spin49")[0]
    places_2d, places_3d = labels.kp_2d[:, used], labels.kp_3d[:, used]
    # Comparisons with NaN are false. A picture reaches from 0 to its width here, as usual with this dataset.
    finite = _everywhere(np.abs(places_2d) < LARGEST) & _everywhere(np.abs(places_3d) < LARGEST)
    inside = _everywhere((places_2d >= 0) & (places_2d < filmed.size))
    possible = np.where(inside[:, None, None], _joints(labels), 0)
    reasons = {
        "no_picture": ~frames_there(filmed.source, len(finite), account),
        "label_not_finite": ~finite,
        "joint_outside_picture": ~inside,
        "degenerate_box": tight_boxes(possible)[2],
    }
    kept = np.ones(len(finite), np.bool_)
    for reason, applies in reasons.items():
        account.drop(reason, int((kept & applies).sum()))
        kept &= ~applies
    return kept


def _everywhere(holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, J, C) -> (N,) whether it holds for the whole body."""
    return np.asarray(holds.all(axis=(1, 2)))


def _joints(labels: Labels) -> NDArray[np.float64]:
    """(N, 17, 3) px px 1: those that have a place in spin49, so no hands and toes."""
    return _with_ones(labels.kp_2d[:, correspondence(labels.skeleton, "spin49")[0]])


def _kp_3d(labels: Labels) -> NDArray[np.float32]:
    """(N, 49, 4) m m m 1, camera axes, pelvis at 0."""
    pelvis = JOINTS[labels.skeleton].index("hip")
    centred = labels.kp_3d - labels.kp_3d[:, pelvis : pelvis + 1]
    return convert(_with_ones(centred), source=labels.skeleton, target="spin49").astype(np.float32)


def _with_ones(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, J, C) -> (N, J, C + 1) with confidence 1."""
    return np.concatenate([places, np.ones((*places.shape[:2], 1))], axis=2)
