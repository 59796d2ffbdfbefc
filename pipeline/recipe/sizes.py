"""Bytes that splits and streams take on the disk, for `status --sizes`.  [tracks, features]"""

from __future__ import annotations

from typing import Any

import cache
from cache.format.layout import FEATURES, stream_of


def stored_bytes(split: cache.Split) -> dict[str, Any]:
    """Stored bytes of a split: `columns`, `streams` (by name), `tables` (all other files).

    `commits`: time of the newest commit of "columns" and of each stream; None if lost.
    """
    streams = dict.fromkeys(split.streams, 0)
    stored: dict[str, Any] = {"columns": 0, "streams": streams, "tables": 0}
    for key, n_bytes in split.store.files(split.name).items():
        # shards lie at COLUMN/c/... and at features/ARRAY/c/...
        top, *names = key.removeprefix(f"{split.name}/").split("/")
        stream = stream_of(names[0]) if names[1:2] == ["c"] else None
        if top in split.columns and names[:1] == ["c"]:
            stored["columns"] += n_bytes
        elif top == FEATURES and stream in stored["streams"]:
            stored["streams"][stream] += n_bytes
        else:
            stored["tables"] += n_bytes
    stored["commits"] = {"columns": split.provenance.get("finished")}
    for name in split.streams:
        stored["commits"][name] = split.stream_provenance(name).get("finished")
    return stored
