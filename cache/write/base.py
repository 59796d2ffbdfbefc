"""What the writers of splits and of streams have in common: one at a time, and a journal to go on from.  [cache]"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from cache.format.manifest import Place
from cache.storage.base import Journal, Lock


class OneWriter(ABC):
    """Holds the lock of a split or stream between `with` and its end."""

    def __init__(self, place: Place) -> None:
        self._place, self._store = place, place.store
        self._journal: Journal = self._store.journal(place.writing)

    def __enter__(self) -> Self:
        self._make_home()
        self._lock: Lock = self._store.lock(self._place.writing)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        self._lock.release()

    @abstractmethod
    def _make_home(self) -> None:
        """Make the folders that the lock and the arrays lie in."""

    @abstractmethod
    def _open(self) -> None:
        """Take in what is committed now, under the lock. Called after each commit, too."""
