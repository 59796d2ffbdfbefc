"""Import of VIBE's or TCMR's database files as splits with features.  [database files -> tracks,
features]

In comes one database file, with arrays that have a row for each frame of a person. Out go a split
of the cache and, if the file has features, a stream of them. The tracks are committed first, then
the features; a killed import continues with the next shard. The split's manifest records the file,
so that no command mistakes it for a conversion.

    `open_database` -> `resolve_layout` (joint order, crop scale) -> `_write_tracks` ->
    `_write_stream`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.cli.progress import Progress, silent
from pipeline.conversion.committed import refuse_mixed_cache
from pipeline.conversion.identity import describe, report_other_work
from pipeline.conversion.plan import committed_split
from pipeline.errors import PipelineError
from pipeline.exchange.array_files import StampedFile
from pipeline.exchange.arrays import open_writer, write_shards
from pipeline.exchange.formats import provenance_path
from pipeline.exchange.matching import Match
from pipeline.exchange.vibe_db.database import open_database
from pipeline.exchange.vibe_db.joint_orders import resolve_layout
from pipeline.exchange.vibe_db.layouts import layout_of
from pipeline.exchange.vibe_db.provenance import Provenance, read_provenance
from pipeline.exchange.vibe_db.tracks import FileReader, columns_of
from pipeline.features.plan import is_current, missing_rows
from pipeline.features.streams.network import ResNet50
from pipeline.processes.software import staging_plan
from pipeline.skeletons import joint_names

VERSION: Final = 1  # raised whenever the same file would give different tracks


@dataclass(frozen=True, slots=True)
class ImportedSplit:
    """Result of an import."""

    rows: int  # of the split
    tracks: int
    totals: Mapping[str, Any]
    stream: str | None  # None: the file has no features
    without_features: int  # rows whose features are not finite
    ignored: tuple[str, ...]  # names in the file that are not imported
    is_demo: bool
    is_untrained: bool  # the features are of random weights
    is_written: bool  # False: everything was up to date


def import_database(
    file: Path,
    root: cache.Root,
    name: str,
    *,
    stream: str = ResNet50.kind,
    joints_2d: str | None = None,
    crop_scale: float | None = None,
    progress: Progress = silent,
) -> ImportedSplit:
    """Make the split `name` in the cache `root` from a database file, with its features as the
    stream.

    Args:
        joints_2d: A key of `joint_orders.ORDERS`; None: from the number of joints.
        crop_scale: Crop side / box side; None: that of the dataset's usual features.

    Raises:
        RawDataError: the file is invalid.
        UnsafePickle: the file would run code.
        PipelineError: the split exists and has another origin.
        cache.CacheError: another process writes the split.
    """
    opened = _open_file(file, name, joints_2d, crop_scale)
    origin = _origin(opened)
    is_written = False
    if not _is_committed(root, name, origin):
        refuse_mixed_cache(root, name, stand_in=opened.provenance.is_demo)
        _write_tracks(root, name, opened.tracks, origin, progress)
        is_written = True
    cache.finish_commits(root, name)  # of an import that was killed
    imported_stream = None
    if "features" in opened.tracks.database.fields:
        imported_stream = stream
        is_written |= _write_stream(root, name, stream, opened)
    return _result(cache.open(root)[name], imported_stream, opened, is_written=is_written)


class _OpenedFile(NamedTuple):
    """A database file, and what our export recorded of it."""

    tracks: FileReader
    provenance: Provenance


def _open_file(
    file: Path, name: str, joints_2d: str | None, crop_scale: float | None
) -> _OpenedFile:
    """Open a database file, to be read as the split `name`."""
    dataset, _, part = name.partition("/")
    reader = datasets.get(dataset)
    reader.check_split(part)
    stamped = StampedFile.stamp(file)
    provenance = read_provenance(file, stamped.sha256)
    _require_own_dataset(file, name, provenance)

    would_fill = reader.columns(part, body=True)
    usual = layout_of(dataset, part, would_fill)
    database = open_database(file, usual)
    layout = resolve_layout(usual, database, provenance, joints_2d, crop_scale)
    columns = columns_of(database, layout, evaluation="kp_3d_eval" in would_fill)
    tracks = FileReader(database, layout, dataset, part, columns, stamped)
    return _OpenedFile(tracks, provenance)


def _result(
    split: cache.Split, stream: str | None, opened: _OpenedFile, *, is_written: bool
) -> ImportedSplit:
    """What the import tells of the split as it is committed now."""
    without_features = 0
    if stream is not None:
        without_features = split.open_stream(stream).undecodable()
    provenance = opened.provenance
    return ImportedSplit(
        rows=int(split.manifest["rows"]),
        tracks=len(split.tracks),
        totals=split.manifest["accounting"],
        stream=stream,
        without_features=without_features,
        ignored=opened.tracks.database.ignored,
        is_demo=provenance.is_demo,
        is_untrained=provenance.is_stand_in and not provenance.is_demo,
        is_written=is_written,
    )


def _origin(opened: _OpenedFile) -> dict[str, Any]:
    """The manifest's `reader` entry."""
    tracks = opened.tracks
    provenance = opened.provenance
    joints_2d = None
    if "kp_2d" in tracks.columns:
        joints_2d = list(joint_names(tracks.layout.joints_2d))
    imported = {
        "format": "vibe",
        "file": tracks.file.path.name,
        "sha256": tracks.file.sha256,
        "joints_2d": joints_2d,
        "crop_scale": tracks.layout.crop_scale,
        "from_split": provenance.split_digest,
    }
    if provenance.estimates:
        imported["estimates"] = provenance.estimates
    return {
        "dataset": tracks.dataset,
        "split": tracks.split,
        "version": VERSION,
        "parameters": {},
        "body": None,
        "stand_in": provenance.is_demo,
        "imported": imported,
    }


