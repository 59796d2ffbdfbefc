"""Errors of a cache.  [cache]"""

from __future__ import annotations

from pathlib import Path
from typing import Self


class CacheError(Exception):
    """A damaged cache or an invalid request. The message has one or two lines."""

    @classmethod
    def at(cls, file: Path | str, *, expected: str, found: str, do: str) -> Self:
        return cls(f"{file}: expected {expected}, found {found}. {do}")


class AccessDenied(CacheError):
    """A file or folder that this user may not read, or that no command touches, such as a link or a
    pipe.
    """

    @classmethod
    def of(cls, error: PermissionError) -> Self:
        ask = (
            "Ask its owner for permission (chmod -R g+rwX), and see docs/operations.md, "
            "Several people."
        )
        return cls(f"{error.filename}: permission denied. {ask}")


class Busy(CacheError):
    """Another process writes the same split, stream or folder now. Run the command again later."""


class CacheChanged(CacheError):
    """The open split or stream has been replaced, as by `extract --replace`: open it again."""


class MissingSplit(CacheError, KeyError):
    """The cache has no committed split of that name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError alone would quote the sentence
