"""The extraction of one stream: its missing rows, its shards in the cache, and its commit.  tracks
-> [features] -> windows

`extract.py` drives it. Words for a stream's shards:

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import cache
from cache import Split
from cache.write.parts import Part, wait_for_parts
from cache.write.staged import SHARD, STAGED
from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.progress import tell
from pipeline.cli.text import FEW, command, count, few
from pipeline.conversion.committed import drop_command
from pipeline.conversion.other_work import report_other_work
from pipeline.errors import PipelineError
from pipeline.features.computing import load
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.shards import Counts, StreamRun
from pipeline.features.plan import ExtractionPlan, missing_rows
from pipeline.features.streams.base import Machine, Provenance
from pipeline.features.videos import videos_of
from pipeline.processes.software import staging_plan, version

Shards = TypeVar("Shards", bound=cache.StreamShards)


@dataclass(slots=True, kw_only=True)
class Extraction(Counts):
    """The result of extracting one stream: counts of rows, and what is still missing."""

    plan: ExtractionPlan
    meter: Meter  # where the time went
    shards: int  # number of missing shards, or of those in a part's share
    problem: str = ""  # message that rows are still missing, because their videos cannot be read


class StreamExtraction:
    """One stream of an extraction. Its methods are called in this order:

    1. `StreamExtraction(plan, ...)` finds the missing rows;
    2. `set_lost`, for a stream of crops, leaves out rows of videos that cannot be read now;
    3. `open` opens the stream in the cache, and returns the output for a run; on a worker, which
       only stages shards, `open_part`;
    4. during the run, the caller adds to `counts`. Parts of workers go through `take`;
    5. `finish` commits the stream.
    """

    # set by `open` and `open_part`
    target: Sequence[int]  # shards that the run computes
    _n_missing: int  # number of finished and target shards

    def __init__(self, plan: ExtractionPlan, split: Split, machine: Machine) -> None:
        """machine: where the network is loaded if no row is computed."""
        self.plan = plan
        self._split = split
        self._machine = machine
        self.counts = Counts()  # of the rows of this extraction
        # names of videos that could not be read before the run, and why
        self.lost: Mapping[str, str] = {}
        self.reopened: Sequence[int] = ()  # numbers of shards
        # set by `open`; None: a part, which commits nothing
        self._writer: cache.StreamWriter | None = None
        # provenance of the rows that the stream already has; if none are committed, of those that
        # `open` finds staged
        self.recorded: Provenance | None = None
        self._recorded_note: Mapping[str, Any] = {}  # of the stream's last commit
        name = plan.spec.name
        if name in split.streams and not plan.replace:
            self.missing = missing_rows(split, name)
            self.recorded = split.stream_manifest(name)["backbone"]
            self._recorded_note = split.stream_provenance(name)
        else:
            self.missing = missing_rows(split, None)  # all rows of the split

    def set_lost(self, lost: Mapping[int, str]) -> None:
        """Set which videos cannot be read, by number, and why. The committed shards with pending
        rows of other videos will be reopened.
        """
        split = self._split
        self.lost = {split.videos[number].name: why for number, why in lost.items()}
        self.reopened = self.missing.shards_to_reopen(split, lost)

    def open(self, stack: ExitStack, part: Part | None, share: frozenset[int]) -> StreamRun:
        """Open the stream in the cache for a run, until `stack` is closed.

        part: the part of an array job, which only stages shards; None: the run commits.

        Raises cache.CacheChanged if there has been a commit since the split was opened.
        """
        plan = self.plan
        names = plan.root, plan.split, plan.spec.name
        folder = self._split.place(plan.spec.name).writing
        if part is None:
            wait_for_parts(plan.root, folder, tell)
        if plan.replace or (self.reopened and part is None):
            # If the weights cannot be loaded, this raises before any features are deleted.
            self._load_provenance()
        if plan.replace:
            cache.delete_stream(*names)
        report_other_work(*names, self._staging)
        if part is not None:
            stack.enter_context(part.running(plan.root, folder))
            return self.open_part(share)
        writer = stack.enter_context(self._open_shards(cache.StreamWriter))
        return self._open_writer(writer, share)

    @property
    def _staging(self) -> Mapping[str, Any]:
        """The plan under which shards are staged."""
        plan = self.plan
        return staging_plan(cache.fingerprint(dict(plan.identity)), plan.spec.stream)

    def _open_shards(self, opened: Callable[..., Shards]) -> Shards:
        """Open the stream in the cache, as a `StreamShards` or a `StreamWriter`."""
        plan = self.plan
        stream = plan.spec.stream
        names = plan.root, plan.split, plan.spec.name
        return opened(*names, dim=stream.dim, dtype=stream.dtype, plan=self._staging)

    def _open_writer(self, writer: cache.StreamWriter, share: frozenset[int]) -> StreamRun:
        """Make the output for a run that commits. Staged shards that the writer refused are
        computed again.
        """
        self._writer = writer
        if writer.refused:
            n_refused = count(len(writer.refused), "staged shard")
            text = f"{n_refused} computed again, first: {writer.refused[0]}"
            err.print(f"{DOUBT} {plain(text)}")
        self.recorded = self.recorded or writer.made or None
        writer.reopen(self.reopened)
        target = share.union(self.reopened).intersection(writer.pending)
        finished = share.intersection(self.missing.shards) - target
        return self._output(writer, writer.write, target, finished)

    def open_part(self, share: frozenset[int]) -> StreamRun:
        """Make the output for a part, which stages shards, and reopens and commits none."""
        shards = self._open_shards(cache.StreamShards)
        missing = share.intersection(self.missing.shards)
        finished = missing.intersection([*shards.list_staged(STAGED), *shards.list_staged(SHARD)])
        return self._output(shards, shards.stage, missing - finished, finished)

    def _output(
        self,
        shards: cache.StreamShards,
        write: Callable[..., object],
        target: frozenset[int],
        finished: frozenset[int],
    ) -> StreamRun:
        """Make the output for a run. write: the function that writes a shard."""
        if shards.split_digest != self._split.manifest["digest"]:
            raise committed_meanwhile(self.plan.split)
        self.counts.kept += int(self._split.rows_by_shard()[sorted(finished)].sum())
        self.target = sorted(target)
        self._n_missing = len(finished) + len(target)
        return StreamRun(
            self._split, self.plan.spec.stream, shards, self.target, write, self.recorded
        )

    def _load_provenance(self) -> Provenance:
        """Load the stream and return its provenance."""
        return load(self.plan.spec.stream, self._machine, None)[1]

    def take(self, part: Counts) -> None:
        """Add a worker's part, and accept its shards, which are staged."""
        self.counts.add(part)
        if self._writer is not None:
            self._writer.accept_staged()

    def finish(self, provenance: Provenance | None, meter: Meter) -> Extraction:
        """Commit, unless this is a part, or the stream is new and no shard of it is written.

        provenance: that of the network; None: the run loaded none. Raises PipelineError if shards
        of workers were refused.
        """
        extraction = Extraction(plan=self.plan, meter=meter, shards=self._n_missing)
        extraction.add(self.counts)
        writer = self._writer
        if writer is not None:
            if not set(self.target).isdisjoint(writer.pending):
                refused = "; ".join(writer.refused[-1:]) or committed_meanwhile(self.plan.split)
                raise PipelineError(f"{refused} Use workers of one kind.")
            is_empty = writer.live_shards and writer.pending == writer.live_shards
            if self.recorded or not is_empty:
                self._commit(writer, provenance)
            extraction.problem = self._describe_missing()
        return extraction

    def _describe_missing(self) -> str:
        """A message about rows that wait for lost videos; "" if there are none."""
        plan = self.plan
        stream = plan.spec.name
        split = cache.open(plan.root)[plan.split]
        missing = missing_rows(split, stream if stream in split.streams else None)
        if not missing.rows:
            return ""
        lost = {**self.lost, **self.counts.lost}
        numbers = {*missing.videos(split), *videos_of(split, missing.shards)}
        videos = []
        for number in sorted(numbers):
            name = split.videos[number].name
            videos.append(f"{name} ({lost[name]})" if name in lost else name)
        status = command("status", "--all", "--cache", str(plan.root))
        shown = "; ".join(few(videos, FEW, status))
        n_rows = count(missing.rows, "row")
        n_videos = count(len(videos), "video")
        return (
            f"{plan.split}: {stream}: {n_rows} of {n_videos} wait for images: {shown}. Restore "
            "them (is the disk mounted?), and run the same command again; "
            f"or delete their rows: {drop_command(split, plan.spec.raw)}"
        )

    def _commit(self, writer: cache.StreamWriter, provenance: Provenance | None) -> None:
        """Commit the stream. Its provenance is that of the run; if the run loaded no network, that
        of the staged shards, of the stream's earlier rows, or of the network, loaded now.
        """
        backbone = dict(provenance or writer.made or self.recorded or self._load_provenance())
        stand_in = backbone.get("stand_in") or self._split.manifest.get("stand_in")
        entries = {
            "identity": dict(self.plan.identity),
            "backbone": backbone,
            "stand_in": bool(stand_in),
        }
        writer.commit(entries, note=self._note(writer))

    def _note(self, writer: cache.StreamWriter) -> dict[str, Any]:
        """Entries for the commit's note. Prints a line if shards were computed differently."""
        software = {name: version(name) for name in ("av", "opencv-python", "torch", "torchvision")}
        note: dict[str, Any] = {"computed_with": software}
        file = self.plan.spec.stream.weights_file
        if file is not None:
            note["weights_file"] = str(file.resolve())
        varying = sorted(writer.varying)
        if varying:
            note["varying"] = varying
            text = (
                f"{self.plan.split}, {self.plan.spec.name}: shards were computed with different "
                f"{', '.join(varying)}: they agree to rounding only"
            )
            err.print(f"{DOUBT} {plain(text)}")
        note["without_features"] = self.counts.problems + self._earlier_reasons()
        return note

    def _earlier_reasons(self) -> Counter[str]:
        """Why rows of the stream had no features before this run; empty if none of them is left."""
        reasons = Counter[str](self._recorded_note.get("without_features"))
        with contextlib.suppress(cache.CacheError):  # damaged flags: the reasons may apply
            if reasons and not self._split.undecodable(self.plan.spec.name):
                return Counter()
        return reasons


def committed_meanwhile(split: str) -> cache.CacheChanged:
    """The error that the split has been committed since it was opened."""
    return cache.CacheChanged(f"{split}: another process has committed meanwhile. Run it again.")
