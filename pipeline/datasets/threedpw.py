"""3DPW: people outdoors, filmed by a moving phone, with SMPL bodies from IMUs.  [raw -> tracks] ->
features -> windows

von Marcard et al.: Recovering Accurate 3D Human Pose in The Wild Using IMUs and a Moving Camera,
ECCV 2018.

    sequenceFiles/{train,validation,test}/<seq>.pkl     Python 2 pickle of lists, an entry per actor
    imageFiles/<seq>/image_<5 digits>.jpg

The pickle of a sequence with N frames is a dict. Each of these lists has an entry for an actor:

    poses, betas, trans     (N, 72) rad and (N, 3) m in the world, (10 or more,)
    poses2d                 (N, 3, 18) px px score, found by a detector
    campose_valid, genders  (N,) 0 or 1, and "m" or "f"

`cam_poses` (N, 4, 4) and `cam_intrinsics` (3, 3) are the camera's. `read` loads the dict
(`_load_sequence`) and makes a track of each actor.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.accounting import Totals, VideoAccount
from pipeline.cli.text import count
from pipeline.datasets.base import (
    REGISTERED,
    Dataset,
    ImageFolders,
    Mistake,
    Origin,
    Release,
    ReleasePart,
)
from pipeline.datasets.shared.checks import LabelRules, finite_rows
from pipeline.datasets.shared.images import frames_there, require_size
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.smpl import BODIES, EXTRINSICS, smpl_labels
from pipeline.errors import ConfigError, RawDataError
from pipeline.files.formats.arrays import StoredArrays, numbers
from pipeline.files.formats.names import quote_name
from pipeline.files.formats.pickles import load_labels
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.people.boxes import smooth_boxes
from pipeline.people.cameras import is_rigid
from pipeline.people.skeletons import (
    JOINTS,
    Bools,
    Doubles,
    Ints,
    are_usable_numbers,
    convert,
    zero_invalid_joints,
)
from pipeline.people.smpl_files import N_BETAS, gender_of
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body


FPS: Final = 30.0  # of the phone's video, of which `imageFiles` holds every frame
CROP_SCALE: Final = 1.2
BOX_FACTOR: Final = 1.1
MIN_CONFIDENCE: Final = 0.3
MIN_LIMB_JOINTS: Final = 7  # of 12
N_NAMED: Final = len(JOINTS["3dpw"])
NO_LIST: Final = -1  # "number of entries" of a value that is not a list
PER_ACTOR: Final = ("poses", "betas", "trans", "poses2d", "campose_valid", "genders")
LABELS = "sequenceFiles.zip"
PICTURES = "imageFiles.zip"
UNPACK: Final = f"Unpack {LABELS} and {PICTURES} again."
UNPACK_WHOLE: Final = f"{UNPACK[:-1]}, without resizing images."
# split -> its sequences in the release
SEQUENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "train": (
        "courtyard_arguing_00", "courtyard_backpack_00", "courtyard_basketball_00",
        "courtyard_bodyScannerMotions_00", "courtyard_box_00", "courtyard_capoeira_00",
        "courtyard_captureSelfies_00", "courtyard_dancing_01", "courtyard_giveDirections_00",
        "courtyard_golf_00", "courtyard_goodNews_00", "courtyard_jacket_00",
        "courtyard_laceShoe_00", "courtyard_rangeOfMotions_00", "courtyard_relaxOnBench_00",
        "courtyard_relaxOnBench_01", "courtyard_shakeHands_00", "courtyard_warmWelcome_00",
        "outdoors_climbing_00", "outdoors_climbing_01", "outdoors_climbing_02",
        "outdoors_freestyle_00", "outdoors_slalom_00", "outdoors_slalom_01",
    ),
    "validation": (
        "courtyard_basketball_01", "courtyard_dancing_00", "courtyard_drinking_00",
        "courtyard_hug_00", "courtyard_jumpBench_01", "courtyard_rangeOfMotions_01",
        "downtown_walkDownhill_00", "outdoors_crosscountry_00", "outdoors_freestyle_01",
        "outdoors_golf_00", "outdoors_parcours_00", "outdoors_parcours_01",
    ),
    "test": (
        "downtown_arguing_00", "downtown_bar_00", "downtown_bus_00", "downtown_cafe_00",
        "downtown_car_00", "downtown_crossStreets_00", "downtown_downstairs_00",
        "downtown_enterShop_00", "downtown_rampAndStairs_00", "downtown_runForBus_00",
        "downtown_runForBus_01", "downtown_sitOnStairs_00", "downtown_stairs_00",
        "downtown_upstairs_00", "downtown_walkBridge_01", "downtown_walkUphill_00",
        "downtown_walking_00", "downtown_warmWelcome_00", "downtown_weeklyMarket_00",
        "downtown_windowShopping_00", "flat_guitar_01", "flat_packBags_00",
        "office_phoneCall_00", "outdoors_fencing_01",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ThreeDPW(Dataset):
    """One track per actor of a sequence.

    With a body model, tracks also have `trans` and 3D joints: `kp_3d` in train, `kp_3d_eval` in
    validation and test. The release's parameters were fitted with gendered models.
    """

    # body of the 3D joints: neutral, as in published results, or gendered, the actor's own
    model: str = "neutral"

    name = "3dpw"
    splits = ("train", "validation", "test")
    version = 6  # 6: no note of each video about a missing body model
    uses = Dataset.uses | BODIES
    release = Release(
        page="https://virtualhumans.mpi-inf.mpg.de/3DPW",
        access="registration",
        licence=REGISTERED._replace(page="https://virtualhumans.mpi-inf.mpg.de/3DPW/license.html"),
        parts=(
            *(
                ReleasePart(
                    f"sequences of {split}",
                    (f"sequenceFiles/{split}/<sequence>.pkl",),
                    LABELS,
                    (split,),
                    len(names),
                )
                for split, names in SEQUENCES.items()
            ),
            ReleasePart(
                "sequences' images",
                ("imageFiles/<sequence>/image_00000.jpg",),
                PICTURES,
                known=sum(map(len, SEQUENCES.values())),
            ),
        ),
        mistakes=(
            Mistake(
                "sequenceFiles/*.pkl",
                "is in no split",
                "Keep the folders train, validation and test.",
            ),
            Mistake(
                "sequenceFiles?*/",
                "is not read",
                "The release's own sequenceFiles/ is: no copy for Python 3 is needed.",
            ),
        ),
        recording="sequence",
        image_folders=ImageFolders(),
        totals={split: Totals(videos=len(names)) for split, names in SEQUENCES.items()},
    )
    labels = LabelRules(keypoints_from="detected", uses_body=True, extra=(EXTRINSICS,))

    def __post_init__(self) -> None:
        if self.model not in ("neutral", "gendered"):
            raise ConfigError(
                f"3dpw: model is {self.model!r}; it can be neutral or gendered", "model"
            )

    @property
    def genders(self) -> tuple[str, ...]:
        return ("neutral",) if self.model == "neutral" else ("male", "female")

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "pose", "betas", "has_smpl", "valid")
        if not body:
            return labels
        return (*labels, "kp_3d" if split == "train" else "kp_3d_eval", "has_3d", "trans")

    def origin(self, video: str) -> Origin:
        """The recording is the name without its number, because takes share place and action.

        Actors are not named.

        >>> ThreeDPW().origin("outdoors_freestyle_01")
        Origin(subject=None, recording='outdoors_freestyle')
        """
        return Origin(recording=re.sub(r"_[0-9]+$", "", video))

    def label_note(self, raw: Path, split: str) -> str:
        """Name sequences of another split: used here, they mix training and evaluation."""
        names = {file.stem for file in (raw / "sequenceFiles" / split).glob("[!.]*.pkl")}
        texts = list[str]()
        for name, official in SEQUENCES.items():
            strange = names.intersection(official)
            if name != split and strange:
                texts.append(
                    f"{len(strange)} of {count(len(names), 'sequence')} belong to the release's "
                    f"{name} split, such as {min(strange)}"
                )
        if texts:
            texts.append(f"unpack {LABELS} again")
        return "; ".join(texts)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        folder = raw / "sequenceFiles" / split
        if not folder.is_dir():
            raise RawDataError(
                folder, "folder", "<seq>.pkl files", "no folder", f"Unpack {LABELS}."
            )
        # a Macintosh leaves ._ files
        names = sorted(file.stem for file in folder.glob("[!.]*.pkl"))
        videos = []
        for name in names:
            file = Path("sequenceFiles", split, f"{name}.pkl")
            videos.append(RawVideo(name, files=(file,), folders=(Path("imageFiles", name),)))
        return videos

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        labels = raw / video.files[0]
        sequence = _load_sequence(labels)
        n_frames = len(sequence.to_camera)
        account.notes.extend(sequence.notes)
        account.found = n_frames * len(sequence.actors)
        pictures = Pictures(raw, f"imageFiles/{video.name}/image_{{:05d}}.jpg")
        has_picture = frames_there(pictures, n_frames, account, spare=0)
        require_size(pictures, None, labels, UNPACK_WHOLE, sequence.intrinsics)
        tracks: list[Track] = []
        for number, actor in enumerate(sequence.actors):
            boxes, first, stop = smooth_boxes(actor.kp_18, MIN_CONFIDENCE)
            if not len(boxes):
                account.drop_track("no_detection", n_frames)
                continue
            bbox = np.zeros((n_frames, 4), np.float32)
            bbox[first:stop] = boxes * np.array([1, 1, BOX_FACTOR, BOX_FACTOR], np.float32)
            actor_body = body
            if body is not None and self.model != "neutral":
                actor_body = body.of(actor.gender)
            kp_14 = _limbs(actor.kp_18)
            frames = np.arange(n_frames)
            reasons = {
                "no_picture": ~has_picture,
                "before_first_detection": frames < first,
                "after_last_detection": frames >= stop,
                "too_few_visible_joints": (kp_14[..., 2] > 0).sum(axis=1) < MIN_LIMB_JOINTS,
                "label_not_finite": ~finite_rows(actor.pose, actor.trans, sequence.to_camera),
                "bad_camera": ~is_rigid(sequence.to_camera),
            }
            tracks += labelled_track(
                self,
                split,
                video,
                account,
                pictures,
                number,
                reasons=reasons,
                skeleton="common14",
                kp_2d=kp_14,
                bbox=bbox,
                extrinsics=sequence.to_camera,
                labels_of=functools.partial(
                    _smpl_of, actor, sequence.to_camera, actor_body, evaluation=split != "train"
                ),
                fps=FPS,
                valid=actor.valid,
                gender=actor.gender,
                crop_scale=CROP_SCALE,
                intrinsics=sequence.intrinsics,
            )
        return tracks


def _smpl_of(
    actor: _StoredActor, to_camera: Doubles, body: Body | None, rows: Ints, *, evaluation: bool
) -> dict[str, Any]:
    """The labels of an actor's body in these frames."""
    pose = actor.pose[rows]
    trans = actor.trans[rows]
    return smpl_labels(pose, actor.betas, trans, to_camera[rows], body, evaluation=evaluation)


