"""Clips -> one file of keypoints each, by a detector in this process and processes that decode.  [pixels] -> tracks

Pictures of equal size go to the detector together, of whatever clips. After every `PART` frames of a clip what was
found is kept, and a killed run continues from there; so memory does not grow with a clip's length. A clip that cannot
be decoded costs itself.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.cli.console import rate
from pipeline.cli.options import cores
from pipeline.cli.progress import Progress
from pipeline.cli.text import FEW, count
from pipeline.detect.base import Detect, People
from pipeline.detect.decoders import DecodedBatch, Decoders
from pipeline.detect.files import ClipFiles, Part, annotations_text, images_text
from pipeline.detect.plan import DetectionPlan
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.cuts import Histogram, cuts, difference
from pipeline.files.pixels.frames import Image, Video
from pipeline.files.raw.files import file_digest
from pipeline.processes import TIMEOUT

PART: Final = 250  # frames: minutes of a network on a CPU
WAITING: Final = 4  # batches of pictures of several sizes that may wait until there are enough of one size


@dataclass(slots=True)
class Report:
    """What became of the clips."""

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
        """What most of the time went into: decode or model."""
        return "decode" if self.decoding > self.seconds / 2 else "model"

    def add(self, other: Report) -> None:
        """Count what another process did."""
        for name in ("done", "frames", "persons", "undecoded", "decoding"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems |= other.problems

    @property
    def doubts(self) -> list[str]:
        """What should be looked at, besides `problems`."""
        messages = [f"{count(self.undecoded, 'frame')} within clips cannot be decoded"] if self.undecoded else []
        if self.orphans:
            first = ", ".join(self.orphans[:FEW]) + (", ..." if len(self.orphans) > FEW else "")
            which = f"{count(len(self.orphans), 'file')} of clips that are gone: {first}"
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


@dataclass(frozen=True, slots=True)
class Machine:
    """With what it is done. None of it decides a result."""

    device: str = "auto"
    batch_size: int = 0  # pictures at once; 0: the detector's own
    workers: int = 0  # processes that decode; 0: one a core
    part: int = PART  # frames
    timeout: float = TIMEOUT  # s without progress after which decoding is given up
    devices: tuple[str, ...] = ()  # a process for each, in the place of `device`

    def on(self, device: str) -> Machine:
        """What the process of one of `devices` may take: its share of the cores. All of it for ""."""
        workers = max(1, cores(self.workers) // len(self.devices)) if device else 0
        return replace(self, device=device, workers=workers, devices=()) if device else self


def n_frames_stated(raw: Path, todo: Iterable[ClipFiles]) -> int:
    """How many frames the clips have by their headers."""
    return sum(_stated(raw, files.clip) for files in todo)


def _stated(raw: Path, clip: str) -> int:
    try:
        return Video(raw, clip).header().n_frames or 0
    except PipelineError:
        return 0


@dataclass(slots=True)
class _OpenPart:
    """Some frames in a row of a clip, not all of which have been looked at."""

    start: int
    differences: list[float] = field(default_factory=list)
    undecoded: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    found: list[People | None] = field(default_factory=list)  # of each decoded frame
    size: tuple[int, int] = (0, 0)
    waiting: int = 0  # frames of `found` that are None
    last: list[float] | None = None  # colours of the last frame; None: more frames are to come

    def closed(self, clip: str, n_persons: int) -> Part:
        """All of it, after a clip's first `n_persons`."""
        found = [people for people in self.found if people is not None]
        return Part(
            start=self.start,
            n_frames=self.start + len(self.differences),
            differences=self.differences,
            last=self.last or [],
            undecoded=self.undecoded,
            n_persons=sum(len(people.boxes) for people in found),
            size=self.size,
            images=images_text(clip, self.decoded, self.size),
            annotations=annotations_text(self.decoded, found, n_persons + 1),
        )


class _Clip:
    """A clip that is being worked on: the parts that are finished, and those that are open."""

    def __init__(self, files: ClipFiles, part: int) -> None:
        self.files, self._part = files, part
        self.n_persons, self.start, self.ended = 0, 0, False
        self.before: Histogram | None = None
        for kept in files.parts():
            self.start, self.n_persons = kept.n_frames, self.n_persons + kept.n_persons
            self.before = np.array(kept.last, np.float32) if kept.last else None
        self.parts = deque([_OpenPart(self.start)])

    def take(self, batch: DecodedBatch) -> Iterator[_Picture]:
        """Frames as they are decoded; those of them that are to be looked at."""
        for frame in batch.frames:
            part, now = self.parts[-1], frame.colours
            part.differences.append(0.0 if now is None or self.before is None else difference(self.before, now))
            self.before = self.before if now is None else now
            if frame.image is None:
                part.undecoded.append(frame.number)
            else:
                part.size = part.size if part.decoded else (frame.image.shape[1], frame.image.shape[0])
                part.decoded.append(frame.number)
                part.found.append(None)
                part.waiting += 1
                yield _Picture(self, part, len(part.found) - 1, frame.image)
            if len(part.differences) == self._part:
                self._close()
                self.parts.append(_OpenPart(frame.number + 1))
        if batch.ended:
            self.ended = True
            self._close()

    def _close(self) -> None:
        self.parts[-1].last = [] if self.before is None else self.before.tolist()

    def keep(self) -> Part | None:
        """Write the parts of which all frames have been looked at; the clip's last part is given instead."""
        while self.parts and self.parts[0].last is not None and not self.parts[0].waiting:
            part = self.parts.popleft().closed(self.files.clip, self.n_persons)
            if self.ended and not self.parts:
                return part
            self.n_persons += part.n_persons
            self.files.write_part(part)
        return None


