"""Committed streams of a split: the rows that they lack, their weights, and the commands that
continue them.  tracks -> [features] -> windows

A committed shard of a split never changes and gets no further tracks. So a stream lacks rows only
if it lacks a whole shard that has tracks, or has recorded rows as pending. Nothing here imports
torch. Words:

    pending    of a row: its shard is written without it, because its video could not be read
    lost       of a video: it cannot be read now
    replaced   of a video: a newer version of it has other tracks; the old rows stay in their shards
    carried    of a row: its features are copied from a replaced row with equal pixels and box
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import Split
from cache.windows import Ranges
from pipeline.cli.text import command, count, from_here, text_of
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.streams.base import Stream

NOT_RECORDED: Final = "not recorded"  # of imported features
_BY_NAME: Final = ("weights", "precision")  # keys with an option of `extract`
# kind of streams that come from a file, and its entry in their manifests
IMPORTED: Final = "imported"


@dataclass(frozen=True, slots=True)
class MissingRows:
    """Rows of a split's tracks that a stream does not have yet."""

    shards: tuple[int, ...]  # shards that the stream lacks, ascending
    # (N, 2) ranges of pending rows [start, stop) in shards that it has; each is in one track
    pending: Ranges
    rows: int  # number of rows of tracks in the missing shards and the pending ranges
    rows_per_shard: int

    @property
    def incomplete(self) -> list[int]:
        """Numbers of the shards with pending rows."""
        return self._shards_of(self.pending)

    def shards_to_reopen(self, split: Split, lost: Collection[int]) -> list[int]:
        """Numbers of the shards with pending rows that can be computed now.

        lost: numbers of the videos that cannot be read now.
        """
        return self._shards_of(self.pending[~np.isin(self._pending_videos(split), [*lost])])

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
        """The number of each pending range's video (N,)."""
        return np.asarray(split.tracks.video[split.track_of(self.pending[:, 0])])

    @classmethod
    def find(cls, split: Split, stream: str | None) -> MissingRows:
        """Find the missing rows of a committed stream; of a new stream, if `stream` is None."""
        n_live = split.rows_by_shard()  # (number of shards,) rows of the split's current tracks
        shards: list[int] = []  # those that the stream has
        pending = np.zeros((0, 2), np.int64)
        if stream is not None:
            opened = split.open_stream(stream)
            shards = [shard for shard in opened.shards if shard < len(n_live)]
            pending = opened.pending_rows()
        is_missing = n_live > 0
        is_missing[shards] = False
        n_pending = int(np.diff(pending).sum())
        return cls(
            shards=tuple(np.flatnonzero(is_missing).tolist()),
            pending=pending,
            rows=int(n_live[is_missing].sum()) + n_pending,
            rows_per_shard=split.rows_per_shard,
        )


def is_untrained(committed: Split, stream: str) -> bool:
    """Whether the stream has features of random weights."""
    return bool((committed.open_stream(stream).manifest.get("backbone") or {}).get("stand_in"))


def weights_of(committed: Split, stream: str) -> dict[str, str]:
    """The network, licence, source and SHA-256 of a stream's weights, as texts; {} for a stream
    without weights. The SHA-256 is that of the file, or else of the tensors.

    The manifest's entry "backbone" is the provenance of the network, for example:

        {"network": "resnet50", "sha256": "1f2e...", "licence": "...", "stand_in": false,
         "weights": {"kind": "file", "file_sha256": "77aa..."}}

    For imported features, "weights" is a text, or None.
    """
    backbone = committed.open_stream(stream).manifest.get("backbone") or {}
    weights = backbone.get("weights")
    if not weights:
        return {}
    digest = backbone.get("sha256")
    if isinstance(weights, Mapping):
        digest = weights.get("file_sha256") or digest
    return {
        "network": str(backbone.get("network", stream)),
        "sha256": str(digest or NOT_RECORDED),
        "licence": str(backbone.get("licence", NOT_RECORDED)),
        "source": str(backbone.get("source", NOT_RECORDED)),
    }


def stream_label(committed: Split, stream: str) -> str:
    """A stream's name with warnings, such as "resnet50 (untrained, 16 rows missing)"."""
    kind = str(committed.open_stream(stream).identity.get("kind", ""))
    marks = []
    if kind == IMPORTED:
        marks.append(IMPORTED)
    if is_untrained(committed, stream):
        marks.append("untrained")
    n_missing = MissingRows.find(committed, stream).rows
    if n_missing:
        marks.append(f"{count(n_missing, 'row')} missing")
    if kind and not streams.is_known(kind):
        marks.append("package not installed")
    if not marks:
        return stream
    return f"{stream} ({', '.join(marks)})"


def is_current(split: Split, stream: str) -> bool:
    """Whether the stream has every row of the split's tracks."""
    return not MissingRows.find(split, stream).rows


def advise_continuing(committed: Split, stream: str) -> str:
    """Advice: how to continue an existing stream with the options that it was made with."""
    do = fill_command(committed, stream)
    if "imported" in committed.open_stream(stream).manifest:
        return f"It is imported; to continue it: {do}"
    return f"To continue it, name its options in luigi.cfg, or here: {do}"


def fill_command(split: Split, stream: str, *more: str) -> str:
    """The command that extracts or imports the stream with its recorded options. more: further
    options of `extract`.
    """
    manifest = split.open_stream(stream).manifest
    imported = manifest.get("imported") or split.manifest.get("reader", {}).get("imported")
    if imported and imported["format"] != "bodies":  # streams of imported bodies are extracted
        return _import_command(split, stream, imported)
    options = _recorded_options(split, stream)
    words = ["extract", split.name, "--stream", stream, "--cache", from_here(split.root)]
    return command(*words, *options, *more)


def _recorded_options(split: Split, name: str) -> list[str]:
    """The options of `extract` for the recorded kind and options of a stream."""
    identity = split.open_stream(name).identity
    kind = identity.get("kind", name)
    words = [] if kind == name else ["--kind", str(kind)]
    stream = _recorded_stream(split, name, identity)
    if stream is None:
        return words
    for option in fields(stream):
        key = option.name
        value = getattr(stream, key)
        if value == option.default and key not in identity:
            continue
        if key in _BY_NAME:
            words += [f"--{key}", text_of(value)]
        else:
            words += ["--set", f"{name}.{key}={text_of(value)}"]
    return words


def _recorded_stream(split: Split, name: str, identity: Mapping[str, Any]) -> Stream | None:
    """The stream of this identity, with the file of weights that provenance.json names; None if it
    cannot be made here.
    """
    weights = identity.get("weights")
    file = split.open_stream(name).provenance.get("weights_file")
    if file and isinstance(weights, Mapping):
        identity = {**identity, "weights": {"kind": weights["kind"], "argument": file}}
    try:
        return streams.of_identity(identity)
    except PipelineError:  # its package is not installed
        return None


def _import_command(split: Split, stream: str, imported: Mapping[str, Any]) -> str:
    """The command that imports a stream again, from the file that provenance.json names."""
    provenance = split.provenance
    options = list[str]()
    if imported["format"] == "arrays":
        provenance = split.open_stream(stream).provenance
        options += ["--array", imported["array"]]
    else:
        options += ["--crop-scale", str(imported["crop_scale"])]
    file = str(provenance.get("imported", imported["file"]))
    words = ["import", file, split.name, "--format", imported["format"]]
    return command(*words, "--as", stream, *options, "--cache", from_here(split.root))
