"""PoseTrack 2018 and PoseTrack21: videos of many people, joints and identities labelled.  [raw ->
tracks] -> features

Andriluka et al.: PoseTrack: A Benchmark for Human Pose Estimation and Tracking, CVPR 2018. Doering
et al.: PoseTrack21: A Dataset for Person Search, Multi-Object Tracking and Multi-Person Pose
Tracking, CVPR 2022.

    posetrack_data/annotations/<split>/<seq>.json     of 2018, or annotations/<split>/<seq>.json:
                                                      COCO's form, more keys
    posetrack_data/<split>/<seq>.json                 of PoseTrack21
    images/<split>/<seq>/<000000>.jpg                 of both
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.accounting import Totals, VideoAccount
from pipeline.boxes import corner_boxes_with_margin
from pipeline.cli.text import count
from pipeline.datasets.base import Dataset, Mistake, Origin, ReleasePart, finite_joints
from pipeline.datasets.pixels import RESIZED, no_pictures, require_size
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import kind, load_json, records, table, whole
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
LABELS: Final = "posetrack21_annotations.zip (or 2018's posetrack18_v0.45_public_labels.tar.gz)"
PICTURES: Final = "posetrack18_images.tar.aa to .ar"
TODAY: Final = (
    "posetrack.net has been offline since 2022: sign the agreement of github.com/anDoer/"
    "PoseTrack21. Its download_dataset.py then fetches its labels and 2018's images, unchanged."
)
UNPACK: Final = f"Unpack {LABELS} and {PICTURES} again. {TODAY}"
MIN_FRAMES: Final = 8
BOX_MARGIN: Final = 0.15  # of the joints' extent, on every side: 2018's `bbox`
BOX_FACTOR: Final = 0.8  # of that box, so 0.8 * 1.3 = 1.04 of the joints' extent
MIN_SIDE_PX: Final = 1.0
MAX_PX: Final = 1e5  # ten times any picture: some of the release's boxes begin at minus a million
MAX_NAME: Final = 4096  # characters: as long as a path can be
# The last number of a name counts the frames. Braces would mean a number in an image pattern.
_NUMBERED: Final = re.compile(r"(?P<before>[^{}]*?)(?P<digits>[0-9]{1,12})(?P<after>\.[A-Za-z]+)")
MISSING: Final[tuple[object, ...]] = (None, [])  # how the release writes an unknown value
OURS: Final[Mapping[str, str]] = {  # the release's names of joints -> spin49's
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
    version: ClassVar[int] = 2  # 2: PoseTrack21's labels are known in any folder
    page: ClassVar[str] = "https://github.com/anDoer/PoseTrack21"
    harmless: ClassVar[frozenset[str]] = frozenset({"no_annotations"})  # more was filmed
    # Annotated sequences of the labels v0.45; v0.2 had 74 for val (lighttrack's issue 16). Users
    # counted 792 and 170 folders of images (poseval's issue 32): 199 of train have no annotations.
    parts: ClassVar[tuple[ReleasePart, ...]] = (
        *_parts("train", "training", 593, 792),
        *_parts("val", "validation", 170, 170),
    )
    mistakes: ClassVar[tuple[Mistake, ...]] = (
        Mistake("images/*_5sec/", "is of PoseTrack 2017", f"Get {LABELS} and {PICTURES}. {TODAY}"),
    )
    has_image_folders: ClassVar[bool] = True
    recording: ClassVar[str] = "sequence"
    totals: ClassVar[Mapping[str, Totals]] = {
        "train": Totals(about=166_000),
        "val": Totals(170, about=47_000),
    }

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
        files_of: dict[str, list[Path]] = {
            entry.name: [] for entry in pictures.iterdir() if entry.is_dir()
        }
        folders = [Path(folder, split) for folder in ANNOTATIONS]
        annotated: list[Path] = []
        for folder in folders:
            label_files = sorted((raw / folder).glob("[!.]*.json"))
            annotated += [folder / file.name for file in label_files]
        if not annotated:
            expected = " or ".join(f"{folder}/{split}/<seq>.json" for folder in ANNOTATIONS)
            raise RawDataError(raw, "annotations", expected, "none", f"Unpack {LABELS}. {TODAY}")
        for file in annotated:
            # PoseTrack21's beside 2018's change nothing
            if not _unpacks_of_21(file) or not files_of.get(file.stem):
                files_of.setdefault(file.stem, []).append(file)
        return [
            RawVideo(name, files=tuple(files_of[name]), folders=(Path("images", split, name),))
            for name in sorted(files_of)
            if not name.startswith(".")  # left behind by file managers
        ]

    def unused_labels(self, raw: Path, split: str) -> str:
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
        coco = _load_coco(raw / file, in_folder_of_21=_unpacks_of_21(file))
        account.found = len(coco.annotations)
        account.notes.extend(coco.notes)
        if not (coco.has_keypoints or (coco.of_21 and coco.annotations)):
            account.reject("no_annotations", f"{raw / file}: no annotation in it has keypoints")
            return []

        skeleton, kp_2d = _joints(coco, account)
        track_id = coco.track_ids()
        person_id = coco.person_ids()
        box = corner_boxes_with_margin(kp_2d, BOX_MARGIN) if coco.of_21 else coco.boxes()
        labelled = _find_pictures(raw, raw / file, coco.file_names, account)
        pictures = labelled.pictures
        if pictures.place != raw / video.folders[0]:
            where = pictures.place.relative_to(raw).as_posix()
            account.notes.append(f"its pictures are in {where}: changes there are not noticed")
        do = f"Unpack {LABELS} and {PICTURES} again, without resizing images. {TODAY}"
        require_size(pictures, coco.size, raw / file, do, tolerance=RESIZED)

        frame_index = labelled.frame_index[coco.picture]
        n_seen = (kp_2d[..., 2] > 0).sum(axis=1)
        reasons = _reasons_against(coco, n_seen, box, labelled.problems)
        kept: Ints = np.flatnonzero(account.drop_rows(reasons))
        rows = _one_per_frame(kept, track_id, frame_index, n_seen)
        account.drop("duplicate_person", len(kept) - len(rows))

        tracks = []
        for person in np.unique(track_id).tolist():
            of_person = rows[track_id[rows] == person]
            if len(of_person) < MIN_FRAMES:
                account.drop_track("track_too_short", len(of_person))
                continue
            account.keep_track(len(of_person))
            kp_49 = convert(kp_2d[of_person], source=skeleton, target="spin49").astype(np.float32)
            track = self.track(
                split,
                video,
                person,
                fps=math.nan,
                frame_index=frame_index[of_person],
                bbox=_squares(box[of_person]).astype(np.float32),
                kp_2d=kp_49,
                frames=pictures,
            )
            tracks.append(track)
            if coco.of_21:
                account.subjects.extend(dict.fromkeys(person_id[row] for row in of_person.tolist()))
        return tracks


def _reasons_against(
    coco: _Coco, n_seen: Ints, box: Doubles, problems: Mapping[str, Bools]
) -> dict[str, ArrayLike]:
    """Reasons -> (N,) whether they apply to an annotation; `problems`: those against its image."""
    side = box[:, 2:]
    is_missing = np.isnan(box).any(axis=1)
    is_empty = (side <= 0).any(axis=1)
    is_small = side.max(axis=1) < MIN_SIDE_PX
    reasons: dict[str, ArrayLike] = {name: of[coco.picture] for name, of in problems.items()}
    reasons["no_keypoints" if coco.of_21 else "no_visible_joint"] = n_seen == 0
    reasons["degenerate_box"] = is_missing | is_empty | is_small
    reasons["huge_box"] = (np.abs(box) > MAX_PX).any(axis=1)
    return reasons


def _one_per_frame(rows: Ints, track_id: Ints, frame_index: Ints, n_seen: Ints) -> Ints:
    """Rows by person and frame. Of one person's annotations in one image, the one with most joints
    is kept, of equal ones the file's first.
    """
    rows = rows[np.lexsort((-n_seen[rows], frame_index[rows], track_id[rows]))]
    is_same_person = np.diff(track_id[rows], prepend=-1) == 0
    is_same_frame = np.diff(frame_index[rows], prepend=-1) == 0
    return np.asarray(rows[~(is_same_person & is_same_frame)])


def _squares(box: Doubles) -> Doubles:
    """(N, 4) corner and size -> (N, 4) centre and the size of a track's square."""
    centre = box[:, :2] + box[:, 2:] / 2
    side = box[:, 2:].max(axis=1, keepdims=True) * BOX_FACTOR  # the longer one
    return np.concatenate([centre, side, side], axis=1)


