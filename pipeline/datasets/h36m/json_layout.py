"""Human3.6M's JSON files: a layout of 3DMPPE, I2L-MeshNet and HybrIK, and SMPL fits.  [raw ->
tracks] -> features

    images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg
                                                        image 000001 is frame 0, at 50 fps
    annotations/Human36M_subject<k>_joint_3d.json       action id -> subaction id -> frame -> 17
                                                        joints, x y z in mm, world
    annotations/Human36M_subject<k>_camera.json         camera "1" to "4", without distortion -> R
                                                        (3, 3), t (3,) mm, f and c (2,) px

Moon, Chang, Lee: Camera Distance-Aware Top-Down Approach for 3D Multi-Person Pose Estimation, ICCV
2019. Their files Human36M_subject<k>_data.json (image sizes, boxes) are not read: sizes are known
from the images, and boxes are computed from joints.

`Human36M` calls `list_videos`, then `read_labels` for each video of this layout. A take is one
of the two performances (subactions) of an action by a subject.

SMPL fits of other authors go with both layouts. Each file may be in either folder:

    smpl_param/Human36M_subject<k>_smpl_param.json       fits in the world; or
    annotations/Human36M_subject<k>_SMPL_NeuralAnnot.json
    smpl_param/Human36M_subject<k>_camera.json           cameras that go with them

`label_files` lists the files of a subject, and `smpl_labels` converts the fits of a video to camera
axes.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli import pages
from pipeline.datasets.labels.h36m import CAMERAS, JSON_AGAIN, LEVELS, Camera, load_fits
from pipeline.datasets.shared.checks import finite_joints, require_labels
from pipeline.datasets.shared.images import SAME_SIZE, no_pictures, require_size
from pipeline.datasets.shared.numbering import require_numbers, require_rate
from pipeline.datasets.shared.smpl import fit_labels
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import StoredArrays, load_json, numbers
from pipeline.files.formats.sequences import SequenceKeys, load_sequence
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import is_folder_entry, scan_folder
from pipeline.people.cameras import is_rotation, pose_in_camera, project, rigid
from pipeline.people.skeletons import (
    JOINTS,
    Bools,
    Doubles,
    Float32s,
    Floats,
    Ints,
    add_confidence,
    are_usable_numbers,
    convert,
)
from pipeline.people.smpl_files import N_POSE

if TYPE_CHECKING:
    from pipeline.people.body import Body

METRES: Final = 1e-3  # in a millimetre
STEP: Final = 2  # frames: every second one is used
PELVIS: Final = JOINTS["h36m"].index("hip")
JOINTS_3D = "_joint_3d.json"
SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "R": (3, 3),
    "t": (3,),
    "f": (2,),
    "c": (2,),
}  # shapes of a camera's entries
# A camera is plausible if it sees at least LEAST_SEEN (a share) of the joints: in the image, within
# OUTSIDE half image sizes of the principal point, and at most FARTHEST m away (8 m in the studio).
FARTHEST: Final = 15.0
OUTSIDE: Final = 1.2
LEAST_SEEN: Final = 0.5
SOURCE: Final = (
    "images.tar.gzaa to .gzag and annotations.zip, of github.com/mks0601/3DMPPE_POSENET_RELEASE"
)
UNPACK: Final = f"Unpack {SOURCE} again."
ACTIONS: Final = (  # the actions with the numbers 2 to 16, by the release's names
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting",
    "SittingDown",
    "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
# names that S1's files have in the release; some downloads have the usual ones
S1_ACTIONS: Final = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog"}
# subject -> entries action/subaction:number, where the number is the one after the action in the
# release's file name: by "4/1:2" of S1, its take of action 4, subaction 1, is "Eating 2". An
# empty number means none. Takes that are not listed have number 1 (subaction 1) or none (2).
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
FILE: Final = (
    "Human36M_subject"  # start of each file's name; the subject's number and an ending follow
)
CAMERA: Final = "_camera.json"
FITS: Final = ("_smpl_param.json", "_SMPL_NeuralAnnot.json")  # the preferred first
FOLDERS: Final = ("smpl_param", "annotations")  # the preferred first


class LabelledFrames(NamedTuple):
    """The F labelled frames of a sequence, seen by one camera."""

    frame_index: Ints  # (F,) strictly increasing
    # (F, 17, 3) px px, 1, or 0 0 0 where it is not finite, in the order of JOINTS["h36m"]
    kp_2d: Doubles
    # (F, 17, 3) m, camera axes, the pelvis at 0; NaN in frames with one that is not finite
    joints: Doubles
    source: Pictures | Video
    reasons: Mapping[str, Bools]  # reason to drop rows -> (F,) whether it applies
    camera: Camera | None  # (extrinsics (4, 4), intrinsics (3, 3)); None: unknown
    action: SequenceKeys | None  # and subaction, by which fits are stored; None: unknown


def _name_takes() -> Iterator[tuple[tuple[str, str], SequenceKeys]]:
    """Yield ((subject, name), (action, subaction)) of each take: (("S1", "Eating 2"), (4, 1)).

    The name is the part of the release's file name before the camera. S1's takes of the actions in
    S1_ACTIONS are yielded twice: by the usual name, then by S1's.
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
                    numbered = f"{name} {number}".rstrip()
                    yield (subject, numbered), SequenceKeys(action, int(subaction))


