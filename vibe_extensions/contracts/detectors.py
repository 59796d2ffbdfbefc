"""What every detector promises, checked on pictures.  [pixels -> raw keypoints] -> tracks

`detector_problems` is what a detector is tested with, ours and those of other packages (docs/adding-a-detector.md).
Whether left is left only a look at the pictures can show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from pipeline.demo import calibration_crops
from pipeline.detect import flaw
from pipeline.detect.base import Detector, People
from pipeline.files.pixels.frames import Image
from vibe_extensions.contracts.common import declaration_problems, number_problems, of_another_process

NEAR: Final = 0.5  # of the picture's longer side: farther outside is no person of it
SAME: Final = 0.01  # px and confidences: more is not rounding


def detector_problems(
    detector: Detector, images: Sequence[Image] | None = None, *, device: str = "cpu", another_process: bool = True
) -> list[str]:
    """List the promises that a detector breaks. Empty: none.

    Args:
        images: (H, W, 3) uint8 RGB of any sizes, with people whom it finds; None: pictures of the demo data, in which a
            detector of real people need find no one.
        another_process: a process of its own computes them, too, which imports the detector's module.
    """
    if problems := [*number_problems(detector, "batch_size"), *declaration_problems(detector, "name")]:
        return problems
    pictures = [np.ascontiguousarray(image) for image in (_pictures() if images is None else images)]
    pictures += [pictures[0][:-1, :-3].copy(), np.ascontiguousarray(np.rot90(pictures[0]))]  # odd sizes, and turned
    try:
        detect = detector.load(device)
        alone = _one_by_one(detect, pictures)
        problems = [problem for i, people in enumerate(alone) for problem in _people_problems(people, pictures[i], i)]
        if not problems:
            problems = [*_repeated(detect, pictures, alone), *_empty(detect, pictures[0])]
        if images is not None and not any(len(people.boxes) for people in alone):
            problems.append("finds no one in any of the pictures: name pictures of people whom it finds")
        if another_process and not problems:
            people_there = of_another_process(_computed, detector, device, pictures)
            problems = [] if all(map(_same, alone, people_there)) else ["finds other people in another process"]
    except Exception as error:  # any code, which may fail in any way
        problems.append(f"fails: {type(error).__name__}: {error}")
    return problems


def _pictures() -> list[Image]:
    """Two people of the demo data, in pictures of two sizes."""
    first, second = calibration_crops(2)
    return [first, np.pad(second, ((16, 40), (50, 80), (0, 0)), mode="edge"), second]


def _computed(detector: Detector, device: str, pictures: Sequence[Image]) -> list[People]:
    return _one_by_one(detector.load(device), pictures)


def _one_by_one(detect: Any, pictures: Sequence[Image]) -> list[People]:
    return [_detected(detect, [image])[0] for image in pictures]


def _detected(detect: Any, images: Sequence[Image]) -> list[People]:
    shown = [image.copy() for image in images]
    people = detect(shown)
    if not isinstance(people, list) or len(people) != len(images) or not all(isinstance(p, People) for p in people):
        raise TypeError(f"expected a list of {len(images)} People of as many pictures, found {people!r:.80}")
    if not all(map(np.array_equal, shown, images)):
        raise ValueError("it changes the pictures that it is given")
    return people


def _people_problems(people: People, image: Image, number: int) -> Iterator[str]:
    where = f"picture {number} of {image.shape[1]} x {image.shape[0]} px"
    problem = flaw(people) or next((f"{part.dtype}" for part in people if part.dtype != np.float32), "")
    if problem:
        expected = "boxes (P, 4), scores (P,), keypoints (P, 17, 3), finite float32, scores and confidences 0 to 1"
        yield f"{where}: {problem}: expected {expected}"
        return
    if (people.boxes[:, 2:] <= people.boxes[:, :2]).any():
        yield f"{where}: a box ends before it begins: expected x y of the upper left and of the lower right corner"
    joints = people.keypoints[people.keypoints[..., 2] > 0][:, :2]
    size, far = np.array(image.shape[1::-1]), NEAR * max(image.shape[:2])
    for name, points in (("box", people.boxes.reshape(-1, 2)), ("keypoint", joints)):
        if ((points < -far) | (points > size + far)).any():
            yield f"{where}: a {name} is far outside the picture: expected px of the picture"


def _repeated(detect: Any, pictures: Sequence[Image], alone: Sequence[People]) -> Iterator[str]:
    """Whether a picture's people depend on what is computed before it and at the same time."""
    if not all(map(_same, alone, _one_by_one(detect, pictures))):
        yield "finds other people the second time"
        return
    if not all(map(_same, alone[::-1], _one_by_one(detect, pictures[::-1]))):
        yield "finds other people in another order of the pictures"
        return
    for image, people in zip(pictures, alone, strict=True):
        blank = np.full_like(image, 128)
        for batch, own in (([image, blank, image[:, ::-1].copy()], 0), ([blank, image], 1)):
            if not _same(_detected(detect, batch)[own], people):
                yield "finds other people in a picture of a batch than in the picture alone"
                return


def _empty(detect: Any, image: Image) -> Iterator[str]:
    if any(len(_detected(detect, [np.full_like(image, grey)])[0].boxes) for grey in (0, 128)):
        yield "finds people in an empty picture"


def _same(people: People, others: People) -> bool:
    """Whether they are equal but for rounding."""
    return all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-3, atol=SAME)
        for a, b in zip(people, others, strict=True)
    )
