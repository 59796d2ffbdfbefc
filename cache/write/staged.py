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
from typing import Any, Final

import numpy as np

from cache.arrays import Array
from cache.format.layout import Column, Geometry, fingerprint, shard_key
from cache.format.place import Place
from cache.format.shard import ShardLayout, crc32c

# kinds of pieces
SHARD: Final = "shard"
STAGED: Final = "staged"
ROWS: Final = "rows"
VIDEO: Final = "video"
FILE: Final = "file"  # begins the name of a shard's own file, which is no piece

# A text or JSON that names everything that decides the stored numbers, besides what each writer
# compares itself. Work of another plan is not used.
Plan = str | Mapping[str, Any]
Arrays = Mapping[str, Array]
Piece = tuple[dict[str, Any], Arrays]  # head and arrays


class StagedWork:
    """The pieces of staged work of one plan.

    Args:
        place: the split or stream.
        conditions: everything that must be equal for a piece to be used, such as
            {"plan": "weights 1f2e", "dim": 2048, "dtype": "float16"}.
    """

    def __init__(self, place: Place, conditions: Mapping[str, Any]) -> None:
        self._place = place
        self._store = place.store
        self._plan = conditions["plan"]
        self.folder = f"{place.staged}/{fingerprint(conditions)[:16]}"

    def put(self, name: str, entries: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Write or replace a piece, durably. Its head has the plan, this host, and `entries`."""
        head = {"plan": self._plan, "host": socket.gethostname(), **entries}
        data = pack(head, arrays or {})
        self._store.put_small(
            {f"{self.folder}/{name}": data}, self._place.manifest_folder, shared=True
        )

    def names(self, kind: str) -> list[str]:
        """Names of the pieces of a kind."""
        names = self._store.list_names(self.folder)
        return [name for name in names if name.startswith(f"{kind}-")]

    def read(self, names: Iterable[str]) -> dict[str, Piece]:
        """Read pieces, by name. Missing and damaged ones are left out."""
        keys = [f"{self.folder}/{name}" for name in names]
        pieces = {}
        for key, data in self._store.read_many(keys).items():
            head, arrays = unpack(bytes(data))
            if head:
                name = key.rpartition("/")[2]
                pieces[name] = head, arrays
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


class ShardFiles:
    """The base of `SplitShards` and `StreamShards`: writes and names the files of a shard."""

    geometry: Geometry
    """How rows are cut into shards and chunks."""

    def __init__(self, place: Place, columns: Mapping[str, Column], work: StagedWork) -> None:
        self.place = place
        self.columns = columns
        self._store = place.store
        self._work = work

    def _file_keys(self, shard: int, token: str = "") -> dict[str, str]:
        """The keys of a shard's files, by column: those under which `token` stages them; without
        a token, those of a committed shard.
        """
        keys = {}
        for name, column in self.columns.items():
            keys[name] = shard_key(self.place.array_key(name), shard, column.shape)
            if token:
                keys[name] = f"{self._work.folder}/{FILE}-{shard}-{token}-{name}"
        return keys

    def _write_files(self, shard: int, arrays: Arrays, token: str = "") -> dict[str, str]:
        """Write a shard's rows (n, *shape), by column, to the files of `_file_keys`, durably.
        Returns the manifest's records of the files.
        """
        records = {}
        keys = self._file_keys(shard, token)
        for name, column in self.columns.items():
            file, records[name] = ShardLayout(column, self.geometry).encode(arrays[name])
            temporary = f"{self.place.writing}/.{shard}-{name}{token}"
            try:
                self._store.put(keys[name], file, temporary=temporary)
            except BaseException:  # on a full disk, half a file takes what other files need
                self._store.remove([temporary])
                raise
        return records


def pack(head: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Encode a piece: JSON and arrays in NumPy's .npz format, then a checksum. Reading such a file
    runs no code of the file.
    """
    text = json.dumps(head, default=np.generic.item).encode()
    stored: dict[str, Any] = {"head": np.frombuffer(text, np.uint8), **arrays}
    file = io.BytesIO()
    np.savez(file, **stored)
    content = file.getvalue()
    return content + crc32c(content)


def unpack(file: bytes) -> Piece:
    """The head and arrays that `pack` encoded; both empty if the file is damaged."""
    content = file[:-4]
    if crc32c(content) != file[-4:]:
        return {}, {}
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = dict(stored)
    head = json.loads(arrays.pop("head").tobytes())
    return head, arrays