def _is_committed(root: cache.Root, name: str, origin: Mapping[str, Any]) -> bool:
    """Whether the split has the tracks of this origin. Raises PipelineError if it has others."""
    committed = committed_split(root, name)
    if committed is None:
        return False
    before = committed.manifest.get("reader", {})
    if before != origin:
        raise _other_tracks(f"{root}/{name}", before, origin)
    return True


def _write_tracks(
    root: cache.Root, name: str, tracks: FileReader, origin: Mapping[str, Any], progress: Progress
) -> None:
    """Write and commit the videos of the file. A killed run continues after the last video."""
    plan = staging_plan(cache.fingerprint(origin))
    report_other_work(root, name, None, plan)
    provenance = {"imported": str(tracks.file.path.resolve())}
    with cache.SplitWriter(
        root, name, columns=tracks.columns, plan=plan, provenance=provenance
    ) as writer:
        following = writer.begin()
        finished = set(following.journalled)
        n_rows = 0
        for video in tracks.videos():
            n_rows += video.account.found
            if video.entry.name not in finished:
                following.append(video.entry, [track.rows for track in video.tracks])
            progress(n_rows, tracks.database.rows, "labels")
        accounts = [VideoAccount.from_dict(dict(account)) for account in following.accounts()]
        totals = Accounting(accounts).totals()
        tracks.file.require_unchanged()
        following.commit(
            {"reader": dict(origin), "stand_in": origin["stand_in"], "accounting": totals}
        )


def _write_stream(root: cache.Root, name: str, stream: str, opened: _OpenedFile) -> bool:
    """Write the features of the committed rows. Returns False if they are up to date.

    Raises PipelineError for a stream of another origin.
    """
    tracks = opened.tracks
    entries = _stream_entries(opened)
    identity = entries["identity"]
    split = cache.open(root)[name]
    if stream in split.streams:
        differences = describe(split.open_stream(stream).identity, identity)
        if differences:
            raise _other_stream(name, stream, differences)
        if is_current(split, stream):
            return False
    # of each row of the split, its number in the file
    in_file = np.concatenate([video.rows for video in tracks.videos()])
    match = Match(
        arrays=tracks.database.arrays,
        array="features",
        rows=np.arange(len(in_file)),
        position=in_file,
        digest=None,
    )
    origin = cache.fingerprint(identity)
    with open_writer(root, name, stream, match, origin, "float16") as writer:
        if stream in split.streams:
            writer.reopen(missing_rows(split, stream).incomplete)
        write_shards(writer, match, int(tracks.file.sha256[:16], 16), silent)
        tracks.file.require_unchanged()
        writer.commit(entries)
    return True


def _stream_entries(opened: _OpenedFile) -> dict[str, Any]:
    """Entries of the stream's manifest."""
    provenance = opened.provenance
    backbone = provenance.backbone
    if backbone is None:
        backbone = {"weights": provenance.weights, "sha256": None, "stand_in": False}
    identity = {
        "kind": "imported",
        "version": VERSION,
        "file_sha256": opened.tracks.file.sha256,
        "weights": provenance.weights,
        "precision": None,
    }
    return {"identity": identity, "backbone": backbone, "stand_in": provenance.is_stand_in}


def _require_own_dataset(file: Path, name: str, provenance: Provenance) -> None:
    """Raise PipelineError if the file was exported from a split of another dataset."""
    source = provenance.split
    if source is not None and source.partition("/")[0] != name.partition("/")[0]:
        raise PipelineError(
            f"{file}: was exported from {source} ({provenance_path(file).name}), "
            f"so it cannot become {name}. Import it as a split of its own dataset."
        )


def _other_tracks(
    place: str, before: Mapping[str, Any], origin: Mapping[str, Any]
) -> PipelineError:
    """The error for a split with tracks of another origin. place: of the split."""
    earlier = "converted from raw data"
    if "imported" in before:
        earlier = f"imported from {before['imported']['file']}"
        changed = describe(before["imported"], origin["imported"])
        if changed:
            earlier += f" ({changed})"
    return PipelineError(
        f"{place}: was {earlier}. An import cannot extend it: name another cache (--cache), or "
        "delete that folder with its features."
    )


def _other_stream(name: str, stream: str, differences: str) -> PipelineError:
    """The error for a stream of another origin."""
    return PipelineError(
        f"{name}: stream {stream!r} has another origin ({differences}). Use another name "
        "(--as NAME)."
    )
