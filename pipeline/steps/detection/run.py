"""Detect the people in every frame of a folder of clips.  [pixels -> raw keypoints] -> tracks

Writes one keypoint file per clip (`pipeline.clips.files`). Runs in this process, or in parts, each
of which a worker does: the process of a device or of a Dask cluster. A part is one clip or a few,
which the worker decodes, detects and writes into the shared folder. A batch for the detector is a
decoded task: the next frames of one clip. Results are written as they come, so memory does not grow
with a clip's length. After a killed run, only the clips that were open are repeated.

A key frame is one in which people are searched; with `every` > 1, they are followed from it through
the frames after it (`pipeline.clips.detectors.two_parts`).

A `_DetectionRun` detects the clips of one part, or all clips if there are no workers.
"""

from __future__ import annotations

import contextlib
import functools
import math
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cache.format.layout import RUNNING
from cache.storage.durable import write_atomic
from cache.storage.writer_lock import WriterLock
from cache.write.parts import Part, refuse_running_parts
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.clips.decoders import ClipDecoding, DecodedTask, OpenClip, Task
from pipeline.clips.detectors import DetectFrames, identity, load
from pipeline.clips.files import RECORDS, ClipFiles
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.frames import Video
from pipeline.files.raw.files import digest_or_problem
from pipeline.people.boxes import require_opencv
from pipeline.processes import SAME_FILES, Failed
from pipeline.processes.cluster import run_parts
from pipeline.processes.meter import Meter
from pipeline.processes.pool import Pool
from pipeline.processes.settings import NO_CLUSTER, Dask, DetectionResources
from pipeline.settings.sections import Settings
from pipeline.steps import sentences
from pipeline.steps.detection.plan import DetectionWork
from pipeline.steps.detection.results import DetectionTally, rename_clip, write_clip
from pipeline.steps.report import StepReport

MOST_CLIPS: Final = 16  # in a part of a worker: progress is reported after each part


def detect_planned(
    work: DetectionWork,
    machine: DetectionResources,
    *,
    dask: Dask = NO_CLUSTER,
    part: Part | None = None,
    progress: Progress = silent,
) -> DetectionTally:
    """Detect people in the clips of a work, also in those that failed before.

    Args:
        dask: Cluster whose workers detect.
        part: The share of the clips that the work has, of a detection by several processes. Takes
            no lock and renames no files; a later run without `part` does.

    Raises:
        CacheError: another process, or a part, writes into the same folder.
        Exception: what loading the detector and the cluster raise.
    """
    tally = DetectionTally(up_to_date=work.n_up_to_date, problems=dict(work.refused))
    todo = [*work.missing, *work.failed]
    if part is not None and todo:
        with part.running(work.out, RECORDS):
            _detect_clips(work, machine, todo, dask, tally, progress)
    elif part is None and (todo or work.renamed):
        with _lock(work.out):
            for files, before in work.renamed.items():
                rename_clip(files, before)
                tally.renamed[files.clip] = before.clip
            _detect_clips(work, machine, todo, dask, tally, progress)
    tally.meter.stop()
    return tally


def run_detection(
    work: DetectionWork,
    settings: Settings,
    progress: Progress,
    part: Part | None = None,
    *,
    retries: bool = False,
) -> StepReport:
    """Find people in clips. If all are up to date, clips that failed before are only named, unless
    `retries`. Raises as `detect_planned` does.

    Flaws are clips that have no keypoints, or lost frames.
    """
    tally = DetectionTally(up_to_date=work.n_up_to_date, problems=work.problems)
    if retries or not work.up_to_date:
        tally = detect_planned(
            work, settings.detect, dask=settings.dask, part=part, progress=progress
        )
    return sentences.detection_report(work, tally)


