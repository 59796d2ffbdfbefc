"""Detectors of people and their 17 keypoints.  [pixels] -> raw keypoints -> tracks

A package adds a detector by an entry point of the group "vibe_pipeline.detectors". The entry
point's name is the detector's name, and its value is a `Detector` subclass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np

from pipeline.cli import pages
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image as Image
from pipeline.people.skeletons import Float32s
from pipeline.plug_ins import DETECTORS, ClassRegistry, drop_neutral, raised_versions


class People(NamedTuple):
    """The P people found in one image."""

    boxes: Float32s  # (P, 4) x y of the upper left and of the lower right corner, px
    scores: Float32s  # (P,) 0..1
    # (P, 17, 3) px, px, confidence 0..1; COCO's joints in COCO's order; or (P, 0, 3)
    keypoints: Float32s


# A loaded detector. Takes images (H, W, 3), uint8 RGB, all of one size; returns a `People` for each
Detect = Callable[[Sequence[Image]], list[People]]
# Takes such images of consecutive frames, and whether each is a key frame (`Detector.every`)
DetectFrames = Callable[[Sequence[Image], Sequence[bool]], list[People]]


@dataclass(frozen=True)
class Detector(ABC):
    """A detector before its weights are loaded.

    Subclasses are frozen dataclasses whose fields are the detector's options.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised by hand whenever the same images would give other people
    # shared code that finds them -> its version, likewise: part of `identity` from 2 on
    uses: ClassVar[dict[str, int]] = {"detectors": 1}
    # options that were added later -> the value that changes nothing, which `identity` leaves out
    added: ClassVar[Mapping[str, Any]] = {}
    stand_in: ClassVar[bool] = False  # it is for demo data only, and finds no one in real images

    @property
    def batch_size(self) -> int:
        """Preferred number of images per call of the loaded function."""
        return 8

    @property
    def every(self) -> int:
        """Number of frames from one key frame to the next; 1: every frame is a key frame.

        It is above 1 only for a detector with an option of this name. Its loaded function searches
        people in key frames only, and follows them through the frames between. It takes a second
        argument: for each image, whether it is a key frame.
        """
        return 1

    @property
    def downloads(self) -> bool:
        """Whether `identity` and `load` would download weights: then `plan` does not call them."""
        return False

    def identity(self) -> dict[str, Any]:
        """All that the detector's results depend on, besides `version`; by default its options.

        It is part of the fingerprint of keypoint files. Override it if an option names a file of
        weights: put the file's digest there, not its path. Raises MissingAssets for missing files.
        """
        return drop_neutral(asdict(self), self.added)

    def terms(self) -> list[dict[str, str]]:
        """`sha256`, `licence` and `source` of each file of weights, to be recorded in results.

        They do not decide whether a keypoint file is up to date.
        """
        return []

    def below(self, folder: Path) -> Self:  # noqa: ARG002
        """Return the detector with relative paths in its options resolved against `folder`.

        `folder` is that of luigi.cfg.
        """
        return self

    @abstractmethod
    def load(self, device: str) -> Detect:
        """Load the weights, and return the function that detects people.

        device: "auto", "cpu", "cuda", "cuda:1", ...
        """


ENTRY_POINTS: Final = DETECTORS

_REGISTRY: Final[ClassRegistry[Detector]] = ClassRegistry(
    "detector",
    ENTRY_POINTS,
    Detector,
    "name",
    " blaze_pose has MediaPipe's networks; keypoint files of OpenPose and other tools are read "
    f"from keypoints/ in the raw folder ({pages.KEYPOINT_FILES}).",
)
names = _REGISTRY.names
is_known = _REGISTRY.is_known
find = _REGISTRY.find
get = _REGISTRY.get


def identity(detector: Detector) -> dict[str, Any]:
    """Call `Detector.identity`, and add the versions of shared code. Raises PlugInError if another
    package's detector fails in it.
    """
    with _REGISTRY.calling(detector.name, "identity"):
        return detector.identity() | raised_versions(detector.uses)


def terms(detector: Detector) -> list[dict[str, str]]:
    """Call `Detector.terms`. Raises PlugInError if another package's detector fails in it."""
    with _REGISTRY.calling(detector.name, "terms"):
        return detector.terms()


def load(detector: Detector, device: str) -> DetectFrames:
    """Call `Detector.load`, and return its function with checks of the results. A detector that
    follows no one gets the images alone.

    Both raise PlugInError if another package's detector fails. The function raises PipelineError
    for invalid results, and adds unknown joints to people of detectors that find boxes alone.
    """
    with _REGISTRY.calling(detector.name, "load"):
        function: Callable[..., list[People]] = detector.load(device)

    def detect(images: Sequence[Image], is_key: Sequence[bool]) -> list[People]:
        with _REGISTRY.calling(detector.name, "the function that load returned"):
            people = function(images, is_key) if detector.every > 1 else function(images)
        if not isinstance(people, list) or len(people) != len(images):
            raise _no_people(detector, len(images), f"a {type(people).__name__}")
        for one in people:
            flaw = _find_flaw(one)
            if flaw is not None:
                raise _no_people(detector, len(images), flaw)
        return [_add_joints(one) for one in people]

    return detect


def _find_flaw(people: object) -> str | None:
    """What is wrong with a detector's result for one image; None if nothing is."""
    if not isinstance(people, People):
        return f"a {type(people).__name__} in it"
    for name, array in people._asdict().items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            return f"{name} of type {getattr(array, 'dtype', type(array).__name__)}"
        if not np.isfinite(array).all():
            return f"{name} that are not finite"
    n = people.scores.size
    shapes = [array.shape for array in people]
    n_joints = 0 if shapes[2] == (n, 0, 3) else 17  # a detector may find boxes alone
    if shapes != [(n, 4), (n,), (n, n_joints, 3)]:
        return f"shapes {shapes}"
    shares = np.append(people.scores, people.keypoints[..., 2])
    if ((shares < 0) | (shares > 1)).any():
        return f"scores or confidences of {shares.min():.4g} to {shares.max():.4g}"
    return None


def _add_joints(people: People) -> People:
    """People who are known by boxes alone get keypoints that are all zero, so confidence 0."""
    if people.keypoints.shape[1]:
        return people
    return people._replace(keypoints=np.zeros((len(people.scores), 17, 3), np.float32))


def _no_people(detector: Detector, n_images: int, found: str) -> PipelineError:
    """The error for a detector whose results are not those that its base class promises."""
    return PipelineError(
        f"{_REGISTRY.label(detector.name)}: expected a list of {n_images} People: boxes (P, 4), "
        "scores (P,) and keypoints (P, 17, 3) of an image, all finite, scores and confidences 0 to "
        f"1; found {found}"
    )