# (subject, name) -> (action, subaction)
TAKES: Final = dict(_name_takes())
# (subject, (action, subaction)) -> name; of two names, the later one: that of S1_ACTIONS
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

    The first two files of each are the joints and the cameras, whether they exist or not
    (`needed_files`).
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
        name = NAMES.get((subject, SequenceKeys(action, subaction)))
        if subject in files and name and 1 <= camera <= len(CAMERAS):
            video = f"{subject}/{name}.{CAMERAS[camera - 1]}"
            yield RawVideo(video, files[subject], (Path("images", entry.name),))


def needed_files(raw: Path, video: RawVideo) -> list[Path]:
    """The two label files that a sequence needs: here, those of joints and cameras; in the
    release's layout, those of 2D and 3D poses. `RawVideo.files` begins with them.
    """
    return [raw / file for file in video.files[:2]]


def read_labels(raw: Path, video: RawVideo, account: VideoAccount) -> LabelledFrames:
    """Read the labels of one image folder.

    Raises RawDataError if a label file, the joints or the images are missing (`no_label`,
    `no_picture`), if the cameras do not see the joints (`bad_camera`), and if images have another
    size or frame rate.
    """
    joints_file, camera_file = needed_files(raw, video)
    subject, _, stem = video.name.partition("/")
    take_name, _, camera_name = stem.rpartition(".")
    take = TAKES[subject, take_name]
    if (raw / subject).is_dir():
        account.note(
            f"images/ and annotations/ count: {subject}/ lacks poses, frames or metadata.xml"
        )
    for file in (joints_file, camera_file):
        require_labels(file, UNPACK)
    frames, millimetres = _load_joints(joints_file, take)
    account.found = len(frames)
    is_finite = are_usable_numbers(millimetres).all(axis=-1, keepdims=True)
    world = convert(
        np.where(is_finite, millimetres * METRES, np.nan), source="h36m_lifters", target="h36m"
    )
    extrinsics, intrinsics = _load_camera(camera_file, CAMERAS.index(camera_name), world)

    (folder,) = video.folders
    source = Pictures(raw, f"{folder.as_posix()}/{folder.name}_{{:06d}}.jpg", 1)
    images = source.indices()
    if not len(images):
        raise no_pictures(source.place, f"{len(frames)} images", UNPACK)
    require_rate(source, int(frames[-1]) + 1, whole=True)
    require_numbers(source, int(frames[0]), int(frames[-1]))
    require_size(source, None, camera_file, SAME_SIZE, intrinsics)
    n_absent = int((~np.isin(frames, images)).sum())
    if n_absent and _step(images) == 1:
        account.note(f"{n_absent} of {len(frames)} frames with joints have no image")
    n_beyond = int((~np.isin(images, frames)).sum())
    if n_beyond:
        account.note(f"{n_beyond} of {len(images)} images have no joints: not used")

    in_view = world @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    joints = in_view - in_view[:, [PELVIS]]
    joints[~np.isfinite(joints).all(axis=(1, 2))] = np.nan
    kp_2d = finite_joints(add_confidence(project(in_view, intrinsics)), account, " in 2D")
    reasons = {"not_sampled": ~_is_sampled(frames, images), "no_picture": ~np.isin(frames, images)}
    camera = extrinsics.astype(np.float32), intrinsics.astype(np.float32)
    return LabelledFrames(frames, kp_2d, joints, source, reasons, camera, take)


