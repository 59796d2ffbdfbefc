"""Clips without keypoints, by a Dask cluster or one process a device.  [pixels -> raw keypoints] -> tracks

A task is one clip, or a few short ones. A worker decodes, detects and writes as one machine does, into the folder that
all of them see: a lost worker's clip is continued by another from its last part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from pipeline import cluster
from pipeline.cli.progress import Progress
from pipeline.detect.base import Detect, Detector
from pipeline.detect.engine import Machine, Report, Run, n_frames_stated
from pipeline.detect.files import ClipFiles
from pipeline.detect.plan import DetectionPlan
from pipeline.processes.devices import Devices

MOST_CLIPS: Final = 16  # in a task


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
        connected = cluster.connected(scheduler, [plan.raw, plan.out])
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
    return detector.load(device)
