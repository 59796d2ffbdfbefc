"""What of a damaged cache must come from the raw data again, and only that.  [raw -> tracks -> features] -> windows

Videos with rows in a damaged shard are read anew, in one commit that drops the old rows and names the shard no longer.
Their features are carried over by their keys. A stream's lost shards are computed anew, with the weights that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import cache
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import command, count
from pipeline.conversion.convert import convert, read_videos
from pipeline.conversion.plan import plan_again
from pipeline.conversion.retry import body_folder, raw_folder, recorded_reader
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.extract import Extraction, extract, plan_extraction
from pipeline.features.pixel_sources import pixels
from pipeline.features.plan import missing_rows
from pipeline.features.spec import StreamSpec

Told = Callable[[str], AbstractContextManager[Progress]]  # who is told how far a piece of work is, by its name


@dataclass(frozen=True, slots=True)
class ReadAnew:
    """Videos of one split that came anew."""

    split: str
    videos: tuple[str, ...]
    rows: int  # of their tracks


@dataclass(slots=True)
class Repair:
    """What was done about a damaged cache."""

    cache: cache.Repaired
    read: list[ReadAnew] = field(default_factory=list)
    extracted: list[Extraction] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # what could not be done, and what to do instead

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
    told: Told = lambda _: nullcontext(silent),
) -> Repair:
    """Put right what `cache.verify` found. Killed at any point, it can be run again, after another verification.

    `raw` and `body` are where a dataset's raw folder and SMPL's files lie now; None: where they lay at the conversion.

    Raises CacheError when there is no cache, PipelineError when `raw` would stand for more than one dataset.
    """
    datasets = {damage.split.partition("/")[0] for damage in report.damaged if damage.split}
    if raw is not None and len(datasets) > 1:
        raise PipelineError(f"--raw is one dataset's own folder, and damaged are {', '.join(sorted(datasets))}")
    repairable, refused = _repairable(root, report.damaged, raw)
    done = Repair(cache.repair(root, replace(report, damaged=repairable)), refused=refused)
    done.refused += done.cache.refused
    for split, shards in done.cache.rows.items():
        try:
            with told(f"read {split}") as progress:
                done.read.append(read_anew(root, split, shards, raw, body, workers, progress))
        except (PipelineError, cache.CacheError) as error:
            done.refused.append(str(error))
    for split, stream in _streams(root, done):
        try:
            with told(f"extract {split}") as progress:
                done.extracted += extract_anew(root, split, stream, raw, progress)
        except (PipelineError, cache.CacheError) as error:
            done.refused.append(str(error))
    return done


def _repairable(
    root: cache.Root, damaged: Sequence[cache.Damage], raw: Path | None
) -> tuple[tuple[cache.Damage, ...], list[str]]:
    """The damages without those of streams that could not be computed anew, and why in words.

    Taking a shard out costs its intact rows, too: that must not be done where the pictures are gone.
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
            continue  # a small file of it is damaged, too: that is mended first, and the next repair looks again
        if "crops" in identity or identity.get("kind") == "imported":
            continue
        try:
            pixels(split, "", raw, require=sorted({damage.shard for damage in of_stream if damage.shard is not None}))
        except PipelineError as error:
            lost += of_stream
            refused.append(f"{error} Nothing of the stream {stream!r} was changed: its other rows can still be read.")
    return tuple(damage for damage in damaged if damage not in lost), refused


