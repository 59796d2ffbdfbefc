"""The extraction of one stream: its missing rows, its shards in the cache, and its commit.  tracks
-> [features] -> windows

`extract.py` opens each stream: as a `CommittedStream`, or by `StreamState.open_part` in a part of
an array job; and its target shards, part by part, by `StreamTask.open`. Words for the shards of a
stream:

    missing     the stream lacks them (`MissingRows.shards`)
    reopened    it has them with pending rows, which can be computed now: they are written again
    share       missing shards, of all streams of the run, that may be computed here: all except
                those that have only lost videos, or a part's share of them
    finished    missing, and staged by a killed run or another process: not computed again
    target      the stream's own missing shards of the share that are not finished, and the reopened
                ones: the run computes them
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import cache
from cache import Split
from cache.write.parts import Part
from pipeline.cli.console import err
from pipeline.cli.text import FEW, command, count, few
from pipeline.errors import PipelineError
from pipeline.features.committed import MissingRows
from pipeline.features.engine.shards import Counts, StreamRun
from pipeline.features.pixels import videos_of
from pipeline.features.streams import load
from pipeline.features.streams.base import Machine, Provenance
from pipeline.processes import SAME_FILES
from pipeline.processes.meter import Meter
from pipeline.processes.software import version
from pipeline.steps.conversion.identity import find_differences, report_other_work
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.extraction.plan import ExtractionWork
from pipeline.steps.grading import announce_grades


@dataclass(slots=True, kw_only=True)
class Extraction(Counts):
    """The result of extracting one stream: counts of rows, and what is still missing."""

    work: ExtractionWork
    meter: Meter  # where the time went
    shards: int  # number of missing shards, or of those in a part's share
    problem: str = ""  # message that rows are still missing, because their videos cannot be read


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream of a work as it is before the extraction."""

    work: ExtractionWork
    missing: MissingRows  # the rows that it lacks; all, if it is new or to be replaced
    # of the rows that it has, if they stay: their provenance, and the note of its last commit
    recorded: Provenance | None = None
    note: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def find(cls, work: ExtractionWork, split: Split) -> StreamState:
        """The state of the stream in an open split."""
        name = work.spec.name
        if work.replace or name not in split.streams:
            return cls(work, MissingRows.find(split, None))
        stream = split.open_stream(name)
        missing = MissingRows.find(split, name)
        return cls(work, missing, stream.manifest["backbone"], stream.provenance)

    def open_part(
        self, stack: ExitStack, split: Split, part: Part, share: frozenset[int]
    ) -> StreamTask:
        """Open the stream for a part of an array job, which is marked as running until `stack` is
        closed. Its shards are staged, and not committed.

        share: numbers of the shards that may be computed here.
        """
        work = self.work
        report_other_work(work.root, work.split, work.spec.name, work.staging)
        stack.enter_context(part.running(work.root, split.place(work.spec.name).writing))
        return StreamTask(work, share.intersection(self.missing.shards), self.recorded)


@dataclass(frozen=True, slots=True)
class StreamTask:
    """A stream whose target shards are computed and staged, in parts. Picklable."""

    work: ExtractionWork
    target: frozenset[int]
    recorded: Provenance | None  # of the rows that the stream already has, or that are staged

    def result(self, counts: Counts, meter: Meter) -> Extraction:
        """The result, once the target shards have been computed."""
        extraction = Extraction(work=self.work, meter=meter, shards=len(self.target))
        extraction.add(counts)
        return extraction

    def open(self, split: Split, part: Sequence[int]) -> tuple[StreamRun, Counts]:
        """Open the stream to compute its target shards of a part in this process, except those that
        are staged. Returns the counts of these.

        Raises PipelineError if this process would compute differently than the command,
        cache.CacheChanged if there has been a commit since the split was opened.
        """
        work = self.work
        stream = work.spec.stream
        differences = find_differences(work.identity, stream.identity())
        if differences:
            text = "; ".join(map(str, differences))
            raise PipelineError(
                f"this worker would compute {work.spec.name} otherwise ({text}). {SAME_FILES}"
            )
        files = work.open(cache.StreamShards)
        require_same_commit(files, split)
        target = self.target.intersection(part)
        finished = target.intersection(files.list_staged())
        run = StreamRun(split, stream, files, sorted(target - finished), self.recorded)
        return run, Counts(kept=int(split.rows_by_shard()[sorted(finished)].sum()))


