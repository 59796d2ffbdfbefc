"""Extract feature streams on GPU or CPU, on this machine or a cluster.  tracks -> [features] ->
windows

A task for a worker is a few neighbouring shards, so that a video in two of them is decoded once. A
worker (of a cluster, or one process per device) computes it with `pipeline.features.engine.run.Run`
and its own network and decoding processes, stages the shards, and returns a small record for each.
"""

from __future__ import annotations

import functools
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import cache
from cache import Split
from cache.write.parts import Part, wait_for_parts
from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.progress import Progress, silent, tell
from pipeline.cli.text import FEW, command, count, few
from pipeline.conversion.committed import drop_command
from pipeline.conversion.identity import differing
from pipeline.conversion.other_work import report_other_work
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.computing import load
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.run import Output, Run, Written
from pipeline.features.engine.shards import Counts
from pipeline.features.engine.worker import AFTER, KINDS
from pipeline.features.inputs import (
    Pixels,
    find_lost,
    pixels,
    raw_folder,
    require_videos,
    skip_lost_shards,
    videos_of,
)
from pipeline.features.plan import ExtractionPlan, missing_rows
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Provenance
from pipeline.processes import NO_CLUSTER, Dask
from pipeline.processes.cluster import connect_workers
from pipeline.processes.software import staging_plan, version

HERE: Final = Resources()  # the whole machine
MOST_SHARDS: Final = 4  # in a task of a cluster: a lost worker costs at most 32,768 rows
# in a task of a device: a GPU computes four in seconds, and each task starts with empty buffers
MOST_OF_DEVICE: Final = 16
TASKS_OF_WORKER: Final = 4  # least number per worker, so that none waits long for the last task


@dataclass(slots=True, kw_only=True)
class Extraction(Counts):
    """The result of extracting one stream: counts of rows, and what is still missing."""

    plan: ExtractionPlan
    meter: Meter  # where the time went
    shards: int  # number of missing shards, or of those in a part's share
    problem: str = ""  # message that rows are still missing, because their videos cannot be read

    @property
    def n_crashed(self) -> int:
        """Number of rows given up because a decoder crashed, hung or needed too much memory."""
        return sum(self.problems[kind] for kind in (*KINDS.values(), AFTER))


def extract_together(
    plans: Sequence[ExtractionPlan],
    resources: Resources = HERE,
    *,
    dask: Dask = NO_CLUSTER,
    part: Part | None = None,
    progress: Progress = silent,
) -> list[Extraction]:
    """Compute the missing rows of several streams of one split, and commit each stream.

    Streams of the same images are computed in one pass, so that every frame is decoded once. After
    a kill, at most half a minute of work is repeated.

    dask: a cluster. Without one, compute on this machine, in one process for each device in
    `resources`, or else in this process. part: stage this share of the missing shards, and commit
    nothing.

    Rows of undecodable frames get the flag `ok` 0, and windows leave them out. Rows of videos that
    are missing, changed or unreadable wait for the next extraction (`Extraction.problem`). Raises
    PipelineError if the raw folder, or a video whose features would be replaced, is missing;
    ConfigError for both a scheduler and devices.
    """
    devices = resources.processes
    if devices and dask.scheduler is not None:
        raise ConfigError(
            f"devices {','.join(devices)}: workers of a cluster have their own. Delete one of both."
        )
    together: dict[Hashable, list[int]] = {}
    for i, plan in enumerate(plans):
        source = str(plan.spec.raw) if plan.spec.stream.reads.crops else i
        together.setdefault(source, []).append(i)
    by_plan: dict[int, Extraction] = {}
    for numbers in together.values():
        extractions = _extract([plans[i] for i in numbers], resources, dask, part, progress)
        by_plan |= dict(zip(numbers, extractions, strict=True))
    return [by_plan[i] for i in range(len(plans))]


def _extract(
    plans: Sequence[ExtractionPlan],
    resources: Resources,
    dask: Dask,
    part: Part | None,
    progress: Progress,
) -> list[Extraction]:
    """Extract streams that share their pixels, or one stream of labels."""
    first = plans[0]
    split = cache.open(first.root)[first.split]
    with ExitStack() as stack:
        streams = [_StreamExtraction(plan, split, resources, dask) for plan in plans]
        missing: Sequence[int] = sorted(set().union(*(s.missing.shards for s in streams)))
        pixels_of = None
        if first.spec.stream.reads.crops:
            if any(plan.replace for plan in plans):
                require_videos(split, first.spec.raw, missing)
            pixels_of = pixels(split, first.spec.raw)
            missing = _leave_lost(split, pixels_of, streams, missing)
        if part is not None:
            missing = part.share(missing)

        outputs = [stream.open(stack, part, frozenset(missing)) for stream in streams]
        rows = split.rows_by_shard()
        total = sum(int(rows[output.target].sum()) for output in outputs)
        run: Run | _ParallelRun
        if dask.scheduler is None and not resources.processes:
            run = Run(split=split, outputs=outputs, pixels_of=pixels_of, resources=resources)
        else:
            run = _ParallelRun(dask, split, streams, resources)

        results = run.results(lambda done, meter: progress(done, total, str(meter)))
        for number, (counts, _) in results:
            streams[number].counts.add(counts)
        finished = zip(streams, run.provenance, strict=True)
        return [stream.finish(provenance, run.meter) for stream, provenance in finished]


