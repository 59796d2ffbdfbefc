"""AMASS: motion capture as SMPL-H or SMPL-X parameters, no images.  [raw -> tracks] -> windows ->
discriminator

Mahmood et al.: AMASS, ICCV 2019.

    <subset>/<subject>/<motion>_poses.npz     or ..._stageii.npz in newer releases

Motions of BEAT2, AIST++, Motion-X, NymeriaPlus and of SMPL (72 numbers) are also read: each needs a
subset folder of its own.

`Amass.read` makes a track of a file in these steps:

    Motion.read         read the file (`pipeline.datasets.labels.motions`)
    _correct_rate       replace a rate that the file is known to state wrongly
    _require_units      refuse degrees, mm and cm
    _note_speed         note a rate that is likely to be wrong
    _is_y_up, _turn_up  turn a world with y up, so that z is up
    _sample_positions    resample to 25 fps
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.datasets.base import Dataset, Licence, Mistake, Origin, Release, ReleasePart
from pipeline.datasets.labels.motions import ENDINGS, SMPL_JOINTS, Motion
from pipeline.datasets.shared.checks import LabelRules, other_unit
from pipeline.datasets.shared.contradictions import note_contradictions
from pipeline.datasets.shared.smpl import (
    BODIES,
    SMPLX_NAMES,
    SMPLX_UNMIRRORED,
    is_smplx,
    smplx_columns,
    smplx_labels,
)
from pipeline.errors import ConfigError, RawDataError
from pipeline.files.formats.names import quote_name
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import list_files
from pipeline.people.cameras import compose, frame_positions, resample_linear, resample_rotations
from pipeline.people.skeletons import Array, Doubles
from pipeline.people.smpl_files import N_BETAS, PELVIS_M, SMPLX_N_POSE, gender_of
from pipeline.people.track import FARTHEST_M, Track

if TYPE_CHECKING:
    from pipeline.people.body import Body


TARGET_FPS: Final = 25
MIN_FRAMES: Final = 60  # after resampling
RATE_NOISE: Final = 1e-4  # 120.00000763 Hz is 120 Hz stored as float32 periods
MOTION: Final = "{_poses,_stageii}.npz"  # SMPL-H's ending, and SMPL-X's (newer releases of both)
OTHER_MOTION: Final = "{_ch<01>.pkl,.npy}"  # AIST++'s and Motion-X's
FOLDERS: Final = ("<subject>/", "", "*/*/")
LAYOUT: Final = "<subset>/<subject>/<motion>_poses.npz"
UNPACK: Final = "Unpack at least one subset into it."
# A subset's folder as archives of SMPL-H unpack it -> the subset's name on the page and in newer
# releases.
SUBSETS: Final[Mapping[str, str]] = {
    "BioMotionLab_NTroje": "BMLrub",
    "DFaust_67": "DFaust",
    "Eyes_Japan_Dataset": "EyesJapanDataset",
    "MPI_HDM05": "HDM05",
    "MPI_Limits": "PosePrior",
    "MPI_mosh": "MoSh",
    "SSM_synced": "SSM",
    "TCD_handMocap": "TCDHands",
    "Transitions_mocap": "Transitions",
}
# Subsets of people whom the MPI (Max Planck Institute) scanned. A subject's folder ends in the
# number that the MPI gives this person in all three.
SCANNED: Final = frozenset({"DFaust", "MoSh", "SSM"})
# Folders whose files wrongly state 120 Hz -> their true rate, as in HuMoR (Rempe et al., ICCV 2021)
# and issue 68 of AMASS.
RATES: Final[Mapping[str, float]] = {
    "20160930_50032": 59.0,
    "20161014_50033": 59.0,
    "BMLhandball": 240.0,
}
STATED_RATE: Final = 120.0

# Upper bounds on the median over a motion's frames: a file beyond one is in another unit.
MAX_ANGLE: Final = 2 * math.pi  # rad, the largest rotation of any joint except the pelvis
MAX_SPEED: Final = 10.0  # m/s: a sprinter's
HIGHEST_M: Final = 100.0  # above or below the ground

# rad/s, of the joint that turns fastest, in the median frame: about that of a sprinter
MAX_TURNING: Final = 12.0

# How `_is_y_up` recognises a world whose y axis is up, by the median over frames.
UPRIGHT: Final = 0.8  # least y component of the torso's direction
# bounds on the height of the pelvis above the ground
MIN_LYING_M: Final = 0.02  # of a person who lies or crawls
MIN_STANDING_M: Final = 0.6  # of a person who stands
MAX_PELVIS_M: Final = 1.5  # of any person who is on the ground
MAX_RISE_M: Final = 1.0  # range of a person's heights
CLEARLY: Final = 0.5  # largest range along the axis of least movement, of that along another one
LIES: Final = "the torso points along y, as of a person who lies: z is taken for up"
Z_UP: Final = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # rotation from y up to z up


@dataclass(frozen=True)
class Amass(Dataset):
    """One track per motion, at 25 fps.

    `resampling`: "slerp" samples at k / 25 s, exactly where the rate is a multiple of 25, else by
    spherical interpolation; "decimate" takes every (rate // 25)-th frame, as VIBE's scripts do: 120
    Hz becomes 30.
    """

    # to 25 fps. slerp: by spherical interpolation; decimate: every (rate // 25)-th frame
    resampling: str = "slerp"

    name = "amass"
    splits = ("train",)
    version = 5  # 5: SMPL and NymeriaPlus are read, poses of zeros are not turned
    uses = Dataset.uses | BODIES
    release = Release(
        page="https://amass.is.tue.mpg.de",
        access="registration",
        licence=Licence("AMASS's licence", "https://amass.is.tue.mpg.de/license.html", "no"),
        parts=(
            ReleasePart(
                "motions",
                tuple(
                    f"<subset>/{folder}<motion>{ending}"
                    for ending in (MOTION, OTHER_MOTION)
                    for folder in FOLDERS
                ),
                "one <subset>.tar.bz2 or more, body data, SMPL+H",
            ),
        ),
        mistakes=(
            Mistake(
                "{amass,AMASS}/*/*/*_poses.npz",
                "is one folder too deep",
                "Move the subsets one folder up.",
            ),
            Mistake(
                "<subset>/{,<subject>/}<motion>.pkl",
                "is a pickle, which is not read",
                "Download this subset's .npz.",
            ),
        ),
        recording="motion",
    )
    labels = LabelRules(
        keypoints_from="none", columns=("frame_index", "pose", "betas", "trans", "has_smpl")
    )

    def __post_init__(self) -> None:
        if self.resampling not in ("slerp", "decimate"):
            raise ConfigError(
                f"amass: resampling is {self.resampling!r}; it can be slerp or decimate",
                "resampling",
            )

    def detect_layout(self, raw: Path, split: str) -> Amass:
        """Return a reader with SMPL-X columns if the raw folder has SMPL-X motions.

        It has them if there is a motion of Motion-X (.npy), or if the header of a sampled .npz file
        says so. One file is sampled for each subset and file name ending.
        """
        samples = {}  # (subset, ending) -> the last file of this kind
        for file in _motions(raw):
            if file.suffix == ".npy":
                return _WithSmplx(**asdict(self))
            if file.suffix == ".npz":
                ending = re.search(r"_(poses|stageii)$", file.stem)
                subset = file.parts[:-1][:1]  # () for a file that is in no subset's folder
                samples[subset, ending and ending[0]] = file
        has_smplx = any(is_smplx(raw / file, "poses") for file in samples.values())
        if has_smplx:
            return _WithSmplx(**asdict(self))
        return self

    def origin(self, video: str) -> Origin:
        """A motion by subset, subject and name, in any release and folder depth.

        >>> Amass().origin("BMLrub/BioMotionLab_NTroje/rub001/0000_treadmill_norm_poses")
        Origin(subject='BMLrub/rub001', recording='BMLrub/rub001/0000_treadmill_norm')
        >>> Amass().origin("DFaust_67/50002/50002_running_poses").subject
        'MPI 50002'
        """
        *folders, name = video.replace(" ", "_").split("/")
        names = [SUBSETS.get(folder, folder) for folder in folders if not folder.startswith("SMPL")]
        # an archive may unpack into a folder of its subset's name, within the subset's folder
        while len(names) > 1 and names[1] == names[0]:
            del names[1]
        if not names:
            return Origin()
        motion = "/".join([*names, re.sub(r"_(poses|stageii)$", "", name)])
        number = re.search(r"[0-9]{5}$", names[-1])
        if names[0] in SCANNED and number is not None:
            return Origin(f"MPI {number[0]}", motion)
        if len(names) == 1:
            return Origin(recording=motion)
        return Origin("/".join(names[:2]), motion)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        if not raw.is_dir():
            raise RawDataError(raw, "folder", LAYOUT, "no folder", UNPACK)
        listed = [
            RawVideo(file.with_suffix("").as_posix(), files=(file,)) for file in _motions(raw)
        ]
        if not listed:
            raise RawDataError(raw, "folder", LAYOUT, "no motion below it", UNPACK)
        # by name, not by path: the two orders differ where a name has a blank, which sorts before /
        return sorted(listed, key=lambda video: video.name)

    def label_note(self, raw: Path, split: str) -> str:
        """Name motions that are there twice: all of them are used."""
        names = [file.with_suffix("").as_posix() for file in _motions(raw)]
        times = Counter(self.origin(name).recording for name in names)
        n_twice = sum(n > 1 for recording, n in times.items() if recording)
        if not n_twice:
            return ""
        motions = count(n_twice, "motion")
        return f"{motions} more than once, as SMPL-H and SMPL-X: keep the files of one"

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        file = raw / video.files[0]
        motion = _correct_rate(Motion.read(file), video, account)
        n_before = len(motion.pose)  # frames before resampling
        account.found = n_before
        _require_units(file, motion)
        _note_speed(motion, account)
        if motion.is_y_up or _is_y_up(motion):
            account.note("the motion's world has y up: turned, so that z is up")
            motion = _turn_up(motion)
        elif _is_along_y(motion):
            account.note(LIES)

        gender = gender_of(motion.gender)
        if not gender:
            account.note(f"gender is {quote_name(motion.gender)}: taken for neutral")
        account.notes += motion.notes

        fps, positions = _sample_positions(n_before, motion.rate, self.resampling)
        n_frames = len(positions)
        if n_frames > n_before:
            account.note(f"{n_before} frames at {motion.rate:g} Hz give {n_frames} at {fps:g}")
        # below 25 Hz, resampling adds frames: then all frames after it count as found
        account.found = max(n_before, n_frames)
        account.drop("resampled", account.found - n_frames)
        if n_frames < MIN_FRAMES:
            account.drop_track("track_too_short", n_frames)
            return []
        account.keep_track(n_frames)

        pose = resample_rotations(motion.pose, positions)  # (T, 24 SMPL or 55 SMPL-X joints, 3)
        extra: dict[str, Array] = {}
        if pose.shape[1] * 3 == SMPLX_N_POSE:
            if self.labels.extra:
                extra = smplx_labels(pose, motion.betas)
            else:
                account.note(
                    "SMPL-X without smplx_pose: another file of its subset and ending is SMPL-H"
                )
            pose = pose[:, SMPL_JOINTS[SMPLX_N_POSE]]
        track = self.track(
            split,
            video,
            fps=fps,
            frame_index=np.arange(n_frames),
            pose=pose.reshape(n_frames, 72),
            betas=np.tile(motion.betas[:N_BETAS], (n_frames, 1)),
            trans=resample_linear(motion.trans, positions),
            has_smpl=np.ones(n_frames, np.bool_),
            gender=gender or "neutral",
            extra=extra,
        )
        note_contradictions(track, account)
        return [track]


@dataclass(frozen=True)
class _WithSmplx(Amass):
    """The reader of a raw folder with SMPL-X files."""

    labels = replace(
        Amass.labels,
        extra=smplx_columns("up to 16 numbers of the release, for the track's gender"),
        unmirrored=SMPLX_UNMIRRORED,
        optional_extra=SMPLX_NAMES,  # which motions of SMPL-H do not have
    )


def _sample_positions(
    n_frames: int, rate: float, resampling: str = "slerp"
) -> tuple[float, Doubles]:
    """Return the new rate in Hz, and the positions at which a motion is sampled.

    A position is a frame of the old motion, with a fraction, in [0, n_frames - 1].

    Args:
        n_frames: Number of frames of the old motion.
        rate: Its rate in Hz.
        resampling: As in `Amass`.

    >>> _sample_positions(11, 120.00000763)[1].tolist()
    [0.0, 4.8, 9.6]
    >>> _sample_positions(11, 120.0, "decimate")
    (30.0, array([0., 4., 8.]))
    """
    if abs(rate - round(rate)) < RATE_NOISE:
        rate = float(round(rate))
    if resampling == "decimate":
        step = max(int(rate // TARGET_FPS), 1)
        return rate / step, np.arange(0.0, n_frames, step)
    positions = frame_positions(n_frames, rate, TARGET_FPS)
    return float(TARGET_FPS), np.minimum(positions, n_frames - 1)


def _motions(raw: Path) -> list[Path]:
    """The paths, relative to `raw`, of the files of motions anywhere below it, sorted."""
    motions = []
    for file in map(Path, list_files(raw)):
        if file.suffix in ENDINGS and not re.search("^shape$|_stagei$", file.stem):
            motions.append(file)
    return motions


def _correct_rate(motion: Motion, video: RawVideo, account: VideoAccount) -> Motion:
    """Return the motion with the rate of `RATES`, and note it, if its file states a wrong one."""
    rates = [RATES[name] for name in video.files[0].parts if name in RATES]
    if not rates or round(motion.rate) != STATED_RATE:
        return motion
    account.note(
        f"the file states {motion.rate:g} Hz; {rates[0]:g} Hz is known to be right, and used"
    )
    return replace(motion, rate=rates[0])


def _require_units(file: Path, motion: Motion) -> None:
    """Raise RawDataError (`other_unit`) for rotations in degrees, and for positions in mm or cm.

    Decides by medians over the motion's frames.
    """
    angles = np.linalg.norm(motion.pose[:, 1:], axis=-1)
    angle = float(np.median(angles.max(axis=1, initial=0)))
    if angle > MAX_ANGLE:
        expected = "rotations in rad, of a turn at most in the median frame"
        actual = f"{angle:.3g}, as in degrees"
        raise other_unit(file, "poses", expected, actual)

    away = float(np.median(np.linalg.norm(motion.trans, axis=1)))
    # either y or z is up; along the other axis, the person may be far from 0
    height = float(np.abs(np.median(motion.trans[:, 1:], axis=0)).min())
    steps = np.linalg.norm(np.diff(motion.trans, axis=0), axis=1)
    speed = 0.0
    if len(steps):
        speed = motion.rate * float(np.median(steps))
    too_far = away > FARTHEST_M or height > HIGHEST_M
    if too_far or speed > MAX_SPEED:
        expected = f"positions in m, of a person at most at {MAX_SPEED:g} m/s"
        actual = (
            f"the median frame {away:.4g} from the origin and at {speed:.3g} a second, as "
            "in mm or cm"
        )
        raise other_unit(file, "trans", expected, actual)


def _note_speed(motion: Motion, account: VideoAccount) -> None:
    """Add a note if the joints turn faster than people's, with a rate that is more likely."""
    steps = np.linalg.norm(np.diff(motion.pose[:, 1:], axis=0), axis=-1)
    if not len(steps):
        return
    speed = motion.rate * float(np.median(steps.max(axis=1)))
    if speed > MAX_TURNING:
        likely = motion.rate / (2 if speed < 2 * MAX_TURNING else 4)
        account.note(
            f"at {motion.rate:g} Hz, joints turn by {math.degrees(speed):.0f} degrees a second, "
            f"faster than people's: is the rate {likely:g} Hz?"
        )


def _is_along_y(motion: Motion) -> bool:
    """Whether the torso points along y in the median frame; not if all is zeros: the pose is
    missing.
    """
    if not motion.pose.any():
        return False
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    torso = np.median(Rotation.from_rotvec(motion.pose[:, 0]).apply([0, 1, 0]), axis=0)
    return bool(torso[1] > UPRIGHT)


def _is_y_up(motion: Motion) -> bool:
    """Whether the motion's world has y up.

    The torso must point along y. With z up, this is a person who lies, and the pelvis is near the
    ground along z. With y up, its heights have a small range. It has the height of a standing
    person along y, or no possible height along z, which is that of one who lies on the ground if
    the pelvis clearly moves less along y than along z.
    """
    _, y, z = np.median(motion.trans, axis=0)
    _, along_y, along_z = np.ptp(motion.trans, axis=0)
    highest = MIN_STANDING_M if along_y < CLEARLY * along_z else MAX_PELVIS_M
    stands_with_y_up = MIN_STANDING_M < y < MAX_PELVIS_M
    may_lie_with_z_up = MIN_LYING_M < z < highest
    is_possible = along_y < MAX_RISE_M and (stands_with_y_up or not may_lie_with_z_up)
    return _is_along_y(motion) and bool(is_possible)


def _turn_up(motion: Motion) -> Motion:
    """Convert a motion in a world with y up to one with z up.

    `trans` is exact up to a constant shift of some cm, because the rest pose's pelvis depends on
    the shape.
    """
    pose = motion.pose.copy()
    pose[:, 0] = compose(Z_UP, pose[:, 0])
    pelvis = np.array(PELVIS_M[pose.shape[1]])
    return replace(motion, pose=pose, trans=(motion.trans + pelvis) @ Z_UP.T - pelvis)