def _unpacks_of_21(file: Path) -> bool:
    """Whether a label file, below the raw folder, is where PoseTrack21's unpack."""
    return file.parent.parent == Path(POSETRACK21)


def _joints(coco: _Coco, account: VideoAccount) -> tuple[tuple[str, ...], Doubles]:
    """The J joints in spin49's names, and (N, J, 3) px px confidence: 1, or 0 at (0, 0), where
    there is no joint.
    """
    names = coco.joint_names()
    unknown = [name for name in names if name not in OURS]
    if unknown:
        expected = f"none but {', '.join(OURS)}"
        raise RawDataError(coco.file, "categories[0].keypoints", expected, kind(unknown[0]), UNPACK)
    joints = coco.keypoints(len(names))
    joints[..., 2] = (joints[..., :2] != 0).any(axis=-1)  # VIBE's rule: not the third number
    return tuple(OURS[name] for name in names), finite_joints(joints, account)


class _LabelledPictures(NamedTuple):
    """The F labelled images of a video."""

    pictures: Pictures
    frame_index: Ints  # (F,) the number in the name
    problems: Mapping[str, Bools]  # reason -> (F,) whether it applies to an image


def _find_pictures(
    raw: Path, file: Path, file_names: Sequence[str], account: VideoAccount
) -> _LabelledPictures:
    """Find them by the most common pattern of their names; of equally common ones, the first."""
    numbered = [_parse_name(raw, file, name) for name in file_names]
    patterns = Counter(pattern for pattern, _ in numbered if pattern)
    if not patterns:
        expected = "names with a number at the end, such as 000000.jpg"
        raise RawDataError(file, "file_name", expected, kind(file_names[0]), UNPACK)
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
            first = kind(file_names[int(applies.argmax())])
            account.notes.append(
                f"{int(applies.sum())} of {len(file_names)} labelled pictures {problem}: the "
                f"first has {first}"
            )
    problems = {"other_file_name": misnamed, "no_picture": absent}
    return _LabelledPictures(pictures, frame_index, problems)