def _is_sampled(frames: Ints, images: Ints) -> Bools:
    """Whether each labelled frame is used, (F,): every second one, as in the release's layout.

    If the folder has images of only every s-th frame (s > 1), the frames of these are used. images:
    frames that have an image, ascending.
    """
    step = _step(images)
    if step == 1:
        return np.asarray(frames % STEP == 0)
    remainders, counts = np.unique(images % step, return_counts=True)
    return np.asarray(frames % step == remainders[counts.argmax()])


def _step(images: Ints) -> int:
    """The usual difference of two frames with an image; 1 if there is none."""
    steps, counts = np.unique(np.diff(images), return_counts=True)
    if 2 * counts.max(initial=0) > counts.sum():  # most steps are equal: a few others do not count
        return int(steps[counts.argmax()])
    return 1


def _load_camera(file: Path, camera: int, world: Doubles) -> tuple[Doubles, Doubles]:
    """Read extrinsics (4, 4), world to camera in m, and intrinsics (3, 3) px, of one camera.

    Some files mean by t that a joint X is at R X + t in the camera's axes, others that it is at
    R (X - t). The file does not say which, so both readings are tried: the right one is that with
    which the worst of the four cameras sees more joints.

    Args:
        camera: Index in CAMERAS.
        world: (F, 17, 3) m, the joints in the world.

    Raises RawDataError (`bad_camera`) if the worst camera sees too few joints in either reading.
    """
    stored = _load_cameras(file).values()
    rotations = np.array([values["R"] for values in stored])  # (4, 3, 3)
    t_mm = np.array([values["t"] for values in stored])
    intrinsics = np.tile(np.eye(3), (len(CAMERAS), 1, 1))
    intrinsics[:, [0, 1], [0, 1]] = [values["f"] for values in stored]
    intrinsics[:, :2, 2] = [values["c"] for values in stored]
    with np.errstate(all="ignore"):  # numbers that are not finite see nothing
        # R (X - t) = R X - R t. Shape: (2 readings, 4 cameras, 3)
        translations = METRES * np.stack([t_mm, -np.einsum("cij,cj->ci", rotations, t_mm)])
        visible = _visible_shares(world, rotations, translations, intrinsics)
    visible[:, ~is_rotation(rotations)] = 0

    reading = visible.min(axis=1).argmax()
    worst = visible[reading].argmin()
    if visible[reading, worst] < LEAST_SEEN:
        expected = (
            "a rotation R, and a t in mm with which R X + t or R (X - t) puts the joints X "
            "into its image"
        )
        actual = f"{visible[reading, worst]:.0%} of them there"
        raise RawDataError(
            file, f"camera {worst + 1}", expected, actual, UNPACK, reason="bad_camera"
        )
    return rigid(rotations[camera], translations[reading, camera]), intrinsics[camera]


def _visible_shares(
    world: Doubles, rotations: Doubles, translations: Doubles, intrinsics: Doubles
) -> Doubles:
    """The share of joints that each camera sees in each reading, (2 readings, 4 cameras).

    world: (F, 17, 3) m. rotations: (4, 3, 3). translations: (2, 4, 3) m. intrinsics: (4, 3, 3) px.
    """
    points = world[np.isfinite(world).all(axis=-1)]  # (N, 3)
    in_view = points @ rotations.swapaxes(1, 2) + translations[:, :, None]  # (2, 4, N, 3)
    centre = intrinsics[:, None, :2, 2]
    # from the principal point, in half image sizes: -1 and 1 are the image's edges
    from_centre = project(in_view, intrinsics[:, None]) / centre - 1
    is_in_image = np.abs(from_centre).max(axis=-1) < OUTSIDE
    is_visible = is_in_image & (in_view[..., 2] < FARTHEST)
    return np.asarray(is_visible.sum(axis=-1) / max(len(points), 1))


