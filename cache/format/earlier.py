"""Read the tables of a split in the earlier format, `vibe-cache 1`.  [cache]

The next commit of such a split writes its tables in the current format. In the earlier format, the
manifest's entry `files` has the SHA-256 of two files per table, its `zarr.json` and its numbers, by
their path below the split. If that commit was interrupted, the files may still be in the folder
`.commit` next to the manifest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cache.errors import CacheError
from cache.format.layout import shard_key
from cache.format.shard import sha256
from cache.format.tables import Tables, parse_table
from cache.storage.base import Bytes, Store

STAGED: Final = ".commit"
REMOVED: Final = "Use commit 19a16d33 (CHANGELOG.md, Removed)"
_TAGS: Final = ".tags"
TABLE_NAME: Final = re.compile(r"(track|run|video)_\w+")


def read_tables(
    store: Store, split: str, manifest: Mapping[str, Any]
) -> tuple[Tables, dict[str, str]]:
    """Read the tables that match the manifest's digests, in the split or in its `.commit` folder.

    Returns, as `manifest.read_tables` does, the tables that are intact, and the names of the others
    by the key of a missing or changed file.
    """
    small = manifest["files"]
    digests = {path: digest for path, digest in small.items() if TABLE_NAME.match(path)}
    files: dict[str, Bytes] = {}
    for folder in (split, f"{split}/{STAGED}/{manifest['digest'][:16]}"):
        keys = [f"{folder}/{path}" for path in digests if path not in files]
        for key, data in store.read_many(keys).items():
            path = key.removeprefix(f"{folder}/")
            if sha256(data) == digests[path]:
                files[path] = data

    tables = Tables()
    for name in sorted({path.partition("/")[0] for path in digests}):
        if f"{name}/zarr.json" not in files:
            continue
        array = json.loads(bytes(files[f"{name}/zarr.json"]))
        path = shard_key(name, 0, array["shape"][1:])
        if path in files:
            entry = {"dtype": array["data_type"], "shape": array["shape"]}
            tables[name] = parse_table(files[path], entry)
    lost = digests.keys() - files.keys()
    return tables, {f"{split}/{path}": path.partition("/")[0] for path in lost}


def find_remains(store: Store, home: str) -> Iterator[str]:
    """Keys of folders of the earlier format that are in `home`, a manifest's folder: old tables and
    `.commit`. A manifest of the current format does not need them.
    """
    for name in store.list_names(home):
        folder = f"{home}/{name}"
        is_table = TABLE_NAME.fullmatch(name) is not None
        if name == STAGED or (is_table and {*store.list_names(folder)} <= {"c", "zarr.json"}):
            yield folder


def refuse_tags(store: Store) -> None:
    """Raise CacheError for a cache with tags: rows that only a tag references could be lost."""
    if _TAGS in store.list_names(""):
        folder = store.location(_TAGS)
        do = f"{REMOVED} to copy them, then delete this folder."
        raise CacheError(f"{folder}: nothing is written beside tags of an earlier version. {do}")
