"""Detection of a folder's clips as one call."""

from pathlib import Path

from pipeline.detect import DetectionResources, Detector
from pipeline.detect.plan import plan_detection
from vibe_extensions.clips.detection.run import DetectionReport, detect_planned


def detect_clips(raw: Path, out: Path, detector: Detector, **machine: int) -> DetectionReport:
    """machine: Fields of `DetectionResources`."""
    return detect_planned(plan_detection(raw, out, detector), DetectionResources(**machine))
