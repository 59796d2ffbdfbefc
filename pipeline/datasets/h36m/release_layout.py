"""Human3.6M in the layout of its release: videos or images, poses as CDF files.  [raw -> tracks] ->
features

    S9/Videos/Walking 1.54138969.mp4    or images in S9/images/Walking 1.54138969/
    S9/MyPoseFeatures/D2_Positions/Walking 1.54138969.cdf
    S9/MyPoseFeatures/D3_Positions_mono/Walking 1.54138969.cdf
    metadata.xml                        cameras, and each subject's sequence names of an action

`Human36M` calls `list_videos` for each subject, then `read_labels` for each video that it
reads in this layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.datasets.h36m.json_layout import (
    CAMERA,
    FITS,
    METRES,
    PELVIS,
    STEP,
    LabelledFrames,
    image_folder,
    label_files,
    needed_files,
)
from pipeline.datasets.labels.h36m import load_cdf, load_metadata
from pipeline.datasets.shared.checks import finite_joints, finite_rows
from pipeline.datasets.shared.images import (
    frames_there,
    inputs,
    lost_frames,
    pictures_or_video,
    require_released_size,
)
from pipeline.datasets.shared.numbering import LEAST_SHARE, frame_mismatch
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import numbers
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import scan_names
from pipeline.people.skeletons import Doubles, add_confidence, convert

FPS: Final = 50.0
VIDEOS: Final = "Videos"
SIZE: Final = (1000, 1000)  # px, width and height, of all videos
HIGHER: Final = 0.003  # of SIZE: two cameras have 1002 rows
POSES_2D: Final = "MyPoseFeatures/D2_Positions"
POSES_3D: Final = "MyPoseFeatures/D3_Positions_mono"
POSES: Final = (POSES_2D, POSES_3D)  # a sequence has a file in each
PICTURES: Final = ("images", "Images", "imageSequence")
METADATA: Final = Path("metadata.xml")
UNPACK: Final = (
    "Unpack the subject's Poses_D2_Positions, Poses_D3_Positions_mono and Videos archives again."
)
# skips files that begin with _ALL, which are no sequences, and ._ files of a Macintosh
_SEQUENCE: Final = re.compile(r"[^_.][^.]*\.[0-9]+")

# The 32 stored joints: by their names in JOINTS["h36m"], or else by names of the motion capture.
STORED: Final = (
    "Hips", "rhip", "rknee", "rankle", "RightToeBase", "right toe's end",
    "lhip", "lknee", "lankle", "LeftToeBase", "left toe's end",
    "hip", "Spine (H36M)", "Neck", "Head (H36M)", "headtop",
    "LeftShoulder", "lshoulder", "lelbow", "lwrist",
    "LeftHandThumb", "left thumb's end", "L_Wrist_End", "left hand's",
    "neck", "rshoulder", "relbow", "rwrist",
    "RightHandThumb", "right thumb's end", "R_Wrist_End", "right hand's",
)  # fmt: skip


def list_videos(raw: Path, subject: str) -> Iterator[RawVideo]:
    """Yield a subject's sequences with a video, images or poses.

    `read_labels` reports missing parts.
    """
    image_folders: dict[str, list[Path]] = {}  # sequence -> its folders, the preferred first
    # names as written: a disk may not tell images from Images
    folders_of_subject = {*scan_names(raw / subject)}
    for folder in PICTURES:
        if folder not in folders_of_subject:
            continue
        parent = Path(subject, folder)
        for name in sorted(scan_names(raw / parent)):
            # in names of image folders, a blank may be written as _
            bare = name.removeprefix(f"{subject}_")
            if _SEQUENCE.fullmatch(bare) and (raw / parent / name).is_dir():
                image_folders.setdefault(bare.replace("_", " "), []).append(parent / name)
    stems = set(image_folders)  # names of sequences without the subject: "Walking 1.54138969"
    for folder in (VIDEOS, *POSES):
        suffix = ".mp4" if folder == VIDEOS else ".cdf"
        for name in scan_names(raw / subject / folder):
            if name.endswith(suffix):
                stems.add(name.removesuffix(suffix))
    shared_files = []
    if (raw / METADATA).is_file():
        shared_files.append(METADATA)
    shared_files += label_files(raw, subject, FITS, (CAMERA,))
    for stem in filter(_SEQUENCE.fullmatch, stems):
        poses = [Path(subject, folder, f"{stem}.cdf") for folder in POSES]  # exist or not
        file = Path(subject, VIDEOS, f"{stem}.mp4")
        videos, folders = inputs(raw, image_folders.get(stem, []), [file])
        yield RawVideo(f"{subject}/{stem}", (*poses, *videos, *shared_files), folders)


def read_labels(raw: Path, video: RawVideo, account: VideoAccount) -> LabelledFrames:
    """Read the labels of a sequence in the release's own layout. Raises RawDataError."""
    unused = image_folder(video.name)
    if unused and (raw / unused).is_dir():
        account.note(f"the release's files count: {unused} is not used")
    poses = _load_poses(raw, video, account)
    n_frames = len(poses.kp_2d)
    source = _find_source(raw, video, n_frames, account)
    frame_index = np.arange(n_frames)
    reasons = {
        "not_sampled": frame_index % STEP != 0,
        "no_label": frame_index >= poses.n_labelled,
        "no_picture": ~frames_there(source, n_frames, account),
        "frame_damaged": lost_frames(source, n_frames),
    }
    subject, _, stem = video.name.partition("/")
    take, _, camera_number = stem.rpartition(".")
    camera = None
    action = None
    if METADATA not in video.files:
        account.note(f"no {METADATA}: cameras are not known")
    else:
        try:
            metadata = load_metadata(raw / METADATA)
            camera = metadata.cameras.get((subject, camera_number))
            action = metadata.action.get((subject, take))
        except RawDataError as error:  # joints do not depend on it
            account.note(f"not used: {error}")
    return LabelledFrames(frame_index, poses.kp_2d, poses.joints, source, reasons, camera, action)


