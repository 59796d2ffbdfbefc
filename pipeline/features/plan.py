"""Plan an extraction: the missing rows of a stream.  tracks -> [features] -> windows

Commands and Luigi tasks call `plan_extraction`, which refuses streams that cannot be extended, or
`compare_stream`, which tells why instead. Both return an `ExtractionPlan` of the stream's
`MissingRows`, which `extract.py` carries out. The other functions describe committed streams.

A committed shard of a split never changes and gets no further tracks. So a stream lacks rows only
if it lacks a whole shard that has tracks, or has recorded rows as pending. Nothing here imports
torch. Words:

    pending    of a row: its shard is written without it, because its video could not be read
    lost       of a video: it cannot be read now
    replaced   of a video: a newer version of it has other tracks; the old rows stay in their shards
    carried    of a row: its features are copied from a replaced row with equal pixels and box
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from cache.format.manifest import lost_manifest
from cache.windows import Ranges
from pipeline.cli.text import command, count, text_of
from pipeline.conversion.identity import Difference, describe, find_differences
from pipeline.conversion.plan import UNFINISHED
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Stream

NOT_RECORDED: Final = "not recorded"  # of imported features
# reasons why all rows of a stream are extracted
NEW: Final = "not extracted before"
MANIFEST_LOST: Final = "its manifest is lost"
REPLACE: Final = "--replace"
# reasons why an existing stream is extended: shards are missing; only rows in its shards are
CHANGED: Final = "the split has changed"
WAITING: Final = "some videos could not be read before"
# what to do about a stream that differs from its record
OTHER_NAME: Final = (
    "Use another stream name (--stream NAME, [features] streams), or recompute it: extract "
    "--replace."
)
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
            shards = [shard for shard in split.open_stream(stream).shards if shard < len(n_live)]
            pending = split.open_stream(stream).pending_rows()
        is_missing = n_live > 0
        is_missing[shards] = False
        n_pending = int((pending[:, 1] - pending[:, 0]).sum())
        return cls(
            shards=tuple(np.flatnonzero(is_missing).tolist()),
            pending=pending,
            rows=int(n_live[is_missing].sum()) + n_pending,
            rows_per_shard=split.rows_per_shard,
        )


@dataclass(frozen=True, slots=True)
class ExtractionPlan:
    """The plan to extract one stream of one split. It is one of these cases:

        case                                why                   missing     replace
        the split lacks columns it needs    ""                    None        False
        it is new                           NEW                   all rows    False
        it lost its manifest, replace       MANIFEST_LOST         all rows    True
        it exists, and is to be replaced    REPLACE               all rows    True
        it exists, and rows are missing     CHANGED or WAITING    these rows  False
        its last commit was interrupted     UNFINISHED            no rows     False
        it is up to date                    ""                    no rows     False

    An existing stream that `differs` is refused, unless it is replaced.
    """

    root: cache.Root
    split: str
    spec: StreamSpec
    identity: Mapping[str, Any]  # everything that decides the stream's rows besides its inputs
    replace: bool = False  # delete the existing stream before
    why: str = ""  # why there is something to extract, for messages; "": there is nothing
    missing: MissingRows | None = None  # the rows to extract
    # differences between the recorded identity and this one; if any, the extraction is refused
    differs: tuple[Difference, ...] = ()
    # why it is not extracted: it differs from the recorded one, or its rows are imported; "": it is
    refusal: str = ""

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to extract."""
        return not self.why


