"""Damaged shards, filled again from the raw data.  [raw -> tracks -> features] -> windows

`cache.repair` removes damaged shards from the manifests. Videos with rows in a split's damaged shard are converted
again, in one commit that drops their old rows; their features are carried over by their keys. A stream's missing shards
are extracted again, with the weights that it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import cache
from pipeline.cli.progress import Bars, Progress, silent
from pipeline.cli.text import command, count
from pipeline.conversion.committed import DROP
from pipeline.conversion.convert import convert
from pipeline.conversion.plan import read_again, recorded_plan
from pipeline.errors import PipelineError
from pipeline.features.extract import Extraction, extract
from pipeline.features.pixel_sources import pixels
from pipeline.features.plan import missing_rows, plan_extraction, recorded_spec


@dataclass(slots=True)
class Repair:
    """What was done about a damaged cache."""

    cache: cache.Repaired = field(default_factory=cache.Repaired)
    read: dict[str, tuple[str, ...]] = field(default_factory=dict)  # split -> videos that were converted again
    extracted: list[Extraction] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # messages: what could not be done, and what to do instead

    @property
    def anything(self) -> bool:
        done = self.cache
        return bool(done.restored or done.removed or done.streams or self.read or self.extracted or self.refused)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """An error within is a message of `refused`: it must not keep other splits and streams from being repaired."""
        try:
            yield
        except (PipelineError, cache.CacheError) as error:
            self.refused += [] if str(error) in self.refused else [str(error)]


def repair(
    root: cache.Root,
    report: cache.VerifyReport,
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
    repaired = Repair()
    lost = _not_extractable(root, report.damaged, raw, repaired)
    damaged = tuple(d for d in report.damaged if d.shard is None or (d.split, d.stream) not in lost)
    repaired.cache = cache.repair(root, replace(report, damaged=damaged))
    repaired.refused += repaired.cache.refused
    for name, shards in repaired.cache.rows.items():
        with repaired.refusing(), bars(f"read {name}") as progress:
            repaired.read[name] = _convert_again(cache.open(root)[name], shards, raw, body, workers, progress)
    for name, stream in _lacking(root, repaired):
        with repaired.refusing(), bars(f"extract {name}") as progress:
            repaired.extracted += _extract_again(cache.open(root)[name], stream, raw, progress)
    return repaired


def _not_extractable(
    root: cache.Root, damaged: Sequence[cache.Damage], raw: Path | None, done: Repair
) -> set[tuple[str, str | None]]:
    """(split, stream) of damaged streams whose pictures are gone.

    Removing a shard loses its intact rows, too: that must not be done where they could not be extracted again.
    """
    shards: dict[tuple[str, str], set[int]] = {}
    for damage in damaged:
        if damage.stream is not None and damage.shard is not None:
            shards.setdefault((damage.split, damage.stream), set()).add(damage.shard)
    lost: set[tuple[str, str | None]] = set()
    for (name, stream), numbers in shards.items():
        try:
            split = cache.open(root)[name]
            identity = split.stream_manifest(stream).get("identity", {})
            if "crops" not in identity and identity.get("kind") != "imported":
                pixels(split, "", raw, require=sorted(numbers))
        except cache.CacheError:
            continue  # a small file of it is damaged, too: that is restored first, and the next repair finds the rest
        except PipelineError as error:
            lost.add((name, stream))
            done.refused.append(f"{error} Nothing of the stream {stream!r} was changed: its other rows can be read.")
    return lost


def _convert_again(
    split: cache.Split, shards: Collection[int], raw: Path | None, body: Path | None, workers: int, progress: Progress
) -> tuple[str, ...]:
    """Read every video with a row in these shards again, and commit without the shards. Returns their names.

    Raises PipelineError, and changes nothing, unless all of these videos are there and can still be used.
    """
    size = int(split.manifest["geometry"]["rows_per_shard"])
    tracks = split.tracks
    hit = np.any([(tracks.start < (shard + 1) * size) & (tracks.stop > shard * size) for shard in shards], axis=0)
    names = {split.videos[number].name for number in np.unique(tracks.video[hit]).tolist()}
    if imported := split.manifest.get("reader", {}).get("imported"):
        raise PipelineError(
            f"{split.name}: rows of {count(len(names), 'video')} are damaged, and were imported from "
            f"{imported['file']}. Nothing was changed. Remove that split, its features included, and import it again."
        )
    plan = read_again(recorded_plan(split, raw, body), names)
    again = command("verify", "--repair", "--cache", str(split.root))
    if gone := sorted(names - set(plan.drop)):
        with_body = ["--body", str(plan.body)] if plan.body else []
        where = ["--raw", str(plan.raw), "--cache", str(split.root), *with_body, DROP]
        raise PipelineError(
            f"{split.name}: {count(len(gone), 'video')} with damaged rows are not below {plan.raw}, first {gone[0]}. "
            f"Nothing was changed. Put them back, or drop them ({command('convert', *split.name.split('/'), *where)}), "
            f"then: {again}"
        )
    convert(replace(plan, invalidate=tuple(sorted(shards))), workers=workers, progress=progress)
    return plan.drop


def _extract_again(split: cache.Split, stream: str, raw: Path | None, progress: Progress) -> tuple[Extraction, ...]:
    """Extract the missing shards of a stream, with the weights and the precision that it has; () where it lacks none.

    Raises PipelineError with the command to run where only its user knows which weights these are.
    """
    lacks = missing_rows(split, stream)
    if not lacks.shards:
        return ()
    lost = f"{split.name}: {count(lacks.rows, 'row')} of {stream} are lost"
    where = [*split.name.split("/"), "--cache", str(split.root)]
    if imported := split.manifest.get("reader", {}).get("imported"):
        again = command("import", imported["file"], *where, "--format", "vibe")
        raise PipelineError(f"{lost}. Import the same file again: {again}")
    spec = recorded_spec(split, stream, raw=raw)
    if spec is None:
        own = split.stream_manifest(stream).get("identity", {})
        weights = own.get("weights") or {}
        options = ["--stream", stream, "--weights", f"{weights.get('kind', 'file')}:FILE"]
        options += ["--precision", str(own.get("precision", "fast"))]
        raise PipelineError(
            f"{lost}. Extract them with the stream's own weights (sha256 "
            f"{str(weights.get('file_sha256', 'not known'))[:12]}): {command('extract', *where, *options)}"
        )
    return (extract(plan_extraction(split.root, split.name, spec), progress=progress),)


def _lacking(root: cache.Root, done: Repair) -> list[tuple[str, str]]:
    """The streams that lack shards after this repair, or after one that was killed."""
    opened = cache.open(root)
    pairs = []
    for name in opened.splits:
        with done.refusing():
            split = opened[name]
            lacking = [
                stream
                for stream in split.streams
                if name in done.read or (name, stream) in done.cache.streams or split.was_invalidated(stream)
            ]
            # Crops before what is computed from them.
            lacking.sort(key=lambda stream: "crops" in split.stream_manifest(stream).get("identity", {}))
            pairs += [(name, stream) for stream in lacking]
    return pairs
