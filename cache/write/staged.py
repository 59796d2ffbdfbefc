"""Uncommitted work: any process on any machine may stage it, and the writer commits it later.
[cache]

A piece is one file in `.writing/staged/<plan>/`: a head in JSON, arrays, and a checksum. <plan> is
a digest of the plan and all else that must be equal for the work to be used. A piece is named
`<kind>-<identity>`. The piece of a complete shard has no rows: it records the size and checksum of
the shard's own files:

    kind of piece            content                            the shard's own files
    shard-<number>           records a shard                    final names, as after a commit
    staged-<number>-<token>  records a shard of a stream        file-<number>-<token>-<array>, here
    rows-<number>            checkpoint: some rows of a shard   none: the rows are in the piece
    video-<identity>         a video that a part of an array    none
                             job has read

For example, a process stages shard 7 of `resnet50` in four files; the next writer renames the first
three to their final names, and replaces the piece `staged-7-5ee1` by `shard-7`:

    file-7-5ee1-resnet50  file-7-5ee1-resnet50_ok  file-7-5ee1-resnet50_key  staged-7-5ee1
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from cache.arrays import Array
from cache.format.layout import Column, Geometry, fingerprint, shard_key
from cache.format.place import Place
from cache.format.shard import ShardFile, ShardLayout, crc32c
from cache.read.rows import Rows, StoredArray

# kinds of pieces
SHARD: Final = "shard"
STAGED: Final = "staged"
ROWS: Final = "rows"
VIDEO: Final = "video"
FILE: Final = "file"  # begins the name of a shard's own file, which is no piece
FINAL: Final = ""  # in place of a token: the shard's own files have their final names

# A text or JSON that names everything that decides the stored numbers, besides what each writer
# compares itself. Work of another plan is not used.
Plan = str | Mapping[str, Any]
Arrays = Mapping[str, Array]


class _Piece(NamedTuple):
    """The content of a piece."""

    head: dict[str, Any]
    arrays: Arrays


class StagedWork:
    """The pieces of staged work of one plan.

    Args:
        place: the split or stream.
        conditions: everything that must be equal for a piece to be used, such as
            {"plan": "weights 1f2e", "form": "2048 numbers of float16"}.
    """

    def __init__(self, place: Place, conditions: Mapping[str, Any]) -> None:
        self._place = place
        self._store = place.store
        self._plan = conditions["plan"]
        self.folder = f"{place.staged}/{fingerprint(conditions)[:16]}"

    def put(self, name: str, entries: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Write or replace a piece, durably. Its head has the plan, this host, and `entries`.

        It is JSON and arrays in NumPy's .npz format, then a checksum. Reading such a file runs no
        code of the file.
        """
        head = {"plan": self._plan, "host": socket.gethostname(), **entries}
        text = json.dumps(head, default=np.generic.item).encode()
        stored: dict[str, Any] = {"head": np.frombuffer(text, np.uint8), **(arrays or {})}
        file = io.BytesIO()
        np.savez(file, **stored)
        content = file.getvalue()
        piece = {f"{self.folder}/{name}": content + crc32c(content)}
        self._store.put_small(piece, self._place.manifest_folder, shared=True)

    def names(self, kind: str) -> list[str]:
        """Names of the pieces of a kind."""
        names = self._store.list_names(self.folder)
        return [name for name in names if name.startswith(f"{kind}-")]

    def shards(self) -> set[int]:
        """Numbers of the complete shards."""
        names = [*self.names(SHARD), *self.names(STAGED)]
        return {int(name.split("-")[1]) for name in names}

    def read(self, names: Iterable[str]) -> dict[str, _Piece]:
        """Read pieces, by name. Missing and damaged ones are left out."""
        keys = [f"{self.folder}/{name}" for name in names]
        pieces = {}
        for key, data in self._store.read_many(keys).items():
            piece = unpack(bytes(data))
            if piece is not None:
                name = key.rpartition("/")[2]
                pieces[name] = piece
        return pieces

    def remove(self, names: Iterable[str]) -> None:
        self._store.remove([f"{self.folder}/{name}" for name in names])

    def remove_shards(self) -> None:
        """Remove the pieces that record shards under final names; the caller removes the shards.

        The shards of all plans have the same final names. So if the store has locks, the pieces of
        all plans go: their writers have ended. Without locks, a writer with another plan may be
        running, and only the pieces of this plan go.
        """
        store = self._store
        folders = [self.folder]
        if store.exclusive:
            staged = self._place.staged
            folders = [f"{staged}/{name}" for name in store.list_names(staged)]
        for folder in folders:
            names = store.list_names(folder)
            shards = [f"{folder}/{name}" for name in names if name.startswith(f"{SHARD}-")]
            store.remove(shards)
            store.remove_empty(folder)