def _leave_lost(
    split: Split,
    pixels_of: Callable[[int], Pixels],
    streams: Sequence[_StreamExtraction],
    missing: Sequence[int],
) -> list[int]:
    """Find videos that cannot be read now (lost), and committed shards whose pending rows can be
    computed now. Returns the missing shards that have rows of other videos.
    """
    lost = find_lost(pixels_of, videos_of(split, missing))
    for stream in streams:
        pending = set(stream.missing.videos(split))
        lost |= find_lost(pixels_of, pending - lost.keys(), Pixels.check)
        stream.reopened = stream.missing.select_incomplete(split, pending - lost.keys())
        stream.lost = {split.videos[number].name: why for number, why in lost.items()}
    return skip_lost_shards(split, lost, missing)


class _StreamExtraction:
    """One stream of an extraction: its missing rows are found, `open` it, then `finish` commits."""

    staging: Mapping[str, Any]  # the plan under which shards are staged
    reopened: Sequence[int] = ()  # committed shards with pending rows that can be computed now
    # names of videos that could not be read before the run, and why
    lost: Mapping[str, str] = MappingProxyType({})
    _writer: cache.StreamWriter | None = None  # None: a part, which commits nothing
    _n_missing: int  # number of shards to compute here, including those that a killed run computed

    def __init__(
        self, plan: ExtractionPlan, split: Split, resources: Resources, dask: Dask
    ) -> None:
        self.plan = plan
        self._split = split
        self._resources = resources
        self._dask = dask
        self.recorded: Provenance | None = None  # of the rows that the stream already has
        self._noted: Mapping[str, Any] = {}
        name = plan.spec.name
        if name in split.streams and not plan.replace:
            self.missing = missing_rows(split, name)
            self.recorded = split.stream_manifest(name)["backbone"]
            self._noted = split.stream_provenance(name)
        else:
            self.missing = missing_rows(split, None)
        self.counts = Counts()
        self.target = list[int]()  # shards that the run computes

    def _provenance(self) -> Provenance:
        """Load the stream and return its provenance, on a worker if there are workers, because this
        machine may have no GPU.
        """
        spec = self.plan.spec
        resources = self._resources
        read = functools.partial(_provenance_here, spec, resources, None)
        if self._dask.scheduler is None and not resources.processes:
            return read()
        shared = _shared_folder(self._split, spec)
        with connect_workers(self._dask, resources.processes, shared, [spec.stream]) as workers:
            return workers.run_one(read)

    def open(self, stack: ExitStack, part: Part | None, share: frozenset[int]) -> Output:
        """Open the stream in the cache for a run. share: the missing shards to compute.

        Raises cache.CacheChanged if there has been a commit since the split was opened.
        """
        plan = self.plan
        names = plan.root, plan.split, plan.spec.name
        stream = plan.spec.stream
        if part is None:
            wait_for_parts(plan.root, self._split.place(plan.spec.name).writing, tell)
        if plan.replace or (self.reopened and part is None):
            self._provenance()  # if the weights cannot be loaded, this raises before any delete
        if plan.replace:
            cache.delete_stream(*names)
        self.staging = staging_plan(cache.fingerprint(dict(plan.identity)), stream)
        form: dict[str, Any] = {"dim": stream.dim, "dtype": stream.dtype, "plan": self.staging}
        report_other_work(*names, self.staging)
        if part is None:
            writer = stack.enter_context(cache.StreamWriter(*names, **form))
            return self._open_writer(writer, share)
        shards = cache.StreamShards(*names, **form)
        stack.enter_context(part.running(plan.root, shards.place.writing))
        wanted = share.intersection(self.missing.shards)
        pending = wanted - shards.list_staged().keys()
        return self._output(shards, shards.stage, wanted, pending)

    def _open_writer(self, writer: cache.StreamWriter, share: frozenset[int]) -> Output:
        self._writer = writer
        if writer.refused:
            n_refused = count(len(writer.refused), "staged shard")
            text = f"{n_refused} computed again, first: {writer.refused[0]}"
            err.print(f"{DOUBT} {plain(text)}")
        self.recorded = self.recorded or writer.made or None
        writer.reopen(self.reopened)
        wanted = share.union(self.reopened)
        pending = wanted.intersection(writer.pending)
        return self._output(writer, writer.write, wanted, pending)

    def _output(
        self,
        shards: cache.StreamShards,
        put: Callable[..., cache.Staged | None],
        wanted: frozenset[int],
        pending: frozenset[int],
    ) -> Output:
        """wanted: shards to compute; pending: those that a killed run has not computed already."""
        if shards.split_digest != self._split.manifest["digest"]:
            raise _committed_meanwhile(self.plan.split)
        finished = sorted(wanted.intersection(self.missing.shards) - pending)
        self.counts.kept += int(self._split.rows_by_shard()[finished].sum())
        self.target = sorted(pending)
        self._n_missing = len(finished) + len(pending)
        stream = self.plan.spec.stream
        return Output(self._split, stream, shards, self.target, put, self.recorded)

    def accept(self, staged: cache.Staged) -> None:
        """Make a worker's shard part of the stream's commit; a part leaves it staged."""
        if self._writer is not None:
            self._writer.accept(staged)

    def finish(self, provenance: Provenance | None, meter: Meter) -> Extraction:
        """Commit, unless this is a part. provenance: the network's; None: none was loaded."""
        extraction = Extraction(plan=self.plan, meter=meter, shards=self._n_missing)
        extraction.add(self.counts)
        if self._writer is not None:
            is_empty = self._writer.live_shards and self._writer.pending == self._writer.live_shards
            if self.recorded or not is_empty:
                self._commit(self._writer, provenance)
            extraction.problem = self._describe_missing()
        return extraction

    def _describe_missing(self) -> str:
        """A message about rows that wait for lost videos; "" if there are none."""
        plan = self.plan
        stream = self.plan.spec.name
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
        pending = sorted(set(self.target) & set(writer.pending))
        assert not pending, f"{self.plan.split}: shards {pending} were not computed"
        backbone = dict(provenance or writer.made or self.recorded or self._provenance())
        stand_in = bool(backbone.get("stand_in") or self._split.manifest.get("stand_in"))
        identity = dict(self.plan.identity)
        entries = {"identity": identity, "backbone": backbone, "stand_in": stand_in}
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
        before = Counter[str](self._noted.get("without_features"))
        note["without_features"] = self.counts.problems + before
        return note