def plan_extraction(
    root: cache.Root, split: str, spec: StreamSpec, *, replace: bool = False
) -> ExtractionPlan:
    """Plan the extraction of a stream: find what the committed stream lacks.

    Args:
        replace: recompute an existing stream. This repairs lost shards and retries undecodable
            frames.

    Raises CacheError if the split does not exist, PipelineError if the committed stream has other
    weights, precision or options, or if a stream of crops needs a column that the split lacks.
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
    """Plan the extraction for an open split, without refusing it: differences from the committed
    stream are in `differs`.
    """
    identity = spec.stream.identity()
    make = functools.partial(ExtractionPlan, committed.root, committed.name, spec, identity)
    if not committed.known_columns.issuperset(spec.stream.needs):
        return make()

    why = _why_all_rows(committed, spec.name, replace=replace)
    if why:
        missing = MissingRows.find(committed, None)
        refusal = _refuse_imported(committed, spec, why)
        return make(why=why, missing=missing, replace=why != NEW, refusal=refusal)

    missing = MissingRows.find(committed, spec.name)
    why = _why_extended(committed, spec.name, missing)
    recorded = _recorded_identity(committed, spec.name)
    if recorded.get("kind") == identity["kind"] == IMPORTED:  # settings do not name its file
        return make(why=why, missing=missing, refusal=_refuse_imported(committed, spec, why))
    differs = tuple(find_differences(recorded, identity))
    refusal = ""
    if differs:
        about = f"{committed.name}: stream {spec.name!r} was extracted differently"
        advice = f"{OTHER_NAME} {advise_continuing(committed, spec.name)}"
        refusal = f"{about}: {describe(recorded, identity)}. {advice}"
    return make(why=why, missing=missing, differs=differs, refusal=refusal)


def _refuse_imported(committed: Split, spec: StreamSpec, why: str) -> str:
    """Why rows of an imported stream are not extracted; "" for other streams and without rows."""
    if not why or spec.stream.kind != IMPORTED:
        return ""
    words = ["import", "FILE", committed.name, "--format", "arrays", "--as", spec.name]
    do = command(*words, "--cache", str(committed.root))
    if spec.name in committed.streams:
        do = fill_command(committed, spec.name)
    about = f"{committed.name}: stream {spec.name!r} is imported and cannot be extracted ({why})"
    return f"{about}. Import it: {do}"


def advise_continuing(committed: Split, stream: str) -> str:
    """Advice: how to continue an existing stream with the options that it was made with."""
    do = fill_command(committed, stream)
    if "imported" in committed.open_stream(stream).manifest:
        return f"It is imported; to continue it: {do}"
    return f"To continue it, name its options in luigi.cfg, or here: {do}"


def _why_all_rows(committed: Split, stream: str, *, replace: bool) -> str:
    """Why all rows of a stream are to be extracted; "" if it exists and is not to be replaced."""
    if stream in committed.streams:
        return REPLACE if replace else ""
    # a stream without its manifest counts as new, but `replace` deletes its arrays first
    if replace and lost_manifest(committed.place(stream)) is not None:
        return MANIFEST_LOST
    return NEW


def _why_extended(committed: Split, stream: str, missing: MissingRows) -> str:
    """Why an existing stream has to be extended, or its commit finished; "" if it has not."""
    if missing.shards:
        return CHANGED
    if missing.rows:
        return WAITING
    if committed.has_unfinished_commit(stream):
        return UNFINISHED
    return ""


def _recorded_identity(committed: Split, stream: str) -> Mapping[str, Any]:
    """The identity in a stream's manifest. Raises PipelineError if there is none, because another
    program wrote the stream.
    """
    identity: Mapping[str, Any] | None = committed.open_stream(stream).manifest.get("identity")
    if identity is None:
        why = "has no recorded identity: another program wrote it"
        raise PipelineError(f"{committed.name}: stream {stream!r} {why}. {OTHER_NAME}")
    return identity


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
    if kind and kind not in streams.names():
        marks.append("package not installed")
    if not marks:
        return stream
    return f"{stream} ({', '.join(marks)})"


def is_current(split: Split, stream: str) -> bool:
    """Whether the stream has every row of the split's tracks."""
    return not MissingRows.find(split, stream).rows


def fill_command(split: Split, stream: str, *more: str) -> str:
    """The command that extracts or imports the stream with its recorded options. more: further
    options of `extract`.
    """
    manifest = split.open_stream(stream).manifest
    imported = manifest.get("imported") or split.manifest.get("reader", {}).get("imported")
    if imported and imported["format"] != "bodies":  # streams of imported bodies are extracted
        return _import_command(split, stream, imported)
    options = _recorded_options(split, stream)
    words = ["extract", split.name, "--stream", stream, "--cache", str(split.root)]
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
    return command(*words, "--as", stream, *options, "--cache", str(split.root))
