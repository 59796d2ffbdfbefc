"""Read all people that a detector found in one video, from any supported format.  [raw] -> tracks
-> features -> windows

a file     JSON of `detect` or COCO, lists of results (AlphaPose's, COCO's), MMPose's JSON, MOT's
           text, CSV, TRC
a folder   a file for each frame: OpenPose's JSON, YOLO's text; or one file as above

The reader of the format (`people_formats`) returns the people in the order of the file.
`_assemble` groups them by frame, orders their joints (`joint_orders`), and checks people (`checks`)
and scores.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.cli.text import count
from pipeline.clips.labels import sam_3d_body, text_files
from pipeline.clips.labels.checks import check_people
from pipeline.clips.labels.joint_orders import KnownBy, OrderedJoints, order_joints
from pipeline.clips.labels.label_content import (
    BOXES_ALONE,
    HANDS_NOT_READ,
    NOT_STATED,
    LabelContent,
    Sizes,
    Stated,
)
from pipeline.clips.labels.label_files import ALPHAPOSE, SUFFIXES, UNREAD
from pipeline.clips.labels.label_values import (
    DAMAGED,
    ONE_VIDEO,
    all_in_one,
    countable_names,
    label_error,
)
from pipeline.clips.labels.people_formats import Source, format_of
from pipeline.clips.labels.people_table import (
    ByFrame,
    FoundPeople,
    PeopleTable,
    take_in_place,
)
from pipeline.errors import FOLDER, RawDataError
from pipeline.files.formats.arrays import reading
from pipeline.files.formats.large_json import read_json
from pipeline.files.formats.other_formats import OtherProgram
from pipeline.files.raw.files import list_names, open_regular
from pipeline.people.checked_people import CORNERS, CheckedPeople
from pipeline.people.hands import HANDS, confident_hands, hands_of, is_of_hand
from pipeline.people.skeletons import Bools, Doubles, Ints, Skeleton

# AlphaPose's name for its results. Files of results may also have the video's name.
MOST_BAD: Final = 0.5  # share of a file's boxes that may have no extent, or no numbers

IN_PX: Final = "_px"  # part of the name of a file in px; Sports2D also writes files in m

NO_IDENTITY: Final = -1  # the identity of people who have none

_NUMBERED: Final = re.compile(
    r"(?P<name>(?:.*\D)?)(?P<number>[0-9]{1,18})"
    r"(?P<end>(?:_keypoints)?\.json|\.txt|(?:_data)?\.(?:npz|pkl|pickle))",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Detections:
    """All people that a detector found in one video."""

    skeleton: Skeleton  # a name in skeletons.JOINTS, or names of joints; CORNERS: only boxes
    frame_index: Ints  # (T,) strictly increasing: the frames with at least one person
    keypoints: ByFrame  # for each of T frames, (P, J, 3): x, y in px, the score
    # for each of T frames, (P,) numbers, NO_IDENTITY without one; None: nobody has one
    identity: ByFrame | None
    frames: Ints  # ascending; all processed frames, as far as the format tells
    # (N, 42, 3) px px confidence, the joints HANDS of all people; 0: unknown. (N, 0, 3): not read
    hands: Doubles
    names: Sequence[str] = ()  # names of the identities, if the file has texts
    complete: bool = False  # whether the format also lists frames without a person
    notes: Sequence[str] = ()  # messages about what was changed or not used
    doubts: Sequence[str] = ()  # what is odd about its people
    remarks: Sequence[str] = ()  # messages about every file of its format
    order_known_by: KnownBy = KnownBy.ASSUMPTION  # that joints are in the order of `skeleton`
    # frame -> (3, 3) homography from the previous frame to it
    camera: Mapping[int, Doubles] = field(default_factory=dict)
    # reason of the accounting -> people who are left out because they have a bad box alone
    bad_boxes: Mapping[str, int] = field(default_factory=dict)
    # what the file has and nobody reads: a kind, such as "joints not read" -> name -> how often
    unread: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    format: str = ""  # the name of one of `people_formats.FORMATS`

    @property
    def is_order_assumed(self) -> bool:
        """Whether nothing says that the joints are in the order of `skeleton`."""
        return self.order_known_by is KnownBy.ASSUMPTION

    @property
    def n_persons(self) -> int:
        """Number of person-frames."""
        return len(self.keypoints.rows)

    @property
    def boxes_alone(self) -> bool:
        """Whether only boxes are known. Then `keypoints` has their corners (P, 2, 3)."""
        return self.skeleton == CORNERS

    def select(self, is_kept: Bools) -> Detections:
        """The detections for which it is true, (N,), moved in place. Frames may be left without
        any.
        """
        rows = np.flatnonzero(is_kept)
        start = np.append(0, np.cumsum(is_kept))[self.keypoints.start]
        keypoints = ByFrame(take_in_place(self.keypoints.rows, rows), start)
        identity = self.identity
        if identity is not None:
            identity = ByFrame(identity.rows[rows], start)
        return replace(self, keypoints=keypoints, identity=identity, hands=self.hands[rows])


def read_detections(
    place: Path, video: str, sizes: Sizes, stated: Stated = NOT_STATED
) -> Detections | None:
    """Read the people of one video from a file or folder; None for an empty folder.

    Args:
        place: the file or folder. The format is recognised by its content.
        video: the clip's name without its ending; files in a folder may have it in their names.
        sizes: returns the sizes that the clip's images may have, for formats that store positions
            as shares of the image.
        stated: what the user states about the clip's files.

    Raises:
        RawDataError: unknown format, several videos, or unknown joint order.
    """
    if not place.is_dir():
        return read_results(place, sizes, stated)
    persons = _trc_files(place)
    if persons:
        return _read(Source(place, stated, persons=persons), sizes)
    numbered = _numbered_files(place, video)
    results = [place / name for name in _result_names(video)]
    results = [file for file in results if file.is_file()]
    if numbered:
        used = dict(numbered).values()
        unused = [file.name for file in results[:1] if file not in used]
        return _read(Source(place, stated, frames=numbered), sizes, unused)
    if results:
        return read_results(results[0], sizes, stated)
    return None


def _trc_files(folder: Path) -> list[Path]:
    """The TRC files in a folder. If the names of some say that they are in px, only those."""
    files = sorted(name for name in list_names(folder) if name.lower().endswith(".trc"))
    in_px = [name for name in files if IN_PX in name]
    return [folder / name for name in in_px or files]


def _read(source: Source, sizes: Sizes | None, unused: Sequence[str] = ()) -> Detections:
    """Read a source. unused: names of files beside it, which a note says are not used."""
    people_format = format_of(source)
    content = people_format.read(source, sizes)
    content.notes.extend(f"{name} is not used: {people_format.name}'s files are" for name in unused)
    detections = _assemble(source, content, people_format.orders, sizes)
    return replace(detections, format=people_format.name)


def _result_names(video: str) -> list[str]:
    """Names that a video's file of results may have."""
    return [f"{video}{suffix}" for suffix in SUFFIXES] + [ALPHAPOSE]


