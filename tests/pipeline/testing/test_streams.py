"""The streams' contract: every promise, once broken, is named; ours keep it."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cache import CropPolicy
from pipeline.features import streams
from pipeline.features.streams.base import LabelStream, PairStream
from pipeline.features.weights import WeightsSpec
from pipeline.testing import StreamContract
from pipeline.testing.streams import stream_problems

COUNT = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Means(LabelStream):
    """Means of the keypoints of a row and of the row before. `fault`: which promise it breaks."""

    scale: float = 1.0

    kind: ClassVar[str] = "means"
    dim: ClassVar[int] = 2
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)
    history: ClassVar[int] = 1

    def load(self, machine, recorded):
        return Computer(self)

    def means(self, labels):
        means = self.scale * np.where(labels["in_run"][..., None, None], labels["kp_2d"], 0).mean(
            axis=(1, 2)
        )
        return means[:, :2]

    def known(self, labels):
        return np.ones(len(labels["kp_2d"]), bool)


class Computer:
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": False}

    def __init__(self, stream):
        self._stream = stream

    def __call__(self, labels):
        return self._stream.means(labels), self._stream.known(labels)


@dataclass(frozen=True, kw_only=True)
class Corner(PairStream):
    """The first pixels of two crops."""

    kind: ClassVar[str] = "corner"
    dim: ClassVar[int] = 6

    def pair(self, previous, current):
        return np.concatenate([previous[0, 0], current[0, 0]]).astype(np.float32)


def means_of(**changed):
    """The stream with some of its methods and class variables replaced. `means` is given what it
    gives.
    """

    def replaced(name, value):
        return (
            (lambda self, labels: value(Means.means(self, labels), labels))
            if name == "means"
            else value
        )

    return type(
        "Means", (Means,), {name: replaced(name, value) for name, value in changed.items()}
    )()


def identity(**others):
    return lambda self: {"kind": "means", "version": 1, "scale": 1.0, **others}


def corner_of(**changed):
    return type("Corner", (Corner,), changed)()


FAULTS = [  # words of the problem, and a stream that has it
    ("batches of another size", means_of(means=lambda m, _: m - m.mean(axis=0))),
    ("the second time", corner_of(pair=lambda self, *_: np.full(6, next(COUNT), np.float32))),
    (
        "in_run",
        means_of(means=lambda m, labels: np.nan_to_num(labels["kp_2d"]).mean(axis=(1, 2))[:, :2]),
    ),
    ("(4, 1)", means_of(means=lambda m, _: m[:, :1])),
    ("int64", means_of(means=lambda m, _: m.astype(np.int64))),
    ("2 numbers of int32", means_of(dtype="int32")),
    ("not finite", means_of(means=lambda m, _: m * np.nan)),
    ("too large for float16", means_of(dtype="float16", means=lambda m, _: m * 1e4)),
    ("flags", means_of(known=lambda self, labels: np.ones(len(labels["kp_2d"])))),
    ("version", means_of(version=0)),
    ("contain the option scale", means_of(identity=lambda self: {"kind": "means", "version": 1})),
    ("not JSON", means_of(identity=identity(made=Path("a")))),
    ("path '/data/weights.pt'", means_of(identity=identity(weights="/data/weights.pt"))),
    ("from_identity", means_of(from_identity=classmethod(lambda cls, _: cls(scale=2.0)))),
    ("history", means_of(history=-1)),
    ("contact", means_of(columns=("contact",))),
    ("(5,)", corner_of(pair=lambda self, *_: np.zeros(5, np.float32))),
    ("mirrored", corner_of(policy=property(lambda self: CropPolicy()))),
    ("same for another crop", corner_of(identity=lambda self: {"kind": "corner", "version": 1})),
]


@pytest.mark.promise("plug-ins")
@pytest.mark.parametrize(("words", "stream"), FAULTS, ids=[words for words, _ in FAULTS])
def test_a_broken_promise_is_named(words, stream):
    problems = stream_problems(stream, another_process=False)
    assert any(words in problem for problem in problems), problems


@dataclass(frozen=True, kw_only=True)
class OfItsProcess(Corner):
    """Other numbers than in the test's own process, as a hash with a seed of the process gives
    them.
    """

    def pair(self, previous, current):
        is_another = os.environ.get("OWN_PROCESS") != str(os.getpid())
        return np.full(6, 1 + is_another, np.float32)


def test_what_follows_from_the_process_is_named(monkeypatch):
    monkeypatch.setenv("OWN_PROCESS", str(os.getpid()))
    assert stream_problems(OfItsProcess()) == ["computes different numbers in another process"]


def test_good_streams_have_no_problems():
    assert stream_problems(Means(), another_process=False) == []
    assert stream_problems(Corner(), another_process=False) == []


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize(
    "kind", [pytest.param("resnet50", marks=pytest.mark.slow), "homography", "pr_vipe"]
)
class TestOurs(StreamContract):
    @pytest.fixture
    def stream(self, kind):
        return streams.get(
            kind, **({"weights": WeightsSpec("untrained", "0")} if kind == "resnet50" else {})
        )

    @pytest.fixture
    def another_process(self):
        return False
