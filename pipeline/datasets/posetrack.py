"""PoseTrack 2018 and PoseTrack21: videos of many people, joints and identities labelled.  [raw ->
tracks] -> features

Andriluka et al.: PoseTrack: A Benchmark for Human Pose Estimation and Tracking, CVPR 2018. Doering
et al.: PoseTrack21: A Dataset for Person Search, Multi-Object Tracking and Multi-Person Pose
Tracking, CVPR 2022.

    posetrack_data/annotations/<split>/<seq>.json     of 2018, or annotations/<split>/<seq>.json:
                                                      COCO's form, more keys
    posetrack_data/<split>/<seq>.json                 of PoseTrack21
    images/<split>/<seq>/<000000>.jpg                 of both

`labels.posetrack` reads the label files. An annotation is one person in one image.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.accounting import Totals, VideoAccount
from pipeline.boxes import corner_boxes_with_margin
from pipeline.cli.text import count
from pipeline.datasets.base import Dataset
from pipeline.datasets.checks import finite_joints
from pipeline.datasets.labels.posetrack import LABELS, PICTURES, TODAY, UNPACK, Coco, load_coco
from pipeline.datasets.numbering import require_numbers, require_rate
from pipeline.datasets.pixels import RESIZED, no_pictures, require_size, require_visible
from pipeline.datasets.release import ImageFolders, Mistake, Origin, Release, ReleasePart
from pipeline.errors import RawDataError
from pipeline.files.formats.names import shown
from pipeline.files.pixels.frames import Pictures, below
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import read_regular
from pipeline.skeletons import Bools, Doubles, Ints, convert
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

OFFICIAL: Final = ("posetrack_data/annotations", "annotations")  # where 2018's labels unpack
POSETRACK21: Final = "posetrack_data"  # where those of PoseTrack21 do
ANNOTATIONS: Final = (*OFFICIAL, POSETRACK21)  # the first that has a sequence is used
MIN_FRAMES: Final = 8
BOX_MARGIN: Final = 0.15  # of the joints' extent, on every side: 2018's `bbox`
BOX_FACTOR: Final = 0.8  # of that box, so 0.8 * 1.3 = 1.04 of the joints' extent
MIN_SIDE_PX: Final = 1.0
MAX_PX: Final = 1e5  # ten times any picture: some of the release's boxes begin at minus a million
MAX_NAME: Final = 4096  # characters: as long as a path can be
# The last number of a name counts the frames. Braces would mean a number in an image pattern.
_NUMBERED: Final = re.compile(r"(?P<before>[^{}]*?)(?P<digits>[0-9]{1,12})(?P<after>\.[A-Za-z]+)")
SPIN49_NAMES: Final[Mapping[str, str]] = {  # the release's names of joints -> spin49's
    "nose": "nose",
    "head_bottom": "neck",
    "head_top": "headtop",
    **{
        f"{side}_{joint}": f"{side[0]}{joint}"
        for joint in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    },
}


def _parts(split: str, what: str, annotated: int, filmed: int) -> tuple[ReleasePart, ...]:
    annotations = tuple(f"{folder}/{split}/<sequence>.json" for folder in ANNOTATIONS)
    pictures = (f"images/{split}/<sequence>/",)
    return (
        ReleasePart(f"{what} annotations", annotations, f"{LABELS}. {TODAY}", (split,), annotated),
        ReleasePart(f"{what} pictures", pictures, PICTURES, (split,), filmed),
    )


@dataclass(frozen=True)
class PoseTrack(Dataset):
    """One track per person (`track_id`) of a sequence. The releases have no frame rate.

    Boxes are squares of 1.04 times the longer side of the annotated joints' extent: 0.8 of 2018's
    `bbox`, which adds 15 % of the extent on every side (measured on a file of 2018). `bbox` of
    PoseTrack21 is drawn by hand, and not used.
    """

    name: ClassVar[str] = "posetrack"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    version: ClassVar[int] = 3  # 3: images under other numbers are refused
    # Annotated sequences of the labels v0.45; v0.2 had 74 for val (lighttrack's issue 16). Users
    # counted 792 and 170 folders of images (poseval's issue 32): 199 of train have no annotations.
    release: ClassVar[Release] = Release(
        page="https://github.com/anDoer/PoseTrack21",
        parts=(
            *_parts("train", "training", 593, 792),
            *_parts("val", "validation", 170, 170),
        ),
        mistakes=(
            Mistake(
                "images/*_5sec/", "is of PoseTrack 2017", f"Get {LABELS} and {PICTURES}. {TODAY}"
            ),
        ),
        image_folders=ImageFolders(),
        recording="sequence",
        totals={"val": Totals(videos=170)},
    )

    def origin(self, video: str) -> Origin:
        """A sequence by its number and source, in any split. The name does not tell the video it
        was cut from.

        >>> PoseTrack().origin("000342_mpii_test")
        Origin(subject=None, recording='000342_mpii')
        """
        return Origin(recording=re.sub(r"_(train|val|test)$", "", video))

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        pictures = raw / "images" / split
        if not pictures.is_dir():
            expected = "a folder with <seq>/<000000>.jpg pictures"
            raise RawDataError(pictures, "folder", expected, "none", f"Unpack {PICTURES}. {TODAY}")
        label_files: dict[str, list[Path]] = {
            entry.name: [] for entry in pictures.iterdir() if entry.is_dir()
        }
        annotated: list[Path] = []
        for folder in ANNOTATIONS:
            for file in sorted((raw / folder / split).glob("[!.]*.json")):
                annotated.append(file.relative_to(raw))
        if not annotated:
            expected = " or ".join(f"{folder}/{split}/<seq>.json" for folder in ANNOTATIONS)
            raise RawDataError(raw, "annotations", expected, "none", f"Unpack {LABELS}. {TODAY}")
        for file in annotated:
            # PoseTrack21's beside 2018's change nothing
            if not _unpacks_of_21(file) or not label_files.get(file.stem):
                label_files.setdefault(file.stem, []).append(file)
        return [
            RawVideo(name, files=tuple(label_files[name]), folders=(Path("images", split, name),))
            for name in sorted(label_files)
            if not name.startswith(".")  # left behind by file managers
        ]

    def label_note(self, raw: Path, split: str) -> str:
        unused = raw / POSETRACK21 / split
        names_of_21 = {file.name for file in unused.glob("[!.]*.json")}
        names_of_2018: set[str] = set()
        for folder in OFFICIAL:
            names_of_2018.update(file.name for file in (raw / folder / split).glob("*.json"))
        n_both = len(names_of_2018 & names_of_21)
        if not n_both:
            return ""
        sequences = f"{count(n_both, 'sequence')} with labels of PoseTrack 2018 and of PoseTrack21"
        return f"{sequences}: those of 2018 count, those in {unused} do not"

    def stated_images(self, raw: Path, video: RawVideo) -> int:
        """How many images the labels list, by their bytes: parsing takes ten times as long."""
        return sum(read_regular(raw / file).count(b'"file_name"') for file in video.files[:1])

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        if not video.files:
            place = raw / video.folders[0]
            account.reject("no_annotations", f"{place}: there are pictures, but no annotations")
            return []
        file = video.files[0]
        for folder in ANNOTATIONS:
            other = Path(folder, split, file.name)
            if other != file and (raw / other).is_file():
                account.notes.append(f"{other.as_posix()} is not used: {file.as_posix()} is")
        coco = load_coco(raw / file, in_folder_of_21=_unpacks_of_21(file))
        account.found = len(coco.annotations)
        account.notes.extend(coco.notes)
        if not (coco.has_keypoints or (coco.of_21 and coco.annotations)):
            account.reject("no_annotations", f"{raw / file}: no annotation in it has keypoints")
            return []

        skeleton, kp_2d = _joints(coco, account)
        track_id = coco.track_ids()
        person_id = coco.person_ids()
        boxes = corner_boxes_with_margin(kp_2d, BOX_MARGIN) if coco.of_21 else coco.boxes()
        images = _find_images(raw, video, coco, account)
        if coco.size is None:
            require_visible(raw / file, kp_2d, images.pictures, account)
        frame_index = images.frame_index[coco.picture]
        n_seen = (kp_2d[..., 2] > 0).sum(axis=1)
        reasons = _reasons_to_drop(coco, n_seen, boxes, images.problems)
        usable: Ints = np.flatnonzero(account.drop_rows(reasons))
        rows = _one_per_frame(usable, track_id, frame_index, n_seen)
        account.drop("duplicate_person", len(usable) - len(rows))

        tracks = []
        for person in np.unique(track_id).tolist():
            person_rows = rows[track_id[rows] == person]
            if len(person_rows) < MIN_FRAMES:
                account.drop_track("track_too_short", len(person_rows))
                continue
            account.keep_track(len(person_rows))
            spin49 = convert(kp_2d[person_rows], source=skeleton, target="spin49")
            track = self.track(
                split,
                video,
                person,
                fps=math.nan,
                frame_index=frame_index[person_rows],
                bbox=_squares(boxes[person_rows]).astype(np.float32),
                kp_2d=spin49.astype(np.float32),
                frames=images.pictures,
            )
            tracks.append(track)
            if coco.of_21:
                people = [person_id[row] for row in person_rows.tolist()]
                account.subjects.extend(dict.fromkeys(people))
        return tracks


def _reasons_to_drop(
    coco: Coco, n_seen: Ints, boxes: Doubles, image_problems: Mapping[str, Bools]
) -> dict[str, ArrayLike]:
    """Reasons to drop annotations: reason -> (N,) whether it applies.

    n_seen: (N,) number of joints. boxes: (N, 4) as `Coco.boxes`. image_problems: reason -> (F,)
    whether it applies to an image.
    """
    side = boxes[:, 2:]
    is_missing = np.isnan(boxes).any(axis=1)
    is_empty = (side <= 0).any(axis=1)
    is_small = side.max(axis=1) < MIN_SIDE_PX
    reasons: dict[str, ArrayLike] = {
        reason: applies[coco.picture] for reason, applies in image_problems.items()
    }
    reasons["no_keypoints" if coco.of_21 else "no_visible_joint"] = n_seen == 0
    reasons["degenerate_box"] = is_missing | is_empty | is_small
    reasons["huge_box"] = (np.abs(boxes) > MAX_PX).any(axis=1)
    return reasons


def _one_per_frame(rows: Ints, track_id: Ints, frame_index: Ints, n_seen: Ints) -> Ints:
    """Sort rows by person and frame, and select one annotation of each person in each image.

    It is the one with most joints; of equal ones, the first in the file.
    """
    rows = rows[np.lexsort((-n_seen[rows], frame_index[rows], track_id[rows]))]
    is_same_person = np.diff(track_id[rows], prepend=-1) == 0
    is_same_frame = np.diff(frame_index[rows], prepend=-1) == 0
    return np.asarray(rows[~(is_same_person & is_same_frame)])


def _squares(boxes: Doubles) -> Doubles:
    """Convert boxes (N, 4) x y w h to a track's squares, (N, 4) cx cy side side."""
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    side = boxes[:, 2:].max(axis=1, keepdims=True) * BOX_FACTOR  # the longer one
    return np.concatenate([centre, side, side], axis=1)


