"""Corrections by hand: the lines of the file that `[convert] corrections` names.  [raw -> tracks]

    leave_out NAME [FRAMES]       a track or clip; a name alone does so, too
    join PERSON PERSON            one person, with the first name
    cut PERSON FRAME              rows from FRAME on become PERSON-1, then PERSON-2
    exchange_sides PERSON FRAMES  left and right
    identities CLIP file|link     as the dataset's option `identities`

A clip is named as in settings (`video_names`), a track or person as CLIP/NAME. A person is a track
before cleaning and `max_frames` make parts of it. Behind a verb, a name with a blank or # is in
double quotes, as JSON writes it. FRAMES are 30 or 30-50, by the video's own numbers from 0. Behind
" #" is a comment. Before it, there may be of each name a place:

    @FRAME:X,Y,SIDE               the centre and side (px) of its box in a frame

by which it is still the same person. A person with a place is the part that has its frame.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.accounting import OTHER_TRACK
from pipeline.cli.text import count
from pipeline.errors import FOLDER, ConfigError, RawDataError
from pipeline.files.raw.video_names import VideoNames

KEY: Final = "[convert] corrections"
LEAVE_OUT: Final = "leave_out"
JOIN: Final = "join"
CUT: Final = "cut"
EXCHANGE: Final = "exchange_sides"
IDENTITIES: Final = "identities"
# verb -> how `plan` counts it
DONE: Final = {
    LEAVE_OUT: "left out",
    JOIN: "joined",
    CUT: "cut",
    EXCHANGE: "sides exchanged",
    IDENTITIES: "identities stated",
}
FORMS: Final = (
    "a name alone, leave_out NAME [FRAMES], join PERSON PERSON, cut PERSON FRAME, "
    "exchange_sides PERSON FRAMES, or identities CLIP file|link"
)
_LINE: Final = re.compile(
    r"""
    (?P<verb> leave_out | (?P<join>join) | (?P<cut>cut) | (?P<sides>exchange_sides)
        | (?P<clip>identities) )
    \s+ (?P<name> "(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*" | [^\s"]\S* )
    (?(join) \s+ (?P<other> "(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*" | [^\s"]\S* ) )
    (?(clip) \s+ (?P<value> file | link ) )
    (?(cut) (?= \s+ [0-9]+ (?:\s|$) ) )
    (?(sides) (?= \s+ [0-9] ) )
    (?(join) | (?(clip) | (?: \s+ (?P<first> [0-9]{1,9} ) (?: - (?P<last> [0-9]{1,9} ) )? )? ) )
    (?P<places>
        (?: \s+ @[0-9]{1,9}:-?[0-9]{1,9},-?[0-9]{1,9},[0-9]{1,9}
            (?(join) \s+ @[0-9]{1,9}:-?[0-9]{1,9},-?[0-9]{1,9},[0-9]{1,9} ) )? )
    (?: \s+ \#.* )?
    """,
    re.VERBOSE,
)
# Share of its side by which the box of another detection of a person differs at most. A guess:
# people who stand side by side are farther apart.
SAME_PERSON: Final = 0.2
LAST: Final = 10**9  # more than the number of any frame


class Correction(NamedTuple):
    """A line of the file."""

    where: str  # file and line, for messages
    text: str  # as it is recorded: without its comment
    split: str  # "" if the clip is named by its path
    video: str
    verb: str
    names: Sequence[str]  # <video>/<name> of tracks or people, or the video
    frames: tuple[int, int] = (0, LAST)  # the first and the last one
    value: str = ""  # of IDENTITIES
    places: Sequence[Sequence[float]] = ()  # of each name, frame, cx, cy, side; (): not stated

    @property
    def key(self) -> str:
        """Lines with one key say the same, or contradict each other."""
        if self.verb in (JOIN, IDENTITIES):
            return f"{self.verb} {self.names[-1]} {self.places[1:]}"
        return f"{self[4:8]}"

    @property
    def people(self) -> list[str]:
        """The names without the video's."""
        return [name.removeprefix(f"{self.video}/") for name in self.names]

    def misfit(self, expected: str, found: str) -> RawDataError:
        """The error for a line that does not fit the tracks of its video."""
        do = "Correct the line, or take it away."
        return RawDataError(Path(self.where), FOLDER, expected, found, do, reason=OTHER_TRACK)

    def check_place(self, number: int, found: Sequence[Sequence[float]]) -> None:
        """Raise RawDataError if somebody else is at the place of one of the names. found: boxes of
        that name there, as in `places`.
        """
        place = self.places[number]
        near = SAME_PERSON * place[3] + 0.5
        if not any(np.abs(np.subtract(box, place)).max() <= near for box in found):
            expected = f"{self.names[number]} with frame, cx, cy, side {place}"
            raise self.misfit(expected, f"{found or 'nobody'}")


def quoted(name: str) -> str:
    """A name as it stands behind a verb."""
    return json.dumps(name, ensure_ascii=False) if re.search(r'[\s"#]', name) else name


def count_verbs(texts: Iterable[str]) -> Counter[str]:
    """How many of recorded lines have each verb."""
    return Counter(text.split()[0] for text in texts)


def describe(texts: Iterable[str]) -> str:
    """How many corrections lines are, by verb: `3 corrections: 2 left out, 1 joined`."""
    numbers = count_verbs(texts)
    parts = [f"{n} {DONE[verb]}" for verb, n in numbers.items()]
    return f"{count(numbers.total(), 'correction')}: {', '.join(parts) or 'none'}"


def read_corrections(file: Path, names: VideoNames, others: Container[str]) -> list[Correction]:
    """The lines of a file that are of one dataset, each once. others: the other datasets.

    Raises ConfigError for a file that cannot be read, and, with the line, for one that is in no
    form or of none of the dataset's videos, and for two that contradict each other.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"{file}: expected the corrections that {KEY} names: {why}. Players (`python -m "
            f"pipeline show`) help to write them; {KEY} = none takes tracks as they are."
        ) from error
    corrections: dict[str, Correction] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        where = f"{file}, line {number}"
        try:
            correction = _parse(line, where, names, others)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}.") from error
        if correction is not None:
            other = corrections.setdefault(correction.key, correction)
            if other[4:8] != correction[4:8]:
                raise ConfigError(
                    f"{where}: expected no contradiction to {other.where}, {other.text!r}, found "
                    f"{correction.text!r}. Take one of them away."
                )
    return [*corrections.values()]


def _parse(line: str, where: str, names: VideoNames, others: Container[str]) -> Correction | None:
    """The correction of a line; None without one, and of another dataset. Raises ConfigError.

    A name alone ends before a "#" behind a blank. It may have such a "#", too: the shortest one
    that fits is meant, and the track of a video before another video.
    """
    if not line or line.startswith("#"):
        return None
    wanted = [line[: comment.start()] for comment in re.finditer(r"\s+#|$", line)]
    for alone in wanted:
        for split, video, name in _find(alone, names):
            return Correction(where, f"{LEAVE_OUT} {name}", split, video, LEAVE_OUT, (name,))
    words = _LINE.fullmatch(line)
    if words is not None:
        quoted = filter(None, words.group("name", "other"))
        wanted = [json.loads(word, strict=False) if word[0] == '"' else word for word in quoted]
        found = [*itertools.chain(*(_find(name, names) for name in wanted))]
        if len(found) == len(wanted):
            return Correction(
                where,
                line[: words.end("places")],
                *found[0][:2],
                words["verb"],
                tuple(name for *_, name in found),
                (int(words["first"] or 0), int(words["last"] or words["first"] or LAST)),
                words["value"] or "",
                np.reshape(re.findall("-?[0-9]+", words["places"]), (-1, 4)).astype(int).tolist(),
            )
    if wanted[0].partition("/")[0] in others:
        return None
    candidates = [*(name.rpartition("/")[0] for name in wanted), *wanted]
    suggestion = next(filter(None, map(names.suggest, candidates)), "")
    raise ConfigError(
        f"expected {FORMS}, of a video of {names.dataset}, found {line!r}{suggestion}"
    )


def _find(name: str, names: VideoNames) -> list[tuple[str, str, str]]:
    """Split, video, and path of the track, person or video with this name, if there is one."""
    path, _, person = name.rpartition("/")
    clip = names.find(path)
    if clip is not None:
        return [(*clip, f"{clip[1]}/{person}")]
    clip = names.find(name)
    return [] if clip is None else [(*clip, clip[1])]
