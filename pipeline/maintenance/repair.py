"""Damaged shards, filled again from the raw data.  [raw -> tracks -> features] -> windows

`cache.repair` removes damaged shards from the manifests. Videos with rows in a split's damaged shard are converted
again, in one commit that drops their old rows; their features are carried over by their keys. A stream's missing shards
are extracted again, with the weights that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import command, count
from pipeline.conversion.convert import convert, read_videos
from pipeline.conversion.plan import read_again
from pipeline.conversion.retry import recorded_plan
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.extract import Extraction, extract
from pipeline.features.pixel_sources import pixels
from pipeline.features.plan import missing_rows, plan_extraction
from pipeline.features.spec import StreamSpec

Bars = Callable[[str], AbstractContextManager[Progress]]  # the name of some work -> where its progress is shown


class ReadAgain(NamedTuple):
    """Videos of one split that were converted again."""

    split: str
    videos: tuple[str, ...]
    rows: int


@dataclass(slots=True)
class Repair:
    """What was done about a damaged cache."""

    cache: cache.Repaired
    read: list[ReadAgain] = field(default_factory=list)
    extracted: list[Extraction] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # messages: what could not be done, and what to do instead

    @property
    def anything(self) -> bool:
        done = self.cache
        return bool(done.restored or done.removed or done.streams or self.read or self.extracted or self.refused)


def repair(
    root: cache.Root,
    report: cache.Report,
    *,
    raw: Path | None = None,
    body: Path | None = None,
    workers: int = 1,
    bars: Bars = lambda _: nullcontext(silent),
) -> Repair:
    """Repair what `cache.verify` found. Killed at any point, it can be run again, after another verification.

    `raw` and `body` are where a dataset's raw folder and SMPL's files are now; None: where they were at the conversion.

    Raises CacheError when there is no cache, PipelineError when `raw` would stand for more than one dataset.
    """
    datasets = {damage.split.partition("/")[0] for damage in report.damaged if damage.split}
    if raw is not None and len(datasets) > 1:
        raise PipelineError(f"--raw is one dataset's own folder, and damaged are {', '.join(sorted(datasets))}")
    repairable, refused = _repairable(root, report.damaged, raw)
    done = Repair(cache.repair(root, replace(report, damaged=repairable)), refused=refused)
    done.refused += done.cache.refused
    for name, shards in done.cache.rows.items():
        try:
            with bars(f"read {name}") as progress:
                done.read.append(_convert_again(cache.open(root)[name], shards, raw, body, workers, progress))
        except (PipelineError, cache.CacheError) as error:
            done.refused.append(str(error))
    for name, stream in _streams(root, done):
        try:
            with bars(f"extract {name}") as progress:
                done.extracted += _extract_again(cache.open(root)[name], stream, raw, progress)
        except (PipelineError, cache.CacheError) as error:
            done.refused.append(str(error))
    return done


def _repairable(
    root: cache.Root, damaged: Sequence[cache.Damage], raw: Path | None
) -> tuple[tuple[cache.Damage, ...], list[str]]:
    """The damages without those of streams that could not be extracted again, and why.

    Removing a shard loses its intact rows, too: that must not be done where the pictures are gone.
    """
    by_stream: dict[tuple[str, str], list[cache.Damage]] = {}
    for damage in damaged:
        if damage.stream is not None and damage.shard is not None:
            by_stream.setdefault((damage.split, damage.stream), []).append(damage)
    lost: list[cache.Damage] = []
    refused: list[str] = []
    for (name, stream), of_stream in by_stream.items():
        try:
            split = cache.open(root)[name]
            identity = split.stream_manifest(stream).get("identity", {})
        except cache.CacheError:
            continue  # a small file of it is damaged, too: that is restored first, and the next repair finds the rest
        if "crops" in identity or identity.get("kind") == "imported":
            continue
        try:
            pixels(split, "", raw, require=sorted({damage.shard for damage in of_stream if damage.shard is not None}))
        except PipelineError as error:
            lost += of_stream
            refused.append(f"{error} Nothing of the stream {stream!r} was changed: its other rows can still be read.")
    return tuple(damage for damage in damaged if damage not in lost), refused


def _convert_again(
    split: cache.Split, shards: Collection[int], raw: Path | None, body: Path | None, workers: int, progress: Progress
) -> ReadAgain:
    """Read every video with a row in these shards again, and commit without the shards.

    Raises PipelineError, and changes nothing, unless all of these videos are there and can still be used.
    """
    size = int(split.manifest["geometry"]["rows_per_shard"])
    hit = np.zeros(len(split.tracks), bool)
    for shard in shards:
        hit |= (split.tracks.start < (shard + 1) * size) & (split.tracks.stop > shard * size)
    names = {split.videos[number].name for number in np.unique(split.tracks.video[hit]).tolist()}
    if imported := split.manifest.get("reader", {}).get("imported"):
        raise PipelineError(
            f"{split.name}: rows of {count(len(names), 'video')} are damaged, and were imported from "
            f"{imported['file']}. Nothing was changed. Remove that split, its features included, and import it again."
        )
    plan = read_again(recorded_plan(split, raw, body), names)
    again = command("verify", "--repair", "--cache", str(split.root))
    if gone := sorted(names - set(plan.drop)):
        where = ["--raw", str(plan.raw), "--cache", str(split.root), *(["--body", str(plan.body)] if plan.body else [])]
        raise PipelineError(
            f"{split.name}: {count(len(gone), 'video')} with damaged rows are not below {plan.raw}, first {gone[0]}. "
            f"Nothing was changed. Put them back, or drop them ({command('convert', *split.name.split('/'), *where)}), "
            f"then: {again}"
        )
    rows = 0
    for read in read_videos(plan, plan.append, workers):  # before anything is dropped
        if read.account.set_aside or not read.rows:
            raise PipelineError(
                f"{split.name}: {read.entry.name} has damaged rows, and cannot be read now: "
                f"{read.account.message or 'it has no rows'} Nothing was changed. Correct it, then: {again}"
            )
        rows += sum(len(track.columns["frame_index"]) for track in read.rows)
    convert(replace(plan, invalidate=tuple(sorted(shards))), workers=workers, progress=progress)
    return ReadAgain(split.name, plan.drop, rows)


def _extract_again(split: cache.Split, stream: str, raw: Path | None, progress: Progress) -> tuple[Extraction, ...]:
    """Extract the missing shards of a stream, with the weights and the precision that it has; () where it lacks none.

    Raises PipelineError with the command to run where only its user knows which weights these are.
    """
    lacks = missing_rows(split, stream)
    if not lacks.shards:
        return ()
    identity = split.stream_manifest(stream).get("identity", {})
    lost = f"{split.name}: {count(lacks.rows, 'row')} of {stream} are lost"
    where = [*split.name.split("/"), "--cache", str(split.root)]
    if imported := split.manifest.get("reader", {}).get("imported"):
        again = command("import", imported["file"], *where, "--format", "vibe")
        raise PipelineError(f"{lost}. Import the same file again: {again}")
    of_stream = _stream_of(identity)
    if of_stream is None:
        weights = identity.get("weights") or {}
        options = ["--stream", stream, "--weights", f"{weights.get('kind', 'file')}:FILE"]
        options += ["--precision", str(identity.get("precision", "fast"))]
        raise PipelineError(
            f"{lost}. Extract them with the stream's own weights (sha256 "
            f"{str(weights.get('file_sha256', 'not known'))[:12]}): {command('extract', *where, *options)}"
        )
    spec = StreamSpec(stream, of_stream, _crops_of(split, identity), raw=raw)
    return (extract(plan_extraction(split.root, split.name, spec), progress=progress),)


def _stream_of(identity: Mapping[str, Any]) -> streams.Stream | None:
    """The stream that has this identity; None where its weights are a file that the manifest does not name."""
    own = {key: value for key, value in identity.items() if key != "crops"}
    return streams.of_identity(own) if identity.get("kind") in streams.names() else None


def _crops_of(split: cache.Split, identity: Mapping[str, Any]) -> str:
    """The name of the stream of crops that a stream was computed from; "": from the raw pictures.

    Raises PipelineError where there is no such stream any more.
    """
    if "crops" not in identity:
        return ""
    for name in split.streams:
        if split.stream_manifest(name).get("identity") == identity["crops"]:
            return name
    raise PipelineError(
        f"{split.name}: rows were computed from a stream of crops that is not there now. Extract that one again first: "
        f"its identity was {identity['crops']}"
    )


def _streams(root: cache.Root, done: Repair) -> list[tuple[str, str]]:
    """The streams that lack shards after this repair, or after one that was killed."""
    opened, read = cache.open(root), {again.split for again in done.read}
    found = []
    for name in opened.splits:
        try:
            split = opened[name]
            again = {s for s in split.streams if (name, s) in done.cache.streams or split.was_invalidated(s)}
            lacking = [s for s in split.streams if name in read or s in again]
            # Crops before what is computed from them.
            lacking.sort(key=lambda stream: "crops" in split.stream_manifest(stream).get("identity", {}))
            found += [(name, stream) for stream in lacking]
        except cache.CacheError as error:
            if str(error) not in done.refused:
                done.refused.append(str(error))
    return found