def read_results(file: Path, sizes: Sizes | None = None, stated: Stated = NOT_STATED) -> Detections:
    """Read a clip's people from one file, which is JSON, TRC or other text. Raises RawDataError.

    `sizes`: returns the sizes that the clip's images may have. People in a file that states another
    image size are scaled to the first of them, with a note. stated: as of `read_detections`.
    """
    if file.suffix.lower() in UNREAD:
        expected = f"{', '.join(SUFFIXES)}, or a folder of them"
        with reading(file, expected, do=DAMAGED):
            if sam_3d_body.is_of_tool(file):
                return _read(Source(file, stated), sizes)
            program = OtherProgram.from_file(file) or OtherProgram(f"a {file.suffix} file")
        found = f"{program.owner}, which is not read"
        raise label_error(file, FOLDER, expected, found, program.advice)
    with reading(file, "a file", do=DAMAGED), open_regular(file) as stream:
        start = stream.read(64).lstrip()[:1]
    if file.suffix.lower() == ".trc":
        source = Source(file, stated, persons=[file])
    elif start in (b"[", b"{") or file.suffix.lower() == ".json":
        source = Source(file, stated, json=read_json(file, do=DAMAGED))
    else:
        first = next((text for _, text in text_files.lines_of(file)), "")
        source = Source(file, stated, text=first)
    return _read(source, sizes)


