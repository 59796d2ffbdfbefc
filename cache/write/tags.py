"""Make and delete tags.  [cache]"""

from __future__ import annotations

from contextlib import suppress

from cache.errors import CacheChanged, CacheError
from cache.format import layout
from cache.format.pins import write_pin
from cache.format.tags import TAG, TAGS, find_tag, pin_of_tag
from cache.read.split import FeatureCache, require_cache
from cache.storage.base import Root


def tag(root: Root, name: str) -> None:
    """Give the current state of all splits and streams a name: `cache.open(root, at=name)` reads
    it, whatever is committed later. A tag that was not finished is made anew.

    Raises CacheError if a tag has the name, if it is invalid, and if a split or stream cannot be
    read.
    """
    store = require_cache(root)
    if not layout.is_name(name):
        raise CacheError(f"{name!r} is no tag's name: expected letters, digits and _ . + -")
    pin = pin_of_tag(store, name)
    if pin.exists(TAG):
        raise CacheError(
            f"{pin.root}: the tag exists. Choose another name, or delete the tag: python -m "
            f"pipeline tag {name} --delete"
        )
    while True:
        store.remove([f"{TAGS}/{name}"])
        commits = []
        with suppress(CacheChanged):  # after a commit, `gc` may have removed files: copy again
            for split in FeatureCache(root).values():
                commits.append(split.commit)
                commits += [split.open_stream(stream).commit for stream in split.streams]
            write_pin(pin, commits)
            break
    pin.put_small({TAG: b"{}\n"}, "")


def delete_tag(root: Root, name: str) -> None:
    """Delete a tag; `gc` then removes the files that only it needs. Raises CacheError if there is
    none.
    """
    store = require_cache(root)
    find_tag(store, name).remove([TAG])
    store.remove([f"{TAGS}/{name}"])
