"""Write features of a split's rows.  raw -> tracks -> [features] -> windows

A stream has three arrays (features, `_ok`, `_key`) and a manifest that names its shards. Rows of a
shard never change, so after a new commit of the split, the stream stays valid and only lacks the
new shards. These are pending: they have rows of tracks, but no features yet.

    form = StreamForm(2048, "float16")
    with StreamWriter(root, "3dpw/train", "resnet50", form, plan="weights 1f2e") as writer:
        for shard in writer.shards.pending:
            writer.write(shard, features, ok, keys)
        writer.commit({})

A shard has these states, one after the other:

    pending    it has rows of tracks, and no features
    staged     the files of its three arrays are written, and a piece (a small file of staged work)
               records them. It still counts as pending
    accepted   checked, and its files have their final names: part of the writer's next commit
    committed  named by the stream's manifest

A shard is staged in one of two ways:

    by                                file                                piece
    StreamShards.stage, any process   .writing/staged/<plan>/file-<...>   staged-<shard>-<token>
    StreamWriter.write                its final name, such as             shard-<shard>
                                      resnet50_ok/c/<shard>

A piece has a record, "<size>:<digest>" for the manifest, of each of the three files. To accept a
shard is to rename files that have temporary names, and to replace the first kind of piece by the
second. On entry, a writer accepts the shards that killed writers and other processes have
staged, and later when it is told to (`accept_staged`). `reopen` makes committed shards pending
again.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np

from cache.arrays import Array, Keys
from cache.errors import CacheError
from cache.format.entries import STREAM_ENTRIES
from cache.format.folders import create_groups
from cache.format.layout import NO_KEY, PENDING_ROWS, STREAM_ARRAYS, UNDECODABLE, StreamForm
from cache.format.manifest import Commit, shards_entry
from cache.format.tables import Tables
from cache.storage.base import Root
from cache.windows import join_adjacent
from cache.write.base import Writer, follow_manifest
from cache.write.removal import invalidate_shards
from cache.write.staged import FINAL, SHARD, Plan, StagedShard
from cache.write.stream_shards import StreamShards

_COMPUTED_AGAIN: Final = "The next run computes the shard again."


class StreamWriter(Writer):
    """The one writer of a stream. Use it as a context manager: `write` every pending shard, in any
    order, then `commit`.

    Leaving without `commit` changes nothing for readers. The next writer with the same `plan`
    continues with the written shards; a writer with another plan removes them.

    Args:
        root, split, stream, form: as for `StreamShards`.
        plan: text or JSON that names everything that the features depend on.
        provenance: goes to the stream's `provenance.json`, with time, host and versions.

    Raises CacheError as `StreamShards` does, and if there is another writer.
    """

    own_entries = frozenset({*STREAM_ENTRIES, PENDING_ROWS})

    def __init__(
        self,
        root: Root,
        split: str,
        stream: str,
        form: StreamForm,
        *,
        plan: Plan,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._read_state = functools.partial(StreamShards, root, split, stream, form, plan=plan)
        self.shards = self._read_state()
        """The state of the split and the stream, as read on entry or after the last commit. The
        shards of the next commit are not pending."""
        super().__init__(self.shards.place, provenance)
        self._accepted: dict[int, StagedShard] = {}  # shards of the next commit, by number
        self.refused: list[str] = []
        """Messages about staged shards that were not accepted since the commits were read last.
        They are still pending.
        """
        self.made: Mapping[str, Any] = {}
        """How the first accepted shard was computed; empty if no shard states it."""
        self.varying: set[str] = set()
        """Names of the entries of `made` that differ between the shards accepted so far."""

    def write(self, shard: int, data: Array, ok: Array, keys: Keys) -> None:
        """Write the features of one pending shard with n rows (`shards.rows`), durably.

        Args:
            data: features (n, dim), which are rounded to the stream's dtype. Those of rows without
                a track and of UNDECODABLE rows are ignored.
            ok: flags (n,): COMPUTED (1 or True), UNDECODABLE (0), or UNDEFINED (2) where there was
                nothing to compute from.
            keys: (n, 2) uint64, a hash of everything that the row's features depend on. NO_KEY
                for an UNDECODABLE row that may be computable later: the manifest lists it in
                `pending_rows`, until `reopen`.

        Raises CacheError for a shard that is not pending, for wrong shapes, dtypes or flags, and
        for features that are not finite or exceed the dtype's range.
        """
        self._lock.require()  # without it, this may be a shard that another writer has committed
        self._accept(self.shards.stage(shard, data, ok, keys, made=self.made, token=FINAL))

    def accept_staged(self) -> None:
        """Make the pending shards that are staged with this plan part of the next commit. A refused
        one is forgotten, so that any process computes it again.
        """
        for _, staged in sorted(self.shards.list_staged().items()):
            try:
                self._accept(staged)
            except (CacheError, FileNotFoundError) as error:
                self.refused.append(str(error))
                self.shards.work.remove([staged.piece])

    def _accept(self, staged: StagedShard) -> None:
        """Make a staged shard part of the next commit. Its files are renamed to their final names.

        Raises CacheError if a file is missing or damaged, or if it was computed with other weights
        than earlier shards.
        """
        made = staged.entries["made"]
        weights = made.get("sha256")
        stream_weights = self.made.get("sha256")
        if self.made and made and weights != stream_weights:
            difference = f"expected weights {stream_weights}, as of other shards, found {weights}"
            title = self.shards.title(staged.number)
            raise CacheError(f"{title}: {difference}. {_COMPUTED_AGAIN}")
        self._lock.require()
        files = self.shards.files
        damaged = files.find_damage(staged)
        if damaged is not None:
            problem = "no such file, or a damaged one"
            expected = "the file of a finished shard"
            raise CacheError.at(damaged, expected=expected, found=problem, do=_COMPUTED_AGAIN)
        self._accepted[staged.number] = files.accept(staged)
        self.shards.finished.add(staged.number)
        if made:  # its writer says how it was made
            self.made = self.made or made
            for name in self.made.keys() | made.keys():
                if made.get(name) != self.made.get(name):
                    self.varying.add(name)

    def reopen(self, shards: Collection[int]) -> None:
        """Make committed shards pending again, in a commit of its own. Shards that are not
        committed are skipped. The computed rows become checkpoints, which `kept` returns.
        """
        state = self.shards
        reopened = [shard for shard in shards if shard in state.committed]
        if not reopened:
            return
        for shard in reopened:
            n_rows = len(state.rows(shard))
            first = np.array([state.rows(shard).start])
            stored = [state.committed_rows.read(part, first, n_rows)[0] for part in STREAM_ARRAYS]
            data, ok, keys = stored
            data[ok == UNDECODABLE] = 0
            computed = np.flatnonzero(state.live(shard) & (keys != NO_KEY).any(axis=1))
            state.checkpoint(shard, computed, data[computed], ok[computed], keys[computed])
        invalidate_shards(self.place, self._commit, reopened)
        self._open_next()

    def commit(
        self,
        entries: Mapping[str, Any],
        *,
        note: Mapping[str, Any] | None = None,
        without: Collection[int] = (),
    ) -> None:
        """Commit every shard written so far; the others stay pending.

        Args:
            entries: the caller's entries of the stream's manifest, as JSON values. Their keys are
                not in `own_entries`.
            note: additional entries of `provenance.json`.
            without: numbers of shards that the split has dropped, to be left out. The others stay,
                because their features may be carried over.
        """
        create_groups(self.place)  # the folder of all features may have been deleted by hand
        state = self.shards
        split = state.split.manifest
        # the digest of each shard's rows
        rows: dict[str, str] = dict(self._commit.manifest["rows"])
        pending_rows: list[list[int]] = state.committed_rows.recorded_pending_rows().tolist()
        shards = dict(state.committed)
        for shard in without:
            rows.pop(str(shard), None)
            shards.pop(shard, None)
        for shard, staged in sorted(self._accepted.items()):
            shards[shard] = staged.records
            rows[str(shard)] = staged.entries["rows"]
            pending_rows += staged.entries["pending_rows"]
        body = {
            **entries,
            **state.own_facts(),
            "extent": int(split["extent"]),
            # "" while shards are pending: the stream does not match any state of the split.
            "split_digest": "" if state.pending else state.split.digest,
            "commits": split["commits"],
            "shards": shards_entry(state.columns, shards),
            "rows": rows,
        }
        if pending_rows:
            body[PENDING_ROWS] = join_adjacent(np.array(sorted(pending_rows))).tolist()
        self._publish(body, Tables(), note)
        # Without a lock, shards of other plans may be those of a running writer.
        self._remove_unfinished(state.work.folder)
        self._open_next()

    def _open(self) -> Commit:
        """Read the committed state under the lock, finish what killed writers have left, and accept
        staged shards.
        """
        state = self._read_state()
        if state.commit.digest:
            follow_manifest(state.commit)
        foreign = state.commit.foreign_shards(state.split)
        if foreign:  # they were computed for other rows: make them pending
            invalidate_shards(self.place, state.commit, foreign)
            state = self._read_state()
        if not state.work.names(SHARD):  # killed writers had other plans
            committed = state.commit.shards
            self._remove_uncommitted(state.work, state.columns, lambda n: n not in committed)
        self.shards = state
        self._accepted = {}
        self.refused = []
        self.accept_staged()
        return state.commit
