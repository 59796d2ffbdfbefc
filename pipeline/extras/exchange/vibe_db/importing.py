"""Import of VIBE's or TCMR's database files as splits with features.  [database files -> tracks,
features]

In comes one database file, with arrays that have a row for each frame of a person. Out go a split
of the cache and, if the file has features, a stream of them. The tracks are committed first, then
the features; a killed import continues with the next shard. The split's manifest records the file,
so that no command mistakes it for a conversion.

    `Database.open` -> `_resolve_layout` (joint order, crop scale) -> `_write_tracks` ->
    `_write_stream`

The dataset's layout tells which joint order and crop scale its files usually have. A file may have
others: the user's options, the file's provenance and its number of joints tell which, in this
order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from pipeline import datasets
from pipeline.accounting import Accounting, VideoAccount
from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.extras.exchange.array_files import StampedFile
from pipeline.extras.exchange.array_rows import Match
from pipeline.extras.exchange.vibe_db.database import Database, DatabaseLayout
from pipeline.extras.exchange.vibe_db.labels import LabelReader
from pipeline.extras.exchange.vibe_db.tracks import FileReader
from pipeline.features.committed import MissingRows, is_current
from pipeline.features.streams.network import ResNet50
from pipeline.people.skeletons import JOINTS, Skeleton, joint_names
from pipeline.processes.software import staging_plan
from pipeline.steps.conversion.identity import describe, report_other_work
from pipeline.steps.conversion.refusals import refuse_mixed_cache
from pipeline.steps.conversion_record import ConversionRecord, committed_split
from pipeline.steps.grading import announce_grades, store_grades

VERSION: Final = 1  # raised whenever the same file would give different tracks
_WITHOUT_NECK: Final = "common13"
ORDERS: Final[Mapping[str, Skeleton]] = {  # the values of --joints-2d
    **{name: name for name in JOINTS if name != "smpl54"},
    _WITHOUT_NECK: tuple(name for name in JOINTS["common14"] if name != "neck"),
}
_BY_NUMBER: Final = {49: "spin49", 14: "common14"}  # number of joints -> their order


@dataclass(frozen=True, slots=True)
class _ImportedSplit:
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
) -> _ImportedSplit:
    """Make the split `name` in the cache `root` from a database file, with its features as the
    stream.

    Args:
        joints_2d: A key of `ORDERS`; None: from the number of joints.
        crop_scale: Crop side / box side; None: that of the dataset's usual features.

    Raises:
        RawDataError: the file is invalid.
        UnsafePickle: the file would run code.
        PipelineError: the split exists and has another origin.
        cache.CacheError: another process writes the split.
    """
    tracks = _open_file(file, name, joints_2d, crop_scale)
    origin = _origin(tracks)
    is_written = False
    if not _is_committed(root, name, origin):
        refuse_mixed_cache(root, name, stand_in=tracks.database.provenance.is_demo)
        _write_tracks(root, name, tracks, origin, progress)
        is_written = True
    cache.finish_commits(root, name)  # of an import that was killed
    store_grades(root, name, progress=progress)
    imported_stream = None
    if "features" in tracks.database.fields:
        imported_stream = stream
        is_written |= _write_stream(root, name, stream, tracks)
    return _result(cache.open(root)[name], imported_stream, tracks, is_written=is_written)


def _open_file(
    file: Path, name: str, joints_2d: str | None, crop_scale: float | None
) -> FileReader:
    """Open a database file, to be read as the split `name`."""
    dataset, _, part = name.partition("/")
    reader = datasets.get(dataset)
    reader.check_split(part)
    stamped = StampedFile.stamp(file)
    would_fill = reader.columns(part, body=True)
    usual = DatabaseLayout.find(dataset, part, would_fill)
    database = Database.open(stamped, usual, name)
    layout = _resolve_layout(usual, database, joints_2d, crop_scale)
    labels = LabelReader(database, layout, needs_evaluation="kp_3d_eval" in would_fill)
    return FileReader(database, labels, dataset, part, stamped)


def _result(
    split: cache.Split, stream: str | None, tracks: FileReader, *, is_written: bool
) -> _ImportedSplit:
    """What the import tells of the split as it is committed now."""
    without_features = 0
    if stream is not None:
        without_features = split.open_stream(stream).undecodable()
    provenance = tracks.database.provenance
    return _ImportedSplit(
        rows=int(split.manifest["rows"]),
        tracks=len(split.tracks),
        totals=split.manifest["accounting"],
        stream=stream,
        without_features=without_features,
        ignored=tracks.database.ignored,
        is_demo=provenance.is_demo,
        is_untrained=provenance.is_stand_in and not provenance.is_demo,
        is_written=is_written,
    )


def _origin(tracks: FileReader) -> dict[str, Any]:
    """The manifest's `reader` entry."""
    provenance = tracks.database.provenance
    joints_2d = None
    if "kp_2d" in tracks.columns:
        joints_2d = list(joint_names(tracks.labels.layout.joints_2d))
    imported = {
        "format": "vibe",
        "file": tracks.file.path.name,
        "sha256": tracks.file.sha256,
        "joints_2d": joints_2d,
        "crop_scale": tracks.labels.layout.crop_scale,
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
    before = ConversionRecord(committed).reader
    if before == origin:
        return True
    earlier = "converted from raw data"
    if "imported" in before:
        earlier = f"imported from {before['imported']['file']}"
        changed = describe(before["imported"], origin["imported"])
        if changed:
            earlier += f" ({changed})"
    raise PipelineError(
        f"{root}/{name}: was {earlier}. An import cannot extend it: name another cache (--cache), "
        "or delete that folder with its features."
    )


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
        announce_grades(root, name)
        following.commit(
            {"reader": dict(origin), "stand_in": origin["stand_in"], "accounting": totals}
        )


def _write_stream(root: cache.Root, name: str, stream: str, tracks: FileReader) -> bool:
    """Write the features of the committed rows. Returns False if they are up to date.

    Raises PipelineError for a stream of another origin.
    """
    entries = _stream_entries(tracks)
    identity = entries["identity"]
    split = cache.open(root)[name]
    if stream in split.streams:
        differences = describe(split.open_stream(stream).identity, identity)
        if differences:
            raise PipelineError(
                f"{name}: stream {stream!r} has another origin ({differences}). Use another name "
                "(--as NAME)."
            )
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
    with match.open_writer(root, name, stream, origin, "float16") as writer:
        if stream in split.streams:
            writer.reopen(MissingRows.find(split, stream).incomplete)
        match.write_shards(writer, int(tracks.file.sha256[:16], 16), silent)
        tracks.file.require_unchanged()
        writer.commit(entries)
    return True


def _stream_entries(tracks: FileReader) -> dict[str, Any]:
    """Entries of the stream's manifest."""
    provenance = tracks.database.provenance
    backbone = provenance.backbone
    if backbone is None:
        backbone = {"weights": provenance.weights, "sha256": None, "stand_in": False}
    identity = {
        "kind": "imported",
        "version": VERSION,
        "file_sha256": tracks.file.sha256,
        "weights": provenance.weights,
        "precision": None,
    }
    return {"identity": identity, "backbone": backbone, "stand_in": provenance.is_stand_in}


def _resolve_layout(
    layout: DatabaseLayout,
    database: Database,
    joints_2d: str | None,
    crop_scale: float | None,
) -> DatabaseLayout:
    """Set the layout's joint orders and crop scale to those of this file.

    joints_2d, crop_scale: the user's options. Raises PipelineError for a crop scale out of range,
    RawDataError for joints in an unknown order.
    """
    scales = crop_scale, database.provenance.crop_scale, layout.crop_scale
    scale = next(scale for scale in scales if scale is not None)
    if not isinstance(scale, int | float) or not 0 < scale < 10:
        raise PipelineError(f"crop scale {scale!r}: expected crop side / box side, such as 1.3")
    layout = replace(layout, crop_scale=float(scale))
    if "joints2D" in database.fields:
        layout = replace(layout, joints_2d=_joints_2d(layout, database, joints_2d))
    if "joints3D" in database.fields:
        layout = replace(layout, joints_3d=_joints_3d(layout, database))
    return layout


def _joints_2d(layout: DatabaseLayout, database: Database, chosen: str | None) -> Skeleton:
    """Joint order of joints2D. chosen: the user's option."""
    n_joints = database.fields["joints2D"].shape[1]
    is_usual = n_joints == len(joint_names(layout.joints_2d))
    order: Skeleton
    if chosen is not None:
        order = ORDERS[chosen]
    elif database.provenance.joints_2d is not None:
        order = database.provenance.joints_2d
    elif is_usual and layout.joints_2d == "penn_action":
        do = (
            f"Set --joints-2d {_WITHOUT_NECK}, in which VIBE's scripts write them, or --joints-2d "
            "penn_action, as which they read them."
        )
        raise database.error("joints2D", "13 joints in a known order", "13 joints", do)
    elif is_usual or n_joints not in _BY_NUMBER:
        order = layout.joints_2d
    else:
        order = _BY_NUMBER[n_joints]
    n_expected = len(joint_names(order))
    if n_expected != n_joints:
        do = "Set their order: --joints-2d NAME."
        raise database.error("joints2D", f"{n_expected} joints", f"{n_joints}", do)
    return order


def _joints_3d(layout: DatabaseLayout, database: Database) -> str:
    """Joint order of joints3D."""
    n_joints = database.fields["joints3D"].shape[1]
    if n_joints == len(JOINTS["spin49"]):
        return "spin49"
    if layout.joints_3d == "spin49":
        do = "Only test and validation files have 14."
        raise database.error("joints3D", "49 joints", f"{n_joints}", do)
    return layout.joints_3d