def _detect_clips(
    work: DetectionWork,
    machine: DetectionResources,
    todo: Sequence[ClipFiles],
    dask: Dask,
    tally: DetectionTally,
    progress: Progress,
) -> None:
    """Detect clips on devices, on a cluster, or all of them here, and add to the tally."""
    require_opencv()
    n_done = 0

    def report() -> None:
        progress(n_done, len(todo), count(tally.frames, "frame"))

    tallies = run_parts(
        functools.partial(_detect_on_worker, work, machine),
        todo,
        dask,
        machine.processes,
        most=MOST_CLIPS,
        shared=work.raw,
        plug_ins=[work.detector],
        progress=progress,
        meanwhile=report,
    )
    with contextlib.closing(tallies):
        for clips, of_clips in tallies:
            tally.add(of_clips)
            n_done += len(clips)
            report()


def _detect_on_worker(
    work: DetectionWork,
    machine: DetectionResources,
    clips: Sequence[ClipFiles],
    progress: Progress,
    device: str,
) -> DetectionTally:
    """Detect a worker's clips, but not those that a lost worker has finished. device: as for
    `Computing.decoders`.

    Raises PipelineError if this process has other weights than the command.
    """
    if identity(work.detector) != work.about["options"]:
        raise PipelineError(f"this worker has other weights of {work.detector.name}. {SAME_FILES}")
    todo = [files for files in clips if not files.is_up_to_date()]
    if not todo:
        return DetectionTally()
    detect = _load_cached(work.detector, device or machine.device)
    n_decoders = min(machine.decoders(device), len(todo))
    return _DetectionRun(work, machine, n_decoders, todo, detect, progress).run()


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep other writers out of the folder `out`, and remove the temporary files of killed
    processes. Raises Busy if a part is running.
    """
    refuse_running_parts(out, RECORDS)
    hex_digit = "[0-9a-f]"
    with WriterLock(out / RECORDS / "lock"):
        for temporary in list(out.rglob(f".*.{hex_digit * 8}.tmp")):  # as durable.py names them
            temporary.unlink()
        for sign in list((out / RECORDS).glob(f"{RUNNING}*")):  # of killed parts
            sign.unlink()
        yield


_load_cached = functools.lru_cache(1)(load)


class _DetectionRun:
    """Detects people in the clips of `todo` in this process.

    A clip is in `open_clips` from the time that a process begins to decode it (`_open_clips`) until
    it gets a keypoint file or a record of its failure (`_close`). Meanwhile, its frames pass these
    steps:

        _detect_all       takes decoded tasks from the processes
        _detect_task      detects people in the frames of one task, and hands them to the clip. Of
                          the tasks that are ready, those of the earliest open clip come first, so
                          that few clips are unfinished
    """

    def __init__(
        self,
        work: DetectionWork,
        machine: DetectionResources,
        n_decoders: int,
        todo: Sequence[ClipFiles],
        detect: DetectFrames,
        progress: Progress,
    ) -> None:
        self.work = work
        self.todo = todo
        self.detect = detect
        self.progress = progress
        self.every = work.detector.every
        # A key frame and the frames followed from it, a group of up to `every` frames, share a
        # batch. If `every` > 1, the detector computes one frame of each group at a time: by
        # default, a third to a half of its preferred number of images.
        batch_size = machine.batch_size or work.detector.batch_size * max(1, self.every // 2)
        # rounded up to whole groups, so that a task of a decoder, which is as long, has them too
        self.batch_size = math.ceil(batch_size / self.every) * self.every
        self.pool = Pool[Task, DecodedTask](
            [ClipDecoding(work.raw, self.batch_size)] * n_decoders,
            self._open_clips(),
            timeout=machine.timeout,
        )
        self.open_clips: dict[str, OpenClip] = {}  # by path; without clips given up
        self.tally = DetectionTally(meter=Meter(decoders=n_decoders))
        self.n_done = 0  # clips that have a keypoint file, or were given up

    def run(self) -> DetectionTally:
        """Detect people in all clips. Raises what `detect` raises."""
        with self.pool:
            try:
                self._detect_all()
            finally:
                for clip in self.open_clips.values():
                    clip.text.close()
        self.tally.meter.stop()
        return self.tally

    def _detect_all(self) -> None:
        clip: OpenClip | None = None
        while clip is not None or self.pool.has_more or not self.pool.is_idle:
            for result in self.pool.poll(0 if clip is not None else 1):
                name, start = result.task
                decoded = result.get()
                self.tally.meter.add(decode=result.seconds)
                if isinstance(decoded, Failed):  # that is the end of its clip
                    why = f"after frame {start}: the process that decodes it {decoded.message}"
                    problem = Video(self.work.raw, name).unreadable(why)
                    decoded = DecodedTask([], True, problem)
                if name in self.open_clips:  # else it was beyond the end of its clip
                    self.open_clips[name].receive(decoded)
            if clip is not None:
                self._detect_task(clip)
            # the earliest open clip that has decoded tasks
            clip = next((clip for clip in self.open_clips.values() if clip.decoded), None)

    def _open_clips(self) -> Iterator[Iterator[Task | None]]:
        """Open the clips one after the other, and yield the tasks of each."""
        for files in self.todo:
            digest = digest_or_problem(self.work.raw / files.clip)
            clip = OpenClip(files, self.every, digest)
            self.open_clips[files.clip] = clip
            yield clip.tasks(self.batch_size)

    def _detect_task(self, clip: OpenClip) -> None:
        """Detect people in the frames of a clip's next task. Then close the clip if that was the
        last one, or if it has a problem.
        """
        task = clip.decoded.popleft()
        frames = [*clip.take_frames(task)]
        if frames:
            images = [frame.image for frame in frames]
            is_key = [frame.is_key for frame in frames]
            with self.tally.meter.measure("model"):
                results = self.detect(images, is_key)
            for frame, people in zip(frames, results, strict=True):
                clip.add_people(frame.number, people)
                self.tally.persons += len(people.boxes)
            self.tally.frames += len(frames)
            stated = f" of {task.n_stated:,}" if task.n_stated else ""
            message = (
                f"frame {clip.n_frames:,}{stated} of {clip.files.clip}{self.tally.meter.slowest}"
            )
            self.progress(self.n_done, len(self.todo), message)
        if task.problem is not None:
            self._close(clip, task.problem)
        elif clip.is_complete:
            self._finish(clip)

    def _finish(self, clip: OpenClip) -> None:
        """Write a complete clip's file, or give the clip up."""
        try:
            record = self._check(clip)
        except RawDataError as error:
            self._close(clip, error)
            return
        if record.lost:
            self.tally.damaged[clip.files.clip] = record.remarks()[0]
        with self.tally.meter.measure("write"):
            write_clip(self.work, clip, record)
        self.tally.detected += 1
        self._close(clip)

    def _check(self, clip: OpenClip) -> ClipRecord:
        """The record of a complete clip. Raises RawDataError if it is to get no keypoint file."""
        video = Video(self.work.raw, clip.files.clip)
        if clip.record is None or not clip.decoded_frames:
            raise video.unreadable("no such frame")
        video.refuse_cut_off(clip.record)
        if not self.work.is_unchanged(clip.files):
            expected = "the clip for which detection began, until its last frame"
            actual = f"another file, or none, on {platform.node()}"
            do = (
                "Run the same command again, and replace no clip meanwhile. On a cluster, "
                "mount the same raw folder on all machines."
            )
            raise RawDataError(video.place, "video", expected, actual, do)
        return clip.record

    def _close(self, clip: OpenClip, error: RawDataError | None = None) -> None:
        """End the work on a clip. error: why it gets no keypoint file, to be recorded in the tally
        and in a file (`failed`).
        """
        if error is not None:
            reason = str(error).encode(errors="backslashreplace")
            write_atomic(clip.files.failed, reason, shared=True)
            self.tally.problems[clip.files.clip] = str(error)
        del self.open_clips[clip.files.clip]
        clip.text.close()
        self.n_done += 1
