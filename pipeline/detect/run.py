"""People in every frame of a folder of clips, one file a clip.  [pixels -> raw keypoints] -> tracks

One process decodes, ahead of the network in this one. Frames are handed over in batches, so memory does not grow with
a clip's length; after every `PART` frames what was found is kept, and a killed run goes on from there. A clip's file is
of these pixels, weights and settings, or it is made again; a clip that cannot be decoded costs itself.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import numpy as np

from cache.fingerprint import fingerprint
from pipeline.cli.progress import Progress, silent
from pipeline.detect.base import Detect, Detector, People
from pipeline.detect.clips import EXTENSIONS, clips_in
from pipeline.detect.files import ClipFiles, Part, annotations_text, images_text
from pipeline.errors import ConfigError, PipelineError, RawDataError
from pipeline.pixels.cuts import Histogram, cuts, difference, histogram
from pipeline.pixels.frames import Frame, Image, Video
from pipeline.processes import MEMORY, TIMEOUT, Failed, Process, alive, sendable
from pipeline.raw.digests import file_digest
from pipeline.raw.stand_in import is_stand_in

VERSION: Final = 1  # raised by hand whenever the same clip and detector would give another file
PART: Final = 1000  # frames
AHEAD: Final = 2  # batches that are decoded while the network computes one
TRIALS: Final = 2  # processes that may end at a batch


@dataclass(slots=True)
class Report:
    """What became of the clips."""

    done: int = 0  # clips computed
    up_to_date: int = 0
    problems: dict[str, str] = field(default_factory=dict)  # clip -> why it has no file
    frames: int = 0  # computed now
    persons: int = 0
    undecoded: int = 0  # frames within clips
    decoding: float = 0.0  # s that the network waited for frames
    seconds: float = 0.0


def detect_clips(
    raw: Path,
    out: Path,
    detector: Detector,
    *,
    device: str = "auto",
    batch_size: int = 0,
    part: int = PART,
    timeout: float = TIMEOUT,
    progress: Progress = silent,
) -> Report:
    """Write `out/<clip>.json` for every clip below `raw` that has none of these pixels, weights and settings.

    batch_size: pictures at once; 0: the detector's own. timeout: s without progress after which decoding is given up.
    `progress` counts frames, as far as the clips' headers state them.

    Raises ConfigError for a folder without clips and for a stand-in detector on real data, and what loading raises.
    """
    clips = clips_in(raw)
    if not clips:
        found = "no clip is below it" if raw.is_dir() else "there is no such folder"
        raise ConfigError(f"{raw}: {found}. Name a folder with files that end in {', '.join(EXTENSIONS)}.")
    demo = is_stand_in(raw)
    if detector.stand_in and not demo:
        raise ConfigError(f"{detector.name} finds people in demo data alone, and {raw} is none: take another detector")
    identity = {"version": VERSION, "detector": detector.name, "options": detector.identity()}
    report, began = Report(), time.monotonic()
    missing = []
    for clip in clips:
        try:
            files = ClipFiles(out, clip, fingerprint(identity | {"pixels": Video(raw, clip).digest()}))
        except (PipelineError, OSError) as error:
            report.problems[clip] = str(error)
            continue
        if files.done():
            report.up_to_date += 1
        else:
            missing.append(files)
    run = _Run(raw, report, progress, batch_size or detector.batch_size, part, timeout)
    about = {"detector": detector.name, "options": identity["options"], "stand_in": demo}
    try:
        if missing:
            run.detect = detector.load(device)
            run.over(missing, about)
    finally:
        run.decoder.end()
    report.seconds = time.monotonic() - began
    return report


class _Run:
    """One command's work on the clips that have no file yet."""

    def __init__(
        self, raw: Path, report: Report, progress: Progress, batch_size: int, part: int, timeout: float
    ) -> None:
        self.raw, self.report, self.progress, self.part = raw, report, progress, part
        self.decoder = _Decoder(raw, batch_size, timeout)
        self.detect: Detect
        self.total = self.frames = 0

    def over(self, missing: Sequence[ClipFiles], about: dict[str, Any]) -> None:
        stated = {}
        for files in missing:
            with contextlib.suppress(PipelineError):
                stated[files.clip] = Video(self.raw, files.clip).header().n_frames or 0
        self.total = sum(stated.values())
        for files in missing:
            try:
                self._clip(files, about)
                self.report.done += 1
            except RawDataError as error:  # a corrupt clip costs itself
                self.report.problems[files.clip] = str(error)
                self.total -= stated.get(files.clip, 0)

    def _clip(self, files: ClipFiles, about: dict[str, Any]) -> None:
        differences: list[float] = []
        undecoded: list[int] = []
        n_persons, size = 0, (0, 0)
        for part in itertools.chain(files.parts(), self._new_parts(files)):
            differences += part.differences
            undecoded += part.undecoded
            n_persons += part.n_persons
            size = part.size if part.size[0] else size
        if not size[0]:
            raise RawDataError(
                self.raw / files.clip,
                "video",
                expected="frames that can be decoded",
                found="none",
                do="Download it again, or remove it.",
                reason="video_unreadable",
            )
        header = Video(self.raw, files.clip).header()
        files.finish(
            about
            | {
                "clip": files.clip,
                "clip_digest": file_digest(self.raw / files.clip),
                "frames": len(differences),
                "undecoded": undecoded[:1000],
                "persons": n_persons,
                "cuts": cuts(differences),
                "width": size[0],
                "height": size[1],
                "fps": header.fps if np.isfinite(header.fps) else None,
            }
        )

    def _new_parts(self, files: ClipFiles) -> Iterator[Part]:
        """What is computed now, after the parts that are there. They are read again: one at a time is in memory."""
        start, n_persons, ended = 0, 0, False
        before: Histogram | None = None
        for part in files.parts():
            start, n_persons, ended = part.n_frames, n_persons + part.n_persons, part.ended
            before = np.array(part.last, np.float32) if part.last else None
        self.frames += start
        frames = self.decoder.frames(files.clip, start)
        while not ended:
            part, before = self._part(files, frames, start, n_persons, before)
            files.write_part(part)
            start, n_persons, ended = part.n_frames, n_persons + part.n_persons, part.ended
            yield part

    def _part(
        self, files: ClipFiles, batches: Iterator[list[Frame]], start: int, n_persons: int, before: Histogram | None
    ) -> tuple[Part, Histogram | None]:
        differences: list[float] = []
        undecoded: list[int] = []
        decoded: list[int] = []
        found: list[People] = []
        size = (0, 0)
        ended = False
        while len(differences) < self.part:
            batch = self._next(batches)
            if batch is None:
                ended = True
                break
            images = [(frame.index, frame.image) for frame in batch if frame.image is not None]
            for frame in batch:
                now = None if frame.image is None else histogram(frame.image)
                differences.append(0.0 if now is None or before is None else difference(before, now))
                before = before if now is None else now
            undecoded += [frame.index for frame in batch if frame.image is None]
            if images:
                size = images[0][1].shape[1], images[0][1].shape[0]
                found += self._detected([image for _, image in images])
                decoded += [index for index, _ in images]
            self.frames += len(batch)
            self.report.frames += len(batch)
            self.report.undecoded += len(batch) - len(images)
            self.progress(self.frames, max(self.total, self.frames), files.clip)
        n_found = sum(len(people.boxes) for people in found)
        self.report.persons += n_found
        return Part(
            start=start,
            n_frames=start + len(differences),
            differences=differences,
            last=[] if before is None else before.tolist(),
            undecoded=undecoded,
            ended=ended,
            n_persons=n_found,
            size=size,
            images=images_text(files.clip, decoded, size),
            annotations=annotations_text(decoded, found, n_persons + 1),
        ), before

    def _next(self, batches: Iterator[list[Frame]]) -> list[Frame] | None:
        began = time.monotonic()
        batch = next(batches, None)
        self.report.decoding += time.monotonic() - began
        return batch

    def _detected(self, images: list[Image]) -> list[People]:
        found = self.detect(images)
        if len(found) != len(images) or any(
            people.boxes.shape != (len(people.scores), 4) or people.keypoints.shape != (len(people.scores), 17, 3)
            for people in found
        ):
            raise PipelineError("the detector does not give boxes (P, 4), scores (P,), keypoints (P, 17, 3) a picture")
        return found


