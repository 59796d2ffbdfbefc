"""Human3.6M: actors in a studio, four cameras, motion capture.  [raw -> tracks] -> features

Ionescu, Papava, Olaru, Sminchisescu: Human3.6M: Large Scale Datasets and Predictive Methods for 3D
Human Sensing in Natural Environments, PAMI 2014.

    S<k>/Videos/<sequence>.mp4          or images in S<k>/images/<sequence>/; "Walking 1.54138969"
                                        is a sequence: <action>[ <n>].<camera>
    S<k>/MyPoseFeatures/{D2_Positions,D3_Positions_mono}/<sequence>.cdf
    metadata.xml                        cameras, and each subject's sequence names of an action
    smpl_param/Human36M_subject<k>_smpl_param.json      optional SMPL fits in the world by other
                                                        authors: action id -> subaction id ->
                                                        frame -> pose 72, shape 10
    smpl_param/Human36M_subject<k>_camera.json          camera "1" to "4" -> R (3, 3); both also in
                                                        annotations/

`h36m_json` reads another layout, of images and JSON files. It is used for sequences that are
missing or incomplete in this one: `Human36M.videos` chooses (`_is_complete`), and `Human36M.read`
gets `LabelledFrames` from `_read_release` or `h36m_json.read_labels`. In both layouts, a sequence
has the release's name, such as "S9/Walking 1.54138969", and the first two files of its `RawVideo`
are its label files (`h36m_json.needed_files`), whether they exist or not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import numpy as np

import cache
from pipeline.accounting import Totals, VideoAccount
from pipeline.boxes import tight_boxes
from pipeline.cli.text import count
from pipeline.datasets import h36m_json
from pipeline.datasets.base import (
    EXTRINSICS,
    UP,
    Dataset,
    Mistake,
    Origin,
    ReleasePart,
    finite_joints,
)
from pipeline.datasets.h36m_json import JOINTS_3D, METRES, PELVIS, STEP, LabelledFrames
from pipeline.datasets.labels.h36m_fits import CAMERA, FILE, FITS, FOLDERS, label_files, smpl_labels
from pipeline.datasets.pixels import (
    LEAST_SHARE,
    frame_mismatch,
    frames_there,
    inputs,
    lost_frames,
    pictures_or_video,
)
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import numbers
from pipeline.files.formats.h36m import load_cdf, load_metadata
from pipeline.files.pixels.frames import Pictures, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import scan_folder
from pipeline.skeletons import LARGEST, Doubles, add_confidence, convert
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

FPS: Final = 50.0
BOX_FACTOR: Final = 1.1
SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("S1", "S5", "S6", "S7", "S8"),
    "val": ("S9", "S11"),
}
VIDEOS: Final = "Videos"
POSES: Final = ("MyPoseFeatures/D2_Positions", "MyPoseFeatures/D3_Positions_mono")  # 2D, 3D
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
WORLD_UP: Final = np.array([0, 0, 1], np.float32)  # of metadata.xml's cameras
# recording -> a note about a fault in the release
DAMAGED: Final = dict.fromkeys(
    ("S9/Greeting", "S9/SittingDown 1", "S9/Waiting 1"), "its labels lie off the images"
) | {"S11/Directions": "the video of camera 54138969 is damaged in the release"}


def _split_parts(split: str, n_sequences: int) -> Iterator[ReleasePart]:
    """Yield what a split needs of the release: frames, 2D poses and 3D poses.

    The images, cameras or joints of `h36m_json` can replace them (`instead`). Patterns list the
    split's subjects in braces; [!_] skips files that are no sequences. The frames of val are in
    {S9,S11}/Videos/[!_]<action>.<camera>.mp4, or else in images/s_{09,11}_act_<action>_.../.

    n_sequences: A subject has 120: 15 actions, twice each, by four cameras.
    """
    subjects = SUBJECTS[split]
    numbers = [subject[1:] for subject in subjects]
    any_subject = f"{{{','.join(subjects)}}}"
    any_number = f"{{{','.join(numbers)}}}"
    any_padded = f"{{{','.join(number.zfill(2) for number in numbers)}}}"
    sequence = "[!_]<action>.<camera>"

    def archives(name: str) -> str:
        return ", ".join(f"{name}_{subject}.tgz" for subject in subjects)

    def json_part(content: str, pattern: str, n_files: int) -> ReleasePart:
        return ReleasePart(f"{split} {content}", (pattern,), h36m_json.SOURCE, (split,), n_files)

    images = f"images/s_{any_padded}_act_<action>_subact_<n>_ca_<camera>/"
    folders = [f"{any_subject}/{folder}/{sequence}/" for folder in PICTURES]
    yield ReleasePart(
        f"{split} videos or pictures",
        (f"{any_subject}/{VIDEOS}/{sequence}.mp4", *folders),
        f"{archives('Videos')}; or {h36m_json.SOURCE}",
        (split,),
        n_sequences,
        instead=json_part("images", images, n_sequences),
    )
    subject_file = f"annotations/{FILE}{any_number}"
    yield ReleasePart(
        f"{split} 2D poses",
        (f"{any_subject}/{POSES[0]}/{sequence}.cdf",),
        archives("Poses_D2_Positions"),
        (split,),
        n_sequences,
        instead=json_part("cameras", subject_file + CAMERA, len(subjects)),
    )
    yield ReleasePart(
        f"{split} 3D poses",
        (f"{any_subject}/{POSES[1]}/{sequence}.cdf",),
        archives("Poses_D3_Positions_mono"),
        (split,),
        n_sequences,
        instead=json_part("joints", subject_file + JOINTS_3D, len(subjects)),
    )


@dataclass(frozen=True)
class Human36M(Dataset):
    """One track per sequence (an action seen by one camera), with every second frame.

    Has SMPL labels if the raw folder has the public fits. `Dataset` describes the class attributes.
    """

    name: ClassVar[str] = "h36m"
    splits: ClassVar[tuple[str, ...]] = tuple(SUBJECTS)
    # 5: videos decoded by PyAV; 4: fits off the joints, images at another rate
    version: ClassVar[int] = 5

    # What a track has
    every: ClassVar[int] = STEP  # 25 of 50 fps
    recording: ClassVar[str] = "sequence"  # the release's word for what `origin` returns
    films_by_cameras: ClassVar[bool] = True  # four cameras film each action
    checks_fits: ClassVar[bool] = True  # the public SMPL fits are compared with the joints
    optional_extra: ClassVar[tuple[str, ...]] = (EXTRINSICS.name, UP.name)  # need the cameras

    # The download, as `doctor` checks it
    page: ClassVar[str] = "http://vision.imar.ro/human3.6m"
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        *_split_parts("train", 600),
        *_split_parts("val", 240),
        ReleasePart(
            METADATA.name,
            (METADATA.name,),
            "metadata.xml in the release's own code (Release-v1.1), available on the same page",
            known=1,
            without="cameras of the release's own files",
        ),
        ReleasePart(
            "SMPL fits",
            tuple(f"{folder}/Human36M_subject<k>{fit}" for folder in FOLDERS for fit in FITS),
            "SMPL parameters of Human3.6M and the cameras that go with them, of "
            "github.com/mks0601/I2L-MeshNet_RELEASE",
            known=7,
            without="pose and betas: has_smpl is 0 everywhere",
        ),
    )
    mistakes: ClassVar[tuple[Mistake, ...]] = (
        Mistake("*/metadata.xml", "is not read there", "Copy it into the dataset's own folder."),
        Mistake(
            "S*/MyPoseFeatures/D3_Positions/",
            "is in the world's axes and not read",
            "Download D3_Positions_mono, if it is not there yet.",
        ),
    )
    short_in_release: ClassVar[frozenset[str]] = frozenset({"S11/Directions.54138969"})
    # the poses at 50 fps as users counted them (issue 1 of weigq/3d_pose_baseline_pytorch), with
    # those of the corrupt video
    totals: ClassVar[Mapping[str, Totals]] = {
        "train": Totals(600, 1_559_752),
        "val": Totals(240, 550_644),
    }

    def detect_layout(self, raw: Path, split: str) -> Human36M:
        has_fits = any(label_files(raw, subject, FITS) for subject in SUBJECTS[split])
        if has_fits:
            return self
        return _WithoutFits(**asdict(self))

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "kp_3d", "pose", "betas", "has_3d", "has_smpl")
        return (*labels, "kp_3d_eval") if split == "val" else labels

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        return EXTRINSICS, UP

    def origin(self, video: str) -> Origin:
        """The recording is the action of one subject, which four cameras filmed.

        >>> Human36M().origin("S9/Walking 1.54138969")
        Origin(subject='S9', recording='S9/Walking 1')
        """
        match = re.fullmatch(r"(S[0-9]+)/([^/.]+)\.[0-9]+", video)
        if match is None:
            return Origin()
        return Origin(match[1], f"{match[1]}/{match[2]}")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        """List the sequences that either layout has.

        If both have one, the release's files count, unless only those of `h36m_json` are complete.
        """
        subjects = SUBJECTS[split]
        with_folder = [subject for subject in subjects if (raw / subject).is_dir()]
        listed: dict[str, RawVideo] = {}
        by_image_folder = {}  # folder that h36m_json has of a sequence -> the release's sequence
        for subject in with_folder:
            for video in _list_sequences(raw, subject):
                listed[video.name] = video
                by_image_folder[h36m_json.image_folder(video.name)] = video
        for video in h36m_json.list_videos(raw, subjects):
            released = by_image_folder.get(video.folders[0])
            if released is not None:
                if _is_complete(raw, released) or not _is_complete(raw, video):
                    continue
                del listed[released.name]  # S1's Photo may be TakingPhoto in the other layout
            listed[video.name] = video
        if not listed and not with_folder:
            expected = (
                f"{' '.join(subjects)}, or some of them, or images/s_XX_act_XX_subact_XX_ca_XX"
            )
            do = "Point the raw folder at the one that holds the subjects' folders."
            raise RawDataError(raw, "folders", expected, "none of them", do)
        return sorted(listed.values(), key=lambda video: video.name)

    def unused_labels(self, raw: Path, split: str) -> str:
        folders = {video.folders[0] for video in h36m_json.list_videos(raw, SUBJECTS[split])}
        if not folders:
            return ""
        n_released = 0
        n_json = 0
        for video in self.videos(raw, split):
            subject, _, _ = video.name.partition("/")
            if not (raw / subject).is_dir():  # this subject has one layout only
                continue
            if _is_json(video):
                n_json += 1
            elif h36m_json.image_folder(video.name) in folders:
                n_released += 1
        if not n_released and not n_json:
            return ""
        counts = f"S<k>/ counts for {count(n_released, 'sequence')}, images/ for {n_json}"
        return f"subjects with S<k>/ and images/: {counts}"

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        recording, _, _ = video.name.rpartition(".")
        if recording in DAMAGED:
            account.notes.append(DAMAGED[recording])
        read_labels = h36m_json.read_labels if _is_json(video) else _read_release
        labels = read_labels(raw, video, account)
        bbox, empty, degenerate = tight_boxes(labels.kp_2d, BOX_FACTOR)
        reasons = {**labels.reasons, "no_visible_joint": empty, "degenerate_box": degenerate}
        rows = account.keep_rows(reasons)
        if not len(rows):
            return []

        frame_index = labels.frame_index[rows]
        joints = labels.joints[rows]
        has_3d = np.isfinite(joints).all(axis=(1, 2))
        if not has_3d.all():
            account.notes.append(
                f"{int((~has_3d).sum())} of the kept frames are not finite in 3D: without kp_3d"
            )
        kp_3d = convert(add_confidence(joints), source="h36m", target="spin49")
        kp_3d[~has_3d] = np.nan
        common14 = convert(joints, source="h36m", target="common14").astype(np.float32)
        smpl = smpl_labels(raw, video, frame_index, labels.action, common14, body, account)
        extra = {}
        intrinsics = None
        if labels.camera is not None:
            extrinsics, intrinsics = labels.camera
            extra = {"extrinsics": np.tile(extrinsics, (len(rows), 1, 1)), "up": WORLD_UP}
        track = self.track(
            split,
            video,
            fps=FPS,
            frame_index=frame_index,
            bbox=bbox[rows],
            kp_2d=convert(labels.kp_2d[rows], source="h36m", target="spin49").astype(np.float32),
            kp_3d=kp_3d.astype(np.float32),
            kp_3d_eval=common14 if split == "val" else None,
            has_3d=has_3d,
            intrinsics=intrinsics,
            frames=labels.source,
            extra=extra,
            **smpl,
        )
        return [track]


@dataclass(frozen=True)
class _WithoutFits(Human36M):
    """The reader of a raw folder without SMPL fits: its labels do not depend on the body model."""

    checks_fits: ClassVar[bool] = False


def _is_json(video: RawVideo) -> bool:
    """Whether a video has the layout of `h36m_json`."""
    return video.files[0].suffix == ".json"


def _is_complete(raw: Path, video: RawVideo) -> bool:
    """Whether a sequence has both label files, frames and cameras."""
    has_cameras = _is_json(video) or METADATA in video.files
    has_frames = bool(video.folders) or any(file.suffix == ".mp4" for file in video.files)
    has_labels = all(file.is_file() for file in h36m_json.needed_files(raw, video))
    return has_cameras and has_frames and has_labels


def _read_release(raw: Path, video: RawVideo, account: VideoAccount) -> LabelledFrames:
    """Read the labels of a sequence in the release's own layout. Raises RawDataError."""
    unused = h36m_json.image_folder(video.name)
    if unused and (raw / unused).is_dir():
        account.notes.append(f"the release's files count: {unused} is not used")
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
        account.notes.append(f"no {METADATA}: cameras are not known")
    else:
        try:
            metadata = load_metadata(raw / METADATA)
            camera = metadata.cameras.get((subject, camera_number))
            action = metadata.action.get((subject, take))
        except RawDataError as error:  # joints do not depend on it
            account.notes.append(f"not used: {error}")
    return LabelledFrames(frame_index, poses.kp_2d, poses.joints, source, reasons, camera, action)