def _parse_name(raw: Path, file: Path, name: str) -> tuple[str, int]:
    """`images/val/x/000012.jpg` -> (`images/val/x/{:06d}.jpg`, 12), or ("", 0) for a name without a
    number.

    Raises RawDataError (`path_outside`) for a path outside the raw folder.
    """
    if len(name) > MAX_NAME:
        return "", 0
    try:
        below(raw, name)
    except RawDataError as error:
        expected = f"a path below {raw}, without '..' or '\\'"
        do = f"Trust nothing in this file: download the annotations again. {TODAY}"
        raise RawDataError(
            file, "file_name", expected, kind(name), do, reason="path_outside"
        ) from error
    match = _NUMBERED.fullmatch(str(PurePosixPath(name)))
    if match is None or not name.isprintable():
        return "", 0
    return f"{match['before']}{{:0{len(match['digits'])}d}}{match['after']}", int(match["digits"])


@dataclass(frozen=True, slots=True, eq=False)
class _Coco:
    """The F labelled images of a video, and their N annotations, in the file's order. Methods raise
    RawDataError for invalid content.
    """

    file: Path
    file_names: list[str]  # F, as stored: not to be trusted
    picture: Ints  # (N,) 0..F-1
    annotations: Mapping[str, Mapping[str, Any]]  # N: key in the file -> annotation
    categories: object
    notes: list[str]  # what is not used
    size: tuple[float, float] | None  # px, of the first labelled image that states it
    of_21: bool  # of PoseTrack21, which also has people with a box alone

    @property
    def has_keypoints(self) -> bool:
        """Whether any annotation has keypoints; those of a test set have none."""
        stored = [annotation.get("keypoints") for annotation in self.annotations.values()]
        return not all(keypoints in MISSING for keypoints in stored)

    def joint_names(self) -> list[str]:
        """The file's J joint names in order, each once."""
        key = "categories[0].keypoints"
        categories = records(self.file, "categories", self.categories, do=UNPACK)
        names = categories[0].get("keypoints") if categories else None
        if not isinstance(names, list) or not names:
            raise RawDataError(self.file, key, "the names of the joints", kind(names), UNPACK)
        for i, name in enumerate(names):
            if not isinstance(name, str) or name in names[:i]:
                raise RawDataError(self.file, key, "names, each once", kind(name), UNPACK)
        return names

    def track_ids(self) -> Ints:
        """(N,) identities."""
        ids = []
        for key, annotation in self.annotations.items():
            ids.append(_id(self.file, f"{key}.track_id", annotation.get("track_id")))
        return np.array(ids, np.int64)

    def person_ids(self) -> list[str | None]:
        """N people, by one name in all of PoseTrack21's sequences; None in 2018's."""
        people: list[str | None] = []
        for key, annotation in self.annotations.items():
            person = annotation.get("person_id")
            if person is not None:
                person = str(_id(self.file, f"{key}.person_id", person))
            people.append(person)
        return people

    def keypoints(self, n_joints: int) -> Doubles:
        """(N, J, 3) as stored; all 0 for an annotation without keypoints."""
        return self._numbers("keypoints", [0] * 3 * n_joints).reshape(-1, n_joints, 3)

    def boxes(self) -> Doubles:
        """(N, 4) x y of the upper left corner, w h, px; NaN if missing."""
        return self._numbers("bbox", [np.nan] * 4)

    def _numbers(self, name: str, absent: list[Any]) -> Doubles:
        stored = [annotation.get(name) for annotation in self.annotations.values()]
        rows = [absent if row in MISSING else row for row in stored]
        keys = [f"{key}.{name}" for key in self.annotations]
        return table(self.file, keys, rows, len(absent), do=UNPACK)


