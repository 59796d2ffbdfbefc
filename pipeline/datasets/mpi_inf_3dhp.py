"""MPI-INF-3DHP: 8 subjects, 8 cameras, 6 test videos, 3D joints without markers.  [raw -> tracks]
-> features

Mehta et al.: Monocular 3D Human Pose Estimation In The Wild Using Improved CNN Supervision, 3DV
2017.

    S<1..8>/Seq<1,2>/annot.mat                MATLAB v5: annot2 (px) and annot3 (mm), a cell of 14
                                              cameras each
    S<1..8>/Seq<1,2>/camera.calibration       a header line, then 7 lines per camera: a name and its
                                              numbers
    S<1..8>/Seq<1,2>/imageFrames/video_<camera>/frame_<6 digits>.jpg, or video_<camera>/*.jpg, or
    S<1..8>/Seq<1,2>/imageSequence/video_<camera>.avi
    MPI-INF-3DHP_{SMPL_NeuralAnnot,joint_3d,camera_1k}.json      SMPL bodies by other authors,
        optional
    mpi_inf_3dhp_test_set/TS<1..6>/annot_data.mat      MATLAB 7.3
    mpi_inf_3dhp_test_set/TS<1..6>/imageSequence/img_<6 digits from 1>.jpg

A training video is one camera of a sequence: S1/Seq2/video_4. A test video is TS3. `read` gets the
labels of one person (`LabelledPerson`), and the frames and camera that show it (`_Film`).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import cache
from pipeline.accounting import Totals, VideoAccount
from pipeline.datasets.base import (
    REGISTERED,
    Dataset,
    ImageFolders,
    Mistake,
    Origin,
    Release,
    ReleasePart,
)
from pipeline.datasets.labels import neural_annot
from pipeline.datasets.labels.mpi_inf_3dhp import (
    CAMERAS,
    TEST,
    TRAIN,
    Calibration,
    LabelledPerson,
)
from pipeline.datasets.shared.checks import LabelRules, finite_rows
from pipeline.datasets.shared.images import (
    frames_there,
    inputs,
    lost_frames,
    pictures_or_video,
    require_released_size,
    require_size,
)
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.smpl import BODIES, EXTRINSICS, fit_labels
from pipeline.errors import RawDataError
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import is_folder_there
from pipeline.people.boxes import tight_boxes
from pipeline.people.skeletons import (
    Bools,
    Float32s,
    Floats,
    Ints,
    add_confidence,
    convert,
    correspondence,
)
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

BOX_FACTOR: Final = 1.1
# possible folders of the test set, as get_testset.sh unpacks it
TEST_SETS: Final = ("mpi_inf_3dhp_test_set", "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set")
# sequence -> (fps, number of frames), from the release's util/mpii_get_sequence_info.m
SEQUENCES: Final[Mapping[str, tuple[int, int]]] = {
    "S1/Seq1": (25, 6416), "S1/Seq2": (50, 12430), "S2/Seq1": (25, 6502), "S2/Seq2": (25, 6081),
    "S3/Seq1": (50, 12488), "S3/Seq2": (50, 12283), "S4/Seq1": (25, 6171), "S4/Seq2": (25, 6675),
    "S5/Seq1": (50, 12820), "S5/Seq2": (50, 12312), "S6/Seq1": (25, 6188), "S6/Seq2": (25, 6145),
    "S7/Seq1": (25, 6239), "S7/Seq2": (25, 6320), "S8/Seq1": (25, 6468), "S8/Seq2": (25, 6054),
}  # fmt: skip
TRAIN_FRAMES: Final = sum(n for _, n in SEQUENCES.values())  # of one camera
TEST_FRAMES: Final = 6151 + 6080 + 5838 + 6007 + 320 + 492  # annotated, of TS1 to TS6
SHORT: Final = {"S6/Seq2/video_2": 3911}  # training video -> its frames, fewer than labels
SIZE: Final = (2048, 2048)  # px, width and height, of all videos except
WIDE: Final = {"TS5": (1920, 1080), "TS6": (1920, 1080)}
TEST_SPARE: Final = 2  # images that test videos have after the labelled ones: TS3 has 1, TS4 has 2
FITS: Final = (neural_annot.FITS, neural_annot.WORLD, neural_annot.CAMERAS)
# for `ReleasePart.patterns`: any training sequence; video_{0,1,2,4,5,6,7,8}
SEQUENCE_PATTERN: Final = "S<1..8>/Seq<1,2>"
CAMERA_PATTERN: Final = f"video_{{{','.join(map(str, CAMERAS))}}}"


@dataclass(frozen=True)
class MpiInf3dhp(Dataset):
    """One track per video. A training video is a sequence from one of the 8 usual cameras."""

    name = "mpi_inf_3dhp"
    splits = ("train", "test")
    # 7: images of another size than the release's are refused, also without a camera; one thread
    # decodes a clip; wrong times; 8: ends of H.264 slices
    version = 8
    uses = Dataset.uses | BODIES

    release = Release(
        page="https://vcai.mpi-inf.mpg.de/3dhp-dataset",
        access="registration",
        licence=REGISTERED,
        parts=(
            ReleasePart(
                "label files",
                (f"{SEQUENCE_PATTERN}/annot.mat",),
                "get_dataset.sh",
                ("train",),
                known=len(SEQUENCES),
            ),
            ReleasePart(
                "images or videos",
                (
                    f"{SEQUENCE_PATTERN}/imageFrames/{CAMERA_PATTERN}/",
                    f"{SEQUENCE_PATTERN}/{CAMERA_PATTERN}/",
                    f"{SEQUENCE_PATTERN}/imageSequence/{CAMERA_PATTERN}.{{avi,mp4}}",
                ),
                "get_dataset.sh (vnect_cameras.zip)",
                ("train",),
                known=len(SEQUENCES) * len(CAMERAS),
            ),
            ReleasePart(
                "camera calibrations",
                (f"{SEQUENCE_PATTERN}/camera.calibration",),
                "get_dataset.sh",
                ("train",),
                known=len(SEQUENCES),
                without="cameras",
            ),
            ReleasePart(
                "SMPL fits",
                ("MPI-INF-3DHP_{SMPL_NeuralAnnot,joint_3d,camera_1k}.json",),
                "the three files of MPI-INF-3DHP, of github.com/mks0601/NeuralAnnot_RELEASE",
                ("train",),
                known=3,
                without="pose and betas",
            ),
            ReleasePart(
                "test labels",
                tuple(f"{folder}/TS<1..6>/annot_data.mat" for folder in TEST_SETS),
                "get_testset.sh",
                ("test",),
                known=6,
            ),
            ReleasePart(
                "test images",
                tuple(f"{folder}/TS<1..6>/imageSequence/" for folder in TEST_SETS),
                "get_testset.sh",
                ("test",),
                known=6,
            ),
        ),
        mistakes=(
            Mistake(
                "TS*/",
                "is a test sequence outside the test set's folder",
                f"Move it into {TEST_SETS[0]}/.",
            ),
            Mistake(
                "S*/Seq*/imageSequence/*.zip", "is still packed", "Unpack it in its own folder."
            ),
        ),
        recording="sequence",
        image_folders=ImageFolders(alike_by_camera=True, short=frozenset(SHORT)),
        totals={
            "train": Totals(len(SEQUENCES) * len(CAMERAS), len(CAMERAS) * TRAIN_FRAMES),
            "test": Totals(6, TEST_FRAMES),
        },
    )
    # extrinsics need the calibration
    labels = LabelRules(optional_extra=(EXTRINSICS.name,))

    def detect_layout(self, raw: Path, split: str) -> MpiInf3dhp:
        if split == "train" and (raw / neural_annot.FITS).is_file():
            return _WithFits(**asdict(self))
        return self

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d")
        return labels if split == "train" else (*labels, "kp_3d_eval", "valid")

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        return (EXTRINSICS,) if split == "train" else ()

    def origin(self, video: str) -> Origin:
        """The recording is the sequence, of all cameras. The test set's actors are unknown.

        >>> MpiInf3dhp().origin("S1/Seq2/video_0"), MpiInf3dhp().origin("TS3")
        (Origin(subject='S1', recording='S1/Seq2'), Origin(subject=None, recording='TS3'))
        """
        train = re.fullmatch(r"((S[0-9]+)/Seq[0-9]+)/video_[0-9]+", video)
        if train is not None:
            return Origin(subject=train[2], recording=train[1])
        if re.fullmatch(r"TS[0-9]+", video):
            return Origin(recording=video)
        return Origin()

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        if split == "train":
            listed = list(_train_videos(raw))
            expected = f"{SEQUENCE_PATTERN}/"
        else:
            listed = list(_test_videos(raw))
            expected = f"{TEST_SETS[0]}/TS<1..6>/"
        if not listed:
            do = "Point the raw folder at the unpacked download."
            raise RawDataError(raw, "folder", expected, "none", do)
        return sorted(listed, key=lambda video: video.name)

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        read_labels = _read_train if split == "train" else _read_test
        labels, film = read_labels(raw, video, account)
        bbox, reasons = _boxes_and_reasons(labels, film, account)

        def labels_of(rows: Ints) -> dict[str, Any]:
            if Path(neural_annot.FITS) not in video.files:
                return {}
            joints = convert(labels.kp_3d, source=TRAIN, target=TEST)
            load = functools.partial(
                neural_annot.load_fits, raw, video.name, joints, film.extrinsics, rows
            )
            return fit_labels(load, len(rows), account)

        return labelled_track(
            self,
            split,
            video,
            account,
            film.source,
            reasons=reasons,
            skeleton=labels.skeleton,
            kp_2d=add_confidence(labels.kp_2d),
            kp_3d=labels.kp_3d,
            evaluation=split == "test",
            bbox=bbox,
            extrinsics=film.extrinsics,
            labels_of=labels_of,
            fps=film.fps,
            intrinsics=film.intrinsics,
            valid=labels.valid,
        )


@dataclass(frozen=True)
class _WithFits(MpiInf3dhp):
    """The reader of a raw folder with NeuralAnnot's fits."""

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        return (*super().columns(split, body=body), "pose", "betas", "has_smpl")

    def shared(self, raw: Path) -> dict[str, str]:
        # in place of a digest: the split is converted again when the fits appear, but not when they
        # change, since they are among the files of each video
        return {"fits": "NeuralAnnot"}

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        fits = tuple(map(Path, FITS))
        videos = super().videos(raw, split)
        return [replace(video, files=video.files + fits) for video in videos]


