"""Human3.6M: actors in a studio, four cameras, motion capture.  [raw -> tracks] -> features -> windows

Ionescu, Papava, Olaru, Sminchisescu: Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human Sensing in
Natural Environments, PAMI 2014.

    S<k>/Videos/<action>[ <n>].<camera>.mp4          or pictures in S<k>/images/<the same without .mp4>/
    S<k>/MyPoseFeatures/{D2_Positions,D3_Positions_mono}/<the same>.cdf
    metadata.xml, smpl_param/Human36M_subject<k>_{smpl_param,camera}.json    where the user has them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.boxes import tight_boxes
from pipeline.datasets import h36m_files
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.h36m_files import CAMERAS, FITS, METADATA, PARTS, SUBJECTS, raw_videos
from pipeline.datasets.h36m_fits import load_fits, load_rotations
from pipeline.datasets.h36m_metadata import Metadata, load_metadata
from pipeline.datasets.h36m_poses import LEAST_SHARE, Poses, load_poses
from pipeline.datasets.pixels import frames_there, pictures_or_video
from pipeline.datasets.release import Mistake, Part, Totals
from pipeline.errors import RawDataError
from pipeline.pixels.frames import Pictures, Video
from pipeline.skeletons import convert
from pipeline.smpl.rotations import in_camera
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

Doubles = NDArray[np.float64]

FPS: Final = 50.0
STEP: Final = 2  # frames: every second one is used
BOX_FACTOR: Final = 1.1


@dataclass(frozen=True)
class Human36M(Dataset):
    """One track an (action, camera). Every second frame; SMPL labels where public fits lie beside the release."""

    name: ClassVar[str] = "h36m"
    splits: ClassVar[tuple[str, ...]] = tuple(SUBJECTS)
    version: ClassVar[int] = 1
    page: ClassVar[str] = "http://vision.imar.ro/human3.6m"
    parts: ClassVar[tuple[Part, ...]] = PARTS
    # Poses at 50 fps as others count them (weigq/3d_pose_baseline_pytorch's issue 1), the corrupt video's included.
    totals: ClassVar[Mapping[str, Totals]] = {"train": Totals(600, 1_559_752), "val": Totals(240, 550_644)}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - no label needs a body
        labels = ("frame_index", "bbox", "kp_2d", "kp_3d", "pose", "betas", "has_3d", "has_smpl")
        return (*labels, "kp_3d_eval") if split == "val" else labels

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        subjects = [subject for subject in SUBJECTS[split] if (raw / subject).is_dir()]
        if not subjects:
            expected = f"{' '.join(SUBJECTS[split])}, or some of them"
            do = "Point the raw folder at the one in which the subjects' folders lie."
            raise RawDataError(raw, "folders", expected=expected, found="none of them", do=do)
        return sorted((v for subject in subjects for v in raw_videos(raw, subject)), key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        poses = Poses.read(raw, video, account)
        source = _source(raw, video, account)
        _refuse_other_rate(source, account.found)
        kept, bbox = _rows(poses, frames_there(source, account.found, account), account)
        if not len(kept):
            account.drop_track("no_frame_left", 0)
            return []
        account.keep_track(len(kept))
        metadata = _metadata(raw, video, account)
        camera = video.name.rpartition(".")[2]
        intrinsics = None if metadata is None else metadata.intrinsics.get(camera)
        return [
            Track(
                dataset=self.name,
                split=split,
                name=f"{video.name}/0",
                video=video.name,
                fps=FPS,
                frame_index=kept,
                bbox=bbox,
                kp_2d=convert(poses.kp_2d[kept], source="h36m", target="spin49").astype(np.float32),
                intrinsics=None if intrinsics is None else intrinsics.astype(np.float32),
                frames=source,
                **_labels_3d(poses.joints[kept], account, evaluation=split == "val"),
                **_smpl_labels(raw, video, kept, metadata, account),
            )
        ]

    def mistakes(self, raw: Path) -> Iterator[Mistake]:
        yield from h36m_files.mistakes(raw)
        for subject in (subject for split in SUBJECTS.values() for subject in split):
            yield from _other_rates(raw, raw_videos(raw, subject))


def _source(raw: Path, video: RawVideo, account: VideoAccount) -> Pictures | Video:
    videos = [file for file in video.files if file.suffix == ".mp4"]
    if not videos and not video.folders:
        expected, do = f"{video.name}.mp4, or a folder of pictures", "Unpack the subject's Videos archive again."
        raise RawDataError(
            raw / video.name, "video", expected=expected, found="poses alone", do=do, reason="video_missing"
        )
    source = pictures_or_video(raw, video.folders, videos, account)
    if isinstance(source, Video):
        source.require_decodable()
    return source


def _refuse_other_rate(source: Pictures | Video, n_labels: int) -> None:
    """Raise RawDataError where frames were left out when pictures were extracted or the video was encoded anew.

    Nothing says which ones, so that every label would belong to another frame than it seems.
    """
    if isinstance(source, Pictures):
        there = source.indices()
        n_frames, fps = int(there[-1]) + 1 if len(there) else 0, FPS
    else:
        header = source.header()
        n_frames, fps = n_labels if header.n_frames is None else header.n_frames, header.fps
    if n_frames < LEAST_SHARE * n_labels or fps < LEAST_SHARE * FPS:  # comparisons with NaN are false
        raise RawDataError(
            source.place,
            "frames",
            expected=f"about {n_labels} at {FPS:.0f} fps, as there are labels",
            found=f"{n_frames}" + (f" at {fps:.4g} fps" if fps != FPS else ""),
            do="Extract every frame, or use the official videos.",
            reason="frame_count_mismatch",
        )


def _other_rates(raw: Path, videos: Sequence[RawVideo]) -> Iterator[Mistake]:
    """Looks at the first sequence that has pictures and poses: all of them are usually made in one go."""
    for video in videos:
        account = VideoAccount(video.name)
        try:
            _refuse_other_rate(_source(raw, video, account), len(load_poses(raw / video.files[0], 2)))
        except RawDataError as error:
            if error.reason == "frame_count_mismatch":
                yield Mistake(f"{video.name}: {error}", "All labels of such a sequence would belong to other frames.")
                return
        else:
            return


def _rows(
    poses: Poses, has_picture: NDArray[np.bool_], account: VideoAccount
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Frames that are kept, and their boxes. Each dropped one counts under one reason."""
    boxes, empty, degenerate = tight_boxes(poses.kp_2d, BOX_FACTOR)
    row = np.arange(account.found)
    reasons = {
        "not_sampled": row % STEP != 0,
        "no_label": row >= poses.n_labelled,
        "no_picture": ~has_picture,
        "no_visible_joint": empty,
        "degenerate_box": degenerate,
    }
    kept = np.ones(account.found, np.bool_)
    for reason, applies in reasons.items():
        account.drop(reason, int((kept & applies).sum()))
        kept &= ~applies
    return row[kept], boxes[kept]


