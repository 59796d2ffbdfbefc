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
from pipeline.features.computing import is_different
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
        by_row: dict[str, None] = {}  # each problem once
        for row in rows:
            by_row |= dict.fromkeys(_row_problems(stream, row))
        problems = list(by_row) or list(_repeat_problems(stream, sample, compute, rows))
        if another_process and not problems:
            others = run_in_new_process(_load_and_compute, stream, sample)
            if not _same(rows, others):
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
    is_window_of_crops = reads.crops and reads.window > 1
    if min(reads.history, reads.future) < 0 or is_window_of_crops:
        yield f"reads {reads}: history and future must be >= 0, and are for streams of labels only"
    problems = list(declaration_problems(stream, "kind", but="crop"))
    yield from problems
    if problems:
        return
    identity = stream.identity()
    if (identity.get("kind"), identity.get("version")) != (stream.kind, stream.version):
        yield "identity() has a different kind or version than the stream"
    restored = type(stream).from_identity(json.loads(json.dumps(identity)))
    needs_weights = restored is None and stream.weights_file is not None
    if restored != stream and not needs_weights:
        yield f"from_identity() returns {restored} for the identity of {stream}"
    if any(f.name == "crop" for f in fields(stream)):
        yield from _crop_problems(stream, identity)


def _crop_problems(stream: Stream, identity: dict[str, Any]) -> Iterator[str]:
    """Check that the option `crop` changes the policy and the identity, as mirrored copies need."""
    jitter: Jitter | None = Jitter(copy=1, flip=1.0)
    if stream.policy.jitter == jitter:
        jitter = None
    policy = replace(stream.policy, jitter=jitter)
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
    tracks: ClassVar = SimpleNamespace(fps=np.array([30.0, 25.0]), step=np.array([1, 1]))

    @classmethod
    def build(cls, stream: Stream, labels: Labels | None) -> _Sample:
        rng = np.random.default_rng(0)
        side = stream.policy.size if stream.reads.crops else 1
        n_blocks = side // 8 + 4
        blocks = rng.integers(0, 256, (n_blocks, n_blocks, 3), np.uint8)
        scene = blocks.repeat(8, axis=0).repeat(8, axis=1)
        crops = np.stack([scene[i : i + side, 2 * i : 2 * i + side] for i in range(N + 1)])
        columns = dict(labels or {})
        for name in stream.reads.labels:
            if name != ROW_RATE and name not in columns:
                columns[name] = _random_column(name, rng)
        return cls(crops, columns)

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
        centre = rng.uniform(100, 200, (N, 2))
        side = rng.uniform(80, 120, N)
        values = np.column_stack([centre, side, side])
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
    stored = json.loads(json.dumps(dict(provenance)))
    if not isinstance(stored.get("stand_in"), bool):
        raise TypeError("its provenance has no stand_in, true or false")

    def compute_from_labels(rows: Sequence[int]) -> Rows:
        labels = dict(label_batch(sample, np.array(rows), stream.reads))
        if fill is not None:
            for name in stream.reads.labels:
                labels[name][~labels["in_run"]] = fill
        before = copy.deepcopy(labels)
        computed, known = computer(labels)
        _require_unchanged("labels", before, labels)
        if np.shape(known) != (len(rows),) or np.asarray(known).dtype != np.bool_:
            raise TypeError(
                f"flags are {np.shape(known)} {np.asarray(known).dtype}: expected "
                f"{(len(rows),)} bool"
            )
        return _rows_of(computed, (len(rows), stream.dim))

    def compute_from_crops(rows: Sequence[int]) -> Rows:
        size = computer.batch_size
        memory = np.zeros((size, *sample.crops.shape[1:]), np.uint8)
        memory[: len(rows)] = sample.crops[np.array(rows) + 1]
        before = memory.copy()
        computer.adopt(memory)
        labels = label_batch(sample, np.resize(np.array(rows), size), stream.reads)
        labels_before = copy.deepcopy(labels)
        inputs: list[Any] = [memory[:, *stream.policy.slices]]
        if labels:
            inputs.append(labels)
        computed = computer(*inputs)
        computer.release()
        _require_unchanged("labels", labels_before, labels)
        _require_unchanged("crops", {"": before}, {"": memory})
        return _rows_of(computed, (size, stream.dim))[: len(rows)]

    def compute_each(rows: Sequence[int]) -> Rows:
        n = stream.reads.crops
        results = []
        labels = label_batch(sample, np.array(rows), stream.reads)
        for i, row in enumerate(rows):
            stored_crops = sample.crops[row + 2 - n : row + 2]
            crops = [crop.copy() for crop in stored_crops]
            row_labels = {name: values[i].copy() for name, values in labels.items()}
            results.append(stream.computed(crops, row_labels))
            _require_unchanged("crops", {"": stored_crops}, {"": np.array(crops)})
        return results

    if computer is None:
        return compute_each

    def compute_batches(rows: Sequence[int]) -> Rows:
        compute = compute_from_labels
        size = batch_size
        if stream.reads.crops:
            compute = compute_from_crops
            size = computer.batch_size
        results = []
        for start in range(0, len(rows), size):
            results += compute(rows[start : start + size])
        return results

    return compute_batches


def _rows_of(computed: Any, shape: tuple[int, int]) -> Rows:
    """The rows of a result of this shape; another result as it is, for `_row_problems`."""
    if np.shape(computed) != shape:
        return [computed]
    return list(computed)


def _require_unchanged(inputs: str, before: Labels, after: Labels) -> None:
    for name, values in before.items():
        if not np.array_equal(values, after[name], equal_nan=True):
            raise ValueError(f"it changes its {inputs}, which other streams read, too")


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
    if len(rows) != len(others):
        return False
    for row, other in zip(rows, others, strict=True):
        if row is None or other is None:
            if row is not other:
                return False
        elif is_different(np.asarray(row), np.asarray(other)):
            return False
    return True


def _load_and_compute(stream: Stream, sample: _Sample) -> Rows:
    return _load(stream, sample, 4)(range(N))