@dataclass(frozen=True)
class StagedShard:
    """A complete, uncommitted shard in the cache, as its piece records it."""

    number: int
    token: str  # random part of the temporary names of its files, or FINAL
    records: dict[str, str]  # column -> the manifest's record of the file: size and checksum
    entries: dict[str, Any]  # what its writer needs to commit it, as JSON values

    @property
    def piece(self) -> str:
        """The name of the piece that records it."""
        if self.token == FINAL:
            return f"{SHARD}-{self.number}"
        return f"{STAGED}-{self.number}-{self.token}"


class ShardFiles:
    """The uncommitted shards of a split or stream: their files, and the pieces that record them.
    Threads may share it.

    Args:
        columns: the arrays that a shard has rows of, by name.
        work: the staged work of the plan.
    """

    def __init__(
        self, place: Place, columns: Mapping[str, Column], geometry: Geometry, work: StagedWork
    ) -> None:
        self.columns = columns
        self.geometry = geometry
        """How rows are cut into shards and chunks."""
        self.work = work
        self._place = place
        self._store = place.store

    def _keys(self, number: int, token: str) -> dict[str, str]:
        """The keys of a shard's files, by column: those under which `token` stages them. FINAL:
        those of a committed shard.
        """
        keys = {}
        for name, column in self.columns.items():
            keys[name] = shard_key(self._place.array_key(name), number, column.shape)
            if token != FINAL:
                keys[name] = f"{self.work.folder}/{FILE}-{number}-{token}-{name}"
        return keys

    def stage(
        self, number: int, arrays: Arrays, entries: dict[str, Any], token: str = FINAL
    ) -> StagedShard:
        """Write a shard's rows (n, *shape), by column, to files under the names of this token, and
        then its piece. All are durable when this returns.
        """
        keys = self._keys(number, token)
        temporary = {name: f"{self._place.writing}/.{number}-{name}{token}" for name in keys}
        records = {}
        try:
            for name, key in keys.items():
                file, records[name] = self._layout(name).encode(arrays[name])
                self._store.put(key, file, temporary=temporary[name])
            staged = StagedShard(number, token, records, entries)
            self.record(staged)
        except BaseException:  # on a full disk, half a file takes what other files need
            self._store.remove(temporary.values())
            if token != FINAL:  # a file of that name may be a committed one
                self._store.remove(keys.values())
            raise
        return staged

    def record(self, staged: StagedShard) -> None:
        """Write or replace the piece of a shard whose files are written."""
        self.work.put(staged.piece, {"shard": vars(staged)})

    def read(self, names: Iterable[str]) -> list[StagedShard]:
        """The shards that these pieces record. Missing and damaged pieces are left out."""
        return [StagedShard(**piece.head["shard"]) for piece in self.work.read(names).values()]

    def find_damage(self, staged: StagedShard) -> str | None:
        """The location of a staged file that is missing or has another size or index; None if all
        are intact.
        """
        for name, key in self._keys(staged.number, staged.token).items():
            record = staged.records[name]
            # 0 rows: with the size of its record, the file has all rows that were staged
            file = ShardFile(name, key, staged.number, record, 0, self._layout(name))
            if file.problem(self._store, fast=True):
                return self._store.location(key)
        return None

    def accept(self, staged: StagedShard) -> StagedShard:
        """Give the files of a staged shard their final names, and return it with these."""
        if staged.token == FINAL:
            return staged
        final = self._keys(staged.number, FINAL)
        for name, key in self._keys(staged.number, staged.token).items():
            self._store.rename(key, final[name])
        accepted = replace(staged, token=FINAL)
        self.record(accepted)
        self.work.remove([staged.piece])
        return accepted

    def open_rows(self, staged: StagedShard, name: str) -> Rows:
        """A reader of a column's rows in a staged shard whose files have their final names."""
        end = (staged.number + 1) * self.geometry.rows_per_shard
        records = {str(staged.number): staged.records[name]}
        # not committed: there is no manifest to compare
        stored = StoredArray(self._place, self._layout(name), end, records, lambda **_: None)
        return Rows.open(stored)

    def _layout(self, name: str) -> ShardLayout:
        return ShardLayout(self.columns[name], self.geometry)


def unpack(file: bytes) -> _Piece | None:
    """The piece that a file has; None if the file is damaged."""
    content = file[:-4]
    if crc32c(content) != file[-4:]:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = dict(stored)
    head = json.loads(arrays.pop("head").tobytes())
    return _Piece(head, arrays)
