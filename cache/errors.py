"""The exceptions that functions of this package raise.  [cache]"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

# what to do about a cache that this version cannot read
OTHER_VERSION: Final = "Another version made it: convert and extract again, into another cache."


class CacheError(Exception):
    """A damaged cache or an invalid request. The message has one or two lines."""

    @classmethod
    def at(cls, file: Path | str, *, expected: str, found: str, do: str) -> Self:
        """The error for a file: what was expected and found there, and what the user can do."""
        return cls(f"{file}: expected {expected}, found {found}. {do}")


class AccessDenied(CacheError):
    """The user has no permission for a file or folder, or it is of a kind that no command touches,
    such as a link or a pipe.
    """

    @classmethod
    def from_error(cls, error: PermissionError) -> Self:
        ask = "Ask its owner for permission (chmod -R g+rwX): see docs/disks.md#who-may-write"
        return cls(f"{error.filename}: permission denied. {ask}")


class Busy(CacheError):
    """Another process writes the same split, stream or folder now. Run the command again later."""


class CacheChanged(CacheError):
    """The open split or stream has been replaced, for example by `extract --replace`, or `gc` has
    removed files of its commit. Open it again.
    """


class ForeignStream(CacheError):
    """The features were computed for other rows than the split has: the stream of another cache or
    of a backup is in the stream's place, or the split was made anew.
    """


class MissingSplit(CacheError, KeyError):
    """The cache has no split of that name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError alone would quote the sentence


def suggestion(name: str, known: Iterable[str]) -> str:
    """What follows a name that is unknown, in a message.

    >>> suggestion("3dpw/trian", ["3dpw/train"]), suggestion("x", ["3dpw/train"])
    ("; did you mean '3dpw/train'?", ';')
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ";"