def _unpacks_of_21(file: Path) -> bool:
    """Whether a label file, below the raw folder, is where PoseTrack21's unpack."""
    return file.parent.parent == Path(POSETRACK21)


def _joints(coco: Coco, account: VideoAccount) -> tuple[tuple[str, ...], Doubles]:
    """Return the J joints' names in spin49, and the joints, (N, J, 3) px px confidence.

    The confidence is 1, or 0 at (0, 0), where there is no joint.
    """
    names = coco.joint_names()
    unknown = [name for name in names if name not in SPIN49_NAMES]
    if unknown:
        expected = f"none but {', '.join(SPIN49_NAMES)}"
        key = "categories[0].keypoints"
        raise RawDataError(coco.file, key, expected, shown(unknown[0]), UNPACK)
    joints = coco.keypoints(len(names))
    joints[..., 2] = (joints[..., :2] != 0).any(axis=-1)  # VIBE's rule: not the third number
    return tuple(SPIN49_NAMES[name] for name in names), finite_joints(joints, account)


class _LabelledImages(NamedTuple):
    """The F labelled images of a video, as its label file lists them."""

    pictures: Pictures
    frame_index: Ints  # (F,) the number in the name
    problems: Mapping[str, Bools]  # reason -> (F,) whether it applies to an image


