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
from collections.abc import Container, Hashable, Iterable, Sequence
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
_WORD: Final = r'("(?:[^"\\]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"|[^\s"]\S*)'
_NAME: Final = rf"\s+{_WORD}"
_FRAME: Final = r"\s+[0-9]{1,9}"
_FRAMES: Final = rf"{_FRAME}(-[0-9]{{1,9}})?"
_PLACE: Final = r"\s+@[0-9]{1,9}:-?[0-9]{1,9},-?[0-9]{1,9},[0-9]{1,9}"
_LINE: Final = re.compile(
    rf"""(?P<text>
        leave_out {_NAME} ({_FRAMES})? ({_PLACE})?
        | join {_NAME} {_NAME} ({_PLACE} {_PLACE})?
        | cut {_NAME} {_FRAME} ({_PLACE})?
        | exchange_sides {_NAME} {_FRAMES} ({_PLACE})?
        | identities {_NAME} \s+ (file|link)
    ) (\s+\#.*)?""",
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
    def meaning(self) -> Hashable:
        """What it says, without places."""
        return self.verb, self.names, self.frames, self.value

    @property
    def key(self) -> Hashable:
        """Lines with one key contradict each other, unless they have the same meaning."""
        if self.verb in (JOIN, IDENTITIES):
            return self.verb, self.names[-1], f"{self.places[1:]}"
        return self.meaning

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


def quote(name: str) -> str:
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
    corrections: dict[Hashable, Correction] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        where = f"{file}, line {number}"
        try:
            correction = _parse(line, where, names, others)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}.") from error
        if correction is not None:
            other = corrections.setdefault(correction.key, correction)
            if other.meaning != correction.meaning:
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
    match = _LINE.fullmatch(line)
    if match is not None:
        verb, *words = re.findall(_WORD, match["text"])
        n_names = 2 if verb == JOIN else 1
        wanted = [
            json.loads(name, strict=False) if name[0] == '"' else name for name in words[:n_names]
        ]
        found = [*itertools.chain(*(_find(name, names) for name in wanted))]
        if len(found) == n_names:
            stated, *places = " ".join(words[n_names:]).split("@")
            frames = [*map(int, re.findall("[0-9]+", stated))] or [0, LAST]
            return Correction(
                where,
                match["text"],
                *found[0][:2],
                verb,
                tuple(name for *_, name in found),
                (frames[0], frames[-1]),
                stated if verb == IDENTITIES else "",
                [[*map(int, re.findall("-?[0-9]+", place))] for place in places],
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
