"""Detectors of people and their keypoints: ours, and what other packages add.  [pixels] -> raw keypoints -> tracks

A package adds one by an entry point of the group "vibe_pipeline.detectors": its name is the detector's, its value a
`Detector` subclass. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.detect.base import Detector
from pipeline.plug_ins import Registry

__all__ = ["DETECTORS", "ENTRY_POINTS", "Detector", "find", "get", "names"]

ENTRY_POINTS: Final = "vibe_pipeline.detectors"

DETECTORS: Final[Mapping[str, str]] = {  # name -> module:class
    "keypoint_rcnn": "pipeline.detect.keypoint_rcnn:KeypointRCNN",
    "demo": "pipeline.detect.demo:Demo",
}

_REGISTRY: Final[Registry[Detector]] = Registry("detector", ENTRY_POINTS, DETECTORS, Detector, "name")


def names() -> tuple[str, ...]:
    """All detectors' names, ours first. Raises PipelineError when two packages claim one name."""
    return _REGISTRY.names()


def find(name: str) -> type[Detector]:
    """The detector's class. Raises as `get` does."""
    return _REGISTRY.find(name)


def get(name: str, **options: Any) -> Detector:
    """The detector, with its options set.

    Raises PipelineError for an unknown name, PlugInError for one of another package that cannot be loaded, ConfigError
    for an option that the detector does not have or a value that it refuses.
    """
    return _REGISTRY.make(name, options)
