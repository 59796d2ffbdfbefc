"""Where the files of a cache are: in a local folder or an object store.  [cache]"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from cache.errors import CacheError
from cache.storage.base import Root, Store
from cache.storage.local import LocalStore
from cache.storage.object_store import ObjectStore

SCHEMES: Final = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_ONE_SLASH: Final = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")


def local_folder(root: Root) -> Path | None:
    """The folder of a cache on this machine; None for the URL of an object store."""
    scheme, separator, _ = str(root).partition("://")
    if separator and scheme in SCHEMES:
        return None
    return Path(root)


def store_at(root: Root | Store) -> Store:
    """The store for a path, or for the URL of an object store.

    Raises CacheError for a URL of another kind.
    """
    if isinstance(root, Store):
        return root
    folder = local_folder(root)
    if folder is None:
        return ObjectStore(str(root))
    if _ONE_SLASH.match(str(root)):  # also what pathlib makes of a URL
        raise CacheError(
            f"{root}: expected a folder, or a URL as text, with two slashes, such as "
            "s3://bucket/prefix"
        )
    if "://" in str(root):
        raise CacheError(
            f"{root}: expected a folder, or a URL that starts with one of {', '.join(SCHEMES)}"
        )
    return LocalStore(folder)
