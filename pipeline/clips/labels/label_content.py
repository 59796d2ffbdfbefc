"""What files of detectors contain: people in frames.  [raw] -> tracks -> features -> windows

The reader of each format returns `LabelContent`, with a row of `FoundPeople` for each person in
each frame. A `LabelFormat` says how a format counts frames and pixels, and how it writes boxes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.accounting import DEGENERATE_BOX
from pipeline.clips.labels.column_names import StatedColumns
from pipeline.clips.labels.joint_orders import StatedOrder
from pipeline.clips.labels.label_values import label_error, numbers, whole_number
from pipeline.clips.labels.people_classes import StatedClasses
from pipeline.clips.labels.people_table import FoundPeople
from pipeline.errors import RawDataError
from pipeline.files.formats.other_formats import FORMATS
from pipeline.people.hands import HAND
from pipeline.people.skeletons import LARGEST, Doubles

# Function that returns the (width, height) px of images for which a tool may have written a clip's
# keypoints. Keypoints for another of these sizes, or a multiple, are scaled to the first. Formats
# that need no sizes do not call it.
Sizes = Callable[[], Sequence[tuple[int, int]]]

# Largest number of a box in shares of the image. Boxes of people at the border may exceed 1 a
# little; boxes in pixels are far larger.
LARGEST_SHARE: Final = 1.5
# forms of boxes: x y is the upper left corner, cx cy the centre
CORNER_BOX: Final = "x y w h"
CENTRE_BOX: Final = "cx cy w h"
TWO_CORNERS: Final = "x y x y"
# values of the option `identities`: those of the file are used; people are linked
FILE: Final = "file"
LINK: Final = "link"
IDENTITY_KEYS: Final = ("track_id", "attributes.track_id", "attributes.object_id")
UNSCALED: Final = np.ones(3)  # x, y and score of an image of the clip's size
# kinds of what nobody reads, as the lines about it begin
NOT_READ: Final = "keys not read"
UPLOADED: Final = "files matched without the prefix or hash of an upload"
HANDS_NOT_READ: Final = "hands not read (hands = true keeps them)"
BOXES_ALONE: Final = "boxes alone: no joint"
BY_CATEGORY: Final = "people skipped by category"
BY_CLASS: Final = "people skipped by class"
BY_MARK: Final = "people skipped by a mark"
BY_MOT16: Final = "classes as MOT16 numbers them"
TAKEN_CATEGORIES: Final = "categories taken for people"
TAKEN_CLASSES: Final = "classes taken for people"
# those about who is people
ABOUT_CLASSES: Final = frozenset(
    {BY_CATEGORY, BY_CLASS, BY_MARK, BY_MOT16, TAKEN_CATEGORIES, TAKEN_CLASSES}
)
NOBODY: Final = [-1]  # OpenPose's person_id without identities


class StatedIdentities(NamedTuple):
    """What the user states about the identities of people in files."""

    value: str | None = None  # FILE, LINK, or a key of a person in JSON; None: nothing
    setting: str = "[videos] identities"

    def keys(self, *first: str) -> Sequence[str]:
        """Keys of a person in JSON, of which the first that anybody has is the identity. first:
        those of a format before the usual ones.
        """
        if self.value is None or self.value in (FILE, LINK):
            return (*first, *IDENTITY_KEYS)
        return (self.value,)


class Stated(NamedTuple):
    """What the user states about a clip's files of people."""

    joints: StatedOrder = StatedOrder()
    classes: StatedClasses = StatedClasses()
    identities: StatedIdentities = StatedIdentities()
    columns: StatedColumns = StatedColumns()
    hands: bool = False  # whether hands are read


NOT_STATED: Final = Stated()


