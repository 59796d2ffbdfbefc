"""Tags: pins of all splits and streams of a cache, with a name.  [cache]

<cache>/.tags/cvpr/3dpw/train/manifest.json, ...    a pin (cache/format/pins.py)
<cache>/.tags/cvpr/tag.json                         written last
"""

from __future__ import annotations

from typing import Final

from cache.errors import CacheError
from cache.format.place import Place
from cache.storage.base import Store

TAGS: Final = ".tags"
TAG: Final = "tag.json"  # in a tag's folder: it is whole


def pin_of_tag(store: Store, name: str) -> Store:
    """Where a tag has its pin, or will have it."""
    return store.below(f"{TAGS}/{name}")


def tag_pins(store: Store) -> list[Store]:
    """The pins of all tags, also of those that are being written."""
    return [pin_of_tag(store, name) for name in store.list_names(TAGS)]


def find_tag(store: Store, name: str) -> Store:
    """The pin of a tag. Raises CacheError if there is none of that name, or one that is not whole,
    which the command that makes it finishes.
    """
    pin = pin_of_tag(store, name)
    if not pin.exists(TAG):
        raise CacheError(
            f"{pin.root}: no tag, or not finished; there are: {store.list_names(TAGS)}. Make or "
            "finish it: python -m pipeline tag NAME"
        )
    return pin


def refuse_tagged(place: Place) -> None:
    """Raise CacheError if a tag has this split or stream. Called before its shards are replaced."""
    for pin in tag_pins(place.store):
        if pin.exists(place.manifest):
            raise CacheError(
                f"{pin.location(place.manifest)}: this tag needs files that would be replaced. "
                "Use another name or another cache; or delete the tag: python -m pipeline tag NAME "
                "--delete"
            )
