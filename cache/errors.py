"""Errors of a cache. A message has the file, what was expected, what was found, and what to do next.  [cache]"""

from __future__ import annotations

from pathlib import Path
from typing import Self


class CacheError(Exception):
    """The cache, or a request to it, is not as it must be. The message has one or two lines."""

    @classmethod
    def at(cls, file: Path | str, *, expected: str, found: str, do: str) -> Self:
        """The error for one file: what was expected there, what was found, what to do next."""
        return cls(f"{file}: expected {expected}, found {found}. {do}")


class CacheChanged(CacheError):
    """What was opened has been replaced since (a stream by `extract --replace`, for instance): reopen it."""


class MissingSplit(CacheError, KeyError):
    """The cache has no committed split of that name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError alone would quote the sentence