def _id(file: Path, key: str, value: object) -> int:
    """A whole number, or a text of its digits. Raises RawDataError for anything else."""
    digits = isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value)
    return whole(file, key, int(digits[0]) if digits else value, do=UNPACK)


def _load_coco(file: Path, *, in_folder_of_21: bool) -> _Coco:
    """Read a video's labels. In any folder, PoseTrack21's name the people (`person_id`); 2018's do
    not.

    Raises RawDataError for a file that is not COCO's JSON, and for an annotation of PoseTrack21 on
    an image that is not listed; 2018's are noted.
    """
    content = load_json(file, do=UNPACK)
    if not isinstance(content, dict):
        raise RawDataError(file, "file", "an object", kind(content), UNPACK)
    images = _read_images(file, content.get("images"))
    listed = records(file, "annotations", content.get("annotations", []), do=UNPACK)
    of_21 = in_folder_of_21 or any("person_id" in annotation for annotation in listed)
    on_labelled: dict[int, int] = {}  # number of the annotation -> that of its image
    for i, entry in enumerate(listed):
        key = f"annotations[{i}].image_id"
        image_id = _id(file, key, entry.get("image_id"))
        if of_21 and image_id not in images.place_of:
            expected = f"the id of one of its {len(images.place_of)} images"
            raise RawDataError(file, key, expected, str(image_id), UNPACK)
        number = images.place_of.get(image_id)
        if number is not None:
            on_labelled[i] = number
    notes = []
    if images.n_twice:
        notes.append(f"{images.n_twice} pictures have the id of an earlier one: not used")
    n_others = len(listed) - len(on_labelled)
    if n_others:
        others = "annotations are on pictures that are not labelled, or not listed: not used"
        notes.append(f"{n_others} {others}")
    return _Coco(
        file=file,
        file_names=images.file_names,
        picture=np.array(list(on_labelled.values()), np.int64),
        annotations={f"annotations[{i}]": listed[i] for i in on_labelled},
        categories=content.get("categories"),
        notes=notes,
        size=images.size,
        of_21=of_21,
    )


@dataclass(slots=True)
class _ListedImages:
    """What a label file's `images` say, collected one by one."""

    # image's id -> place among the labelled ones, None for any other
    place_of: dict[int, int | None] = field(default_factory=dict)
    file_names: list[str] = field(default_factory=list)  # of the labelled images
    size: tuple[float, float] | None = None  # of the first labelled image that states it
    n_twice: int = 0  # images with the id of an earlier one


def _read_images(file: Path, stored: object) -> _ListedImages:
    """Read a label file's `images`. Raises RawDataError for invalid ones."""
    read = _ListedImages()
    for i, image in enumerate(records(file, "images", stored, do=UNPACK)):
        # `image_id`, in 2018 `frame_id`, is the same number
        key = f"images[{i}]"
        image_id = _id(file, f"{key}.id", image.get("id"))
        labelled = image.get("is_labeled")
        name = image.get("file_name")
        if not isinstance(labelled, bool) and labelled not in (0, 1):
            raise RawDataError(file, f"{key}.is_labeled", "true or false", kind(labelled), UNPACK)
        if image_id in read.place_of:
            read.n_twice += 1
        elif not labelled:
            read.place_of[image_id] = None
        elif not isinstance(name, str):
            raise RawDataError(file, f"{key}.file_name", "text", kind(name), UNPACK)
        else:
            read.place_of[image_id] = len(read.file_names)
            read.file_names.append(name)
            read.size = read.size or _stated_size(image)
    return read


def _stated_size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height px of an image, if it states them."""
    width = image.get("width")
    height = image.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return None
    if width > 0 and height > 0:
        return width, height
    return None