def label_files(raw: Path, subject: str, *kinds: tuple[str, ...]) -> list[Path]:
    """Return a subject's files that exist, at most one of each kind.

    A kind is a tuple of name endings, such as FITS; the first ending with a file in one of FOLDERS
    is used.
    """
    files = list[Path]()
    for endings in kinds:
        for ending, folder in itertools.product(endings, FOLDERS):
            file = Path(folder, f"{FILE}{subject[1:]}{ending}")
            if (raw / file).is_file():
                files.append(file)
                break
    return files


def smpl_labels(
    raw: Path,
    video: RawVideo,
    frame_index: Ints,
    action: SequenceKeys | None,
    joints: Floats,
    body: Body | None,
    account: VideoAccount,
) -> dict[str, Any]:
    """Make the `Track` fields `pose`, `betas` and `has_smpl` from SMPL fits, in camera axes.

    Frames without a usable fit have NaN, and false in `has_smpl` (`fit_labels`).

    Args:
        frame_index: (N,) the frames of the track.
        action: (action, subaction) of the video; None if unknown.
        joints: (N, 14, 3) m, the labelled joints of these frames, in the order of common14.
    """
    file = _find_file(raw, video, FITS)
    load = None
    if file is not None:
        load = functools.partial(_load_in_camera, raw, video, file, frame_index, action)
    return fit_labels(load, len(frame_index), account, body, joints)


def _load_in_camera(
    raw: Path, video: RawVideo, fits: Path, frame_index: Ints, action: SequenceKeys | None
) -> Float32s:
    """Read pose and betas, (N, 82), of the frames `frame_index`; not finite without a fit.

    The global orientation is in camera axes. Raises RawDataError if the camera of the fits, or
    metadata.xml, is missing.
    """
    cameras = _find_file(raw, video, (CAMERA,))
    actual = "nothing that fits"
    do = f"See {pages.H36M_FILES} for its place."
    if action is None:
        raise RawDataError(fits, "mapping", "metadata.xml to go with it", actual, do)
    if cameras is None:
        expected = f"Human36M_subject*{CAMERA} to go with it"
        raise RawDataError(fits, "camera", expected, actual, do)
    camera = video.name.rpartition(".")[2]
    rotation = _load_cameras(cameras, "R").get(camera, {}).get("R")
    if rotation is None or not is_rotation(rotation[None])[0]:
        actual = "none" if rotation is None else str(rotation.tolist())
        raise RawDataError(cameras, camera, "a rotation", actual, "Download the fits again.")
    values = load_fits(fits, action, frame_index)
    has_fit = np.isfinite(values).all(axis=1)
    values[has_fit, :N_POSE] = pose_in_camera(values[has_fit, :N_POSE], rotation)
    return values


def _find_file(raw: Path, video: RawVideo, endings: tuple[str, ...]) -> Path | None:
    """The video's first file whose name has one of these endings."""
    for file in video.files:
        if file.name.endswith(endings):
            return raw / file
    return None


def _load_joints(file: Path, action: SequenceKeys) -> tuple[Ints, Doubles]:
    """Read the joints of a sequence: frames (N,), strictly increasing, and joints (N, 17, 3) in mm
    in the world.

    Raises RawDataError for other content, and if there are no joints (reason `no_label`).
    """
    frames = load_sequence(file, action, LEVELS, do=JSON_AGAIN)
    key = str(action)
    if not frames:
        expected = "joints of this action and subaction"
        raise RawDataError(file, key, expected, "none", JSON_AGAIN, reason="no_label")
    frame_index = np.array([*frames], np.int64)
    joints = numbers(file, key, [*frames.values()], (None, 17, 3), do=JSON_AGAIN)
    return frame_index, joints


def _load_cameras(file: Path, keys: str = "Rtfc") -> Mapping[str, Mapping[str, Doubles]]:
    """Read the numbers of each camera: camera id -> key of SHAPES -> array. Whether R is a rotation
    is not checked. Raises RawDataError for another file.

    `keys`: the keys to read, one letter each.
    """
    stored = StoredArrays(file, load_json(file, do=JSON_AGAIN), JSON_AGAIN)
    cameras = {}
    for number, camera in enumerate(CAMERAS, start=1):
        cameras[camera] = {key: stored.take(f"{number}/{key}", *SHAPES[key]) for key in keys}
    return cameras