def _list_sequences(raw: Path, subject: str) -> Iterator[RawVideo]:
    """Yield a subject's sequences with a video, images or poses. `read` reports missing parts."""
    image_folders: dict[str, list[Path]] = {}  # sequence -> its folders, the preferred first
    # names as written: a disk may not tell images from Images
    folders_of_subject = _list_names(raw / subject)
    for folder in PICTURES:
        if folder not in folders_of_subject:
            continue
        parent = Path(subject, folder)
        for name in sorted(_list_names(raw / parent)):
            # in names of image folders, a blank may be written as _
            bare = name.removeprefix(f"{subject}_")
            if _SEQUENCE.fullmatch(bare) and (raw / parent / name).is_dir():
                image_folders.setdefault(bare.replace("_", " "), []).append(parent / name)
    stems = set(image_folders)
    for folder in (VIDEOS, *POSES):
        suffix = ".mp4" if folder == VIDEOS else ".cdf"
        names = [name for name in _list_names(raw / subject / folder) if name.endswith(suffix)]
        stems.update(name.removesuffix(suffix) for name in names)
    shared_files = []
    if (raw / METADATA).is_file():
        shared_files.append(METADATA)
    shared_files += label_files(raw, subject, FITS, (CAMERA,))
    for stem in filter(_SEQUENCE.fullmatch, stems):
        poses = [Path(subject, folder, f"{stem}.cdf") for folder in POSES]
        file = Path(subject, VIDEOS, f"{stem}.mp4")
        videos, folders = inputs(raw, image_folders.get(stem, []), [file])
        yield RawVideo(f"{subject}/{stem}", (*poses, *videos, *shared_files), folders)


def _list_names(folder: Path) -> list[str]:
    return [entry.name for entry in scan_folder(folder, {})]


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
    source = pictures_or_video(raw, video.folders, videos, account)
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
    file_2d, file_3d = h36m_json.needed_files(raw, video)
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
        account.notes.append(f"poses of {n_2d} frames in 2D, of {n_3d} in 3D")

    kp_2d = finite_joints(add_confidence(stored_2d), account, " in 2D")
    kp_2d = np.pad(kp_2d, ((0, n_frames - n_2d), (0, 0), (0, 0)))
    after_end = ((0, n_frames - n_3d), (0, 0), (0, 0))
    millimetres = np.pad(stored_3d, after_end, constant_values=np.nan)
    is_finite = (np.abs(millimetres) < LARGEST).all(axis=(1, 2))  # comparisons with NaN are false
    millimetres[~is_finite] = np.nan
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
