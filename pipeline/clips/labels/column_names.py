"""Which columns of a table of people are read: as the user states, or those of our names.
[raw] -> tracks

    track:tracker_id frame:frame_number-1 x:"left edge"% y:top% w:width% h:height%

An entry is one of OURS, a colon, and the name of a column. Behind the name for `frame`, -1 says
that frames are counted from 1; behind one for a number of a box, % says that the number is in per
cent of the image. A column that is called so with its -1 or % is read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.clips.labels.label_values import label_error, other_tool_error
from pipeline.files.formats.names import shown_names

FROM_1: Final = "-1"
PER_CENT: Final = "%"
# numbers of a box -> their axis: upper left corner, size, lower right corner
BOX: Final = {"x": 0, "y": 1, "w": 0, "h": 1, "x2": 0, "y2": 1}
COLUMNS: Final = ("track", "frame", "x", "y", "w", "h")  # those of a table without a statement
HEADER: Final = (
    f"Write a first line {','.join(COLUMNS)} and one line for each person in each frame."
)
OURS: Final = ("track", "frame", *BOX, "score", "class")
CORNERS: Final = {"w": "x2", "h": "y2"}  # a size -> what may be stated in its place
_MARKS: Final = {"frame": FROM_1, **dict.fromkeys(BOX, PER_CENT)}
_ENTRY: Final = re.compile(
    r'(track|frame|[xy]2?|[wh]|score|class):(?:"([^"]+)"(-1|%)?|([^\s":]+))(?:\s+|$)'
)
EXPECTED: Final = (
    f"OURS:THEIRS with blanks between entries. OURS is one of {', '.join(OURS)}, each once, and w "
    "or x2, h or y2; -1 only behind the name for frame, % behind those of a box; names with a "
    "blank or a colon in double quotes. By clips: lab/*=OURS:THEIRS ..., OURS:THEIRS ..."
)


class LabelColumn(NamedTuple):
    """A column of a table."""

    name: str
    mark: str = ""  # FROM_1 or PER_CENT


class StatedColumns(NamedTuple):
    """What the user states about the columns of tables."""

    # columns for each of OURS; the first column that is there is read
    theirs: Mapping[str, Sequence[LabelColumn]] = {}
    setting: str = "[videos] table_columns"

    def find(self, file: Path, names: Sequence[str]) -> dict[str, LabelColumn]:
        """OURS -> the column of a table with these names. What is not stated has our name; beside
        a statement, the track may be missing. Raises RawDataError for a column that is missing or
        there twice.
        """
        needed = {*COLUMNS, *self.theirs}
        needed -= {size for size, corner in CORNERS.items() if corner in self.theirs}
        if self.theirs and "track" not in (*names, *self.theirs):
            needed.remove("track")
        columns = {}
        for ours in filter(needed.__contains__, OURS):
            for column in self.theirs.get(ours, [LabelColumn(ours)]):
                columns[ours] = column
                if column.name in names:
                    break
        used = [column.name for column in columns.values()]
        # of a table without a statement, the first of equal columns has always been read
        most = 1 if self.theirs else len(names)
        missing = [name for name in used if not 1 <= names.count(name) <= most]
        if missing:
            expected = f"{', '.join(used)}, once each"
            actual = f"{shown_names(names)}; missing or twice: {', '.join(missing)}"
            if self.theirs:
                raise label_error(file, "columns", expected, actual, f"Correct {self.setting}.")
            do = f"{HEADER} Or state which columns they are: {self.setting}."
            raise other_tool_error(file, "columns", expected, actual, do)
        return columns


def parse_columns(text: str) -> dict[str, list[LabelColumn]]:
    """The value of the setting for some clips, as `StatedColumns.theirs`; {} if it is not valid."""
    theirs: dict[str, list[LabelColumn]] = {}
    for ours, quoted, mark, plain in _ENTRY.findall(text):
        usual = _MARKS.get(ours, "")
        if ours in theirs or mark not in ("", usual):
            return {}
        theirs[ours] = [LabelColumn(quoted or plain, mark)]
        if plain.removesuffix(usual) not in ("", plain):
            theirs[ours].append(LabelColumn(plain.removesuffix(usual), usual))
    if _ENTRY.sub("", text) or any({*pair} <= theirs.keys() for pair in CORNERS.items()):
        return {}
    return theirs