def _find_images(raw: Path, video: RawVideo, coco: Coco, account: VideoAccount) -> _LabelledImages:
    """Find the labelled images by their names, and check their size. Raises RawDataError."""
    images = _match_names(raw, coco.file, coco.file_names, account)
    pictures = images.pictures
    if pictures.place != raw / video.folders[0]:
        where = pictures.place.relative_to(raw).as_posix()
        account.notes.append(f"its pictures are in {where}: changes there are not noticed")
    last = max(coco.n_images - 1, int(images.frame_index.max()))
    require_rate(pictures, last + 1)
    require_numbers(pictures, 0, last, spare=0)
    do = f"Unpack {LABELS} and {PICTURES} again, without resizing images. {TODAY}"
    require_size(pictures, coco.size, coco.file, do, tolerance=RESIZED)
    return images


def _match_names(
    raw: Path, file: Path, file_names: Sequence[str], account: VideoAccount
) -> _LabelledImages:
    """Find images by the most common pattern of their names; of equally common ones, the first.

    Images of other names, and those that are not there, have a problem. Raises RawDataError if no
    image of the pattern is there.
    """
    numbered = [_parse_name(raw, file, name) for name in file_names]
    patterns = Counter(pattern for pattern, _ in numbered if pattern)
    if not patterns:
        expected = "names with a number at the end, such as 000000.jpg"
        raise RawDataError(file, "file_name", expected, shown(file_names[0]), UNPACK)
    pattern, n_alike = patterns.most_common(1)[0]
    pictures = Pictures(raw, pattern)
    frame_index = np.array([number for _, number in numbered], np.int64)
    try:
        indices = pictures.indices()
    except OSError as error:  # no permission, or a name that no file system takes
        expected = "a folder that can be read"
        found = str(error.strerror)
        raise RawDataError(
            pictures.place, "pictures", expected, found, UNPACK, reason="no_picture"
        ) from error
    misnamed = np.array([found != pattern for found, _ in numbered])
    absent = ~misnamed & ~np.isin(frame_index, indices)
    if absent.sum() == n_alike:
        example = pictures.path(int(frame_index[~misnamed][0])).name
        expected = f"{len(file_names)} labelled images such as {example}"
        raise no_pictures(pictures.place, expected, UNPACK)
    for applies, problem in ((misnamed, f"are not called {pattern}"), (absent, "are not there")):
        if applies.any():
            first = shown(file_names[int(applies.argmax())])
            account.notes.append(
                f"{int(applies.sum())} of {len(file_names)} labelled pictures {problem}: the "
                f"first is {first}"
            )
    problems = {"other_file_name": misnamed, "no_picture": absent}
    return _LabelledImages(pictures, frame_index, problems)


def _parse_name(raw: Path, file: Path, name: str) -> tuple[str, int]:
    """The pattern of an image's name, and its number; ("", 0) for a name without a number.

    `images/val/x/000012.jpg` gives (`images/val/x/{:06d}.jpg`, 12). Raises RawDataError
    (`path_outside`) for a path outside the raw folder.
    """
    if len(name) > MAX_NAME:
        return "", 0
    try:
        below(raw, name)
    except RawDataError as error:
        expected = f"a path below {raw}, without '..' or '\\'"
        do = f"Trust nothing in this file: download the annotations again. {TODAY}"
        raise RawDataError(
            file, "file_name", expected, shown(name), do, reason="path_outside"
        ) from error
    match = _NUMBERED.fullmatch(str(PurePosixPath(name)))
    if match is None or not name.isprintable():
        return "", 0
    return f"{match['before']}{{:0{len(match['digits'])}d}}{match['after']}", int(match["digits"])
