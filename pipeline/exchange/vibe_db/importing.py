"""Import of VIBE's or TCMR's database files as splits with features.  [database files -> tracks,
features]

In comes one database file, with arrays that have a row for each frame of a person. Out go a split
of the cache and, if the file has features, a stream of them. The tracks are committed first, then
the features; a killed import continues with the next shard. The split's manifest records the file,
so that no command mistakes it for a conversion.

    `open_database` -> `_resolve_layout` (joint order, crop scale) -> `_write_tracks` ->
    `_write_stream`
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
from pipeline.conversion.committed import refuse_mixed_cache
from pipeline.conversion.identity import describe, report_other_work
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError, RawDataError
from pipeline.exchange.arrays import open_writer, write_shards
from pipeline.exchange.formats import provenance_path
from pipeline.exchange.matching import Match
from pipeline.exchange.vibe_db.database import Database, open_database
from pipeline.exchange.vibe_db.layouts import Layout, layout_of, read_provenance
from pipeline.exchange.vibe_db.tracks import FileReader, columns_of
from pipeline.features.plan import is_current, missing_rows
from pipeline.features.streams.network import ResNet50
from pipeline.files.formats.arrays import file_state, reading, require_unchanged
from pipeline.files.raw.files import whole_file_digest
from pipeline.processes.software import staging_plan
from pipeline.skeletons import JOINTS, Skeleton, joint_names

VERSION: Final = 1  # raised whenever the same file would give different tracks
WITHOUT_NECK: Final = "common13"
ORDERS: Final[Mapping[str, Skeleton]] = {  # the values of --joints-2d
    **{name: name for name in JOINTS if name != "smpl54"},
    WITHOUT_NECK: tuple(name for name in JOINTS["common14"] if name != "neck"),
}
_BY_NUMBER: Final = {49: "spin49", 14: "common14"}  # number of joints -> their order
_SAMPLE: Final = 4096  # rows that are read to guess the order of 13 joints


@dataclass(frozen=True, slots=True)
class _ImportedSplit:
    """Result of an import. `why` is "" if everything was up to date."""

    rows: int  # of the split
    tracks: int
    totals: Mapping[str, Any]
    stream: str | None  # None: the file has no features
    without_features: int  # rows whose features are not finite
    ignored: tuple[str, ...]  # names in the file that are not imported
    mark: str  # "demo data", "untrained" (features of random weights), or ""
    why: str


@dataclass(frozen=True, slots=True)
class Options:
    """Options of an import, besides file and split."""

    stream: str = ResNet50.kind
    weights_of: str | None = None  # description of the network that computed the features
    joints_2d: str | None = None  # a key of ORDERS; None: from the number of joints
    crop_scale: float | None = None  # None: that of the dataset's usual features


def import_database(
    file: Path,
    root: cache.Root,
    name: str,
    options: Options = Options(),
    *,
    progress: Progress = silent,
) -> _ImportedSplit:
    """Make the split `name` in the cache `root` from a database file, with its features as a
    stream.

    Raises:
        RawDataError: the file is invalid.
        UnsafePickle: the file would run code.
        PipelineError: the split exists and has another origin.
        cache.CacheError: another process writes the split.
    """
    dataset, _, part = name.partition("/")
    reader = datasets.get(dataset)
    reader.check_split(part)
    would_fill = reader.columns(part, body=True)
    layout = layout_of(dataset, part, would_fill)
    state = file_state(file, do="Check the path.")
    with reading(file, "a file", do="Check the path."):
        digest = whole_file_digest(file)
    provenance = read_provenance(file, digest)
    if str(provenance.get("split", name)).partition("/")[0] != dataset:
        raise PipelineError(
            f"{file}: was exported from {provenance['split']} ({provenance_path(file).name}), "
            f"so it cannot become {name}. Import it as a split of its own dataset."
        )
    database = open_database(file, layout)
    layout = _resolve_layout(layout, database, provenance, options)
    columns = columns_of(database, layout, evaluation="kp_3d_eval" in would_fill)
    tracks = FileReader(database, layout, dataset, part, columns, digest, state)
    origin = _origin(reader, part, tracks, provenance)
    why = _why(root, name, origin)
    if why:
        refuse_mixed_cache(root, name, stand_in=origin["stand_in"])
        _write_tracks(root, name, tracks, origin, progress)
    cache.finish_commits(root, name)  # of an import that was killed
    stream = None
    if "features" in database.fields:
        stream = options.stream
        if _write_stream(root, name, stream, tracks, provenance, options):
            why = why or "its features were missing"
    mark = ""
    if origin["stand_in"]:
        mark = "demo data"
    elif provenance.get("stand_in"):
        mark = "untrained"
    split = cache.open(root)[name]
    return _result(split, stream, ignored=database.ignored, mark=mark, why=why)


def _result(
    split: cache.Split, stream: str | None, *, ignored: tuple[str, ...], mark: str, why: str
) -> _ImportedSplit:
    """What the import tells of the split as it is committed now."""
    without_features = 0
    if stream is not None:
        without_features = split.undecodable(stream)
    return _ImportedSplit(
        rows=int(split.manifest["rows"]),
        tracks=len(split.tracks),
        totals=split.manifest["accounting"],
        stream=stream,
        without_features=without_features,
        ignored=ignored,
        mark=mark,
        why=why,
    )


def _resolve_layout(
    layout: Layout, database: Database, provenance: Mapping[str, Any], options: Options
) -> Layout:
    """Set the layout's joint orders and crop scale to those of this file."""
    scale: object = options.crop_scale
    if scale is None:
        scale = provenance.get("crop_scale")
    if scale is None:
        scale = layout.crop_scale
    if not isinstance(scale, int | float) or not 0 < scale < 10:
        raise PipelineError(f"crop scale {scale!r}: expected crop side / box side, such as 1.3")
    layout = replace(layout, crop_scale=float(scale))
    if "joints2D" in database.fields:
        layout = replace(layout, joints_2d=_joints_2d(layout, database, provenance, options))
    if "joints3D" in database.fields:
        n_joints = database.fields["joints3D"].shape[1]
        if n_joints == len(JOINTS["spin49"]):
            return replace(layout, joints_3d="spin49")
        if layout.joints_3d == "spin49":
            do = "Only test and validation files have 14."
            raise database.error("joints3D", "49 joints", f"{n_joints}", do)
    return layout


