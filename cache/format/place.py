"""Where a split or a stream has its manifest, its arrays and what a writer has not committed yet.  [cache]"""

from __future__ import annotations

from dataclasses import dataclass

from cache.format import layout
from cache.format.layout import STAGED
from cache.storage.base import Store


@dataclass(frozen=True, slots=True)
class Place:
    """Where one commit is: of a split without its streams, or of a stream."""

    store: Store
    split: str
    stream: str | None = None

    @property
    def base(self) -> str:
        """The files that a manifest names are below it."""
        return self.split if self.stream is None else f"{self.split}/{layout.FEATURES}"

    @property
    def home(self) -> str:
        """The folder of the manifest, of what is staged, and of the journal."""
        return self.split if self.stream is None else f"{self.base}/{self.stream}"

    @property
    def manifest(self) -> str:
        return f"{self.home}/{layout.MANIFEST}"

    @property
    def writing(self) -> str:
        return f"{self.home}/{layout.WRITING}"

    @property
    def temporary(self) -> str:
        """The key of a shard until it is complete."""
        return f"{self.writing}/{layout.TEMPORARY_SHARD}"

    @property
    def staged_shard(self) -> str:
        """How the keys begin of shards that a writer has not accepted yet."""
        return f"{self.writing}/{layout.STAGED_SHARD}"

    def checkpoint(self, shard: int) -> str:
        """The key of work on a shard that is not accepted yet."""
        return f"{self.writing}/{layout.CHECKPOINT}{shard}"

    def journals(self) -> list[str]:
        """Names in `writing` of journals and checkpoints: what the next writer goes on from."""
        begins = ("journal", layout.CHECKPOINT)
        return [name for name in self.store.list_names(self.writing) if name.startswith(begins)]

    def array(self, name: str) -> str:
        return f"{self.base}/{name}"

    def staging(self, digest: str) -> str:
        return f"{self.home}/{STAGED}/{digest[:16]}"

    @property
    def again(self) -> str:
        """What to do when the manifest or a table is damaged."""
        if self.stream is None:
            return (
                f"Restore it from a backup; or remove {self.store.location(self.manifest)} and convert the split "
                "again: its features are carried over by their keys."
            )
        return "Restore it from a backup; or extract the stream again, with --replace."
