"""Tables of people in frames, CSV or lists of flat records in JSON, with a row for each person in
each frame.  [raw] -> tracks

A CSV file has a header with the columns track, frame, x, y, w, h; frames from 0, upper left corner
and size in px:

    track,frame,x,y,w,h
    anna,0,100,40,60,150

Of tables with other columns, the user states which are read (`column_names`).
"""

from __future__ import annotations

import csv
import itertools
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.clips.labels.column_names import (
    BOX,
    COLUMNS,
    CORNERS,
    FROM_1,
    HEADER,
    PER_CENT,
)
from pipeline.clips.labels.label_content import (
    BY_CLASS,
    LabelContent,
    LabelFormat,
    Sizes,
    Stated,
)
from pipeline.clips.labels.label_values import (
    finite_score,
    floats,
    is_person_name,
    label_error,
)
from pipeline.clips.labels.people_classes import PEOPLE
from pipeline.clips.labels.people_table import FoundPerson, PeopleTable
from pipeline.clips.labels.text_files import TEXT, is_number, text_lines
from pipeline.files.formats.arrays import reading
from pipeline.files.formats.large_json import StreamedList
from pipeline.files.formats.names import kind, quote_name

NO_TRACK: Final = ("", "-1")  # of a person without an identity
NOT_A_NUMBER: Final = ("nan", "NaN")  # of such a person, as pandas and MATLAB write it
MOST_DIGITS: Final = 12  # of a frame's number
_WHOLE: Final = re.compile(r"(-?[0-9]+)\.0+\Z")  # a whole number, as pandas writes it beside gaps

CSV: Final = LabelFormat("CSV", first_frame=0, box_form="x y w h")


def csv_content(file: Path, first: str, sizes: Sizes, stated: Stated) -> LabelContent:
    """A clip's boxes by lines with a header, of which `first` is the first one, "" without any.

    Other columns are ignored; lines may have any order. Raises RawDataError.
    """
    expected = f"{','.join(COLUMNS)}, or MOT's lines"
    if not first:
        raise label_error(file, "line 1", expected, "nothing", HEADER)
    if is_number(first.split()[0]):
        actual = "numbers with spaces between them"
        do = (
            "The frames of YOLO's lines in one file cannot be known: run it on the video, so that "
            "it writes a file for each. Write MOT's lines with commas."
        )
        raise label_error(file, "line 1", expected, actual, do)
    with reading(file, "CSV", do=HEADER):
        rows = _csv_rows(file)
        _, header = next(rows, (1, []))
        names = [name.strip() for name in header]
        for sign, signs in ((";", "semicolons"), ("\t", "tabs")):
            if len(names) == 1 and sign in first:
                actual = f"{signs} between columns"
                do = "Separate columns by commas."
                raise label_error(file, "line 1", "commas between columns", actual, do)
        return _TableFile(file, "line", names, rows).content(sizes, stated)


def records_content(
    file: Path,
    records: Sequence[Mapping[str, Any]] | StreamedList,
    sizes: Sizes,
    stated: Stated,
) -> LabelContent:
    """A clip's boxes by a list of flat records, whose columns the user states. Raises
    RawDataError.
    """
    names = [*dict.fromkeys(itertools.chain.from_iterable(records))]

    def rows() -> Iterator[tuple[int, Sequence[str]]]:
        for number, record in enumerate(records):
            values = map(record.get, names)
            yield number, ["" if value is None else str(value) for value in values]

    return _TableFile(file, "record", names, rows()).content(sizes, stated)