def _joints_2d(
    layout: Layout, database: Database, provenance: Mapping[str, Any], options: Options
) -> Skeleton:
    """Joint order of joints2D: from the option, the file's provenance, or the number of joints."""
    n_joints = database.fields["joints2D"].shape[1]
    recorded = provenance.get("joints", {}).get("joints2D")
    is_usual = n_joints == len(joint_names(layout.joints_2d))
    order: Skeleton
    if options.joints_2d is not None:
        order = ORDERS[options.joints_2d]
    elif isinstance(recorded, list) and all(isinstance(joint, str) for joint in recorded):
        name_of = {joints: name for name, joints in JOINTS.items()}
        order = tuple(recorded)
        order = name_of.get(order, order)
    elif is_usual and layout.joints_2d == "penn_action":
        raise _ambiguous_order(database)
    elif is_usual:
        order = layout.joints_2d
    else:
        order = _BY_NUMBER.get(n_joints, ())
    if len(joint_names(order)) != n_joints:
        expected = f"{len(joint_names(order or layout.joints_2d))} joints"
        do = "Set their order: --joints-2d NAME."
        raise database.error("joints2D", expected, f"{n_joints}", do)
    return order


def _ambiguous_order(database: Database) -> RawDataError:
    """The error for 13 joints, with what speaks for one order."""
    joints = database.read("joints2D", 0, min(database.rows, _SAMPLE))
    first = joints[:, 0]
    last = joints[:, -1]
    is_visible = (first[:, 2] > 0) & (last[:, 2] > 0)
    n_visible = np.count_nonzero(is_visible)
    share = "none"
    if n_visible:
        # y points down and most people stand: the head's joint is above the feet's.
        is_above = first[is_visible, 1] < last[is_visible, 1]
        share = f"{float(is_above.mean()):.0%}"
    return database.error(
        "joints2D",
        "13 joints in a known order",
        f"13 joints, the first above the last in {share} of {n_visible:,} frames "
        f"(penn_action: most, {WITHOUT_NECK}: few)",
        "VIBE's scripts write 13 joints in LSP's order without the neck, but read them as "
        "Penn Action's. Set "
        f"--joints-2d {WITHOUT_NECK} (VIBE's) or --joints-2d penn_action.",
    )


