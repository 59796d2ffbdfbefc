"""Refusals of a conversion that would destroy committed data in place of updating it.
[raw] -> rows
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import cache
from cache.read.labels import HANDS
from pipeline.cli.text import count, from_here
from pipeline.errors import PipelineError, StandInMixed
from pipeline.steps.conversion_record import LET_GO, ConversionRecord

_KINDS: Final = {False: "real data", True: "demo data"}  # by `stand_in`


def refuse_loss(
    committed: cache.Split, raw: Path, reader: Mapping[str, Any], columns: Iterable[str]
) -> None:
    """Raise PipelineError if a conversion would destroy committed data instead of updating it.

    That is so for an imported split, and if the columns would be others. Raise StandInMixed if demo
    data would replace real data, or the reverse.

    reader: identity of the new reader. columns: of its tracks.
    """
    folder = f"{committed.root}/{committed.name}"
    record = ConversionRecord(committed)
    before = record.reader
    if record.imported is not None:
        raise PipelineError(
            f"{folder}: was imported from {record.imported}: a conversion would replace the rows "
            "of its features. Convert into another cache, or delete that split and its features."
        )
    # Columns must not be lost; label files that were added since then may bring new ones. But if
    # only one of both conversions has a body model, the columns must be the same.
    stored = set(committed.columns) - committed.extra.keys()
    other_columns = stored.difference(columns)
    if (before["body"] is None) != (reader["body"] is None):
        other_columns = stored.symmetric_difference(columns)
    if other_columns == {HANDS}:
        dataset = committed.name.partition("/")[0]
        raise PipelineError(
            f"{folder}: has the column {HANDS}, and [{dataset}] hands is false. Take the line out; "
            "the column stays."
        )
    if other_columns:
        earlier = _describe_reader(before)
        current = _describe_reader(reader)
        do = f"Restore the label files that {raw} had for them. " if earlier == current else ""
        raise PipelineError(
            f"{folder}: was converted from {earlier}, and now from {current}: other columns, "
            f"{', '.join(sorted(other_columns))}. The columns of a split cannot change. {do}"
            "Convert into another cache (--cache, or [paths] cache in luigi.cfg), or delete that "
            "folder with its features and convert the split again."
        )
    _require_same_kind(committed, raw, stand_in=reader["stand_in"])


def refuse_mixed_cache(root: cache.Root, source: Path | str, *, stand_in: bool) -> None:
    """Raise StandInMixed if a split that is not in the cache yet would bring demo data into a cache
    of real data, or the reverse.

    source: the raw folder, or the name of the split.
    """
    features = cache.FeatureCache(root)
    for name in features.splits:
        with contextlib.suppress(cache.CacheError):  # another command reports it
            _require_same_kind(features[name], source, stand_in=stand_in)


def _require_same_kind(split: cache.Split, source: Path | str, *, stand_in: bool) -> None:
    """Raise StandInMixed unless both are demo data, or both are real data."""
    if ConversionRecord(split).is_stand_in != stand_in:
        before = _KINDS[not stand_in]
        kind = _KINDS[stand_in]
        root = f"{from_here(split.root)}-{kind.split()[0]}"
        raise StandInMixed(
            f"{split.root}/{split.name}: was made from {before}, and {source} is {kind}: they do "
            f"not share a cache. Use another cache: --cache {root}, or [paths] cache in luigi.cfg."
        )


def _describe_reader(reader: Mapping[str, Any]) -> str:
    body = "without" if reader["body"] is None else "with"
    return f"{_KINDS[reader['stand_in']]} {body} a body model"


def refuse_other_folder(
    committed: cache.Split, raw: Path, *, n_same: int, missing: Collection[str], n_new: int
) -> None:
    """Raise PipelineError if a raw folder at a new place holds other videos than the split, so that
    an update would replace one dataset by another.

    n_same: unchanged committed videos that it has. missing: committed videos that it does not have.
    n_new: its other videos. If most are the same, or some are, and none is missing or none is new,
    the folder has moved.
    """
    has_most = 2 * n_same > len(committed.videos)
    is_same_data = has_most or (n_same and not (missing and n_new))
    if is_same_data or not committed.manifest["rows"]:
        return
    n_videos = count(len(committed.videos), "video")
    before = ConversionRecord(committed).raw
    raise PipelineError(
        f"{committed.root}/{committed.name}: was converted from {before}, but {raw} has "
        f"{n_same:,} of its {n_videos} and {n_new:,} others: this would replace one "
        "folder by another. To keep both, put them into one folder, or use another cache "
        f"(--cache, or [paths] cache in luigi.cfg). To replace the old videos: {LET_GO}"
    )
