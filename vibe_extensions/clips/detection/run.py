"""People in every frame of a folder of clips, one file a clip.  [pixels -> raw keypoints] -> tracks

By this process with processes that decode, or by a Dask cluster or one process a device, whose tasks are one clip or a
few short ones: each decodes, detects and writes as this process does, into the folder that all of them see.

Pictures of equal size go to the detector together, of whatever clips. What was found is written as it comes, so memory
does not grow with a clip's length. A killed run begins with the clips again that it was in; a clip that cannot be
decoded costs itself.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from cache.storage.atomic import WriterLock, write_atomic
from pipeline import cluster
from pipeline.cli.console import DONE, DOUBT, plain, rate
from pipeline.cli.options import cores
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import FEW, count, few
from pipeline.detect import load
from pipeline.detect.base import Detect, DetectionResources, Detector, People
from pipeline.detect.files import RECORDS, ClipFiles, note_speed, people_text
from pipeline.detect.plan import DetectionPlan, plan_detection
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.cuts import Histogram, cuts, difference
from pipeline.files.pixels.frames import Image, Video
from pipeline.files.raw.files import file_digest
from pipeline.processes.devices import Devices
from pipeline.recipe.steps import StepResult, detect_again
from vibe_extensions.clips.detection.decoders import DecodedBatch, Decoders

MOST_CLIPS: Final = 16  # in a task
WAITING: Final = 4  # batches of pictures of several sizes that may wait until there are enough of one size


@dataclass(slots=True)
class DetectionReport:
    """Counts and problems of a detection over clips."""

    done: int = 0  # clips computed
    up_to_date: int = 0
    renamed: dict[str, str] = field(default_factory=dict)  # clip -> what it was called when it was computed
    orphans: list[str] = field(default_factory=list)  # files of clips that are gone
    problems: dict[str, str] = field(default_factory=dict)  # clip -> why it has no file
    frames: int = 0  # computed now
    persons: int = 0
    undecoded: int = 0  # frames within clips
    decoding: float = 0.0  # s that the network waited for frames
    seconds: float = 0.0

    @property
    def bottleneck(self) -> str:
        """The slower step: decode or model."""
        return "decode" if self.decoding > self.seconds / 2 else "model"

    def add(self, other: DetectionReport) -> None:
        """Add the counts of another process."""
        for name in ("done", "frames", "persons", "undecoded", "decoding"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems |= other.problems

    @property
    def doubts(self) -> list[str]:
        """Messages for the user, besides `problems`."""
        messages = [f"{count(self.undecoded, 'frame')} within clips cannot be decoded"] if self.undecoded else []
        if self.orphans:
            first = ", ".join(self.orphans[:FEW]) + (", ..." if len(self.orphans) > FEW else "")
            which = f"{count(len(self.orphans), 'file')} of keypoints whose clips are gone: {first}"
            messages.append(f"{which}. Put the clips back, or remove the files.")
        return messages

    def __str__(self) -> str:
        """4 clips: 812 persons in 400 frames (31 frames/s, bottleneck: model)"""
        speed = f"{rate(self.frames / max(self.seconds, 1e-3), 'frame')}, bottleneck: {self.bottleneck}"
        people = f"{count(self.persons, 'person')} in {count(self.frames, 'frame')}"
        renamed = f", {len(self.renamed):,} renamed" if self.renamed else ""
        return f"{count(self.done, 'clip')}{renamed}: {people}" + (f" ({speed})" if self.frames else "")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        rate = round(self.frames / max(self.seconds, 1e-3), 2) if self.frames else 0.0
        return asdict(self) | {"frames_a_second": rate, "bottleneck": self.bottleneck if self.frames else ""}


def n_frames_stated(raw: Path, todo: Iterable[ClipFiles]) -> int:
    """How many frames the clips have by their headers."""
    n_frames = 0
    for files in todo:
        with contextlib.suppress(PipelineError):
            n_frames += max(0, Video(raw, files.clip).header().n_frames or 0)
    return n_frames


def detect_clips(
    raw: Path, out: Path, detector: Detector, machine: DetectionResources | None = None, *, progress: Progress = silent
) -> DetectionReport:
    """Write `out/<clip>.json` for every clip below `raw` that has none of these pixels, weights and settings.

    `progress` counts frames, as far as the clips' headers state them. Raises what `plan_detection` and `detect` raise.
    """
    return detect_planned(plan_detection(raw, out, detector), machine or DetectionResources(), progress=progress)


def detect_planned(
    plan: DetectionPlan,
    machine: DetectionResources,
    *,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> DetectionReport:
    """Carry out a plan. Clips that were given up before are tried once more.

    scheduler: of a Dask cluster, whose workers do it. Raises what loading the detector raises, CacheError where another
    process writes into the same folder, and what the cluster raises.
    """
    report, began = (
        DetectionReport(up_to_date=plan.done, orphans=[*plan.orphans], problems=dict(plan.refused)),
        time.monotonic(),
    )
    todo = [*plan.missing, *plan.failed]
    if todo or plan.renamed:
        lock = WriterLock(plan.out / RECORDS / "lock")
        try:
            for files, before in plan.renamed.items():
                files.rename(before)
                report.renamed[files.clip] = before.clip
            if not todo:
                pass
            elif scheduler is None and not machine.processes:
                DetectionRun(plan, machine, todo, report, load(plan.detector, machine.device), progress).run()
            else:
                run_parallel(scheduler, plan, machine, todo, report, progress)
        finally:
            lock.release()
    report.seconds = time.monotonic() - began
    note_speed(plan.out, plan.about, report.frames, report.seconds)
    return report


def run_step(
    plan: DetectionPlan, machine: DetectionResources, *, scheduler: str | None, progress: Progress
) -> StepResult:
    """`detect_planned` as a recipe's step (entry point `vibe_pipeline.detection`). Raises as that does."""
    report = detect_planned(plan, machine, scheduler=scheduler, progress=progress)
    given_up = few(list(report.problems.values()), FEW, detect_again(plan))
    return StepResult(
        details=[plain(str(report))],
        mark=DONE if report.done or report.renamed else DOUBT,
        warnings=[*report.doubts, *given_up],
        flaws=len(report.problems),
    )


