"""Human3.6M as images and JSON files of 3DMPPE, I2L-MeshNet, Pose2Pose and HybrIK.  [raw -> tracks]
-> features

    images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg
                                                        image 000001 is frame 0, at 50 fps
    annotations/Human36M_subject<k>_joint_3d.json       joints of every frame, in the world
    annotations/Human36M_subject<k>_camera.json         cameras without distortion

Moon, Chang, Lee: Camera Distance-Aware Top-Down Approach for 3D Multi-Person Pose Estimation, ICCV
2019. Their files Human36M_subject<k>_data.json (image sizes, boxes) are not read: sizes are known
from the images, and boxes are computed from joints.

This module also reads the SMPL fits of other authors, which are JSON files in both layouts of
Human3.6M. A take is one of the two performances (subactions) of an action by a subject.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.cameras import is_rotation, pose_in_camera, project
from pipeline.datasets.base import finite_joints
from pipeline.datasets.fitted import MOST_OFF_M, distances_to_joints, usable_fits
from pipeline.datasets.pixels import SAME_SIZE, no_pictures, require_rate, require_size
from pipeline.errors import RawDataError
from pipeline.files.formats.h36m import CAMERAS, Camera, load_cameras, load_fits, load_joints
from pipeline.files.pixels.frames import Pictures, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import is_folder_entry, scan_folder
from pipeline.skeletons import (
    JOINTS,
    LARGEST,
    Bools,
    Doubles,
    Floats,
    Ints,
    add_confidence,
    convert,
)

if TYPE_CHECKING:
    from pipeline.body import Body

METRES: Final = 1e-3  # in a millimetre
STEP: Final = 2  # frames: every second one is used
PELVIS: Final = JOINTS["h36m"].index("hip")
FILE = "Human36M_subject"  # start of each file's name; the subject's number and an ending follow
JOINTS_3D = "_joint_3d.json"
CAMERA = "_camera.json"
FITS: Final = ("_smpl_param.json", "_SMPL_NeuralAnnot.json")  # the preferred first
FOLDERS: Final = ("smpl_param", "annotations")
# A camera is plausible if it sees at least LEAST_SEEN (a share) of the joints: in the image, within
# OUTSIDE half image sizes of the principal point, and at most FARTHEST m away (8 m in the studio).
FARTHEST: Final = 15.0
OUTSIDE: Final = 1.2
LEAST_SEEN: Final = 0.5
SOURCE: Final = (
    "images.tar.gzaa to .gzag and annotations.zip, of github.com/mks0601/3DMPPE_POSENET_RELEASE"
)
UNPACK: Final = f"Unpack {SOURCE} again."
STORED: Final = (  # right before left
    "hip", "rhip", "rknee", "rankle", "lhip", "lknee", "lankle", "Spine (H36M)", "neck",
    "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip
ACTIONS: Final = (  # the actions with the numbers 2 to 16, by the release's names
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown",
    "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
# names that S1's files have in the release; some downloads have the usual ones
S1_ACTIONS: Final = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog"}
# subject -> entries action/subaction:number, where the number is the one after the action in the
# release's file name. Takes that are not listed have number 1 (subaction 1) or none (subaction 2).
NUMBERS: Final = {
    "S1": "4/1:2 9/2:2 10/1:2",
    "S5": "2/2:2 3/1:2 3/2:3 5/2:2 10/1: 10/2:1 12/1: 12/2:2 13/2:2",
    "S6": "4/2:2 7/1:2 9/2:2 12/1: 12/2:1 13/1:3",
    "S7": "6/1:2 10/1: 10/2:1 12/1: 12/2:1 13/2:2 14/2:2",
    "S8": "10/1: 10/2:1 16/2:2",
    "S9": "3/2:2 10/1: 10/2:1",
    "S11": "3/2:2 5/1:2 6/1:3 6/2:2 10/1: 10/2:1 11/1:2",
}
_FOLDER: Final = re.compile(r"s_([0-9]{2})_act_([0-9]{2})_subact_([0-9]{2})_ca_([0-9]{2})")


class LabelledFrames(NamedTuple):
    """The F labelled frames of a sequence, seen by one camera."""

    frame_index: Ints  # (F,) strictly increasing
    # (F, 17, 3) px px, 1, or 0 0 0 where it is not finite, in the order of JOINTS["h36m"]
    kp_2d: Doubles
    # (F, 17, 3) m, camera axes, the pelvis at 0; NaN in frames with one that is not finite
    joints: Doubles
    source: Pictures | Video
    reasons: Mapping[str, Bools]  # reason to drop rows -> (F,) whether it applies
    camera: Camera | None  # extrinsics and intrinsics
    action: tuple[int, int] | None  # numbers of action and subaction, by which fits are stored


def _name_takes() -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    """Yield ((subject, the release's file name before the camera), (action, subaction)) of takes.

    S1's takes of the actions in S1_ACTIONS are yielded twice: by the usual name, then by S1's.
    """
    for subject, listed in NUMBERS.items():
        numbers = {"1": "1", "2": ""} | dict(text.split(":") for text in listed.split())
        for action, usual in enumerate(ACTIONS, start=2):
            names = [usual]
            if subject == "S1" and usual in S1_ACTIONS:
                names.append(S1_ACTIONS[usual])
            for name in names:
                for subaction in "12":
                    number = numbers.get(f"{action}/{subaction}", numbers[subaction])
                    yield (subject, f"{name} {number}".rstrip()), (action, int(subaction))


TAKES: Final = dict(_name_takes())
# if a take has two names, the later one: that of S1_ACTIONS
NAMES: Final = {(subject, take): name for (subject, name), take in TAKES.items()}


def image_folder(video: str) -> Path | None:
    """The image folder in this layout of a video with the release's name; None if it is unknown."""
    subject, _, stem = video.partition("/")
    name, _, camera = stem.rpartition(".")
    if (subject, name) not in TAKES or camera not in CAMERAS:
        return None
    action, subaction = TAKES[subject, name]
    take = f"s_{int(subject[1:]):02d}_act_{action:02d}_subact_{subaction:02d}"
    return Path("images", f"{take}_ca_{CAMERAS.index(camera) + 1:02d}")


def list_videos(raw: Path, subjects: Sequence[str]) -> Iterator[RawVideo]:
    """Yield a video for each image folder of these subjects.

    The first two files of each are the joints and the cameras, whether they exist or not.
    """
    files = {}
    for subject in subjects:
        joints = Path("annotations", f"{FILE}{subject[1:]}{JOINTS_3D}")
        cameras = Path("annotations", f"{FILE}{subject[1:]}{CAMERA}")
        files[subject] = (joints, cameras, *label_files(raw, subject, FITS))
    for entry in scan_folder(raw / "images", {}):
        match = _FOLDER.fullmatch(entry.name)
        if match is None or not is_folder_entry(entry):
            continue
        number, action, subaction, camera = map(int, match.groups())
        subject = f"S{number}"
        name = NAMES.get((subject, (action, subaction)))
        if subject in files and name and 1 <= camera <= len(CAMERAS):
            video = f"{subject}/{name}.{CAMERAS[camera - 1]}"
            yield RawVideo(video, files[subject], (Path("images", entry.name),))


def label_files(raw: Path, subject: str, *kinds: tuple[str, ...]) -> list[Path]:
    """Return a subject's label files that exist, at most one of each kind.

    A kind is a tuple of name endings; the first one with a file in `FOLDERS` is used.
    """
    files = list[Path]()
    for endings in kinds:
        for ending, folder in itertools.product(endings, FOLDERS):
            file = Path(folder, f"{FILE}{subject[1:]}{ending}")
            if (raw / file).is_file():
                files.append(file)
                break
    return files


def read_labels(raw: Path, video: RawVideo, account: VideoAccount) -> LabelledFrames:
    """Labels of one image folder.

    Raises RawDataError if a label file, the joints or the images are missing (`no_label`,
    `no_picture`), if the cameras do not see the joints in either reading of `_camera`
    (`bad_camera`), and if images have another size or frame rate.
    """
    joints_file, camera_file = (raw / file for file in video.files[:2])
    (folder,) = video.folders
    subject, _, stem = video.name.partition("/")
    name, _, number = stem.rpartition(".")
    if (raw / subject).is_dir():
        account.notes.append(
            f"images/ and annotations/ count: {subject}/ lacks poses, frames or metadata.xml"
        )
    for file in (joints_file, camera_file):
        if not file.is_file():
            raise RawDataError(
                file, "file", "joints and cameras to the images", "none", UNPACK, reason="no_label"
            )
    frames, millimetres = load_joints(joints_file, TAKES[subject, name])
    account.found = len(frames)
    # comparisons with NaN are false
    usable = (np.abs(millimetres) < LARGEST).all(axis=-1, keepdims=True)
    world = convert(np.where(usable, millimetres * METRES, np.nan), source=STORED, target="h36m")
    extrinsics, intrinsics = _camera(camera_file, CAMERAS.index(number), world)
    source = Pictures(raw, f"{folder.as_posix()}/{folder.name}_{{:06d}}.jpg", 1)
    images = source.indices()
    if not len(images):
        raise no_pictures(source.place, f"{len(frames)} images", UNPACK)
    require_rate(source, int(frames[-1]) + 1, whole=True)
    require_size(source, None, camera_file, SAME_SIZE, intrinsics)
    n_beyond = int((~np.isin(images, frames)).sum())
    if n_beyond:
        account.notes.append(f"{n_beyond} of {len(images)} images have no joints: not used")

    in_view = world @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    joints = in_view - in_view[:, [PELVIS]]
    joints[~np.isfinite(joints).all(axis=(1, 2))] = np.nan
    kp_2d = finite_joints(add_confidence(project(in_view, intrinsics)), account, " in 2D")
    reasons = {"not_sampled": ~_is_sampled(frames, images), "no_picture": ~np.isin(frames, images)}
    camera = extrinsics.astype(np.float32), intrinsics.astype(np.float32)
    return LabelledFrames(frames, kp_2d, joints, source, reasons, camera, TAKES[subject, name])


def _is_sampled(frames: Ints, images: Ints) -> Bools:
    """Whether each labelled frame is used, (F,): every second one, as in the release's layout.

    If the folder has images of only every s-th frame (s > 1), the frames of these are used.
    """
    steps, times = np.unique(np.diff(images), return_counts=True)
    step = 1
    if 2 * times.max(initial=0) > times.sum():  # most steps are equal: a few others do not count
        step = int(steps[times.argmax()])
    if step == 1:
        return np.asarray(frames % STEP == 0)
    phases, times = np.unique(images % step, return_counts=True)
    return np.asarray(frames % step == phases[times.argmax()])


def _camera(file: Path, camera: int, world: Doubles) -> tuple[Doubles, Doubles]:
    """Read extrinsics (4, 4), world to camera in m, and intrinsics (3, 3) px, of one camera.

    world: (F, 17, 3) m, the joints in the world. A file's t is meant either as R X + t or as
    R (X - t). The reading is used with which the worst of the four cameras sees more joints. Raises
    RawDataError (`bad_camera`) if that camera sees too few.
    """
    stored = load_cameras(file).values()
    turns, t, focal, centre = (np.array([values[key] for values in stored]) for key in "Rtfc")
    intrinsics = np.tile(np.eye(3), (len(CAMERAS), 1, 1))
    intrinsics[:, [0, 1], [0, 1]] = focal
    intrinsics[:, :2, 2] = centre
    points = world[np.isfinite(world).all(axis=-1)]
    with np.errstate(all="ignore"):  # numbers that are not finite see nothing
        # (2 readings, cameras, 3)
        shifts = METRES * np.stack([t, -np.einsum("cij,cj->ci", turns, t)])
        in_view = points @ turns.swapaxes(1, 2) + shifts[:, :, None]
        from_centre = project(in_view, intrinsics[:, None]) / centre[:, None] - 1
        is_in_image = np.abs(from_centre).max(axis=-1) < OUTSIDE
        is_visible = is_in_image & (in_view[..., 2] < FARTHEST)
        visible = is_visible.sum(axis=-1) / max(len(points), 1)
    visible[:, ~is_rotation(turns)] = 0
    best = visible.min(axis=1).argmax()
    worst = visible[best].argmin()
    if visible[best, worst] < LEAST_SEEN:
        expected = (
            "a rotation R, and a t in mm with which R X + t or R (X - t) puts the joints X "
            "into its image"
        )
        found = f"{visible[best, worst]:.0%} of them there"
        raise RawDataError(
            file, f"camera {worst + 1}", expected, found, UNPACK, reason="bad_camera"
        )
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = turns[camera]
    extrinsics[:3, 3] = shifts[best, camera]
    return extrinsics, intrinsics[camera]


# --------------------------------------------------------------------------------------------------
# SMPL fits


def smpl_labels(
    raw: Path,
    video: RawVideo,
    frame_index: Ints,
    action: tuple[int, int] | None,
    joints: Floats,
    body: Body | None,
    account: VideoAccount,
) -> dict[str, Any]:
    """Make the `Track` fields `pose`, `betas` and `has_smpl` from SMPL fits, in camera axes.

    Frames without a usable fit have NaN, and false in `has_smpl`. With a body model, fits that are
    far from the joints are not used, either. joints: (N, 14, 3) m, of the frames `frame_index`, in
    the order of common14.
    """
    fits = np.full((len(frame_index), 82), np.nan, np.float32)
    file = _file_of(raw, video, *FITS)
    if file is not None:
        try:
            fits = _fits_in_camera(raw, video, file, frame_index, action)
            n_absent = int((~np.isfinite(fits).all(axis=1)).sum())
            if n_absent:
                account.notes.append(f"{n_absent} of the kept frames have no SMPL fit")
        except RawDataError as error:  # the other labels are good without fits
            account.notes.append(f"SMPL fits are not used: {error}")
    has_smpl = usable_fits(fits, account)
    if body is not None and has_smpl.any():
        distance = distances_to_joints(body, fits[has_smpl], joints[has_smpl])
        is_far = distance > MOST_OFF_M  # comparisons with NaN are false
        has_smpl[has_smpl] = ~is_far
        if is_far.any():
            limit = f"over {1000 * MOST_OFF_M:.0f} mm off the joints"
            account.notes.append(f"{int(is_far.sum())} SMPL fits are {limit}: not used")
    fits[~has_smpl] = np.nan
    return {"pose": fits[:, :72], "betas": fits[:, 72:], "has_smpl": has_smpl}


def _file_of(raw: Path, video: RawVideo, *endings: str) -> Path | None:
    for file in video.files:
        if file.name.endswith(endings):
            return raw / file
    return None


def _fits_in_camera(
    raw: Path, video: RawVideo, fits: Path, frame_index: Ints, action: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Read pose and betas, (N, 82), of the frames `frame_index`; not finite without a fit.

    The global orientation is in camera axes. Raises RawDataError if the camera of the fits, or
    metadata.xml, is missing.
    """
    cameras = _file_of(raw, video, CAMERA)
    actual = "nothing that fits"
    do = "See docs/datasets/h36m.md for its place."
    if action is None:
        raise RawDataError(fits, "mapping", "metadata.xml to go with it", actual, do)
    if cameras is None:
        expected = f"Human36M_subject*{CAMERA} to go with it"
        raise RawDataError(fits, "camera", expected, actual, do)
    camera = video.name.rpartition(".")[2]
    rotation = load_cameras(cameras, "R").get(camera, {}).get("R", np.zeros((3, 3)))
    if not is_rotation(rotation[None])[0]:
        raise RawDataError(
            cameras, camera, "a rotation", str(rotation.tolist()), "Download the fits again."
        )
    values = load_fits(fits, action, frame_index)
    has_fit = np.isfinite(values).all(axis=1)
    values[has_fit, :72] = pose_in_camera(values[has_fit, :72], rotation)
    return values