def _train_videos(raw: Path) -> Iterator[RawVideo]:
    """Yield a video for each sequence and usual camera with images or a video file.

    A sequence with labels alone gives a video for each camera.
    """
    for sequence in _list_folders(raw, "S[0-9]*/Seq[0-9]*", r"S[0-9]+/Seq[0-9]+"):
        labels = tuple(Path(sequence, name) for name in ("annot.mat", "camera.calibration"))
        by_camera = []
        for camera in CAMERAS:
            files, folders = inputs(raw, *_candidate_paths(sequence, camera))
            by_camera.append(RawVideo(f"{sequence}/video_{camera}", (*labels, *files), folders))
        filmed = [video for video in by_camera if video.paths != labels]
        if filmed or (raw / labels[0]).exists():
            yield from filmed or by_camera


def _test_videos(raw: Path) -> Iterator[RawVideo]:
    """Yield the videos of the first of TEST_SETS that has any."""
    for test in TEST_SETS:
        names = _list_folders(raw / test, "TS[0-9]*", r"TS[0-9]+")
        for name in names:
            folder = Path(test, name)
            yield RawVideo(
                name, files=(folder / "annot_data.mat",), folders=(folder / "imageSequence",)
            )
        if names:
            return


def _list_folders(raw: Path, glob: str, pattern: str) -> list[str]:
    """Sorted paths below `raw` of the folders that match both patterns."""
    folders = filter(is_folder_there, raw.glob(glob))
    names = (folder.relative_to(raw).as_posix() for folder in folders)
    return sorted(name for name in names if re.fullmatch(pattern, name))