def run_parallel(
    scheduler: str | None,
    plan: DetectionPlan,
    machine: DetectionResources,
    todo: Sequence[ClipFiles],
    report: DetectionReport,
    progress: Progress,
) -> None:
    """The clips of `todo`, by the cluster at `scheduler` or else by the machine's devices. Adds to `report`.

    Raises what `cluster.connected` and `Devices` raise.
    """
    total, done = n_frames_stated(plan.raw, todo), 0
    connected: AbstractContextManager[cluster.Workers | Devices] = Devices(machine.processes)
    if scheduler is not None:
        connected = cluster.connected(scheduler, plan.raw)
    with connected as workers:
        size = max(1, min(MOST_CLIPS, len(todo) // (4 * workers.number())))
        tasks = [todo[at : at + size] for at in range(0, len(todo), size)]
        for part in workers.as_completed(functools.partial(_on_worker, plan, machine), tasks):
            report.add(part)
            done += part.frames
            progress(done, max(total, done), f"{report.done} clips")


def _on_worker(
    plan: DetectionPlan,
    machine: DetectionResources,
    todo: Sequence[ClipFiles],
    alive: Callable[[], None],
    device: str = "",
) -> DetectionReport:
    report, machine = DetectionReport(), machine.on(device)
    detect = _loaded(plan.detector, machine.device)
    DetectionRun(plan, machine, todo, report, detect, lambda done, total, message="": alive()).run()  # noqa: ARG005
    return report


@functools.lru_cache(1)
def _loaded(detector: Detector, device: str) -> Detect:
    return load(detector, device)


class _OpenClip:
    """A clip that is being worked on: what its frames gave so far."""

    def __init__(self, files: ClipFiles) -> None:
        self.files, self.has_ended, self.n_persons = files, False, 0
        self.differences: list[float] = []  # of each frame from the one before: pipeline.files.pixels.cuts
        self.undecoded: list[int] = []  # frames
        self.decoded: list[int] = []
        self.size = (0, 0)  # width, height px; (0, 0) where no frame was decoded
        self.text = files.people()
        self._before: Histogram | None = None
        self._found: dict[int, People] = {}  # by frame: not written yet, since an earlier one is awaited
        self._n_written = 0  # frames of `decoded`

    @property
    def is_complete(self) -> bool:
        """Whether the detector has seen all frames."""
        return self.has_ended and self._n_written == len(self.decoded)

    def take(self, batch: DecodedBatch) -> Iterator[_Picture]:
        """Frames as they are decoded; those of them that are to be looked at."""
        for frame in batch.frames:
            before, colours = self._before, frame.colours
            self.differences.append(0.0 if colours is None or before is None else difference(before, colours))
            self._before = before if colours is None else colours
            if frame.image is None:
                self.undecoded.append(frame.number)
            else:
                self.size = self.size if self.decoded else (frame.image.shape[1], frame.image.shape[0])
                self.decoded.append(frame.number)
                yield _Picture(self, frame.number, frame.image)
        self.has_ended |= batch.ended

    def put(self, frame: int, people: People) -> None:
        """Who is in a frame. People are written in the order of the frames."""
        self._found[frame] = people
        while self._n_written < len(self.decoded) and (number := self.decoded[self._n_written]) in self._found:
            results = self._found.pop(number)
            self.text.write(people_text(number, results, self.n_persons))
            self.n_persons += len(results.boxes)
            self._n_written += 1


@dataclass(frozen=True, slots=True)
class _Picture:
    """A frame that waits for the detector."""

    clip: _OpenClip
    frame: int
    image: Image


class DetectionRun:
    """The clips of `todo`, in this process and those that decode. What became of them is added to `report`."""

    def __init__(
        self,
        plan: DetectionPlan,
        machine: DetectionResources,
        todo: Sequence[ClipFiles],
        report: DetectionReport,
        detect: Detect,
        progress: Progress,
    ) -> None:
        self.plan, self.todo, self.report, self.detect, self.progress = plan, todo, report, detect, progress
        self.size = machine.batch_size or plan.detector.batch_size
        n = max(1, min(cores(machine.workers), len(todo)))
        self.decoders = Decoders(plan.raw, n, self.size, threads=max(1, cores(0) // n), timeout=machine.timeout)
        self.open: dict[str, _OpenClip] = {}
        self.waiting: dict[tuple[int, ...], list[_Picture]] = {}  # by the picture's shape
        self.total, self.frames, self.began = n_frames_stated(plan.raw, todo), 0, time.monotonic()

    def run(self) -> None:
        """Detect people in all clips. Raises what `detect` raises."""
        with contextlib.closing(self.decoders.batches(self._next_clips())) as batches:
            try:
                self._detect_all(batches)
            finally:
                for clip in self.open.values():
                    clip.text.close()

    def _detect_all(self, batches: Iterator[DecodedBatch]) -> None:
        while (batch := self._next(batches)) is not None:
            clip = self.open[batch.clip]
            for picture in clip.take(batch):  # until there are enough of its size, or too many of others
                same = self.waiting.setdefault(picture.image.shape, [])
                same.append(picture)
                if len(same) == self.size:
                    self._detect(picture.image.shape)
                elif sum(map(len, self.waiting.values())) > WAITING * self.size:
                    self._detect(max(self.waiting, key=lambda shape: len(self.waiting[shape])))
            self.report.undecoded += sum(frame.image is None for frame in batch.frames)
            if batch.problem is not None:
                self._give_up(clip, batch.problem)
            else:
                self._keep(clip)
        for shape in list(self.waiting):
            self._detect(shape)

    def _next_clips(self) -> Iterator[str]:
        for files in self.todo:
            self.open[files.clip] = _OpenClip(files)
            yield files.clip

    def _next(self, batches: Iterator[DecodedBatch]) -> DecodedBatch | None:
        began = time.monotonic()
        batch = next(batches, None)
        self.report.decoding += time.monotonic() - began
        self.report.seconds = time.monotonic() - self.began
        return batch

    def _detect(self, shape: tuple[int, ...]) -> None:
        """Detect people in the pictures of one size."""
        pictures = [picture for picture in self.waiting.pop(shape) if picture.clip.files.clip in self.open]
        if not pictures:
            return
        people_of = self.detect([picture.image for picture in pictures])
        for picture, people in zip(pictures, people_of, strict=True):
            picture.clip.put(picture.frame, people)
            self.report.persons += len(people.boxes)
        self.frames, self.report.frames = self.frames + len(pictures), self.report.frames + len(pictures)
        message = f"{pictures[-1].clip.files.clip}, bottleneck: {self.report.bottleneck}"
        self.progress(self.frames, max(self.total, self.frames), message)
        for clip in dict.fromkeys(picture.clip for picture in pictures):
            self._keep(clip)

    def _keep(self, clip: _OpenClip) -> None:
        """Write the clip's file once all frames have been looked at."""
        if not clip.is_complete:
            return
        if not clip.decoded:
            expected, do = "frames that can be decoded", "Download it again, or remove it."
            file, reason = self.plan.raw / clip.files.clip, "video_unreadable"
            self._give_up(clip, RawDataError(file, "video", expected=expected, found="none", do=do, reason=reason))
            return
        clip.files.finish(self._info(clip), clip.decoded, clip.text)
        self.open.pop(clip.files.clip).text.close()
        self.report.done += 1

    def _give_up(self, clip: _OpenClip, error: RawDataError) -> None:
        """Record why a clip has no result; the others go on."""
        self.open.pop(clip.files.clip).text.close()
        write_atomic(clip.files.failed, str(error).encode(errors="backslashreplace"))
        self.report.problems[clip.files.clip] = str(error)
        self.total -= n_frames_stated(self.plan.raw, [clip.files])

    def _info(self, clip: _OpenClip) -> dict[str, Any]:
        """Return the first line of the clip's file."""
        fps = Video(self.plan.raw, clip.files.clip).header().fps
        return dict(self.plan.about) | {
            "clip": clip.files.clip,
            "clip_digest": file_digest(self.plan.raw / clip.files.clip),
            "frames": len(clip.differences),
            "undecoded": clip.undecoded[:1000],
            "persons": clip.n_persons,
            "cuts": cuts(clip.differences),
            "width": clip.size[0],
            "height": clip.size[1],
            "fps": fps if np.isfinite(fps) else None,
        }