@dataclass(frozen=True, slots=True)
class _Task:
    """The next frames of a clip."""

    clip: str
    start: int


class _Decoder:
    """The decoding process, started when first needed and replaced when it ends or hangs."""

    def __init__(self, raw: Path, batch_size: int, timeout: float) -> None:
        self._raw, self._size, self._timeout = raw, batch_size, timeout
        self._process: Process | None = None

    def frames(self, clip: str, start: int) -> Iterator[list[Frame]]:
        """Batches of a clip's frames from `start` to its end. Raises RawDataError where decoding fails twice."""
        asked, trials = start, 0
        while True:
            if self._process is None:
                self._process, asked = Process(_decode, str(self._raw), self._size, memory=MEMORY), start
            while len(self._process.given) < AHEAD:
                task = _Task(clip, asked)
                self._process.give([task], pickle.dumps(task))
                asked += self._size
            answer = self._process.answer(wait([self._process.pipe], 1.0), self._timeout)
            if isinstance(answer, Failed):
                self._process, trials = None, trials + 1
                if trials == TRIALS:
                    raise RawDataError(
                        self._raw / clip,
                        "video",
                        expected="a video that can be decoded",
                        found=f"that {TRIALS} processes {answer.message} after frame {start}",
                        do="Encode it again, or remove it.",
                        reason="video_unreadable",
                    )
                continue
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                continue
            task, batch, ended = answer
            self._process.given.popleft()
            if task.clip != clip:  # asked for ahead, of a clip that is over
                continue
            start, trials = start + len(batch), 0
            if batch:
                yield batch
            if ended:
                return

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()


def _decode(pipe: Connection[Any, Any], raw: str, size: int) -> None:
    """What the process does: answer tasks with frames, going on where it is in a clip, until the pipe is closed."""
    clip, position, over = "", -1, False
    frames: Iterator[Frame] = iter(())
    while True:
        try:
            task: _Task = pipe.recv()
        except (EOFError, ConnectionError):
            return
        alive(task.start)
        try:
            if clip != task.clip or (position != task.start and not over):
                clip, position, over = task.clip, task.start, False
                frames = Video(Path(raw), clip).read(itertools.count(position), alive=alive)
            batch: list[Frame] = []
            if not over:  # a task beyond the end may have been given ahead
                batch, over = _batch(frames, size)
                position += len(batch)
            message: object = (task, batch, over)
        except MemoryError:
            raise
        except Exception as error:
            message = sendable(error, "While decoding")
        with contextlib.suppress(ConnectionError):
            pipe.send(message)


def _batch(frames: Iterator[Frame], size: int) -> tuple[list[Frame], bool]:
    """At most `size` frames, and whether the clip ends after them. A file that cannot be opened ends at once."""
    batch: list[Frame] = []
    for frame in itertools.islice(frames, size):
        if frame.kind in ("video_ended", "video_unreadable"):
            return batch, True
        batch.append(frame)
    return batch, len(batch) < size