@dataclass(slots=True)
class LabelContent:
    """The content of one file, or a folder of files, for one video."""

    people: FoundPeople = field(default_factory=FoundPeople)
    frames: list[int] | None = None  # the frames that were processed, if the format lists them
    joints: Sequence[str] | None = None  # the joints' names, if the file has them
    box_form: str = CORNER_BOX  # of the people's boxes in the file
    bad_boxes: Counter[str] = field(default_factory=Counter)  # people who are left out, by reason
    first_bad_box: RawDataError | None = None
    notes: list[str] = field(default_factory=list)  # messages about what was changed
    remarks: list[str] = field(default_factory=list)  # messages about every file of its format
    # what the file has and nobody reads: a kind, such as "joints not read" -> name -> how often
    unread: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    # frame -> (3, 3) homography from the previous frame to it
    camera: dict[int, Doubles] = field(default_factory=dict)
    has_hands: bool = False  # whether 42 joints of hands are behind each person's points
    # keys of which people have an identity each (`FoundPeople.choose_identity`); (): of the format
    identity_keys: Sequence[str] = ()

    def count_keys(self, entry: Mapping[str, Any], known: frozenset[str]) -> None:
        """Count the keys of a person that nobody reads, if they hold anything. known: all keys
        that are read, or that repeat what others say.
        """
        for key in entry.keys() - known:
            is_identity = any(key in (name, name.split(".")[0]) for name in self.identity_keys)
            if entry[key] and entry[key] != NOBODY and not is_identity:
                self.unread[NOT_READ][key] += 1

    def add_hands(
        self, file: Path, keys: Iterable[str], person: Mapping[str, Any], points: Doubles
    ) -> Doubles:
        """The points (J, 3) of a person, and behind them the hands under these keys, left and
        right, if `has_hands`; 0 of an absent one.
        """
        if self.has_hands:
            n = 3 * len(HAND)
            each = [numbers(file, key, person.get(key) or [0] * n, (n,)) for key in keys]
            return np.concatenate([points, np.reshape(each, (-1, 3))])
        if any(map(person.get, keys)):
            self.unread[HANDS_NOT_READ] = Counter()
        return points


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """How a format counts frames and writes boxes."""

    name: str
    first_frame: int  # its number
    box_form: str = ""  # CORNER_BOX or CENTRE_BOX; "": the format has no boxes
    in_shares: bool = False  # positions are shares of the image's width and height, not px
    first_pixel: int = 0  # its coordinate: 1 in formats that count pixels from 1

    def frame(self, file: Path, key: str, value: object) -> int:
        """Convert a frame's number in the file to the number from 0. Raises RawDataError for a
        number before the first, and for anything else.
        """
        number = whole_number(file, key, value)
        if number < self.first_frame:
            expected = f"frames from {self.first_frame} on, as in {self.name}"
            raise label_error(
                file, key, expected, str(number), f"Count frames from {self.first_frame}."
            )
        return number - self.first_frame

    def parse_box(
        self,
        file: Path,
        key: str,
        stored: Sequence[float],
        content: LabelContent,
        score: float = 1.0,
    ) -> Doubles | None:
        """Convert the 4 numbers of a box to its corners (2, 3): x, y in px or shares of the image
        as in the file, and the score.

        None for a box whose numbers are not finite and in range, or without a width and height
        above 0. Then `content` counts it.
        """
        largest = LARGEST
        unit = "px"
        if self.in_shares:
            largest = LARGEST_SHARE
            unit = "shares of the image, 0 to 1"
        x, y, width, height = stored
        is_finite = all(abs(value) <= largest for value in stored)  # not of NaN
        if not (is_finite and width > 0 and height > 0):
            expected = f"{self.box_form} in {unit}"
            reason = "label_not_finite"
            if is_finite:
                expected = f"a box {self.box_form} with a width and a height above 0"
                reason = DEGENERATE_BOX
            error = RawDataError(file, key, expected, str(stored), FORMATS, reason=reason)
            content.bad_boxes[reason] += 1
            content.first_bad_box = content.first_bad_box or error
            return None
        if self.box_form == CENTRE_BOX:
            x -= width / 2
            y -= height / 2
        first = self.first_pixel
        return np.array(
            [[x - first, y - first, score], [x + width - first, y + height - first, score]]
        )


def tolerant_box(
    stored: object, scale: Doubles = UNSCALED, *, as_corners: bool = False
) -> Doubles | None:
    """The corners (2, 2) px of a box beside joints; None for anything but four numbers.

    stored: x y w h, or with `as_corners` x y x y; it may be in a list of its own. scale: (3,) px in
    the clip for x, y and score.
    """
    if isinstance(stored, list) and len(stored) == 1:
        stored = stored[0]
    if not isinstance(stored, list) or len(stored) != 4:
        return None
    if not all(isinstance(value, int | float) and abs(value) <= LARGEST for value in stored):
        return None
    box = np.array(stored, np.float64).reshape(2, 2)
    if not as_corners:
        box[1] += box[0]
    return box * scale[:2]