class _TableFile(NamedTuple):
    """A table of people in frames."""

    file: Path
    unit: str  # what a row is in the file, for messages
    names: Sequence[str]  # of the columns
    rows: Iterable[tuple[int, Sequence[str]]]  # number and texts of each

    def content(self, sizes: Sizes, stated: Stated) -> LabelContent:
        """Read the people. Raises RawDataError."""
        content = LabelContent()
        columns = stated.columns.find(self.file, self.names)
        unread = {*self.names}.difference((column.name for column in columns.values()), [""])
        places = {ours: self.names.index(column.name) for ours, column in columns.items()}
        form = replace(CSV, first_frame=int(columns["frame"].mark == FROM_1))
        factors = {ours: 1.0 for ours in BOX if ours in columns}
        for ours in factors:
            if columns[ours].mark == PER_CENT:
                factors[ours] = sizes()[0][BOX[ours]] / 100
        numbers = array("q")  # of the rows of people
        for number, texts in self.rows:
            key = f"{self.unit} {number}"
            if any(map(str.strip, texts[len(self.names) :])):
                expected = f"{len(self.names)} fields, as in the first line"
                do = "Write decimal points, and quotes around names with commas."
                raise label_error(self.file, key, expected, f"{len(texts)} fields", do)
            padded = [*texts, *[""] * len(self.names)]
            values = {ours: padded[place].strip() for ours, place in places.items()}
            if stated.columns.theirs:
                values = {ours: _WHOLE.sub(r"\1", text) for ours, text in values.items()}
                if values.get("track") in NOT_A_NUMBER:
                    values["track"] = ""
            if "class" in values and not stated.classes.are_people(values["class"], PEOPLE):
                content.unread[BY_CLASS][values["class"]] += 1
                continue
            for column in unread:
                content.unread["columns not read"][column] += 1
            person = self._person(key, values, form, factors, content)
            if person is not None:
                content.people.add(person)
                numbers.append(number)
        self._require_once(content.people.finish(), numbers)
        return content

    def _person(
        self,
        key: str,
        values: Mapping[str, str],
        form: LabelFormat,
        factors: Mapping[str, float],
        content: LabelContent,
    ) -> FoundPerson | None:
        """Read a row; None for a bad box. factors: from numbers of the box to px."""
        track = values.get("track", "")
        if track not in NO_TRACK and not is_person_name(track):
            actual = f"{kind(track)} as the track"
            raise label_error(self.file, key, "a name or number", actual, "Name every person.")
        frame = values["frame"]
        if not (frame.isdecimal() and len(frame) <= MOST_DIGITS):
            actual = f"{kind(frame)} as the frame"
            do = f"Count frames from {form.first_frame}."
            raise label_error(self.file, key, "a whole number", actual, do)
        stored = floats(self.file, key, [values[ours] for ours in factors])
        box = {ours: n * factors[ours] for ours, n in zip(factors, stored, strict=True)}
        for size, corner in CORNERS.items():
            if corner in box:
                box[size] = box[corner] - box[corner[0]]
        score = finite_score(self.file, key, *floats(self.file, key, [values.get("score", "1")]))
        xywh = [box[ours] for ours in "xywh"]
        corners = form.parse_box(self.file, key, xywh, content, score)
        if corners is None:
            return None
        identity = None if track in NO_TRACK else track
        return FoundPerson(form.frame(self.file, key, int(frame)), corners, identity)

    def _require_once(self, people: PeopleTable, numbers: Sequence[int]) -> None:
        """Raise RawDataError if a track is in a frame twice. numbers: of the people's rows."""
        repeated = people.find_repeated()
        is_known = np.array([identity is not None for identity in people.identities], np.bool_)
        repeated = repeated[is_known[people.code[repeated]]]
        if len(repeated):
            row = int(repeated.min())
            track = quote_name(people.identities[people.code[row]])
            actual = f"track {track} a second time in frame {people.frame[row]}"
            key = f"{self.unit} {numbers[row]}"
            raise label_error(self.file, key, "one box a frame", actual, HEADER)


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, fields) of each line of a CSV file that is not blank. Raises RawDataError."""
    rows = csv.reader(text_lines(file, TEXT), strict=True)
    for number, row in enumerate(rows, 1):
        if number > 1 and rows.line_num != number:
            actual = "one over several"
            raise label_error(file, "file", "a line a person and frame", actual, HEADER)
        if len(row) > 1 or "".join(row).strip():
            yield number, row