def _limbs(kp_18: Doubles) -> Doubles:
    """Convert joints (N, 18, 3) to common14, (N, 14, 3), with confidence 1 if it was above 0.3.

    The two skeletons share only the 12 joints of the limbs; the others have confidence 0.
    """
    named = kp_18[:, :N_NAMED].copy()
    named[..., 2] = named[..., 2] > MIN_CONFIDENCE
    return convert(named, source="3dpw", target="common14")


@dataclass(frozen=True, slots=True, eq=False)
class _StoredActor:
    """One person of a sequence, N frames, as stored except for types."""

    pose: Doubles  # (N, 72) rad, global orientation in the world
    betas: Doubles  # (10,)
    trans: Doubles  # (N, 3) m, in the world
    kp_18: Doubles  # (N, 18, 3) px px score
    valid: Bools  # (N,) the camera fits the image
    gender: str


@dataclass(frozen=True, slots=True, eq=False)
class _Sequence:
    """A sequence of N frames."""

    actors: list[_StoredActor]  # at least one
    to_camera: Doubles  # (N, 4, 4) from the world, m
    intrinsics: Doubles | None  # (3, 3) px
    notes: list[str]  # on unused numbers


def _load_sequence(file: Path) -> _Sequence:
    """Read a sequence.

    Raises RawDataError; `unsafe_pickle` for a file that would run code.
    """
    sequence = StoredArrays(file, load_labels(file), UNPACK)
    notes = list[str]()
    counts = {}
    for key in PER_ACTOR:
        entries = sequence.value(key)
        counts[key] = len(entries) if isinstance(entries, list) else NO_LIST
    n_actors = counts["poses"]
    if n_actors < 1 or set(counts.values()) != {n_actors}:
        raise RawDataError(file, "poses", "lists with one entry an actor", str(counts), UNPACK)
    to_camera = sequence.take("cam_poses", None, 4, 4)
    stored = sequence.take("cam_intrinsics", 3, 3)
    intrinsics: Doubles | None = stored
    if not are_usable_numbers(stored).all():  # no other label depends on them
        intrinsics = None
        notes.append("cam_intrinsics are not finite: not used")
    n_frames = len(to_camera)
    actors = [_load_actor(sequence, n, n_frames, notes) for n in range(n_actors)]
    return _Sequence(actors, to_camera, intrinsics, notes)


