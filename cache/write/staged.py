"""Uncommitted work, staged by any process on any machine, and taken by the one that commits.
[cache]

A piece of work is one file below `.writing/staged/<plan>/`: a head in JSON, arrays, and a checksum.
Its name is `<kind>-<identity>`:

    shard-<number>           a shard of a split or stream, under its final name
    staged-<number>-<token>  a shard of a stream, in files file-<number>-<token>-<array> beside it
    rows-<number>            some rows of a stream's shard that is not complete
    video-<identity>         a video that a part has read
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from cache.arrays import Array
from cache.format.layout import fingerprint
from cache.format.manifest import Place
from cache.format.shard import crc32c

SHARD: Final = "shard"
STAGED: Final = "staged"
ROWS: Final = "rows"
VIDEO: Final = "video"
FILE: Final = "file"

# JSON that names all that decides the numbers, besides what each writer compares itself
Plan = str | Mapping[str, Any]
Arrays = Mapping[str, Array]
Piece = tuple[dict[str, Any], Arrays]  # head and arrays


class StagedWork:
    """The pieces of one plan.

    head: all that decides whether a piece can be used, `plan` among it.
    """

    def __init__(self, place: Place, head: Mapping[str, Any]) -> None:
        self._place = place
        self._store = place.store
        self._plan = head["plan"]
        self.folder = f"{place.staged}/{fingerprint(head)[:16]}"

    def put(self, name: str, head: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Write a piece durably, or replace it."""
        whole = {"plan": self._plan, "host": socket.gethostname(), **head}
        data = pack(whole, arrays or {})
        self._store.put_small(
            {f"{self.folder}/{name}": data}, self._place.manifest_folder, shared=True
        )

    def names(self, kind: str) -> list[str]:
        """Names of the pieces of a kind."""
        names = self._store.list_names(self.folder)
        return [name for name in names if name.startswith(f"{kind}-")]

    def read(self, names: Iterable[str]) -> dict[str, Piece]:
        """Existing, intact pieces by name."""
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
        """Remove shards under final names from staged work: of this plan, and, where a lock keeps
        others out, of all plans, which share these names.
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


def pack(head: Mapping[str, Any], arrays: Arrays) -> bytes:
    """JSON and arrays as a file with a checksum. Reading it runs no code."""
    text = json.dumps(head, default=np.generic.item).encode()
    stored: dict[str, Any] = {"head": np.frombuffer(text, np.uint8), **arrays}
    file = io.BytesIO()
    np.savez(file, **stored)
    content = file.getvalue()
    return content + crc32c(content)


def unpack(file: bytes) -> Piece:
    """Head and arrays of `pack`; empty for a file that a crash or a disk has damaged."""
    content = file[:-4]
    if crc32c(content) != file[-4:]:
        return {}, {}
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = dict(stored)
    head = json.loads(arrays.pop("head").tobytes())
    return head, arrays