def _origin(
    dataset: Dataset, split: str, tracks: FileReader, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest's `reader` entry."""
    layout = tracks.layout
    joints_2d = None
    if "kp_2d" in tracks.columns:
        joints_2d = list(joint_names(layout.joints_2d))
    imported = {
        "format": "vibe",
        "file": tracks.database.arrays.file.name,
        "sha256": tracks.digest,
        "joints_2d": joints_2d,
        "crop_scale": layout.crop_scale,
        "from_split": provenance.get("split_digest"),
    }
    if provenance.get("estimates"):
        imported["estimates"] = provenance["estimates"]
    return {
        "dataset": dataset.name,
        "split": split,
        "version": VERSION,
        "parameters": {},
        "body": None,
        "stand_in": bool(provenance.get("demo", False)),
        "imported": imported,
    }


def _why(root: cache.Root, name: str, origin: Mapping[str, Any]) -> str:
    """Why the tracks must be written; "" if they are up to date. Raises PipelineError for another
    origin.
    """
    committed = committed_split(root, name)
    if committed is None:
        return "not imported before"
    before = committed.manifest.get("reader", {})
    if before == origin:
        return ""
    earlier = "converted from raw data"
    if "imported" in before:
        earlier = f"imported from {before['imported']['file']}"
        changed = describe(before["imported"], origin["imported"])
        if changed:
            earlier += f" ({changed})"
    raise PipelineError(
        f"{root}/{name}: was {earlier}. An import cannot "
        "extend it: name another cache (--cache), or delete that folder with its features."
    )


def _write_tracks(
    root: cache.Root, name: str, tracks: FileReader, origin: Mapping[str, Any], progress: Progress
) -> None:
    """Write and commit the videos of the file. A killed run continues after the last video."""
    plan = staging_plan(cache.fingerprint(origin))
    report_other_work(root, name, None, plan)
    provenance = {"imported": str(tracks.database.arrays.file.resolve())}
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
        require_unchanged(tracks.database.arrays.file, tracks.state)
        following.commit(
            {"reader": dict(origin), "stand_in": origin["stand_in"], "accounting": totals}
        )


def _write_stream(
    root: cache.Root,
    name: str,
    stream: str,
    tracks: FileReader,
    provenance: Mapping[str, Any],
    options: Options,
) -> bool:
    """Write the features of the committed rows. Returns False if they are up to date."""
    exported = provenance.get("stream")
    if not isinstance(exported, dict):
        exported = {}
    weights = options.weights_of
    if weights is None:
        weights = exported.get("identity")
    identity = {
        "kind": "imported",
        "version": VERSION,
        "file_sha256": tracks.digest,
        "weights": weights,
        "precision": None,
    }
    unknown = {"weights": weights, "sha256": None, "stand_in": False}
    entries = {
        "identity": identity,
        "backbone": exported.get("backbone") or unknown,
        "stand_in": bool(provenance.get("stand_in", False)),
    }
    split = cache.open(root)[name]
    if stream in split.streams:
        why = describe(split.stream_manifest(stream).get("identity", {}), identity)
        if why:
            raise PipelineError(
                f"{name}: stream {stream!r} has another origin ({why}). Use another name "
                "(--stream)."
            )
        if is_current(split, stream):
            return False
    # of each row of the split, its number in the file
    in_file = np.concatenate([video.rows for video in tracks.videos()])
    arrays = tracks.database.arrays
    match = Match(arrays, "features", np.arange(len(in_file)), in_file, 0, "")
    origin = cache.fingerprint(identity)
    with open_writer(root, name, stream, match, origin, "float16") as writer:
        if stream in split.streams:
            writer.reopen(missing_rows(split, stream).incomplete)
        write_shards(writer, match, int(tracks.digest[:16], 16), silent)
        require_unchanged(arrays.file, tracks.state)
        writer.commit(entries)
    return True