def _load_actor(
    sequence: StoredArrays, number: int, n_frames: int, notes: list[str]
) -> _StoredActor:
    """Read entry `number` of each list. Adds a note about unused joints. Raises RawDataError."""

    def array(key: str, *shape: int | None) -> Doubles:
        stored = sequence.value(key)[number]
        return numbers(sequence.file, f"{key}[{number}]", stored, shape)

    stated = sequence.value("genders")[number]
    gender = gender_of(stated)
    if gender not in ("male", "female"):
        raise sequence.error(f"genders[{number}]", "m or f", quote_name(str(stated)))
    betas = array("betas", None)[:N_BETAS]
    if len(betas) < N_BETAS or not are_usable_numbers(betas).all():
        expected = f"at least {N_BETAS} finite numbers"
        raise sequence.error(f"betas[{number}]", expected, str(betas))
    kp_18, n_bad = zero_invalid_joints(array("poses2d", n_frames, 3, 18).transpose(0, 2, 1))
    if n_bad:
        notes.append(f"poses2d[{number}]: {n_bad} joints are not finite: not used")
    return _StoredActor(
        pose=array("poses", n_frames, 72),
        betas=betas,
        trans=array("trans", n_frames, 3),
        kp_18=kp_18,
        valid=array("campose_valid", n_frames) > 0,
        gender=gender,
    )