def _candidate_paths(sequence: str, camera: int) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """(image folders, video files) where a camera's frames may be, the usual ones first: arguments
    of `inputs` and `pictures_or_video`.
    """
    name = f"video_{camera}"
    folders = (Path(sequence, "imageFrames", name), Path(sequence, name))
    parent = Path(sequence, "imageSequence")
    return folders, (parent / f"{name}.avi", parent / f"{name}.mp4")


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """Frames and camera of a video."""

    source: Pictures | Video
    fps: float = math.nan  # nan where the release does not say
    spare: int = 0  # number of images that the release may have after the labelled ones
    intrinsics: Float32s | None = None  # (3, 3) px
    extrinsics: Float32s | None = None  # (4, 4) world to camera, m


def _read_train(raw: Path, video: RawVideo, account: VideoAccount) -> tuple[LabelledPerson, _Film]:
    """Read annot.mat and camera.calibration, and find the frames. Notes an unusable calibration."""
    sequence, _, number = video.name.rpartition("/video_")
    camera = int(number)
    labels_file = raw / video.files[0]
    calibration_file = raw / video.files[1]
    labels = LabelledPerson.read_train(labels_file, camera)
    account.found = len(labels.kp_2d)
    n_released = SHORT.get(video.name, account.found)
    source = pictures_or_video(raw, *_candidate_paths(sequence, camera), n_released, account)
    fps = math.nan
    if sequence in SEQUENCES:
        fps = float(SEQUENCES[sequence][0])
    if isinstance(source, Video):
        source.require_decodable()
        fps = source.record().fps
    try:
        calibrated, intrinsics, extrinsics = Calibration.read(calibration_file, camera)
    except (OSError, RawDataError) as error:  # labels do not need it
        account.note(f"no camera intrinsics: {error}")
        require_released_size(source, SIZE, labels_file)
        return labels, _Film(source, fps)
    # The labels are in pixels of images of the calibrated size.
    do = "Extract the videos' frames as they are: all of them, at their own size."
    require_size(source, calibrated, calibration_file, do)
    if extrinsics is None:
        account.note("camera.calibration: extrinsic is no rotation and shift: not used")
    return labels, _Film(source, fps, intrinsics=intrinsics, extrinsics=extrinsics)


