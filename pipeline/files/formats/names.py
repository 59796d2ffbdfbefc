"""Names and values that stand in files, for messages.  [raw] -> tracks

A link in a raw folder may lead to any file, and a group reads the messages: they show names of one
or two words, up to 40 characters, and of other texts their length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

LARGEST_WHOLE: Final = 1 << 53  # up to here a float64 holds every whole number
MOST_NAMED: Final = 12  # of the names in a file, in a message
LONGEST_SHOWN: Final = 40  # characters of a name in a file, in a message
IMAGES: Final = (".jpg", ".jpeg", ".png")
_SHORT_WORD: Final = re.compile(r"[\w.+-]{0,12}")  # letters, digits and signs of numbers
_NAME: Final = re.compile(r"[\w./-]*( [\w./-]*)?")  # one or two words, or a path


def quote_name(name: object) -> str:
    """A name that stands in a file, such as of a joint or an image, quoted for messages: of a long
    one of an image its beginning and end. Of a longer text only its length; of another value what
    `kind` says.

    >>> quote_name("left shoulder"), quote_name("machine host login me")
    ("'left shoulder'", 'a text of 21 characters')
    >>> quote_name("2021-05-04_subject_12_session_3_camera_left_000017.jpg")
    "'2021-05-04_subject_12_se...000017.jpg'"
    """
    if not isinstance(name, str):
        return kind(name)
    is_file = PurePath(name).suffix.lower() in IMAGES
    if _NAME.fullmatch(name) and (is_file or len(name) <= LONGEST_SHOWN):
        return repr(shorten(name))
    return f"a text of {len(name)} characters"


def shorten(name: str) -> str:
    """The beginning and end of a name of more than 40 characters, for messages."""
    if len(name) <= LONGEST_SHOWN:
        return name
    return f"{name[:24]}...{name[-10:]}"


def shown_names(names: Iterable[str]) -> str:
    """The first names of a file's arrays or keys, sorted, for messages.

    >>> shown_names(["b", "a", "machine host login me"]), shown_names([])
    ('a, b, 1 more', 'none')
    """
    listed = sorted(names)
    texts = [name for name in listed if len(name) <= LONGEST_SHOWN and _NAME.fullmatch(name)]
    del texts[MOST_NAMED:]
    n_others = len(listed) - len(texts)
    if n_others:
        texts.append(f"{n_others} more")
    return ", ".join(texts) or "none"


def kind(value: object) -> str:
    """A short description of a JSON value of any size and depth, for messages.

    >>> kind([1, 2, 3]), kind({}), kind(None), kind(2.5)
    ('3 entries', 'an empty object', 'nothing', '2.5')
    >>> kind("x" * 100)
    'a text of 100 characters'
    """
    match value:
        case None:
            return "nothing"
        case list():
            return f"{len(value)} entries"
        case dict():
            return "an object" if value else "an empty object"
        case str() if _SHORT_WORD.fullmatch(value):
            return f"a text {value!r}"
        case str():
            return f"a text of {len(value)} characters"
        case int() if abs(value) > LARGEST_WHOLE:
            return "a number out of range"
        case _:
            return repr(value)
