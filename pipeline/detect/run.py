"""People in every frame of a folder of clips, one file a clip.  [pixels -> raw keypoints] -> tracks

By this process, or by a Dask cluster or one process a device: their tasks are one clip, or a few short ones. A worker
decodes, detects and writes as this process does, into the folder that all of them see: a lost worker's clip is
continued by another from its last part.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from cache.storage.atomic import WriterLock
from pipeline import cluster
from pipeline.cli.progress import Progress, silent
from pipeline.detect import load
from pipeline.detect.base import Detect, Detector
from pipeline.detect.engine import Machine, Report, Run, n_frames_stated
from pipeline.detect.files import PARTS, ClipFiles, note_speed
from pipeline.detect.plan import DetectionPlan, plan_detection
from pipeline.processes.devices import Devices

__all__ = ["Machine", "Report", "detect_clips", "detect_planned"]

MOST_CLIPS: Final = 16  # in a task


def detect_clips(
    raw: Path, out: Path, detector: Detector, machine: Machine | None = None, *, progress: Progress = silent
) -> Report:
    """Write `out/<clip>.json` for every clip below `raw` that has none of these pixels, weights and settings.

    `progress` counts frames, as far as the clips' headers state them. Raises what `plan_detection` and `detect` raise.
    """
    return detect_planned(plan_detection(raw, out, detector), machine or Machine(), progress=progress)


def detect_planned(
    plan: DetectionPlan,
    machine: Machine,
    *,
    scheduler: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Do what the plan names, and try clips once more that were given up.

    scheduler: of a Dask cluster, whose workers do it. Raises what loading the detector raises, CacheError where another
    process writes into the same folder, and what the cluster raises.
    """
    report, began = Report(up_to_date=plan.done, orphans=[*plan.orphans], problems=dict(plan.refused)), time.monotonic()
    todo = [*plan.missing, *plan.failed]
    if todo or plan.renamed:
        lock = WriterLock(plan.out / PARTS / "lock")
        try:
            for files, before in plan.renamed.items():
                files.rename(before)
                report.renamed[files.clip] = before.clip
            if not todo:
                pass
            elif scheduler is None and not machine.devices:
                Run(plan, machine, todo, report, load(plan.detector, machine.device), progress).over()
            else:
                run_parallel(scheduler, plan, machine, todo, report, progress)
        finally:
            lock.release()
    report.seconds = time.monotonic() - began
    note_speed(plan.out, plan.about, report.frames, report.seconds)
    return report


def run_parallel(
    scheduler: str | None,
    plan: DetectionPlan,
    machine: Machine,
    todo: Sequence[ClipFiles],
    report: Report,
    progress: Progress,
) -> None:
    """The clips of `todo`, by the cluster at `scheduler` or else by the machine's devices. Adds to `report`.

    Raises what `cluster.connected` and `Devices` raise.
    """
    total, done = n_frames_stated(plan.raw, todo), 0
    connected: AbstractContextManager[cluster.Workers | Devices] = Devices(machine.devices)
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
    plan: DetectionPlan, machine: Machine, todo: Sequence[ClipFiles], alive: Callable[[], None], device: str = ""
) -> Report:
    report, machine = Report(), machine.on(device)
    detect = _loaded(plan.detector, machine.device)
    Run(plan, machine, todo, report, detect, lambda done, total, message="": alive()).over()  # noqa: ARG005
    return report


@functools.lru_cache(1)
def _loaded(detector: Detector, device: str) -> Detect:
    return load(detector, device)
