"""What an interrupted run has left: from what is on the disk at that moment.  [raw -> tracks ->
features]
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Final

from cache.errors import CacheError
from cache.format.folders import places_of, split_folders
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.staged import ROWS, SHARD, STAGED, VIDEO
from pipeline.cli.text import count

_NOUNS: Final = {
    SHARD: "finished shard",
    STAGED: "finished shard",
    ROWS: "unfinished shard",
    VIDEO: "read video",
}


def describe_kept(root: Root, *splits: str) -> str:
    """What the cache has of these splits' unfinished steps (none: of all), and how to go on."""
    n_pieces = Counter[str]()
    with suppress(OSError, CacheError):
        store = store_at(root)
        names = splits or split_folders(store)
        for place in (place for name in names for place in places_of(store, name)):
            for plan in store.list_names(place.staged):
                pieces = store.list_names(f"{place.staged}/{plan}")
                n_pieces.update(_NOUNS.get(piece.partition("-")[0], "") for piece in pieces)
    kept = [count(n, noun) for noun, n in n_pieces.items() if noun]
    if not kept:
        return "what is in the cache is kept; the same command begins the unfinished step again"
    return f"saved: {', '.join(kept)} beside what is in the cache; the same command continues"
