"""Detectors of people and their keypoints.  [pixels] -> raw keypoints -> tracks

Packages add one by an entry point of the group "vibe_pipeline.detectors": the detector's name -> a `Detector` subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.detect.base import Detect, Detector, People
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image
from pipeline.plug_ins import Registry

__all__ = ["Detect", "Detector", "Image", "People", "find", "flaw", "get", "identity", "load", "names", "terms"]

ENTRY_POINTS: Final = "vibe_pipeline.detectors"

_REGISTRY: Final[Registry[Detector]] = Registry("detector", ENTRY_POINTS, {}, Detector, "name")
names, find, get = _REGISTRY.names, _REGISTRY.find, _REGISTRY.get


def identity(detector: Detector) -> dict[str, Any]:
    """`Detector.identity`; PlugInError if another package's detector fails in it."""
    with _REGISTRY.calling(detector.name, "identity"):
        return detector.identity()


def terms(detector: Detector) -> list[dict[str, str]]:
    """`Detector.terms`; PlugInError if another package's detector fails in it."""
    with _REGISTRY.calling(detector.name, "terms"):
        return detector.terms()


def load(detector: Detector, device: str) -> Callable[..., list[People]]:
    """`Detector.load`, and a function that checks its results.

    Failures of another package's detector raise PlugInError, invalid results PipelineError.
    """
    with _REGISTRY.calling(detector.name, "load"):
        function: Callable[..., list[People]] = detector.load(device)

    def detect(images: Sequence[Image], *keys: Sequence[bool]) -> list[People]:
        with _REGISTRY.calling(detector.name, "the function that load returned"):
            people = function(images, *keys)
        of_each = isinstance(people, list) and len(people) == len(images)
        problem = next(filter(None, map(flaw, people)), "") if of_each else _describe(people)
        if problem:
            raise PipelineError(
                f"{_REGISTRY.label(detector.name)}: expected a list of {len(images)} People: boxes (P, 4), scores (P,) "
                f"and keypoints (P, 17, 3) of an image, all finite, scores and confidences 0 to 1; found {problem}"
            )
        return [one if one.keypoints.shape[1] else one._replace(keypoints=_no_joints(one)) for one in people]

    return detect


def flaw(people: object) -> str:
    """What is wrong with an image's people; "" if nothing."""
    if not isinstance(people, People):
        return f"{_describe(people)} in it"
    n = len(people.scores)
    joints = np.shape(people.keypoints) != (n, 0, 3)  # else a detector of boxes alone
    for name, array, form in zip(people._fields, people, ((n, 4), (n,), (n, 17 * joints, 3)), strict=True):
        if not isinstance(array, np.ndarray) or array.shape != form:
            return f"{name} {array.shape if isinstance(array, np.ndarray) else type(array).__name__} of {n} people"
        if not np.isfinite(array).all():
            return f"{name} that are not finite"
    for name, shares in (("scores", people.scores), ("confidences of keypoints", people.keypoints[..., 2])):
        if ((shares < 0) | (shares > 1)).any():
            return f"{name} of {shares.min():.4g} to {shares.max():.4g}"
    return ""


def _no_joints(people: People) -> NDArray[np.float32]:
    """Keypoints of people who are known by boxes alone, as files have them: confidence 0."""
    return np.zeros((len(people.scores), 17, 3), np.float32)


def _describe(result: object) -> str:
    return f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, list) else "")
