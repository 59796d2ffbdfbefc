"""Detectors of people and their keypoints: ours, and what other packages add.  [pixels] -> raw keypoints -> tracks

A package adds one by an entry point of the group "vibe_pipeline.detectors": its name is the detector's, its value a
`Detector` subclass. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.detect.base import Detector
from pipeline.plug_ins import Registry

__all__ = ["DETECTORS", "ENTRY_POINTS", "Detector", "find", "get", "names"]

ENTRY_POINTS: Final = "vibe_pipeline.detectors"

DETECTORS: Final[Mapping[str, str]] = {  # name -> module:class
    "keypoint_rcnn": "pipeline.detect.keypoint_rcnn:KeypointRCNN",
    "demo": "pipeline.detect.demo:Demo",
}

_REGISTRY: Final[Registry[Detector]] = Registry("detector", ENTRY_POINTS, DETECTORS, Detector, "name")
names, find, get = _REGISTRY.names, _REGISTRY.find, _REGISTRY.get
