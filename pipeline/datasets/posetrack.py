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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.accounting import Totals, VideoAccount
from pipeline.cli.text import count
from pipeline.datasets.base import (
    Dataset,
    ImageFolders,
    Licence,
    Mistake,
    Origin,
    Release,
    ReleasePart,
)
from pipeline.datasets.labels.posetrack import (
    DOWNLOAD_ADVICE,
    IMAGE_ARCHIVES,
    LABEL_ARCHIVE,
    UNPACK_ADVICE,
    AnnotatedPeople,
    StoredLabels,
)
from pipeline.datasets.shared.contradictions import note_contradictions
from pipeline.datasets.shared.images import RESIZED, no_pictures, require_size, require_visible
from pipeline.datasets.shared.numbering import require_numbers, require_rate
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import reading
from pipeline.files.formats.names import quote_name
from pipeline.files.pixels.frames import below
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.pixels.sources import match_numbered
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import is_litter, read_regular
from pipeline.people.skeletons import Bools, Doubles, Ints, convert
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

OFFICIAL: Final = ("posetrack_data/annotations", "annotations")  # where 2018's labels unpack
POSETRACK21: Final = "posetrack_data"  # where those of PoseTrack21 do
ANNOTATIONS: Final = (*OFFICIAL, POSETRACK21)  # the first that has a sequence is used
MIN_FRAMES: Final = 8
BOX_FACTOR: Final = 0.8  # of 2018's `bbox`, so 0.8 * 1.3 = 1.04 of the joints' extent
MIN_SIDE_PX: Final = 1.0
MAX_PX: Final = 1e5  # ten times any picture: some of the release's boxes begin at minus a million
MAX_NAME: Final = 4096  # characters: as long as a path can be
UNPACK_ORIGINAL_SIZE: Final = (
    f"Unpack {LABEL_ARCHIVE} and {IMAGE_ARCHIVES} again, without resizing images. {DOWNLOAD_ADVICE}"
)
GET_LABELS: Final = f"{LABEL_ARCHIVE}. {DOWNLOAD_ADVICE}"
GET_ALL: Final = f"Get {LABEL_ARCHIVE} and {IMAGE_ARCHIVES}. {DOWNLOAD_ADVICE}"


def _parts(split: str, what: str, annotated: int, filmed: int) -> tuple[ReleasePart, ...]:
    annotations = tuple(f"{folder}/{split}/<sequence>.json" for folder in ANNOTATIONS)
    pictures = (f"images/{split}/<sequence>/",)
    return (
        ReleasePart(f"{what} annotations", annotations, GET_LABELS, (split,), annotated),
        ReleasePart(f"{what} pictures", pictures, IMAGE_ARCHIVES, (split,), filmed),
    )


