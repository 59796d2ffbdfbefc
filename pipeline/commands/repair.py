"""Drop damaged shards, so that `convert` and `extract` fill their rows again.  [raw -> tracks -> features]

`cache.repair` removes a stream's damaged shards from its manifest. Videos with rows in a split's damaged shard are
dropped in one commit; their features stay, and are carried over by their keys after the next conversion.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

import cache
from pipeline.cli.text import command, count
from pipeline.conversion.convert import convert
from pipeline.conversion.plan import read_again, recorded_plan
from pipeline.errors import PipelineError
from pipeline.features.pixel_sources import pixels
from pipeline.features.plan import missing_rows


@dataclass(slots=True)
class Repair:
    """What was dropped from a damaged cache, and the commands that fill it again."""

    cache: cache.Repaired = field(default_factory=cache.Repaired)
    dropped: dict[str, tuple[str, ...]] = field(default_factory=dict)  # split -> videos to convert again
    fill: list[str] = field(default_factory=list)  # commands, in order
    refused: list[str] = field(default_factory=list)  # messages: what could not be done, and what to do


def repair(root: cache.Root, report: cache.VerifyReport) -> Repair:
    """Drop what `cache.verify` found damaged, unless its raw files are missing. Can be run again after a kill.

    Raises CacheError if there is no cache.
    """
    done = Repair()
    lost = _streams_without_images(root, report.damaged, done)
    damaged = tuple(d for d in report.damaged if d.shard is None or (d.split, d.stream) not in lost)
    done.cache = cache.repair(root, replace(report, damaged=damaged))
    done.refused += done.cache.refused
    for name, shards in done.cache.rows.items():
        try:
            done.dropped[name] = _drop_videos(cache.open(root)[name], shards, done)
        except (PipelineError, cache.CacheError) as error:
            done.refused.append(str(error))
    for name, stream in done.cache.streams:
        if name in done.dropped:
            continue  # all of its streams are extracted again
        split = cache.open(root)[name]
        reader = split.manifest.get("reader", {})
        if imported := split.stream_manifest(stream).get("imported") or reader.get("imported"):
            words = ["import", imported["file"], *name.split("/"), "--format", imported["format"], "--as", stream]
        else:
            words = ["extract", name, "--stream", stream]
        rows = count(missing_rows(split, stream).rows, "row")
        done.fill.append(f"{command(*words, '--cache', str(root))}  # {rows} of {stream}")
    return done


def _streams_without_images(
    root: cache.Root, damaged: Sequence[cache.Damage], done: Repair
) -> set[tuple[str, str | None]]:
    """(split, stream) of damaged streams whose images are missing: dropping a shard also loses its intact rows."""
    shards: dict[tuple[str, str], set[int]] = {}
    for damage in damaged:
        if damage.stream is not None and damage.shard is not None:
            shards.setdefault((damage.split, damage.stream), set()).add(damage.shard)
    lost: set[tuple[str, str | None]] = set()
    for (name, stream), numbers in shards.items():
        try:
            split = cache.open(root)[name]
            if split.stream_manifest(stream).get("identity", {}).get("kind") != "imported":
                pixels(split, None, require=sorted(numbers))
        except cache.CacheError:
            continue  # a small file is damaged, too: it is restored first, and the next repair finds the rest
        except PipelineError as error:
            lost.add((name, stream))
            done.refused.append(f"{error} Stream {stream!r} was not changed: its other rows are readable.")
    return lost


def _drop_videos(split: cache.Split, shards: Collection[int], done: Repair) -> tuple[str, ...]:
    """Drop every video with a row in these shards, in one commit. Returns their names.

    Raises PipelineError, and changes nothing, unless all of them are in the raw folder.
    """
    size = int(split.manifest["geometry"]["rows_per_shard"])
    tracks = split.tracks
    hit = np.any([(tracks.start < (shard + 1) * size) & (tracks.stop > shard * size) for shard in shards], axis=0)
    names = {split.videos[number].name for number in np.unique(tracks.video[hit]).tolist()}
    if imported := split.manifest.get("reader", {}).get("imported"):
        raise PipelineError(
            f"{split.name}: rows of {count(len(names), 'video')} are damaged. They were imported from "
            f"{imported['file']}. Nothing was changed. Delete the split with its features, and import it again."
        )
    plan = read_again(recorded_plan(split, None, None), names)
    with_body = ["--body", str(plan.body)] if plan.body else []
    fill = command("convert", split.name, "--raw", str(plan.raw), "--cache", str(split.root), *with_body)
    if gone := sorted(names - set(plan.drop)):
        raise PipelineError(
            f"{split.name}: {count(len(gone), 'video')} with damaged rows missing from {plan.raw}, first {gone[0]}. "
            f"Nothing was changed. Restore the files, or delete the rows: {fill} --drop-removed"
        )
    stamps = {name: stamp for name, stamp in plan.stamps.items() if name not in names}
    convert(replace(plan, append=(), stamps=stamps, invalidate=tuple(sorted(shards))))
    done.fill.append(f"{fill}  # {count(len(names), 'video')}")
    done.fill += [command("extract", split.name, "--stream", s, "--cache", str(split.root)) for s in split.streams]
    return plan.drop
