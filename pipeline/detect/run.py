"""People in every frame of a folder of clips, one file a clip.  [pixels -> raw keypoints] -> tracks"""

from __future__ import annotations

import time
from pathlib import Path

from cache.storage.atomic import WriterLock
from pipeline.cli.progress import Progress, silent
from pipeline.detect.base import Detector
from pipeline.detect.engine import PART, Machine, Report, Run
from pipeline.detect.files import PARTS
from pipeline.detect.parallel import run_parallel
from pipeline.detect.plan import DetectionPlan, plan_detection
from pipeline.processes import TIMEOUT

__all__ = ["Machine", "Report", "detect_clips", "detect_planned"]


def detect_clips(
    raw: Path,
    out: Path,
    detector: Detector,
    *,
    device: str = "auto",
    batch_size: int = 0,
    workers: int = 0,
    part: int = PART,
    timeout: float = TIMEOUT,
    progress: Progress = silent,
) -> Report:
    """Write `out/<clip>.json` for every clip below `raw` that has none of these pixels, weights and settings.

    `progress` counts frames, as far as the clips' headers state them. Raises what `plan_detection` and `detect` raise.
    """
    plan = plan_detection(raw, out, detector)
    return detect_planned(plan, Machine(device, batch_size, workers, part, timeout), progress=progress)


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
    report, began = Report(up_to_date=plan.done, problems=dict(plan.refused)), time.monotonic()
    todo = [*plan.missing, *plan.failed]
    if todo:
        lock = WriterLock(plan.out / PARTS / "lock")
        try:
            if scheduler is None and not machine.devices:
                Run(plan, machine, todo, report, plan.detector.load(machine.device), progress).over()
            else:
                run_parallel(scheduler, plan, machine, todo, report, progress)
        finally:
            lock.release()
    report.seconds = time.monotonic() - began
    return report