@dataclass(frozen=True, slots=True)
class _Picture:
    """A frame that waits for the detector."""

    clip: _Clip
    part: _OpenPart
    place: int  # in `part.found`
    image: Image


class Run:
    """The clips of `todo`, in this process and those that decode. What became of them is added to `report`."""

    def __init__(
        self,
        plan: DetectionPlan,
        machine: Machine,
        todo: Sequence[ClipFiles],
        report: Report,
        detect: Detect,
        progress: Progress,
    ) -> None:
        self.plan, self.todo, self.report, self.detect, self.progress = plan, todo, report, detect, progress
        self.size, self.part = machine.batch_size or plan.detector.batch_size, machine.part
        n = max(1, min(cores(machine.workers), len(todo)))
        self.decoders = Decoders(plan.raw, n, self.size, threads=max(1, cores(0) // n), timeout=machine.timeout)
        self.open: dict[str, _Clip] = {}
        self.waiting: dict[tuple[int, ...], list[_Picture]] = {}  # by the picture's shape
        self.total, self.frames, self.began = n_frames_stated(plan.raw, todo), 0, time.monotonic()

    def over(self) -> None:
        """Do it. Raises what `detect` raises."""
        with contextlib.closing(self.decoders.batches(self._next_clips())) as batches:
            self._over(batches)

    def _over(self, batches: Iterator[DecodedBatch]) -> None:
        while (batch := self._next(batches)) is not None:
            clip = self.open[batch.clip]
            for picture in clip.take(batch):  # until there are enough of its size, or too many of others
                same = self.waiting.setdefault(picture.image.shape, [])
                same.append(picture)
                if len(same) == self.size:
                    self._look(picture.image.shape)
                elif sum(map(len, self.waiting.values())) > WAITING * self.size:
                    self._look(max(self.waiting, key=lambda shape: len(self.waiting[shape])))
            self.report.undecoded += sum(frame.image is None for frame in batch.frames)
            if batch.problem is not None:
                self._give_up(clip, batch.problem)
            else:
                self._keep(clip)
        for shape in list(self.waiting):
            self._look(shape)

    def _next_clips(self) -> Iterator[tuple[str, int]]:
        for files in self.todo:
            clip = self.open[files.clip] = _Clip(files, self.part)
            self.frames += clip.start
            yield files.clip, clip.start

    def _next(self, batches: Iterator[DecodedBatch]) -> DecodedBatch | None:
        began = time.monotonic()
        batch = next(batches, None)
        self.report.decoding += time.monotonic() - began
        self.report.seconds = time.monotonic() - self.began
        return batch

    def _look(self, shape: tuple[int, ...]) -> None:
        """Detect people in the pictures of one size."""
        pictures = [one for one in self.waiting.pop(shape) if one.clip.files.clip in self.open]
        if not pictures:
            return
        found = self.detect([one.image for one in pictures])
        for one, people in zip(pictures, found, strict=True):
            one.part.found[one.place] = people
            one.part.waiting -= 1
            self.report.persons += len(people.boxes)
        self.frames, self.report.frames = self.frames + len(pictures), self.report.frames + len(pictures)
        message = f"{pictures[-1].clip.files.clip}, bottleneck: {self.report.bottleneck}"
        self.progress(self.frames, max(self.total, self.frames), message)
        for clip in dict.fromkeys(one.clip for one in pictures):
            self._keep(clip)

    def _keep(self, clip: _Clip) -> None:
        last = clip.keep()
        if last is None:
            return
        info = self._info(clip.files, last)
        if info is None:
            expected, do = "frames that can be decoded", "Download it again, or remove it."
            file, reason = self.plan.raw / clip.files.clip, "video_unreadable"
            self._give_up(clip, RawDataError(file, "video", expected=expected, found="none", do=do, reason=reason))
            return
        clip.files.finish(info, last)
        del self.open[clip.files.clip]
        self.report.done += 1

    def _give_up(self, clip: _Clip, error: RawDataError) -> None:
        """A corrupt clip costs itself."""
        clip.files.fail(str(error))
        del self.open[clip.files.clip]
        self.report.problems[clip.files.clip] = str(error)
        self.total -= max(0, _stated(self.plan.raw, clip.files.clip))

    def _info(self, files: ClipFiles, last: Part) -> dict[str, Any] | None:
        """What the file's first line has; None where no frame was decoded."""
        differences: list[float] = []
        undecoded: list[int] = []
        n_persons, size = 0, (0, 0)
        for part in itertools.chain(files.parts(), [last]):
            differences += part.differences
            undecoded += part.undecoded
            n_persons += part.n_persons
            size = size if size[0] else part.size
        if not size[0]:
            return None
        fps = Video(self.plan.raw, files.clip).header().fps
        return dict(self.plan.about) | {
            "clip": files.clip,
            "clip_digest": file_digest(self.plan.raw / files.clip),
            "frames": len(differences),
            "undecoded": undecoded[:1000],
            "persons": n_persons,
            "cuts": cuts(differences),
            "width": size[0],
            "height": size[1],
            "fps": fps if np.isfinite(fps) else None,
        }
