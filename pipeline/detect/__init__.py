"""Detectors of people and their keypoints: ours, and what other packages add.  [pixels] -> raw keypoints -> tracks

A package adds one by an entry point of the group "vibe_pipeline.detectors": its name is the detector's, its value a
`Detector` subclass. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.detect.base import Detect, Detector, People
from pipeline.errors import PipelineError
from pipeline.pixels.frames import Image
from pipeline.plug_ins import Registry

__all__ = ["Detect", "Detector", "Image", "People", "find", "get", "identity", "load", "names"]

ENTRY_POINTS: Final = "vibe_pipeline.detectors"

DETECTORS: Final[Mapping[str, str]] = {  # name -> module:class
    "keypoint_rcnn": "pipeline.detect.keypoint_rcnn:KeypointRCNN",
    "demo": "pipeline.detect.demo:Demo",
}

_REGISTRY: Final[Registry[Detector]] = Registry("detector", ENTRY_POINTS, DETECTORS, Detector, "name")
names, find, get = _REGISTRY.names, _REGISTRY.find, _REGISTRY.get


def identity(detector: Detector) -> dict[str, Any]:
    """What its numbers depend on. Raises what it raises, PlugInError for a failure of another package's detector."""
    with _REGISTRY.calling(detector.name, "identity"):
        return detector.identity()


def load(detector: Detector, device: str) -> Detect:
    """The function that detects.

    Both raise PlugInError where another package's detector fails in them, else what they do; the function also
    PipelineError where it does not give what it promises.
    """
    with _REGISTRY.calling(detector.name, "load"):
        function = detector.load(device)

    def detect(images: Sequence[Image]) -> list[People]:
        with _REGISTRY.calling(detector.name, "the function that load returned"):
            people = function(images)
        if not (isinstance(people, list) and len(people) == len(images) and all(map(_is_people, people))):
            expected = f"a list of {len(images)} People: boxes (P, 4), scores (P,), keypoints (P, 17, 3) of a picture"
            raise PipelineError(f"{_REGISTRY.label(detector.name)}: expected {expected}; found another result")
        return people

    return detect


def _is_people(result: object) -> bool:
    if not isinstance(result, People):
        return False
    n = len(result.scores)
    return result.boxes.shape == (n, 4) and result.scores.shape == (n,) and result.keypoints.shape == (n, 17, 3)
