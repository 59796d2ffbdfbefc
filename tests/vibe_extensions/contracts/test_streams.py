"""The streams' contract: every promise, once broken, is named; ours keep it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cache import CropPolicy
from pipeline.features import streams
from pipeline.features.streams import LabelComputer, LabelStream, Machine, PairStream, Stream
from pipeline.features.weights import WeightsSpec
from vibe_extensions.contracts import StreamContract
from vibe_extensions.contracts.streams import stream_problems

Numbers = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Means(LabelStream):
    """Means of the keypoints of a row and of the row before. `fault`: which promise it breaks."""

    scale: float = 1.0

    kind: ClassVar[str] = "means"
    dim: ClassVar[int] = 2
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)
    history: ClassVar[int] = 1

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> LabelComputer:
        return Computer(self)

    def means(self, labels: Mapping[str, Numbers]) -> Numbers:
        means: Numbers = self.scale * np.where(labels["in_run"][..., None, None], labels["kp_2d"], 0).mean(axis=(1, 2))
        return means[:, :2]

    def known(self, labels: Mapping[str, Numbers]) -> Numbers:
        return np.ones(len(labels["kp_2d"]), bool)


class Computer:
    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": False}
    calls = 0

    def __init__(self, stream: Means) -> None:
        self._stream = stream

    def __call__(self, labels: Mapping[str, Numbers]) -> Any:
        Computer.calls += 1
        return self._stream.means(labels), self._stream.known(labels)


@dataclass(frozen=True, kw_only=True)
class Corner(PairStream):
    """The first pixels of two crops."""

    kind: ClassVar[str] = "corner"
    dim: ClassVar[int] = 6

    def pair(self, previous: Numbers, current: Numbers) -> Numbers:
        return np.concatenate([previous[0, 0], current[0, 0]]).astype(np.float32)


def means_of(**changed: Any) -> LabelStream:
    """The stream with some of its methods and class variables replaced. `means` is given what it gives."""

    def replaced(name: str, value: Any) -> Any:
        return (lambda self, labels: value(Means.means(self, labels), labels)) if name == "means" else value

    return type("Means", (Means,), {name: replaced(name, value) for name, value in changed.items()})()


def spoilt(labels: Mapping[str, Numbers]) -> Numbers:
    labels["kp_2d"][:, :, 0] += 1
    return np.ones(len(labels["kp_2d"]), bool)


def identity(**others: Any) -> Any:
    return lambda self: {"kind": "means", "version": 1, "scale": 1.0, **others}


FAULTS = {  # what is wrong: the stream, and a word of the sentence
    "the mean of the batch is subtracted": (means_of(means=lambda m, _: m - m.mean(axis=0)), "batches of another size"),
    "the row before in the batch": (means_of(means=lambda m, _: np.diff(m, axis=0, prepend=m[:1])), "another order"),
    "the row's place in the batch": (means_of(means=lambda m, _: m + np.arange(len(m))[:, None]), "alone"),
    "how often it was called": (means_of(means=lambda m, _: m + 99 * Computer.calls), "the second time"),
    "rows that there are not": (
        means_of(means=lambda m, labels: np.nan_to_num(labels["kp_2d"]).mean(axis=(1, 2))[:, :2]),
        "in_run",
    ),
    "another width than dim": (means_of(means=lambda m, _: m[:, :1]), "shape"),
    "integers": (means_of(means=lambda m, _: m.astype(np.int64)), "int64"),
    "a dtype of integers": (means_of(dtype="int32"), "dtype is 'int32'"),
    "NaN that is not flagged": (means_of(means=lambda m, _: m * np.nan), "not finite"),
    "more than float16 holds": (means_of(dtype="float16", means=lambda m, _: m * 1e4), "too large for float16"),
    "flags as numbers": (means_of(known=lambda self, labels: np.ones(len(labels["kp_2d"]))), "flags"),
    "labels written into": (means_of(known=lambda self, labels: spoilt(labels)), "changes its labels"),
    "no version": (means_of(version=0), "version"),
    "an option left out": (means_of(identity=lambda self: {"kind": "means", "version": 1}), "contain the option scale"),
    "an identity that is no JSON": (means_of(identity=identity(made=Path("a"))), "not JSON"),
    "a path": (means_of(identity=identity(weights="/data/weights.pt")), "path '/data/weights.pt'"),
    "not restored": (means_of(from_identity=classmethod(lambda cls, _: cls(scale=2.0))), "from_identity"),
    "a window of pixels' rows": (means_of(history=-1), "history"),
    "a column of no one": (means_of(columns=("contact",)), "contact"),
    "too few numbers": (type("Corner", (Corner,), {"pair": lambda self, *_: np.zeros(5, np.float32)})(), "(5,)"),
    "a crop that is not mirrored": (
        type("Corner", (Corner,), {"policy": property(lambda self: CropPolicy())})(),
        "mirrored",
    ),
    "a crop that no identity has": (
        type("Corner", (Corner,), {"identity": lambda self: {"kind": "corner", "version": 1}})(),
        "same for another crop",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_named(fault: str) -> None:
    stream, word = FAULTS[fault]
    problems = stream_problems(stream, another_process=False)
    assert any(word in problem for problem in problems), problems


@dataclass(frozen=True, kw_only=True)
class OfItsProcess(Corner):
    """What a hash with a seed of the process is, and the like."""

    def pair(self, previous: Numbers, current: Numbers) -> Numbers:
        return np.full(6, os.getpid() % 2**20, np.float32)


def test_what_follows_from_the_process_is_named() -> None:
    assert stream_problems(OfItsProcess()) == ["computes different numbers in another process"]


def test_good_streams_have_no_problems() -> None:
    assert stream_problems(Means(), another_process=False) == []
    assert stream_problems(Corner(), another_process=False) == []


@pytest.mark.usefixtures("small_backbone")
@pytest.mark.parametrize("kind", [pytest.param("resnet50", marks=pytest.mark.slow), "homography", "pr_vipe"])
class TestOurs(StreamContract):
    @pytest.fixture
    def stream(self, kind: str) -> Stream:
        return streams.get(kind, **({"weights": WeightsSpec("untrained", "0")} if kind == "resnet50" else {}))

    @pytest.fixture
    def another_process(self) -> bool:
        return False