def _find_source(
    raw: Path, video: RawVideo, n_labels: int, account: VideoAccount
) -> Pictures | Video:
    """Find the images or the video of a sequence.

    Raises RawDataError if there are none, or if frames were left out when they were extracted or
    encoded.
    """
    videos = [file for file in video.files if file.suffix == ".mp4"]
    if not videos and not video.folders:
        expected = f"{video.name}.mp4, or a folder of images"
        do = "Unpack the subject's Videos archive again."
        raise RawDataError(
            raw / video.name, "video", expected, "only poses", do, reason="video_missing"
        )
    source = pictures_or_video(raw, video.folders, videos, n_labels, account)
    require_released_size(source, SIZE, raw / video.files[0], tolerance=HIGHER)
    fps = FPS
    if isinstance(source, Video):
        source.require_decodable()
        fps = source.record().fps
    n_there = source.count_frames()
    # comparisons with NaN are false
    if n_there < LEAST_SHARE * n_labels or fps < LEAST_SHARE * FPS:
        expected = f"about {n_labels} at {FPS:.0f} fps, as there are labels"
        actual = str(n_there)
        if math.isfinite(fps) and fps != FPS:
            actual += f" at {fps:.4g} fps"
        do = "Extract every frame, or use the official videos."
        raise frame_mismatch(source.place, expected, actual, do)
    return source


class _Poses(NamedTuple):
    """2D and 3D poses of F frames, the number of frames of the longer file."""

    # (F, 17, 3) px px 1, or 0 0 0 where the joint is not finite, in the order of JOINTS["h36m"]
    kp_2d: Doubles
    # (F, 17, 3) m, camera axes, the pelvis at 0; NaN in frames with a joint that is not finite
    joints: Doubles
    n_labelled: int  # number of frames that both files have; they are the first ones


def _load_poses(raw: Path, video: RawVideo, account: VideoAccount) -> _Poses:
    """Read the poses of a sequence. Raises RawDataError (`no_label`: a file is missing)."""
    file_2d, file_3d = needed_files(raw, video)  # in the order of POSES
    stored_2d = _load_joints(file_2d, 2, account)
    stored_3d = _load_joints(file_3d, 3, account)
    if stored_2d is None or stored_3d is None:
        missing_file = file_3d
        actual = "2D alone"
        if stored_2d is None:
            missing_file = file_2d
            actual = "neither" if stored_3d is None else "3D alone"
        expected = "poses in 2D and in 3D"
        raise RawDataError(missing_file, "file", expected, actual, UNPACK, reason="no_label")

    n_2d = len(stored_2d)
    n_3d = len(stored_3d)
    n_frames = max(n_2d, n_3d)
    n_labelled = min(n_2d, n_3d)
    if n_labelled < LEAST_SHARE * n_frames:
        expected = f"about {n_2d} frames, as in 2D"
        raise RawDataError(
            file_3d, "Pose", expected, str(n_3d), UNPACK, reason="frame_count_mismatch"
        )
    if n_2d != n_3d:
        account.note(f"poses of {n_2d} frames in 2D, of {n_3d} in 3D")

    kp_2d = finite_joints(add_confidence(stored_2d), account, " in 2D")
    kp_2d = np.pad(kp_2d, ((0, n_frames - n_2d), (0, 0), (0, 0)))
    after_end = ((0, n_frames - n_3d), (0, 0), (0, 0))
    millimetres = np.pad(stored_3d, after_end, constant_values=np.nan)
    millimetres[~finite_rows(millimetres)] = np.nan
    pelvis = millimetres[:, PELVIS : PELVIS + 1]
    return _Poses(kp_2d, (millimetres - pelvis) * METRES, n_labelled)


def _load_joints(file: Path, n_axes: int, account: VideoAccount) -> Doubles | None:
    """Read one pose file, (F, 17, n_axes) as stored; None if there is none. Counts its frames."""
    if not file.is_file():
        return None
    with np.errstate(invalid="ignore"):  # a NaN that signals is as good as any
        pose = numbers(file, "Pose", load_cdf(file, "Pose"), (1, None, len(STORED) * n_axes))
    joints = pose.reshape(-1, len(STORED), n_axes)
    account.found = max(account.found, len(joints))
    return convert(joints, source=STORED, target="h36m")
