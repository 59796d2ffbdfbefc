"""What is open of one committed split: its tables, columns and streams.  tracks -> features -> [windows]"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format.layout import COLUMNS, FEATURES, MANIFEST
from cache.format.manifest import Commit
from cache.format.place import Place
from cache.format.tables import Tables
from cache.read.rows import Rows
from cache.read.streams import OpenStream, StalenessCheck, open_column
from cache.storage.base import Store

Array = NDArray[Any]


class OpenSplit:
    """The tables of one commit, and the columns and streams that have been read of it so far."""

    def __init__(self, store: Store, name: str, commit: Commit) -> None:
        self.store, self.name, self.commit = store, name, commit
        self.manifest: Mapping[str, Any] = commit.manifest
        self.tables = Tables.from_files(commit.files)
        self._check_current = StalenessCheck(commit)
        self._rows: dict[str, Rows] = {}
        self._streams: dict[str, OpenStream] = {}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the split has."""
        return tuple(name for name in COLUMNS if name in self.manifest["shards"])

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Names of the committed feature streams, sorted."""
        home = f"{self.name}/{FEATURES}"
        names = (name for name in self.store.list_names(home) if layout.is_name(name))
        return tuple(name for name in names if self.store.exists(f"{home}/{name}/{MANIFEST}"))

    def read_rows(self, name: str, starts: NDArray[np.int64], seqlen: int) -> Array:
        """(B, seqlen, ...) of one array as stored."""
        reader = self.reader(name)
        out = np.empty((len(starts), seqlen, *reader.trailing), reader.dtype.newbyteorder("="))
        reader.read(starts, seqlen, out)
        return out

    def reader(self, name: str) -> Rows:
        """The reader of a column, or of an array of a stream. Raises CacheError for one that is not there."""
        if name not in self._rows:
            self._rows[name] = open_column(*self.array(name))
        return self._rows[name]

    def array(self, name: str) -> tuple[Commit, str, StalenessCheck]:
        """The commit that names a column's array, the array's name there, and what notices when it is replaced."""
        array = name.removeprefix(f"{FEATURES}/")
        if array != name:
            stream = self.stream(layout.stream_of(array))
            if array in stream.commit.manifest["shards"]:
                return stream.commit, array, stream.check_current
        elif name in self.columns:
            return self.commit, name, self._check_current
        raise CacheError(f"{self.name}: no column {name!r}; there are: {', '.join(self.columns)}")

    def stream(self, stream: str) -> OpenStream:
        """A committed stream. Raises CacheError when there is none of that name."""
        if stream not in self._streams:
            layout.check_names(self.name, stream)
            commit = manifest.load(Place.of(self.store, self.name, stream))
            if commit is None:
                known = ", ".join(self.stream_names) or "none"
                do = "Extract it first, or read labels only (stream=None)."
                raise CacheError(f"{self.name}: no feature stream {stream!r}; there are: {known}. {do}")
            self._check_current()  # a stream of a compacted split belongs to its rows, not to those of before
            self._streams[stream] = OpenStream(self.name, stream, commit, self.manifest)
        return self._streams[stream]
