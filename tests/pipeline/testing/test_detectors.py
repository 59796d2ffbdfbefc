"""The detectors' contract: every promise, once broken, is named; ours keeps it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.clips import detectors
from pipeline.clips.detectors import Detect, Detector, Image, People
from pipeline.testing.detectors import detector_problems

NOBODY = People(*(np.zeros((0, *shape), np.float32) for shape in ((4,), (), (17, 3))))
IMAGES = [
    np.pad(np.full((20 + i, 30, 3), 250, np.uint8), ((9, 40), (7, 31), (0, 0))) for i in range(3)
]


@dataclass(frozen=True)
class Bright(Detector):
    """A person is where a picture is bright. `change` spoils what is found, of the batch's
    pictures, in one way.
    """

    least: int = 200

    name: ClassVar[str] = "bright"

    def load(self, device: str) -> Detect:
        return lambda images: [self.people(image) for image in images]

    def people(self, image: Image) -> People:
        y, x = np.nonzero(image[..., 0] >= self.least)
        if not len(x):
            return NOBODY
        box = np.float32([[x.min(), y.min(), x.max() + 1, y.max() + 1]])
        joints = np.linspace(box[0, :2], box[0, 2:], 17)
        keypoints = np.concatenate([joints, np.full((17, 1), 0.5)], axis=1)[None].astype(np.float32)
        return People(box, np.float32([0.9]), keypoints)


def spoilt(change: Callable[[list[People], Any], Any], **others: Any) -> Detector:
    """`change`: (what is found in a batch, its pictures) -> what is returned."""

    def load(self: Bright, device: str) -> Any:
        return lambda images: change([self.people(image) for image in images], images)

    return type("Bright", (Bright,), {"load": load, **others})()


def each(**of_part: Callable[[Any], Any]) -> Detector:
    """The parts of each result with a function applied."""
    return spoilt(
        lambda found, _: [
            p._replace(**{name: f(getattr(p, name)) for name, f in of_part.items()}) for p in found
        ]
    )


def declared(**others: Any) -> Detector:
    return spoilt(lambda found, _: found, **others)


def ink(found: list[People], images: Any) -> list[People]:
    images[0][0, 0] += 1
    return found


def counted() -> Callable[[list[People], Any], list[People]]:
    calls: list[int] = []

    def change(found: list[People], _: Any) -> list[People]:
        calls.append(1)
        return [p._replace(boxes=p.boxes + len(calls)) for p in found]

    return change


SOMEBODY = Bright().people(IMAGES[0])
FAULTS: list[tuple[str, Detector]] = [  # words of the problem, and a detector that has it
    ("of a batch", spoilt(lambda found, _: [found[0]] * len(found))),
    (
        "of a batch",
        spoilt(lambda found, _: [p._replace(scores=p.scores / len(found)) for p in found]),
    ),
    ("1 People", spoilt(lambda found, _: found[1:])),
    ("the second time", spoilt(counted())),
    ("empty image", spoilt(lambda found, images: [SOMEBODY for _ in images])),
    ("no one", spoilt(lambda found, _: [NOBODY for _ in found])),
    ("box is far outside", each(boxes=lambda b: b + 500)),
    ("keypoint is far outside", each(keypoints=lambda k: k * np.float32([9, 9, 1]))),
    ("ends before it begins", each(boxes=lambda b: b[:, [2, 3, 0, 1]])),  # centre and size
    ("18", each(keypoints=lambda k: np.concatenate([k, k[:, :1]], axis=1))),
    ("confidences of keypoints", each(keypoints=lambda k: k * np.float32([1, 1, 4]))),
    ("scores of 90", each(scores=lambda s: s * 100)),
    (": float64", each(boxes=lambda b: b.astype(np.float64))),
    ("that are not finite", each(keypoints=lambda k: k * np.float32([np.nan, 1, 1]))),
    ("changes the images", spoilt(ink)),
    ("does not contain the option least", declared(identity=lambda self: {})),
    ("path", declared(identity=lambda self: {"least": 200, "weights": "/data/a.onnx"})),
    ("not JSON", declared(identity=lambda self: {"least": Path("a")})),
    ("version", declared(version=0)),
    (
        "ZeroDivisionError",
        spoilt(lambda found, images: found if images[0].shape[0] >= images[0].shape[1] else 1 / 0),
    ),
]


@pytest.mark.parametrize(("words", "detector"), FAULTS, ids=[words for words, _ in FAULTS])
def test_a_broken_promise_is_named(words: str, detector: Detector) -> None:
    problems = detector_problems(detector, IMAGES, another_process=False)
    assert any(words in problem for problem in problems), problems


class OfItsProcess(Bright):
    """Other boxes than in the test's own process, as a hash with a seed of the process gives
    them.
    """

    def people(self, image: Image) -> People:
        people = super().people(image)
        is_another = os.environ.get("OWN_PROCESS") != str(os.getpid())
        return people._replace(boxes=people.boxes - 5 * is_another)


def test_what_follows_from_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_PROCESS", str(os.getpid()))
    assert detector_problems(OfItsProcess(), IMAGES) == [
        "finds different people in another process"
    ]


def test_good_detectors_have_no_problems() -> None:
    assert detector_problems(Bright(), IMAGES, another_process=False) == []
    boxes_alone = each(keypoints=lambda k: k[:, :0])
    assert detector_problems(boxes_alone, IMAGES, another_process=False) == []
    assert detector_problems(detectors.get("demo"), another_process=False) == []
