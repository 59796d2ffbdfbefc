"""Uncommitted work: any process on any machine may stage it, and the writer commits it later.
[cache]

A piece of work is one file in `.writing/staged/<plan>/`: a head in JSON, arrays, and a checksum.
<plan> is a digest of the plan and all else that must be equal for the work to be used. The name of
the file is `<kind>-<identity>`:

    shard-<number>           a shard of a split or stream, under its final name
    staged-<number>-<token>  a shard of a stream, in files file-<number>-<token>-<array> next to it
    rows-<number>            a checkpoint: some rows of a stream's shard that is not complete
    video-<identity>         a video that a part of an array job has read
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
from cache.format.place import Place
from cache.format.shard import crc32c

SHARD: Final = "shard"
STAGED: Final = "staged"
ROWS: Final = "rows"
VIDEO: Final = "video"
FILE: Final = "file"

# A text or JSON that names everything that decides the stored numbers, besides what each writer
# compares itself. Work of another plan is not used.
Plan = str | Mapping[str, Any]
Arrays = Mapping[str, Array]
Piece = tuple[dict[str, Any], Arrays]  # head and arrays


class StagedWork:
    """The pieces of staged work of one plan.

    Args:
        place: the split or stream.
        head: everything that must be equal for a piece to be used, including the entry `plan`.
    """

    def __init__(self, place: Place, head: Mapping[str, Any]) -> None:
        self._place = place
        self._store = place.store
        self._plan = head["plan"]
        self.folder = f"{place.staged}/{fingerprint(head)[:16]}"

    def put(self, name: str, head: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Write or replace a piece, durably."""
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
        """Remove the pieces of shards whose files have their final names. If the store has locks,
        those of all plans are removed, because all plans use the same final names.
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
