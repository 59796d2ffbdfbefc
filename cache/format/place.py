"""Where the files of a split or a stream are in a store.  [cache]

The files of a split, and of its stream `resnet50`:

    3dpw/train/manifest.json                           its manifest
    3dpw/train/.writing/                               lock, temporary files, uncommitted work
    3dpw/train/bbox/c/<shard>/0                        shards of a column
    3dpw/train/tables-<digest>.npz                     all tables
    3dpw/train/features/resnet50/manifest.json         the stream's manifest
    3dpw/train/features/resnet50/c/<shard>/0           its features
    3dpw/train/features/resnet50_ok/c/<shard>          flags, and keys in resnet50_key
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cache.errors import CacheError
from cache.format import layout
from cache.format.layout import FEATURES
from cache.storage.base import Store


@dataclass(frozen=True)
class Place:
    """Where a split or one of its streams is in a store, and the keys of its files."""

    store: Store
    split: str  # <dataset>/<split>
    stream: str | None = None  # None: the split itself
    # where a pin has copies of the manifest and the tables (cache/format/pins.py), which are read
    # in place of the current ones
    pin: Store | None = None

    @cached_property
    def home(self) -> Store:
        """Where the manifest and the tables are read from, by the same keys."""
        return self.pin or self.store

    @cached_property
    def arrays_folder(self) -> str:
        """The folder that the manifest's file names are relative to."""
        return self.split if self.stream is None else f"{self.split}/{FEATURES}"

    @cached_property
    def manifest_folder(self) -> str:
        """The folder of the manifest, and of unfinished work."""
        return self.arrays_folder if self.stream is None else f"{self.arrays_folder}/{self.stream}"

    @cached_property
    def manifest(self) -> str:
        """The key of the manifest."""
        return f"{self.manifest_folder}/{layout.MANIFEST}"

    @cached_property
    def provenance(self) -> str:
        """The key of the notes on commits."""
        return f"{self.manifest_folder}/{layout.PROVENANCE}"

    @cached_property
    def writing(self) -> str:
        """The folder of a writer's lock, temporary files and uncommitted work."""
        return f"{self.manifest_folder}/{layout.WRITING}"

    @cached_property
    def staged(self) -> str:
        """The folder of uncommitted work, from which the next writer continues."""
        return f"{self.writing}/{layout.STAGED}"

    def array_key(self, name: str) -> str:
        return f"{self.arrays_folder}/{name}"

    def tables_key(self, digest: str) -> str:
        """The key of the file of tables with this SHA-256."""
        return f"{self.manifest_folder}/tables-{digest[:16]}.npz"

    @property
    def repair_advice(self) -> str:
        """What to do when the manifest or the tables are damaged."""
        if self.pin is not None:
            return f"It is a copy, which can only be made anew: move {self.pin.location('')} away."
        if self.stream is None:
            return (
                f"Restore it from a backup; or remove {self.store.location(self.manifest)} and "
                "convert the split again: features of rows that are then as before are kept."
            )
        return "Restore it from a backup; or extract the stream again, with --replace."

    def damage_error(self, key: str, *, expected: str, found: str) -> CacheError:
        """The error for a damaged manifest or file of tables."""
        return CacheError.at(
            self.home.location(key), expected=expected, found=found, do=self.repair_advice
        )

    @property
    def groups(self) -> list[str]:
        """Keys of the zarr.json of all Zarr groups, from the cache down to a split's features."""
        dataset = self.split.partition("/")[0]
        return [
            "zarr.json",
            f"{dataset}/zarr.json",
            f"{self.split}/zarr.json",
            f"{self.split}/{FEATURES}/zarr.json",
        ]

    def shard_folders(self, arrays: Iterable[str], numbers: Iterable[int]) -> list[str]:
        """Keys `<array>/c/<number>` of these shards of these arrays.

        A key is the shard's file, or a folder around it if the array has several dimensions.
        """
        pairs = itertools.product(arrays, sorted(numbers))
        return [f"{self.array_key(name)}/c/{number}" for name, number in pairs]