class CommittedStream:
    """One stream of an extraction, opened in the cache until `stack` is closed, and committed by
    `finish`.

    Args:
        share: numbers of the missing shards, of all streams of the run, that may be computed.
        lost: numbers of the videos that cannot be read now, and why.
        machine: where the network is loaded if no row is computed.
    """

    def __init__(
        self,
        stack: ExitStack,
        state: StreamState,
        split: Split,
        share: frozenset[int],
        lost: Mapping[int, str],
        machine: Machine,
    ) -> None:
        work = state.work
        self._work = work
        self._split = split
        self._lost = {split.videos[number].name: why for number, why in lost.items()}
        self._recorded_note = state.note
        self._machine = machine
        reopened = state.missing.shards_to_reopen(split, lost)
        if work.replace or reopened:
            # If the weights cannot be loaded, this raises before any features are deleted.
            self._load_provenance()
        if work.replace:
            cache.delete_stream(work.root, work.split, work.spec.name)
        report_other_work(work.root, work.split, work.spec.name, work.staging)
        # staged shards that the writer refuses are computed again
        writer = stack.enter_context(work.open(cache.StreamWriter))
        if writer.refused:
            n_refused = count(len(writer.refused), "finished shard")
            err.warn(f"{n_refused} computed again, first: {writer.refused[0]}")
        self._writer = writer
        # of the rows that the stream has now, perhaps by a commit during the wait for parts; if
        # none are committed, of those that are staged
        self._recorded = StreamState.find(work, split).recorded or writer.made or None
        writer.reopen(reopened)
        require_same_commit(writer.shards, split)
        target = share.union(reopened).intersection(writer.shards.pending)
        self.task = StreamTask(work, target, self._recorded)
        # staged by a killed run or another process
        self._finished = share.intersection(state.missing.shards) - target

    def finish(self, computed: Counts, meter: Meter) -> Extraction:
        """Accept the target shards, which are staged, and commit, unless the stream is new and no
        shard of it is written. Raises PipelineError if shards were refused.
        """
        extraction = self.task.result(computed, meter)
        extraction.shards += len(self._finished)
        extraction.kept += int(self._split.rows_by_shard()[sorted(self._finished)].sum())
        writer = self._writer
        writer.accept_staged()
        pending = writer.shards.pending
        if not self.task.target.isdisjoint(pending):
            if writer.refused:
                raise PipelineError(f"{writer.refused[-1]} Use workers of one kind.")
            raise _committed_meanwhile(self._work.split)
        live = writer.shards.live_shards
        is_empty = live and pending == live
        if self._recorded or not is_empty:
            self._commit(extraction.problems)
        extraction.problem = self._describe_missing(extraction.lost)
        return extraction

    def _load_provenance(self) -> Provenance:
        """Load the stream, and return its provenance."""
        return load(self._work.spec.stream, self._machine, None)[1]

    def _describe_missing(self, lost_meanwhile: Mapping[str, str]) -> str:
        """A message about rows that wait for lost videos; "" if there are none."""
        work = self._work
        stream = work.spec.name
        split = cache.open(work.root)[work.split]
        missing = MissingRows.find(split, stream if stream in split.streams else None)
        if not missing.rows:
            return ""
        lost = {**self._lost, **lost_meanwhile}
        numbers = {*missing.videos(split), *videos_of(split, missing.shards)}
        videos = []
        for number in sorted(numbers):
            name = split.videos[number].name
            videos.append(f"{name} ({lost[name]})" if name in lost else name)
        status = command("status", "--all", "--cache", str(work.root))
        shown = "; ".join(few(videos, FEW, status))
        n_rows = count(missing.rows, "row")
        n_videos = count(len(videos), "video")
        return (
            f"{work.split}: {stream}: {n_rows} of {n_videos} wait for images: {shown}. Restore "
            "them (is the disk mounted?), and run the same command again; "
            f"or delete their rows: {ConversionRecord(split).drop_command(work.spec.raw)}"
        )

    def _commit(self, problems: Counter[str]) -> None:
        """Commit the stream. Its provenance is that of the accepted shards; if no network was
        loaded for these, that of the stream's earlier rows, or of the network, loaded now.

        problems: why rows of this extraction have no features -> number.
        """
        provenance = self._writer.made or self._recorded
        backbone = dict(provenance or self._load_provenance())
        stand_in = backbone.get("stand_in") or self._split.manifest.get("stand_in")
        entries = {
            "identity": dict(self._work.identity),
            "backbone": backbone,
            "stand_in": bool(stand_in),
        }
        announce_grades(self._work.root, self._work.split, self._work.spec.name)
        self._writer.commit(entries, note=self._note(problems))

    def _note(self, problems: Counter[str]) -> dict[str, Any]:
        """Entries for the commit's note. Prints a line if shards were computed differently."""
        names = ("av", "opencv-python", "simplejpeg", "torch", "torchvision")
        software = {name: version(name) for name in names}
        note: dict[str, Any] = {"computed_with": software}
        file = self._work.spec.stream.weights_file
        if file is not None:
            note["weights_file"] = str(file.resolve())
        varying = sorted(self._writer.varying)
        if varying:
            note["varying"] = varying
            text = (
                f"{self._work.split}, {self._work.spec.name}: shards were computed with different "
                f"{', '.join(varying)}: they agree to rounding only"
            )
            err.warn(text)
        note["without_features"] = problems + self._earlier_reasons()
        return note

    def _earlier_reasons(self) -> Counter[str]:
        """Why rows of the stream had no features before this run; empty if none of them is left."""
        reasons = Counter[str](self._recorded_note.get("without_features"))
        with contextlib.suppress(cache.CacheError):  # damaged flags: the reasons may apply
            if reasons and not self._split.open_stream(self._work.spec.name).undecodable():
                return Counter()
        return reasons


def require_same_commit(files: cache.StreamShards, split: Split) -> None:
    """Raise cache.CacheChanged if there has been a commit since the split was opened."""
    if files.split.digest != split.manifest["digest"]:
        raise _committed_meanwhile(split.name)


def _committed_meanwhile(split: str) -> cache.CacheChanged:
    """The error that the split has been committed since it was opened."""
    return cache.CacheChanged(
        f"{split}: another process has saved its work meanwhile. Run it again."
    )