def read_anew(
    root: cache.Root,
    name: str,
    shards: Collection[int],
    raw: Path | None,
    body: Path | None,
    workers: int,
    progress: Progress,
) -> ReadAnew:
    """Read every video with a row in these shards of the split again, and commit without the shards.

    Raises PipelineError, and changes nothing, unless all of these videos are there and can still be used.
    """
    split = cache.open(root)[name]
    size = int(split.manifest["geometry"]["rows_per_shard"])
    hit = np.zeros(len(split.tracks), bool)
    for shard in shards:
        hit |= (split.tracks.start < (shard + 1) * size) & (split.tracks.stop > shard * size)
    names = tuple(split.videos[number].name for number in np.unique(split.tracks.video[hit]).tolist())
    if imported := split.manifest.get("reader", {}).get("imported"):
        raise PipelineError(
            f"{name}: rows of {count(len(names), 'video')} are damaged, and were imported from {imported['file']}. "
            "Nothing was changed. Remove that split, its features included, and import the file again."
        )
    dataset, raw, body = recorded_reader(split), raw_folder(split, raw), body_folder(split, body)
    plan = plan_again(dataset, name.partition("/")[2], names, raw=raw, root=root, body=body)
    again = command("verify", "--repair", "--cache", str(root))
    if gone := sorted(set(names) - set(plan.drop)):
        raise PipelineError(
            f"{name}: {count(len(gone), 'video')} with damaged rows are not below {raw}, first {gone[0]}. Nothing of "
            f"them was changed. Put them back, or let them go ({_convert(split, raw, body)}), then: {again}"
        )
    for read in read_videos(plan, plan.append, workers):  # to know, before anything is dropped
        if read.account.set_aside or not read.rows:
            raise PipelineError(
                f"{name}: {read.entry.name} has damaged rows, and cannot be read now: {read.account.message or 'empty'}"
                f" Nothing of it was changed. Mend it, then: {again}"
            )
    convert(replace(plan, forget=tuple(sorted(shards))), workers=workers, progress=progress)
    new = cache.open(root)[name]
    anew = np.isin(np.array(new.videos.names, dtype=object), names)[new.tracks.video]
    return ReadAnew(name, names, int((new.tracks.stop - new.tracks.start)[anew].sum()))


def extract_anew(
    root: cache.Root, name: str, stream: str, raw: Path | None, progress: Progress
) -> tuple[Extraction, ...]:
    """Give a stream the shards that it lacks, with the weights and the precision that it has; () where it lacks none.

    Raises PipelineError with the command to run where only its user can say which weights these are.
    """
    split = cache.open(root)[name]
    lacks = missing_rows(split, stream)
    if not lacks.shards:
        return ()
    identity = split.stream_manifest(stream).get("identity", {})
    if imported := split.manifest.get("reader", {}).get("imported"):
        dataset, _, part = name.partition("/")
        again = command("import", imported["file"], dataset, part, "--cache", str(root), "--format", "vibe")
        raise PipelineError(
            f"{name}: {count(lacks.rows, 'row')} of {stream} are lost. Import the same file again: {again}"
        )
    stream_now = _known(identity)
    if stream_now is None:
        weights = identity.get("weights") or {}
        options = [*name.split("/"), "--cache", str(root), "--stream", stream]
        options += ["--weights", f"{weights.get('kind', 'file')}:FILE"]
        options += ["--precision", str(identity.get("precision", "fast"))]
        raise PipelineError(
            f"{name}: {count(lacks.rows, 'row')} of {stream} are to be computed anew, with its weights (sha256 "
            f"{str(weights.get('file_sha256', 'not known'))[:12]}), and where these lie only you know: "
            f"{command('extract', *options)}"
        )
    crops = _crops_of(split, identity)
    spec = StreamSpec(stream, stream_now, crops, raw=raw)
    return (extract(plan_extraction(root, name, spec), progress=progress),)


def _known(identity: Mapping[str, Any]) -> streams.Stream | None:
    """The stream that has this identity, where that can be told without its user."""
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
    """The streams that lack something since this repair, or since one that was killed."""
    opened = cache.open(root)
    read = {anew.split for anew in done.read}
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


def _convert(split: cache.Split, raw: Path, body: Path | None) -> str:
    """The command that converts a split as it was."""
    dataset, _, name = split.name.partition("/")
    options = ["--raw", str(raw), "--cache", str(split.root), *(["--body", str(body)] if body else [])]
    return command("convert", dataset, name, *options)
