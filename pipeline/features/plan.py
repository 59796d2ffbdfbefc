"""Plan an extraction: the missing rows of a stream.  tracks -> [features] -> windows

A committed shard never changes and gets no tracks. So rows are missing exactly if a shard with
tracks is missing. Nothing here imports torch.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from cache.format.manifest import shard_rows
from cache.windows import Ranges
from pipeline.conversion.identity import Difference, describe, differing
from pipeline.conversion.plan import UNFINISHED
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec

NOT_RECORDED: Final = "not recorded"  # by an earlier version
CHANGED: Final = "the split has changed"  # why an existing stream is extended
WAITING: Final = "some videos could not be read before"  # why rows of its shards are computed
OTHER_NAME: Final = (
    "Use another stream name (--stream NAME, [features] streams), or recompute it: extract "
    "--replace."
)
# kind of streams that come from a file, and its entry in their manifests
IMPORTED: Final = "imported"


@dataclass(frozen=True, slots=True)
class MissingRows:
    """Missing rows of a stream."""

    shards: tuple[int, ...]  # missing shards, ascending
    # (N, 2) rows [start, stop) in other shards, each of one track, whose video could not be read
    pending: Ranges
    rows: int  # of tracks: in the missing shards, and pending
    rows_per_shard: int
    replaced: int  # rows of removed and replaced videos in the stream, which may be carried over

    @property
    def carried_at_most(self) -> int:
        """Rows that need not be computed if all replaced videos kept their images and boxes."""
        return min(self.rows, self.replaced)

    @property
    def incomplete(self) -> list[int]:
        """Shards with pending rows."""
        return self._shards_of(self.pending)

    def select_incomplete(self, split: Split, videos: Collection[int]) -> list[int]:
        """Shards with pending rows of these videos."""
        return self._shards_of(self.pending[np.isin(self._pending_videos(split), [*videos])])

    def _shards_of(self, ranges: Ranges) -> list[int]:
        shards = set[int]()
        for start, stop in ranges.tolist():
            first = start // self.rows_per_shard
            last = (stop - 1) // self.rows_per_shard
            shards.update(range(first, last + 1))
        return sorted(shards)

    def videos(self, split: Split) -> list[int]:
        """Numbers of the videos with pending rows."""
        numbers: list[int] = np.unique(self._pending_videos(split)).tolist()
        return numbers

    def _pending_videos(self, split: Split) -> NDArray[np.int32]:
        """(N,) the video of each range of pending rows."""
        return np.asarray(split.tracks.video[split.track_of(self.pending[:, 0])])


def missing_rows(split: Split, stream: str | None) -> MissingRows:
    """Missing rows of a committed stream; None: of a new one."""
    live = split.rows_by_shard()
    shards: list[int] = []
    pending = np.zeros((0, 2), np.int64)
    if stream is not None:
        shards = [shard for shard in split.stream_shards(stream) if shard < len(live)]
        pending = split.pending_rows(stream)
    is_missing = live > 0
    is_missing[shards] = False
    n_rows = int(live[is_missing].sum()) + int((pending[:, 1] - pending[:, 0]).sum())
    n_written = sum(len(shard_rows(split.manifest, shard)) for shard in shards)
    return MissingRows(
        shards=tuple(np.flatnonzero(is_missing).tolist()),
        pending=pending,
        rows=n_rows,
        rows_per_shard=split.rows_per_shard,
        replaced=n_written - int(live[shards].sum()),
    )


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """Plan of an extraction; `why` is "" if it is up to date."""

    root: cache.Root
    split: str
    spec: StreamSpec
    identity: Mapping[str, Any]
    replace: bool = False
    why: str = ""
    missing: MissingRows | None = None  # None: motion only, without pixels
    # from the recorded identity; if any, the extraction is refused
    differs: tuple[Difference, ...] = ()
    otherwise: str = ""  # `differs` as text

    @property
    def up_to_date(self) -> bool:
        return not self.why

    @property
    def refusal(self) -> str:
        """Message that the stream differs from the recorded one, or that missing rows must be
        imported; else "".
        """
        stream = f"{self.split}: stream {self.spec.name!r}"
        if self.differs:
            return f"{stream} was extracted differently: {self.otherwise}. {OTHER_NAME}"
        if not self.why or self.spec.stream.kind != IMPORTED:
            return ""
        do = f"Import it: import FILE {self.split} --format arrays --as {self.spec.name}"
        return f"{stream} is imported and cannot be extracted ({self.why}). {do}"


def plan_extraction(
    root: cache.Root, split: str, spec: StreamSpec, *, replace: bool = False
) -> ExtractionPlan:
    """Compare the committed rows with those of the stream.

    replace: recompute an existing stream, which repairs lost shards and retries undecodable frames.
    Raises CacheError if the split does not exist, PipelineError if the stream has other weights,
    precision or options, or is of crops and needs a column that the split does not have.
    """
    committed = cache.open(root)[split]
    if spec.stream.reads.crops:
        refusal = spec.missing_columns(committed)
        if refusal:
            raise PipelineError(refusal)
    plan = compare_stream(committed, spec, replace=replace)
    if plan.refusal:
        raise PipelineError(plan.refusal)
    return plan


def compare_stream(committed: Split, spec: StreamSpec, *, replace: bool = False) -> ExtractionPlan:
    """As `plan_extraction` for an open split, with differences in `differs` instead of an error."""
    target = spec.stream.identity()
    make = functools.partial(ExtractionPlan, committed.root, committed.name, spec, target)
    if not committed.known_columns.issuperset(spec.stream.needs):
        return make()
    if spec.name not in committed.streams:
        lost = replace and committed.place(spec.name).lost_manifest() is not None
        why = "its manifest is lost" if lost else "not extracted before"
        return make(why=why, missing=missing_rows(committed, None), replace=lost)
    if replace:
        return make(why="--replace", missing=missing_rows(committed, None), replace=True)
    missing = missing_rows(committed, spec.name)
    why = _why_extended(committed, spec.name, missing)
    before = recorded_identity(committed, spec.name)
    if before.get("kind") == target["kind"] == IMPORTED:  # settings do not name its file
        before = target
    differs = tuple(differing(before, target))
    return make(why=why, missing=missing, differs=differs, otherwise=describe(before, target))


def _why_extended(committed: Split, stream: str, missing: MissingRows) -> str:
    if missing.shards:
        return CHANGED
    if missing.rows:
        return WAITING
    return UNFINISHED if committed.has_unfinished_commit(stream) else ""


def recorded_identity(committed: Split, stream: str) -> Mapping[str, Any]:
    """The identity in a stream's manifest. Raises PipelineError if there is none: another program
    wrote it.
    """
    identity: Mapping[str, Any] | None = committed.stream_manifest(stream).get("identity")
    if identity is None:
        why = "has no recorded identity: another program wrote it"
        raise PipelineError(f"{committed.name}: stream {stream!r} {why}. {OTHER_NAME}")
    return identity


def is_untrained(committed: Split, stream: str) -> bool:
    """Whether the stream has features of random weights."""
    return bool((committed.stream_manifest(stream).get("backbone") or {}).get("stand_in"))


def weights_of(committed: Split, stream: str) -> dict[str, str]:
    """Network, licence, source and SHA-256 (of the file, else of the tensors) of a stream; {}
    without a network.
    """
    made = committed.stream_manifest(stream).get("backbone") or {}
    weights = made.get("weights")
    if not weights:
        return {}
    digest = made.get("sha256")
    if isinstance(weights, Mapping):
        digest = weights.get("file_sha256") or digest
    return {
        "network": str(made.get("network", stream)),
        "sha256": str(digest or NOT_RECORDED),
        "licence": str(made.get("licence", NOT_RECORDED)),
        "source": str(made.get("source", NOT_RECORDED)),
    }


def stream_label(committed: Split, stream: str, missing: str) -> str:
    """A stream's name with warnings: "resnet50 (untrained, rows missing)". missing: text about
    missing rows, or "".
    """
    kind = str((committed.stream_manifest(stream).get("identity") or {}).get("kind", ""))
    marks = []
    if kind == IMPORTED:
        marks.append(IMPORTED)
    if is_untrained(committed, stream):
        marks.append("untrained")
    if missing:
        marks.append(missing)
    if kind and streams.not_installed(kind):
        marks.append("package not installed")
    return f"{stream} ({', '.join(marks)})" if marks else stream


def is_current(split: Split, stream: str) -> bool:
    """Whether the stream has every row of the split's tracks."""
    return not missing_rows(split, stream).rows
