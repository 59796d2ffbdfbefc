"""Contract of streams, checked on random rows (docs/adding-a-stream.md).  [crops, labels ->
features]
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from cache import COLUMNS
from cache.crop_policy import Jitter
from pipeline.features.computing import different
from pipeline.features.inputs import label_batch
from pipeline.features.streams.base import ROW_RATE, Labels, Machine, Stream
from pipeline.testing.common import declaration_problems, fail_if_any, run_in_new_process

N: Final = 9  # rows to compute
DTYPES: Final = ("float16", "float32")

Rows = list[Any]  # one array per row, or None
Compute = Callable[[Sequence[int]], Rows]


class StreamContract:
    """Tests of a stream (`stream_problems`): fixture `stream`, with the options to test."""

    @pytest.fixture
    def labels(self) -> Labels | None:
        """Nine rows of the columns that the stream reads (default: random rows)."""
        return None

    @pytest.fixture
    def another_process(self) -> bool:
        """Whether to repeat the test in a second process, which must be able to import the module
        (default: yes).
        """
        return True

    def test_stream_keeps_its_promises(
        self, stream: Stream, labels: Labels | None, another_process: bool
    ) -> None:
        fail_if_any(stream_problems(stream, labels, another_process=another_process))


def stream_problems(
    stream: Stream, labels: Labels | None = None, *, another_process: bool = True
) -> list[str]:
    """List the promises that a stream breaks; empty if none. Computes it on the CPU.

    Args:
        labels: Columns that the stream reads, each (9, ...) as stored: rows 0 to 3 of one track, 4
            to 8 of another. None: random values. Required for a dataset's extra columns.
        another_process: Whether to repeat the computation in a second process, which imports the
            stream's module.
    """
    problems = list(_stream_declaration_problems(stream))
    if problems:
        return problems
    try:
        sample = _Sample.build(stream, labels)
        compute = _load(stream, sample, 4)
        rows = compute(range(N))
        problems = list(
            dict.fromkeys(problem for row in rows for problem in _row_problems(stream, row))
        )
        problems = problems or [*_repeat_problems(stream, sample, compute, rows)]
        if (
            another_process
            and not problems
            and not _same(rows, run_in_new_process(_load_and_compute, stream, sample))
        ):
            problems.append("computes different numbers in another process")
    except Exception as error:  # third-party code can raise anything
        problems.append(f"fails: {type(error).__name__}: {error}")
    return problems


def _stream_declaration_problems(stream: Stream) -> Iterator[str]:
    if stream.dtype not in DTYPES:
        yield f"dtype is {stream.dtype!r}: expected one of {', '.join(DTYPES)}"
    elif not isinstance(stream.dim, int) or stream.dim < 1:
        yield f"dim is {stream.dim!r}: expected the number of values per row, an integer >= 1"
    reads = stream.reads
    if min(reads.history, reads.future) < 0 or (reads.crops and reads.window > 1):
        yield f"reads {reads}: history and future must be >= 0, and are for streams of labels only"
    yield from (problems := list(declaration_problems(stream, "kind", but="crop")))
    if problems:
        return
    identity = stream.identity()
    if (identity.get("kind"), identity.get("version")) != (stream.kind, stream.version):
        yield "identity() has a different kind or version than the stream"
    restored = type(stream).from_identity(json.loads(json.dumps(identity)))
    if (restored is not None or stream.weights_file is None) and restored != stream:
        yield f"from_identity() returns {restored} for the identity of {stream}"
    if any(f.name == "crop" for f in fields(stream)):
        yield from _crop_problems(stream, identity)


def _crop_problems(stream: Stream, identity: dict[str, Any]) -> Iterator[str]:
    """Check that the option `crop` changes the policy and the identity, as mirrored copies need."""
    jitter = Jitter(copy=1, flip=1.0)
    policy = replace(stream.policy, jitter=None if stream.policy.jitter == jitter else jitter)
    with_crop: Any = stream
    mirrored = replace(with_crop, crop=policy)
    if mirrored.policy != policy:
        yield (
            f"policy is {mirrored.policy} although the option crop is {policy}: copies would "
            "not be mirrored"
        )
    if mirrored.identity() == identity:
        yield "identity() is the same for another crop, such as a mirrored one"


@dataclass(frozen=True)
class _Sample:
    """Rows to compute, with the attributes of a split that `label_batch` reads."""

    # (N + 1, size, size, 3); row i has crop i + 1, and the row before it has crop i
    crops: NDArray[np.uint8]
    labels: Labels
    runs: ClassVar[NDArray[np.int64]] = np.array([[0, 4], [4, N]])  # of consecutive frames
    tracks: ClassVar[SimpleNamespace] = SimpleNamespace(
        fps=np.array([30.0, 25.0]), step=np.array([1, 1])
    )

    @classmethod
    def build(cls, stream: Stream, labels: Labels | None) -> _Sample:
        rng = np.random.default_rng(0)
        policy = stream.policy
        side = policy.size if stream.reads.crops else 1
        scene = np.kron(
            rng.integers(0, 256, (side // 8 + 4, side // 8 + 4, 3), np.uint8),
            np.ones((8, 8, 1), np.uint8),
        )
        crops = np.stack([scene[i : i + side, 2 * i : 2 * i + side] for i in range(N + 1)])
        columns = [name for name in stream.reads.labels if name != ROW_RATE]
        random_labels = {
            name: _random_column(name, rng) for name in columns if not labels or name not in labels
        }
        return cls(crops, {**random_labels, **(labels or {})})

    def track_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.runs[:, 1], rows, side="right")

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return self.labels[name][start:stop]


def _random_column(name: str, rng: Generator) -> NDArray[Any]:
    """Random values (N, ...) for a column of the cache."""
    if name == "image_size":
        return np.tile(np.array([320, 240], np.int32), (N, 1))
    if name == "intrinsics":
        focal = rng.uniform(300, 500, N)
        return np.stack([[[f, 0, 160], [0, f, 120], [0, 0, 1]] for f in focal])
    if name == "crop_scale":
        return np.full(N, 1.3)
    if name not in COLUMNS:
        raise ValueError(
            f"column {name} is not part of every cache: pass its rows, labels={{{name!r}: ...}}"
        )
    column = COLUMNS[name]
    if name == "frame_index":
        return np.arange(N)
    if column.dtype.kind in "iu":
        return rng.integers(0, 2, (N, *column.trailing)).astype(column.dtype)
    values = rng.normal(0, 0.3, (N, *column.trailing))
    if name == "bbox":
        values = np.stack([*rng.uniform(100, 200, (2, N)), *[rng.uniform(80, 120, N)] * 2], axis=1)
    if name == "kp_2d":
        values[..., :2] = rng.uniform(100, 200, values[..., :2].shape)
    if name in ("kp_2d", "kp_3d"):
        values[..., -1] = 1
    return np.asarray(values, column.dtype)


def _load(stream: Stream, sample: Any, batch_size: int, fill: float | None = None) -> Compute:
    """Return a function that computes rows of the sample in batches. `fill` replaces labels of rows
    that do not exist.

    Raises TypeError for a result of the wrong type and ValueError for changed inputs, as the
    returned function does.
    """
    machine = Machine("cpu", batch_size, 1)
    computer: Any = stream.load(machine, None)
    provenance = stream.provenance if computer is None else computer.provenance
    if not isinstance(json.loads(json.dumps(dict(provenance))).get("stand_in"), bool):
        raise TypeError("its provenance has no stand_in, true or false")

    def require_unchanged(before: Labels, labels: Labels) -> None:
        _require(
            all(np.array_equal(before[name], labels[name], equal_nan=True) for name in before),
            "its labels",
        )

    def compute_from_labels(rows: Sequence[int]) -> Rows:
        labels = dict(label_batch(sample, np.array(rows), stream.reads))
        if fill is not None:
            for name in stream.reads.labels:
                labels[name][~labels["in_run"]] = fill
        before = copy.deepcopy(labels)
        computed, known = computer(labels)
        require_unchanged(before, labels)
        if np.shape(known) != (len(rows),) or np.asarray(known).dtype != np.bool_:
            raise TypeError(
                f"flags are {np.shape(known)} {np.asarray(known).dtype}: expected "
                f"{(len(rows),)} bool"
            )
        return [computed] if np.shape(computed) != (len(rows), stream.dim) else list(computed)

    def compute_from_crops(rows: Sequence[int]) -> Rows:
        size = computer.batch_size
        memory = np.zeros((size, *sample.crops.shape[1:]), np.uint8)
        memory[: len(rows)] = sample.crops[np.array(rows) + 1]
        before = memory.copy()
        computer.adopt(memory)
        labels = label_batch(sample, np.resize(np.array(rows), size), stream.reads)
        labels_before = copy.deepcopy(labels)
        computed = computer(memory[:, *stream.policy.slices], *([labels] if labels else []))
        computer.release()
        require_unchanged(labels_before, labels)
        _require(np.array_equal(before, memory), "its crops")
        return (
            [computed] if np.shape(computed) != (size, stream.dim) else list(computed)[: len(rows)]
        )

    def compute_each(rows: Sequence[int]) -> Rows:
        n = stream.reads.crops
        results = []
        labels = label_batch(sample, np.array(rows), stream.reads)
        for i, row in enumerate(rows):
            crops = [crop.copy() for crop in sample.crops[row + 2 - n : row + 2]]
            results.append(
                stream.computed(crops, {name: values[i].copy() for name, values in labels.items()})
            )
            _require(np.array_equal(crops, sample.crops[row + 2 - n : row + 2]), "its crops")
        return results

    if computer is None:
        return compute_each
    compute = compute_from_crops if stream.reads.crops else compute_from_labels
    size = computer.batch_size if stream.reads.crops else batch_size
    return lambda rows: [
        row for start in range(0, len(rows), size) for row in compute(rows[start : start + size])
    ]


def _require(unchanged: bool, what: str) -> None:
    if not unchanged:
        raise ValueError(f"it changes {what}, which other streams read, too")


def _row_problems(stream: Stream, row: Any) -> Iterator[str]:
    """Problems of one row's result. None, for an unknown row, is valid."""
    if row is None:
        return
    if np.shape(row) != (stream.dim,):
        yield (
            f"returns the shape {np.shape(row)} for a row: expected {(stream.dim,)}, as dim "
            "declares"
        )
    elif np.asarray(row).dtype.kind != "f":
        yield (
            f"returns {np.asarray(row).dtype}: expected floats, which are rounded to {stream.dtype}"
        )
    elif not np.isfinite(row).all():
        yield (
            "returns numbers that are not finite: for unknown rows, return None or clear the "
            "row's flag"
        )
    elif np.abs(row).max(initial=0) > np.finfo(stream.dtype).max:
        yield f"returns numbers that are too large for {stream.dtype}"


def _repeat_problems(
    stream: Stream, sample: _Sample, compute: Compute, rows: Rows
) -> Iterator[str]:
    """Check that a row's result depends only on its crops and labels."""
    if not _same(rows, compute(range(N))):
        yield "computes different numbers the second time"
        return
    if not _same(rows, _load(stream, sample, 3)(range(N))):
        yield "computes different numbers in batches of another size"
    if not _same(rows, compute(range(N - 1, -1, -1))[::-1]):
        yield "computes different numbers when the rows come in another order"
    if not _same(rows[2:3], compute([2])):
        yield "computes different numbers for a row alone than in a batch"
    if stream.reads.window > 1 and not _same(rows, _load(stream, sample, 4, fill=7)(range(N))):
        yield "its numbers depend on labels of rows that do not exist, where `in_run` is false"


def _same(rows: Rows, others: Rows) -> bool:
    """Whether two results are equal except for rounding."""
    return len(rows) == len(others) and all(
        a is b if a is None or b is None else not different(np.asarray(a), np.asarray(b))
        for a, b in zip(rows, others, strict=True)
    )


def _load_and_compute(stream: Stream, sample: _Sample) -> Rows:
    return _load(stream, sample, 4)(range(N))