def _numbered_files(folder: Path, video: str) -> list[tuple[int, Path]]:
    """Find the files of single frames in a folder, as sorted pairs (number, file); [] if there are
    none.

    Their names are `<video>_<number>_keypoints.json` (OpenPose) or `<video>_<number>.txt` (YOLO).
    Other names that end in a number, such as `000.json` or `cam01.0000.json`, are accepted if all
    files have the same name except for the number. Files of results are skipped. Raises
    RawDataError if there are only other files, or files of several names.
    """
    # A series has one name but for the number: (start of the name, suffix) -> its (number, file)
    series: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    without_number = []
    names = list_names(folder)
    for name in names:
        if name == ALPHAPOSE or name.startswith("."):
            continue
        match = _NUMBERED.fullmatch(name)
        if match is None:
            without_number.append(name)
        else:
            # Names with and without _keypoints are one series.
            suffix = match["end"].removeprefix("_keypoints")
            files = series.setdefault((match["name"], suffix), [])
            files.append((int(match["number"]), folder / name))

    if any(suffix in (".json", ".txt") for _, suffix in series):  # other files are beside them
        series = {key: files for key, files in series.items() if key[1] in (".json", ".txt")}
    # A file of results has the video's name, which may end in a number, too: it is no frame.
    for key, files in list(series.items()):
        if [file.stem for _, file in files] == [video]:
            del series[key]
    candidates = [files for (name, _), files in series.items() if name == f"{video}_"]
    if not candidates:
        candidates = list(series.values())
    if len(candidates) == 1:
        return _sort_by_frame(folder, candidates[0])

    has_results = not {*_result_names(video)}.isdisjoint(names)
    file_names = sorted([files[0][1].name for files in series.values()] + without_number)
    if not has_results and file_names:
        raise _several_names(folder, video, file_names)
    return []


def _several_names(folder: Path, video: str, names: Sequence[str]) -> RawDataError:
    """The error that a folder has no series of files for a video, but other files: `names`."""
    expected = (
        f"{video}_<12 digits>_keypoints.json, or any one name that ends in the frame's number"
    )
    actual = names[0]
    if len(names) > 1:
        actual = f"several: {', '.join(names[:3])}"
    do = f"{ONE_VIDEO} Each name ends with the frame's number."
    return label_error(folder, "keypoints", expected, actual, do)