def _read_test(raw: Path, video: RawVideo, account: VideoAccount) -> tuple[LabelledPerson, _Film]:
    """Read annot_data.mat, and find the images."""
    labels_file = raw / video.files[0]
    labels = LabelledPerson.read_test(labels_file)
    account.found = len(labels.kp_2d)
    images = Pictures(raw, f"{video.folders[0].as_posix()}/img_{{:06d}}.jpg", first=1)
    require_released_size(images, WIDE.get(video.name, SIZE), labels_file)
    return labels, _Film(images, spare=TEST_SPARE)


def _boxes_and_reasons(
    labels: LabelledPerson, film: _Film, account: VideoAccount
) -> tuple[Floats, dict[str, Bools]]:
    """Boxes (N, 4), and the reasons to drop frames: reason -> (N,) whether it applies."""
    columns = correspondence(labels.skeleton, "spin49")[0]  # 17 joints: no hands and toes
    kp_2d = labels.kp_2d[:, columns]
    kp_3d = labels.kp_3d[:, columns]
    # Comparisons with NaN are false. Joints from 0 to just below the image's width and height are
    # inside, as usual with this dataset.
    in_image = (kp_2d >= 0) & (kp_2d < film.source.size())
    is_inside = np.all(in_image, axis=(1, 2))
    inside_2d = np.where(is_inside[:, None, None], kp_2d, 0)
    bbox, _, degenerate = tight_boxes(add_confidence(inside_2d), BOX_FACTOR)
    reasons = {
        "no_picture": ~frames_there(film.source, len(kp_2d), account, spare=film.spare),
        "frame_damaged": lost_frames(film.source, len(kp_2d)),
        "label_not_finite": ~finite_rows(kp_2d, kp_3d),
        "joint_outside_picture": ~is_inside,
        "degenerate_box": degenerate,
    }
    return bbox, reasons
