"""Contract of detectors, checked on images (docs/adding-a-detector.md).  [pixels -> raw keypoints]
-> tracks

It cannot check whether left and right are swapped: look at the images for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pytest

from pipeline.clips.detectors import Detector, People, flaw
from pipeline.demo.scene import calibration_crops
from pipeline.files.pixels.frames import Image
from pipeline.testing.common import (
    declaration_problems,
    fail_if_any,
    number_problems,
    run_in_new_process,
)

NEAR: Final = 0.5  # fraction of the image's longer side; points farther outside are invalid
SAME: Final = 0.01  # px and confidences; larger differences are not rounding


class DetectorContract:
    """Tests of a detector (`detector_problems`): fixture `detector`, with the options to test."""

    @pytest.fixture
    def images(self) -> Sequence[Image] | None:
        """Images with people to detect, (H, W, 3) uint8 RGB (default: demo images, with no
        detection required).
        """
        return None

    @pytest.fixture
    def another_process(self) -> bool:
        """Whether to repeat the test in a second process, which must be able to import the module
        (default: yes).
        """
        return True

    def test_detector_keeps_its_promises(
        self, detector: Detector, images: Sequence[Image] | None, another_process: bool
    ) -> None:
        fail_if_any(detector_problems(detector, images, another_process=another_process))


def detector_problems(
    detector: Detector,
    images: Sequence[Image] | None = None,
    *,
    device: str = "cpu",
    another_process: bool = True,
) -> list[str]:
    """List the promises that a detector breaks; empty if none.

    Args:
        images: (H, W, 3) uint8 RGB of any sizes, with people to detect. None: demo images, in which
            a detector of real people need not find anyone.
        another_process: Whether to repeat the detection in a second process, which imports the
            detector's module.
    """
    if problems := [
        *number_problems(detector, "batch_size"),
        *declaration_problems(detector, "name", but="every" if detector.every == 1 else ""),
    ]:
        return problems
    samples = [
        np.ascontiguousarray(image) for image in (_demo_images() if images is None else images)
    ]
    # odd size; rotated
    samples += [samples[0][:-1, :-3].copy(), np.ascontiguousarray(np.rot90(samples[0]))]
    try:
        detect = detector.load(device)
        alone = _detect_each(detect, samples)
        problems = [
            problem
            for i, people in enumerate(alone)
            for problem in _people_problems(people, samples[i], i)
        ]
        if not problems:
            problems = [
                *_repeat_problems(detect, samples, alone),
                *_empty_problems(detect, samples[0]),
            ]
        if images is not None and not any(len(people.boxes) for people in alone):
            problems.append("finds no one in any image: pass images of people that it can detect")
        if another_process and not problems:
            repeated = run_in_new_process(_load_and_detect, detector, device, samples)
            problems = (
                []
                if all(map(_same, alone, repeated))
                else ["finds different people in another process"]
            )
    except Exception as error:  # third-party code can raise anything
        problems.append(f"fails: {type(error).__name__}: {error}")
    return problems


def _demo_images() -> list[Image]:
    """Images of two people in the demo data, in two sizes."""
    first, second = calibration_crops(2)
    return [first, np.pad(second, ((16, 40), (50, 80), (0, 0)), mode="edge"), second]


def _load_and_detect(detector: Detector, device: str, images: Sequence[Image]) -> list[People]:
    return _detect_each(detector.load(device), images)


def _detect_each(detect: Any, images: Sequence[Image]) -> list[People]:
    return [_detect(detect, [image])[0] for image in images]


def _detect(detect: Any, images: Sequence[Image]) -> list[People]:
    """Call the detector. Raises TypeError for an invalid result, ValueError if it changes the
    images.
    """
    copies = [image.copy() for image in images]
    people = detect(copies)
    if (
        not isinstance(people, list)
        or len(people) != len(images)
        or not all(isinstance(p, People) for p in people)
    ):
        raise TypeError(
            f"expected a list of {len(images)} People, one for each image, found {people!r:.80}"
        )
    if not all(map(np.array_equal, copies, images)):
        raise ValueError("it changes the images that it is given")
    return people


def _people_problems(people: People, image: Image, number: int) -> Iterator[str]:
    where = f"image {number} of {image.shape[1]} x {image.shape[0]} px"
    problem = flaw(people) or next(
        (f"{part.dtype}" for part in people if part.dtype != np.float32), ""
    )
    if problem:
        expected = (
            "boxes (P, 4), scores (P,), keypoints (P, 17, 3), finite float32, scores and "
            "confidences 0 to 1"
        )
        yield f"{where}: {problem}: expected {expected}"
        return
    if (people.boxes[:, 2:] <= people.boxes[:, :2]).any():
        yield (
            f"{where}: a box ends before it begins: expected (x, y) of the upper left and the "
            "lower right corner"
        )
    joints = people.keypoints[people.keypoints[..., 2] > 0][:, :2]
    size = np.array(image.shape[1::-1])
    far = NEAR * max(image.shape[:2])
    for name, points in (("box", people.boxes.reshape(-1, 2)), ("keypoint", joints)):
        if ((points < -far) | (points > size + far)).any():
            yield f"{where}: a {name} is far outside the image: expected pixel coordinates"


def _repeat_problems(
    detect: Any, images: Sequence[Image], alone: Sequence[People]
) -> Iterator[str]:
    """Check that an image's people do not depend on earlier images or on the rest of its batch."""
    if not all(map(_same, alone, _detect_each(detect, images))):
        yield "finds different people the second time"
        return
    if not all(map(_same, alone[::-1], _detect_each(detect, images[::-1]))):
        yield "finds different people when the images come in another order"
        return
    for image, people in zip(images, alone, strict=True):
        blank = np.full_like(image, 128)
        for batch, position in (([image, blank, image[:, ::-1].copy()], 0), ([blank, image], 1)):
            if not _same(_detect(detect, batch)[position], people):
                yield "finds different people in an image of a batch than in the image alone"
                return


def _empty_problems(detect: Any, image: Image) -> Iterator[str]:
    if any(len(_detect(detect, [np.full_like(image, grey)])[0].boxes) for grey in (0, 128)):
        yield "finds people in an empty image"


def _same(people: People, others: People) -> bool:
    """Whether two results are equal except for rounding."""
    return all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-3, atol=SAME)
        for a, b in zip(people, others, strict=True)
    )