def _sort_by_frame(folder: Path, files: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """Sort the files of one series by number. Raises RawDataError for a frame with two files."""
    files = sorted(files)
    for (number, _), (following, _) in pairwise(files):
        if number == following:
            actual = f"frame {number} twice"
            do = "Keep the files of one run."
            raise label_error(folder, "keypoints", "one file a frame", actual, do)
    return files


def _assemble(
    source: Source,
    content: LabelContent,
    orders: Mapping[int, str],
    sizes: Sizes | None,
) -> Detections:
    """Group people by frame, and order their joints. orders: those that the format fixes. Raises
    RawDataError for a mixed or unknown joint order, for joints outside their boxes, and for scores
    out of range.
    """
    place = source.place
    notes = content.notes
    n_hands = len(HANDS) if content.has_hands else 0
    _require_one_order(source, content.people, n_hands)
    if content.identity_keys:
        notes += content.people.choose_identity(content.identity_keys)
    people = content.people.finish()
    if people.are_in_one_frame():
        raise all_in_one(place)
    is_copy = people.find_copies()
    if is_copy.any():
        copies = count(int(is_copy.sum()), "detection")
        notes.append(f"{copies} left out: the same joints a second time")
    n_bad = content.bad_boxes.total()
    if content.first_bad_box and n_bad >= MOST_BAD * (n_bad + len(people.frame)):
        raise content.first_bad_box

    people = people.sort(is_copy)
    points, hands = np.split(people.points, [people.points.shape[1] - n_hands], axis=1)
    # Two points of a person are the corners of a box, unless the file names two joints.
    are_boxes = points.shape[1] == len(CORNERS) and len(content.joints or ()) != len(CORNERS)
    ordered = OrderedJoints(CORNERS, points, known_by=KnownBy.FORMAT)
    if not are_boxes:
        notes += _zero_joints_at_corner(points)
        hands = hands_of(points, content.joints, hands)
        ordered = order_joints(place, points, content.joints, orders, source.stated.joints)
    unread = [name for name in ordered.unread if not is_of_hand(name)]
    if len(points) and unread:
        content.unread["joints not read"].update(dict.fromkeys(unread, len(points)))
    if len(points) and are_boxes:
        content.unread[BOXES_ALONE] = Counter()
    if source.stated.hands:
        hands = confident_hands(hands)
    elif hands.size:
        content.unread[HANDS_NOT_READ] = Counter()
        hands = hands[:, :0]
    checked = CheckedPeople(
        ordered.skeleton,
        ordered.points,
        people.frame,
        points[..., :2] if are_boxes else people.boxes,
        content.box_form,
        _image_size(sizes),
        ordered.is_assumed,
    )
    doubts = check_people(place, checked, ordered.order)
    start = people.find_frames()
    frames = people.frame[start[:-1]]
    identity, names = _identities(people, start)

    return Detections(
        ordered.skeleton,
        frames,
        ByFrame(ordered.points, start),
        identity,
        frames if content.frames is None else np.array(content.frames, np.int64),
        hands,
        names,
        complete=content.frames is not None,
        notes=notes,
        remarks=content.remarks,
        order_known_by=ordered.known_by,
        doubts=doubts,
        camera=content.camera,
        bad_boxes=content.bad_boxes,
        unread={what: countable_names(names) for what, names in sorted(content.unread.items())},
    )


def _zero_joints_at_corner(points: Doubles) -> list[str]:
    """Give joints (N, J, 3) at (0, 0), which tools write for joints that they did not find, the
    score 0. Returns a note of how many had one.
    """
    scores = points[..., 2]
    is_zeroed = ~points[..., :2].any(axis=2) & (scores != 0)
    scores[is_zeroed] = 0
    n_zeroed = int(is_zeroed.sum())
    if not n_zeroed:
        return []
    return [f"{count(n_zeroed, 'joint')} at (0, 0) not used: no joint is there"]


def _image_size(sizes: Sizes | None) -> Doubles:
    """(2,) px, the likeliest width and height; NaN if not known, or if the clip cannot be opened:
    then its reader says so, and its people count.
    """
    if sizes is not None:
        with contextlib.suppress(RawDataError):
            return np.array(sizes()[0], np.float64)
    return np.full(2, np.nan)


def _require_one_order(source: Source, people: FoundPeople, n_hands: int) -> None:
    """Raise RawDataError if people have different numbers of points."""
    if people.other is not None:
        frame, n_points = people.other
        file = dict(source.frames).get(frame, source.place)
        sizes = sorted((people.n_points - n_hands, n_points - n_hands))
        actual = f"{', '.join(map(_size_text, sizes))} a person"
        raise label_error(file, "keypoints", "one joint order in all frames", actual)


def _size_text(n_points: int) -> str:
    """How much a file has of a person with so many points, for messages."""
    if n_points > len(CORNERS):
        return f"{3 * n_points} numbers"
    return "a box alone"


def _identities(people: PeopleTable, start: Ints) -> tuple[ByFrame | None, Sequence[str]]:
    """The detector's identities by frame, and their names if they are texts; None if nobody has
    one.

    If some identities are texts, all are taken as texts, and numbered in sorted order. start: as of
    `ByFrame`.
    """
    known = people.identities
    if {*known} <= {None}:
        return None, ()
    names = list[str]()
    numbers = known
    if any(isinstance(identity, str) for identity in known):
        names = sorted({str(identity) for identity in known if identity is not None})
        places = {name: place for place, name in enumerate(names)}
        numbers = [NO_IDENTITY if each is None else places[str(each)] for each in known]
    stored = np.array([NO_IDENTITY if each is None else each for each in numbers], np.int64)
    return ByFrame(stored[people.code], start), names