@dataclass
class _ParallelRun:
    """Computes a split's shards on a Dask cluster, or in one process per device in `resources`.

    It has the same interface as `engine.run.Run`, which computes them in this process.
    """

    dask: Dask
    split: Split
    # opened before workers start; their writers accept the workers' shards
    streams: Sequence[_StreamExtraction]
    resources: Resources

    def __post_init__(self) -> None:
        self.meter = Meter()
        self.provenance: list[Provenance | None] = [None] * len(self.streams)

    def results(self, progress: Callable[[int, Meter], None]) -> Iterator[tuple[int, Written]]:
        """As `Run.results`, but progress is called after each task. Raises what workers raise."""
        targets = [frozenset(stream.target) for stream in self.streams]
        if not any(targets):
            return
        inputs = self._worker_inputs()
        rows = self.split.rows_by_shard()
        n_done = 0
        shared = _shared_folder(self.split, inputs.specs[0])
        plug_ins = [spec.stream for spec in inputs.specs]
        with connect_workers(self.dask, self.resources.processes, shared, plug_ins) as workers:
            agreed = workers.run_one(inputs.provenance)
            n = workers.number()
            tasks = self._tasks(targets, n)
            self.meter = Meter(decoders=0, lanes=0)
            self.meter.note_device(agreed, n)
            extract = functools.partial(inputs.extract, agreed)
            for extracted, meter in workers.as_completed(extract, tasks):
                for output, (counts, staged) in extracted:
                    assert staged is not None, "a worker commits nothing"
                    self.streams[output].accept(staged)
                    n_done += int(rows[staged.shard])
                    yield output, (counts, staged)
                if meter is not None:
                    self.provenance = list(agreed)
                    self.meter.decoders = n * meter.decoders
                    self.meter.lanes = n * meter.lanes
                    self.meter.include(meter)
                progress(n_done, self.meter)
        self.meter.stop()

    def _tasks(self, targets: Sequence[frozenset[int]], n_workers: int) -> list[list[list[int]]]:
        """The shards to compute in each task: for each stream (output), a list of neighbours."""
        most = MOST_OF_DEVICE if self.dask.scheduler is None else MOST_SHARDS
        target = sorted(frozenset().union(*targets))
        size = max(1, min(most, len(target) // (TASKS_OF_WORKER * n_workers)))
        tasks = []
        for start in range(0, len(target), size):
            group = target[start : start + size]
            tasks.append([sorted(shards.intersection(group)) for shards in targets])
        return tasks

    def _worker_inputs(self) -> _WorkerInputs:
        return _WorkerInputs(
            self.split.root,
            self.split.name,
            str(self.split.manifest["digest"]),
            specs=tuple(stream.plan.spec for stream in self.streams),
            resources=self.resources,
            plans=tuple(stream.staging for stream in self.streams),
            recorded=tuple(stream.recorded for stream in self.streams),
        )


def _committed_meanwhile(split: str) -> cache.CacheChanged:
    return cache.CacheChanged(f"{split}: another process has committed meanwhile. Run it again.")


def _shared_folder(split: Split, spec: StreamSpec) -> Path | None:
    """The raw folder, which all workers must see; None for a stream of labels."""
    if not spec.stream.reads.crops:
        return None
    return raw_folder(split, spec.raw)


def _provenance_here(
    spec: StreamSpec, resources: Resources, recorded: Provenance | None, device: str = ""
) -> Provenance:
    """Load the stream in this process, and return its provenance."""
    return load(spec.stream, resources.machine(device), recorded)[1]


@dataclass(frozen=True, slots=True)
class _WorkerInputs:
    """The inputs of every worker. `device`: the worker's, if `resources` names devices."""

    root: cache.Root
    split: str
    digest: str  # of the split's manifest
    specs: tuple[StreamSpec, ...]  # streams that share their images, or one stream of labels
    resources: Resources
    plans: tuple[Mapping[str, Any], ...]  # by stream: the plan under which shards are staged
    recorded: tuple[Provenance | None, ...]  # by stream: of existing rows
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)  # identifies this extraction

    def provenance(self, device: str = "") -> list[Provenance]:
        """Each stream's provenance, to be agreed on by all workers: it has the statistics that
        standardise features of random weights.
        """
        streams = zip(self.specs, self.recorded, strict=True)
        return [
            _provenance_here(spec, self.resources, recorded, device) for spec, recorded in streams
        ]

    def extract(
        self,
        agreed: Sequence[Provenance],
        shards: Sequence[Sequence[int]],
        alive: Callable[[], None],
        device: str = "",
    ) -> tuple[list[tuple[int, Written]], Meter | None]:
        """Compute and stage one task. Returns what was written, and the meter of the run; None in
        place of the meter: nothing was computed.

        agreed: the provenance of all workers; PipelineError if this one would compute differently.
        shards: the shards to compute, by stream.
        """
        for spec, expected in zip(self.specs, agreed, strict=True):
            found = _provenance_here(spec, self.resources, expected, device)
            others = [one for one in differing(expected, found) if one.part != "device"]
            if others:
                raise PipelineError(
                    f"{self.split}: this worker would compute differently from the others: "
                    f"{'; '.join(map(str, others))}. Use workers of one kind."
                )
        run = _runs.pop(self.mark, None) or self._open(agreed, device)
        _runs.clear()
        for output, target in zip(run.outputs, shards, strict=True):
            output.begin(target)
        extracted = list(run.results(lambda *_: alive()))
        _runs[self.mark] = run
        return extracted, run.meter if run.meter.seconds else None

    def _open(self, agreed: Sequence[Provenance], device: str) -> Run:
        split = cache.open(self.root)[self.split]
        outputs = list[Output]()
        for spec, plan, expected in zip(self.specs, self.plans, agreed, strict=True):
            stream = spec.stream
            shards = cache.StreamShards(
                self.root, self.split, spec.name, dim=stream.dim, dtype=stream.dtype, plan=plan
            )
            outputs.append(Output(split, stream, shards, (), shards.stage, expected, expected))
            if {str(split.manifest["digest"]), shards.split_digest} != {self.digest}:
                raise _committed_meanwhile(self.split)
        first = self.specs[0]
        pixels_of = None
        if first.stream.reads.crops:
            pixels_of = pixels(split, first.raw)
        return Run(
            split=split,
            outputs=outputs,
            pixels_of=pixels_of,
            resources=self.resources,
            process=device,
            stays=bool(device),  # a device's process ends with its extraction
        )


_runs: dict[str, Run] = {}  # at most one: the last run of this process, by its extraction's mark