@dataclass(frozen=True)
class PoseTrack(Dataset):
    """One track per person (`track_id`) of a sequence. The releases have no frame rate.

    Boxes are squares of 1.04 times the longer side of the annotated joints' extent: 0.8 of 2018's
    `bbox`, which adds 15 % of the extent on every side (measured on a file of 2018). `bbox` of
    PoseTrack21 is drawn by hand, and not used.
    """

    name = "posetrack"
    splits = ("train", "val")
    version = 4  # 4: images that end before the regions to ignore do are refused
    # Annotated sequences of the labels v0.45; v0.2 had 74 for val (lighttrack's issue 16). Users
    # counted 792 and 170 folders of images (poseval's issue 32): 199 of train have no annotations.
    release = Release(
        page="https://github.com/anDoer/PoseTrack21",
        access="agreement",
        licence=Licence("PoseTrack21's agreement, signed"),
        parts=(
            *_parts("train", "training", 593, 792),
            *_parts("val", "validation", 170, 170),
        ),
        mistakes=(Mistake("images/*_5sec/", "is of PoseTrack 2017", GET_ALL),),
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
            expected = "a folder with <seq>/<000000>.jpg images"
            do = f"Unpack {IMAGE_ARCHIVES}. {DOWNLOAD_ADVICE}"
            raise RawDataError(pictures, "folder", expected, "none", do)
        label_files: dict[str, list[Path]] = {
            entry.name: [] for entry in pictures.iterdir() if entry.is_dir()
        }
        annotated: list[Path] = []
        for folder in ANNOTATIONS:
            for file in sorted((raw / folder / split).glob("[!.]*.json")):
                annotated.append(file.relative_to(raw))
        if not annotated:
            expected = " or ".join(f"{folder}/{split}/<seq>.json" for folder in ANNOTATIONS)
            raise RawDataError(raw, "annotations", expected, "none", f"Unpack {GET_LABELS}")
        for file in annotated:
            # PoseTrack21's beside 2018's change nothing
            if not _unpacks_of_21(file) or not label_files.get(file.stem):
                label_files.setdefault(file.stem, []).append(file)
        return [
            RawVideo(name, files=tuple(label_files[name]), folders=(Path("images", split, name),))
            for name in sorted(label_files)
            if not is_litter(name)
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
            path = raw / video.folders[0]
            account.reject("no_annotations", f"{path}: there are pictures, but no annotations")
            return []
        file = video.files[0]
        for folder in ANNOTATIONS:
            alternative = Path(folder, split, file.name)
            if alternative != file and (raw / alternative).is_file():
                account.note(f"{alternative.as_posix()} is not used: {file.as_posix()} is")
        labels = StoredLabels.read(raw / file, in_folder_of_21=_unpacks_of_21(file))
        account.found = len(labels.annotations)
        account.notes.extend(labels.notes)
        if not labels.has_people:
            account.reject("no_annotations", f"{raw / file}: no annotation in it has keypoints")
            return []

        people = labels.people(account)
        images = _find_images(raw, video, labels, account)
        if labels.images.size is None:
            reach = labels.images.reach
            require_visible(raw / file, people.kp_2d, images.pictures, account, reach)
        reasons = _reasons_to_drop(people, images, labels.reason_without_joints)
        usable: Ints = np.flatnonzero(account.drop_rows(reasons))
        frame_index = images.frame_index[people.image_index]
        rows = _one_per_frame(usable, people, frame_index)
        account.drop("duplicate_person", len(usable) - len(rows))

        tracks = []
        for person in np.unique(people.track_id).tolist():
            person_rows = rows[people.track_id[rows] == person]
            if len(person_rows) < MIN_FRAMES:
                account.drop_track("track_too_short", len(person_rows))
                continue
            account.keep_track(len(person_rows))
            track = self.track(
                split,
                video,
                person,
                fps=math.nan,
                frame_index=frame_index[person_rows],
                bbox=_squares(people.boxes[person_rows]),
                kp_2d=convert(people.kp_2d[person_rows], source=people.joints, target="spin49"),
                frames=images.pictures,
            )
            note_contradictions(track, account)
            tracks.append(track)
            if labels.names_people:
                names = [people.person_id[row] for row in person_rows.tolist()]
                account.subjects.extend(dict.fromkeys(names))
        return tracks


def _reasons_to_drop(
    people: AnnotatedPeople, images: _LabelledImages, reason_without_joints: str
) -> dict[str, ArrayLike]:
    """Reasons to drop annotations: reason -> (N,) whether it applies."""
    side = people.boxes[:, 2:]
    is_missing = np.isnan(people.boxes).any(axis=1)
    is_empty = (side <= 0).any(axis=1)
    is_small = side.max(axis=1) < MIN_SIDE_PX
    return {
        "no_picture": images.is_absent[people.image_index],
        reason_without_joints: people.n_joints == 0,
        "degenerate_box": is_missing | is_empty | is_small,
        "huge_box": (np.abs(people.boxes) > MAX_PX).any(axis=1),
    }


def _one_per_frame(rows: Ints, people: AnnotatedPeople, frame_index: Ints) -> Ints:
    """Sort rows by person and frame, and select one annotation of each person in each image.

    It is the one with most joints; of equal ones, the first in the file.
    """
    track_id = people.track_id
    rows = rows[np.lexsort((-people.n_joints[rows], frame_index[rows], track_id[rows]))]
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


class _LabelledImages(NamedTuple):
    """The F labelled images of a video, as its label file lists them."""

    pictures: Pictures
    frame_index: Ints  # (F,) the number in the name
    is_absent: Bools  # (F,)


def _find_images(
    raw: Path, video: RawVideo, labels: StoredLabels, account: VideoAccount
) -> _LabelledImages:
    """Find the labelled images by their names, and check their size. Raises RawDataError."""
    images = _match_names(raw, labels, account)
    pictures = images.pictures
    if pictures.place != raw / video.folders[0]:
        where = pictures.place.relative_to(raw).as_posix()
        account.note(f"its pictures are in {where}: changes there are not noticed")
    last = max(labels.images.n_images - 1, int(images.frame_index.max()))
    require_rate(pictures, last + 1)
    require_numbers(pictures, 0, last, spare=0)
    require_size(pictures, labels.images.size, labels.file, UNPACK_ORIGINAL_SIZE, tolerance=RESIZED)
    return images


def _match_names(raw: Path, labels: StoredLabels, account: VideoAccount) -> _LabelledImages:
    """Find the images by their names, which differ by the number alone.

    Images that are not there are noted. Raises RawDataError for other names, and if no image is
    there.
    """
    file_names = labels.images.file_names
    numbered = [_parse_name(raw, labels.file, name) for name in file_names]
    pattern = numbered[0].pattern
    for name, stored in zip(numbered, file_names, strict=True):
        if name.pattern != pattern:
            expected = f"names as {quote_name(file_names[0])}, with another number"
            raise _invalid_name(labels.file, expected, stored)
    pictures = Pictures(raw, pattern)
    frame_index = np.array([name.number for name in numbered], np.int64)
    expected = "a folder that can be read"  # with permission, and a name that a file system takes
    with reading(pictures.place, expected, key="pictures", do=UNPACK_ADVICE, reason="no_picture"):
        is_absent = ~np.isin(frame_index, pictures.indices())
    if is_absent.all():
        example = pictures.path(int(frame_index[0])).name
        expected = f"{len(frame_index)} labelled images such as {example}"
        raise no_pictures(pictures.place, expected, UNPACK_ADVICE)
    if is_absent.any():
        first = quote_name(file_names[int(is_absent.argmax())])
        account.note(
            f"{int(is_absent.sum())} of {len(file_names)} labelled pictures are not there: the "
            f"first is {first}"
        )
    return _LabelledImages(pictures, frame_index, is_absent)


class _NumberedName(NamedTuple):
    """`images/val/x/000012.jpg` has the pattern `images/val/x/{:06d}.jpg` and the number 12."""

    pattern: str
    number: int


def _parse_name(raw: Path, file: Path, name: str) -> _NumberedName:
    """Parse an image's name. Raises RawDataError for a name without a number, and
    (`path_outside`) for a path outside the raw folder.
    """
    try:
        below(raw, name)
    except RawDataError as error:
        expected = f"a path below {raw}, without '..' or '\\'"
        do = f"Trust nothing in this file: download the annotations again. {DOWNLOAD_ADVICE}"
        raise RawDataError(
            file, "file_name", expected, quote_name(name), do, reason="path_outside"
        ) from error
    match = match_numbered(str(PurePosixPath(name)))
    if match is None or len(name) > MAX_NAME:
        expected = "names with a number at the end, such as 000000.jpg"
        raise _invalid_name(file, expected, name)
    pattern = f"{match['before']}{{:0{len(match['number'])}d}}{match['after']}"
    return _NumberedName(pattern, int(match["number"]))


def _invalid_name(file: Path, expected: str, name: str) -> RawDataError:
    return RawDataError(file, "file_name", expected, quote_name(name), UNPACK_ADVICE)