def _labels_3d(joints: Doubles, account: VideoAccount, *, evaluation: bool) -> dict[str, Any]:
    """`Track` fields of (T, 17, 3) m about the pelvis, NaN in frames in which not all of them are known."""
    known: NDArray[np.bool_] = np.all(np.isfinite(joints), axis=(1, 2))
    if not known.all():
        account.notes.append(f"{int((~known).sum())} of the kept frames are not finite in 3D: without kp_3d")
    kp_3d = convert(np.concatenate([joints, np.ones((*joints.shape[:2], 1))], axis=-1), source="h36m", target="spin49")
    kp_3d[~known] = np.nan
    labels: dict[str, Any] = {"kp_3d": kp_3d.astype(np.float32), "has_3d": known}
    if evaluation:
        labels["kp_3d_eval"] = convert(joints, source="h36m", target="common14").astype(np.float32)
    return labels


def _metadata(raw: Path, video: RawVideo, account: VideoAccount) -> Metadata | None:
    """What metadata.xml says. No label depends on it: without it, that is a note."""
    if Path(METADATA) not in video.files:
        account.notes.append(f"no {METADATA}: camera intrinsics are not known")
        return None
    try:
        return load_metadata(raw / METADATA)
    except RawDataError as error:
        account.notes.append(f"not used: {error}")
        return None


def _smpl_labels(
    raw: Path, video: RawVideo, kept: NDArray[np.int64], metadata: Metadata | None, account: VideoAccount
) -> dict[str, Any]:
    """`Track` fields from SMPL fits, in the camera; NaN and false where there are none."""
    pose, betas = np.full((len(kept), 72), np.nan, np.float32), np.full((len(kept), 10), np.nan, np.float32)
    known = np.zeros(len(kept), np.bool_)
    try:
        found = _fit(raw, video, kept, metadata)
    except RawDataError as error:  # the other labels are good without fits
        account.notes.append(f"SMPL fits are not used: {error}")
        found = None
    if found is not None:
        pose, betas, known = found
        if not known.all():
            account.notes.append(f"{int((~known).sum())} of the kept frames have no SMPL fit")
    return {"pose": pose, "betas": betas, "has_smpl": known}


def _fit(
    raw: Path, video: RawVideo, kept: NDArray[np.int64], metadata: Metadata | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]] | None:
    """pose (T, 72) in the camera, betas (T, 10) and where they are known (T,); None without a file of fits."""
    files = {end: raw / file for file in video.files for end in (FITS, CAMERAS) if file.name.endswith(end)}
    if FITS not in files:
        return None
    subject, _, name = video.name.partition("/")
    action_name, _, camera = name.rpartition(".")
    action = None if metadata is None else metadata.action.get((subject, action_name))
    if action is None or CAMERAS not in files:
        key, expected = ("mapping", METADATA) if action is None else ("camera", f"Human36M_subject*{CAMERAS}")
        do = "Put it where docs/datasets/h36m.md says."
        raise RawDataError(files[FITS], key, expected=f"{expected} to go with it", found="nothing that fits", do=do)
    rotation = load_rotations(files[CAMERAS]).get(camera)
    fit = load_fits(files[FITS]).get(action)
    if rotation is None or fit is None:
        key, expected = ("camera", camera) if rotation is None else ("action/subaction", f"{action[0]}/{action[1]}")
        raise RawDataError(files[FITS], key, expected=expected, found="none", do="Nothing, if it has no fits.")
    pose, betas, known = fit.of(kept)
    if known.any():
        pose[known] = in_camera(pose[known], rotation).astype(np.float32)
    return pose, betas, known
