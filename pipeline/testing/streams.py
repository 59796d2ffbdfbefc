"""Contract of streams, checked on random rows (docs/adding-a-stream.md).  [crops, labels ->
features]

`StreamContract` is a test class for packages with streams; it calls `stream_problems`. That checks
what the stream declares, then computes nine rows of a `_Sample` with it (`_LoadedStream`), as
extraction does: once, and again in other batches, in another order and in another process. The
numbers must be the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from cache import COLUMNS, CacheError
from cache.arrays import Array
from cache.crop_policy import Jitter
from pipeline.features import streams
from pipeline.features.inputs import label_batch
from pipeline.features.streams.base import ROW_RATE, Labels, Machine, Stream
from pipeline.people.skeletons import Ints
from pipeline.testing.datasets import fail_if_any, version_problems

N: Final = 9  # rows to compute
BATCH_SIZE: Final = 4  # so that the last batch is padded
OTHER_BATCH_SIZE: Final = 3
# how much a row's numbers may differ between two batches, relative to the largest number
RELATIVE: Final = 1e-3

Rows = list[Any]  # one array (dim,) per row, or None for an unknown row


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
        return _computation_problems(stream, _Sample.build(stream, labels), another_process)
    except Exception as error:  # third-party code can raise anything
        return [f"fails: {type(error).__name__}: {error}"]


def _computation_problems(stream: Stream, sample: _Sample, another_process: bool) -> list[str]:
    """Problems of computed rows, and of computing them again if there are none."""
    loaded = _LoadedStream(stream, sample)
    rows = loaded.compute(range(N))
    row_problems: list[str] = []
    for row in rows:
        row_problems += _row_problems(stream, row)
    # each problem once
    problems = list(dict.fromkeys(row_problems)) or list(
        _repetition_problems(stream, sample, loaded, rows)
    )
    if another_process and not problems:
        recomputed_rows = _compute_in_new_process(stream, sample)
        if not _same(rows, recomputed_rows):
            problems.append("computes different numbers in another process")
    return problems


def _stream_declaration_problems(stream: Stream) -> Iterator[str]:
    """Problems of what the stream declares. The identity of a stream is compared with that of a
    restored stream only if the identity itself has no problem.
    """
    yield from _row_declaration_problems(stream)
    problems = list(_declaration_problems(stream))
    yield from problems or _restoring_problems(stream)


def _row_declaration_problems(stream: Stream) -> Iterator[str]:
    """Check the declared type and size of a row, and its inputs."""
    try:
        stream.form  # noqa: B018  check it
    except CacheError as error:
        yield str(error)
    reads = stream.reads
    is_window_of_crops = reads.crops and reads.window > 1
    if min(reads.history, reads.future) < 0 or is_window_of_crops:
        yield f"reads {reads}: history and future must be >= 0, and are for streams of labels only"


def _restoring_problems(stream: Stream) -> Iterator[str]:
    """Check that the stream can be restored from its identity, and that the identity has the
    stream's kind, version and crop policy.
    """
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
    """N rows to compute: the frames of two tracks in order, each one run.

    `label_batch` reads its `runs`, `tracks`, `track_of` and `rows`, as if it were a split.
    """

    # (N + 1, size, size, 3): crop i + 1 is row i's; crop 0 is that of a frame before row 0
    crops: NDArray[np.uint8]
    labels: Labels  # column -> (N, ...)
    runs: ClassVar[Ints] = np.array([[0, 4], [4, N]])  # of consecutive frames
    tracks: ClassVar = SimpleNamespace(fps=np.array([30.0, 25.0]), step=np.array([1, 1]))

    @classmethod
    def build(cls, stream: Stream, labels: Labels | None) -> _Sample:
        """Crops of a random scene, `labels`, and random values for other columns that the stream
        reads.
        """
        rng = np.random.default_rng(0)
        size = stream.policy.size if stream.reads.crops else 1
        crops = _moving_crops(size, rng)
        columns = dict(labels or {})
        for name in stream.reads.labels:
            if name != ROW_RATE and name not in columns:
                columns[name] = _random_column(name, rng)
        return cls(crops, columns)

    def crops_of(self, row: int, n: int) -> NDArray[np.uint8]:
        """The crops of the n - 1 rows before a row, and its own: (n, size, size, 3); n <= 2."""
        # The row's own crop is crop row + 1.
        return self.crops[row + 2 - n : row + 2]

    def track_of(self, rows: Ints) -> Ints:
        return np.searchsorted(self.runs[:, 1], rows, side="right")

    def rows(self, name: str, start: int, stop: int) -> Array:
        return self.labels[name][start:stop]


def _moving_crops(size: int, rng: Generator) -> NDArray[np.uint8]:
    """N + 1 crops (size, size, 3) of a scene of random blocks of 8 px; each crop is 1 px lower and
    2 px farther right than the one before.
    """
    n_blocks = size // 8 + 4  # 25 px or more beyond a crop, which moves by up to 2 * N px
    blocks = rng.integers(0, 256, (n_blocks, n_blocks, 3), np.uint8)
    scene = blocks.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([scene[i : i + size, 2 * i : 2 * i + size] for i in range(N + 1)])


def _random_column(name: str, rng: Generator) -> Array:
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
        return rng.integers(0, 2, (N, *column.shape)).astype(column.dtype)
    values = rng.normal(0, 0.3, (N, *column.shape))
    if name == "bbox":
        centre = rng.uniform(100, 200, (N, 2))
        side = rng.uniform(80, 120, N)
        values = np.column_stack([centre, side, side])
    if name == "kp_2d":
        values[..., :2] = rng.uniform(100, 200, values[..., :2].shape)
    if name in ("kp_2d", "kp_3d"):
        values[..., -1] = 1
    return np.asarray(values, column.dtype)


class _LoadedStream:
    """A stream that computes rows of the sample, by the functions of extraction (`computing`).

    What `Stream.load` returns tells how rows are computed:

    - a `Computer`, for crops (`_compute_from_crops`): a batch at a time, in memory that it gets
      before by `adopt`, and no longer uses after `release`;
    - a `LabelComputer` (`_compute_from_labels`): a batch of labels at a time;
    - None (`_compute_each`): `Stream.computed` computes each row.
    """

    def __init__(
        self,
        stream: Stream,
        sample: _Sample,
        batch_size: int = BATCH_SIZE,
        fill: float | None = None,
    ) -> None:
        """batch_size: Crops or rows in a batch. fill: The labels of rows in a window that do not
        exist; None: as extraction fills them. Raises TypeError for provenance without `stand_in`.
        """
        self._stream = stream
        self._sample: Any = sample  # Any: `label_batch` is declared for a split
        self._batch_size = batch_size
        self._fill = fill
        # a Computer, a LabelComputer or None
        self._computer, provenance = streams.load(stream, Machine("cpu", batch_size, 1), None)
        stored = json.loads(json.dumps(dict(provenance)))
        if not isinstance(stored.get("stand_in"), bool):
            raise TypeError("its provenance has no stand_in, true or false")

    def compute(self, rows: Sequence[int]) -> Rows:
        """Compute these rows. Raises PipelineError for a failure or a result of another shape, and
        ValueError for changed inputs.
        """
        if self._computer is None:
            return self._compute_each(rows)
        compute_batch = self._compute_from_labels
        size = self._batch_size
        if self._stream.reads.crops:
            compute_batch = self._compute_from_crops
            size = self._computer.batch_size
        results = []
        for start in range(0, len(rows), size):
            results += compute_batch(rows[start : start + size])
        return results

    def _compute_each(self, rows: Sequence[int]) -> Rows:
        """Compute row by row, each from its own crop and those of the rows before it."""
        results = []
        labels = self._labels(rows)
        for i, row in enumerate(rows):
            stored_crops = self._sample.crops_of(row, self._stream.reads.crops)
            crops = [crop.copy() for crop in stored_crops]
            row_labels = {name: values[i].copy() for name, values in labels.items()}
            results.append(streams.compute_row(self._stream, crops, row_labels, f"row {row}"))
            _require_unchanged("crops", {"": stored_crops}, {"": np.array(crops)})
        return results

    def _compute_from_labels(self, rows: Sequence[int]) -> Rows:
        """Compute a batch from labels."""
        labels = dict(self._labels(rows))
        if self._fill is not None:
            for name in self._stream.reads.labels:
                labels[name][~labels["in_run"]] = self._fill
        computed, flags = streams.compute_labels(self._stream, self._computer, labels, len(rows))
        if flags.dtype != np.bool_:
            raise TypeError(f"flags are {flags.dtype}: expected bool")
        return list(computed)

    def _compute_from_crops(self, rows: Sequence[int]) -> Rows:
        """Compute a batch from crops, padded to the size that the computer expects: with empty
        crops, and with repeated labels.
        """
        size = self._computer.batch_size
        memory = np.zeros((size, *self._sample.crops.shape[1:]), np.uint8)
        for i, row in enumerate(rows):
            memory[i] = self._sample.crops_of(row, 1)[0]
        memory_before = memory.copy()
        self._computer.adopt(memory)
        labels = self._labels(np.resize(rows, size))
        labels_before = copy.deepcopy(labels)
        # only the region of the crops that the stream's policy names
        crops = memory[:, *self._stream.policy.slices]
        computed = streams.compute_batch(self._stream, self._computer, crops, labels)
        self._computer.release()
        _require_unchanged("labels", labels_before, labels)
        _require_unchanged("crops", {"": memory_before}, {"": memory})
        return list(computed[: len(rows)])

    def _labels(self, rows: Any) -> Labels:
        """The labels of these rows, by the code that extraction uses."""
        return label_batch(self._sample, np.asarray(rows), self._stream.reads)


def _require_unchanged(inputs: str, before: Labels, after: Labels) -> None:
    for name, values in before.items():
        if not np.array_equal(values, after[name], equal_nan=True):
            raise ValueError(f"it changes its {inputs}, which other streams read, too")


def _row_problems(stream: Stream, row: Any) -> Iterator[str]:
    """Problems of one row's result. None, for an unknown row, is valid."""
    if row is None:
        return
    if np.asarray(row).dtype.kind != "f":
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


def _repetition_problems(
    stream: Stream, sample: _Sample, loaded: _LoadedStream, rows: Rows
) -> Iterator[str]:
    """Check that a row's result depends only on its crops and labels. rows: the first results."""
    if not _same(rows, loaded.compute(range(N))):
        yield "computes different numbers the second time"
        return
    other_batches = _LoadedStream(stream, sample, OTHER_BATCH_SIZE)
    if not _same(rows, other_batches.compute(range(N))):
        yield "computes different numbers in batches of another size"
    backwards = loaded.compute(range(N)[::-1])
    if not _same(rows, backwards[::-1]):
        yield "computes different numbers when the rows come in another order"
    if not _same(rows[2:3], loaded.compute([2])):
        yield "computes different numbers for a row alone than in a batch"
    if stream.reads.window > 1:
        other_fill = _LoadedStream(stream, sample, fill=7)
        if not _same(rows, other_fill.compute(range(N))):
            yield "its numbers depend on labels of rows that do not exist, where `in_run` is false"


def _same(rows: Rows, others: Rows) -> bool:
    """Whether two results are equal except for rounding."""
    if len(rows) != len(others):
        return False
    for row, other in zip(rows, others, strict=True):
        if row is None or other is None:
            if row is not other:
                return False
        elif _is_different(np.asarray(row), np.asarray(other)):
            return False
    return True


def _is_different(first: Array, second: Array) -> bool:
    """Whether two results for the same rows differ by more than the rounding that different batches
    cause.
    """
    largest = max(np.abs(values[np.isfinite(values)]).max(initial=0) for values in (first, second))
    tolerance = RELATIVE * largest
    return not np.allclose(first, second, rtol=RELATIVE, atol=tolerance, equal_nan=True)


def _load_and_compute(stream: Stream, sample: _Sample) -> Rows:
    return _LoadedStream(stream, sample).compute(range(N))


def _declaration_problems(stream: Any) -> Iterator[str]:
    """Problems of a stream's kind, version and identity.

    The identity must contain all options except `crop`, and no path.
    """
    if not isinstance(getattr(stream, "kind", None), str) or not stream.kind:
        yield "has no kind"
    yield from version_problems(stream)
    identity = stream.identity()
    if not isinstance(identity, Mapping):
        yield f"identity() returns {identity!r}: expected a dictionary"
        return
    try:
        is_same = json.loads(json.dumps(identity, allow_nan=False)) == identity
    except (TypeError, ValueError) as error:
        yield f"identity() is not JSON: {error}"
        return
    if not is_same:
        yield (
            "identity() changes when it is written as JSON and read back: use no tuples and "
            "no numbers as keys"
        )
    if identity != stream.identity():
        yield "identity() returns different values when called again"
    for option in fields(stream):
        name = option.name
        is_exempt = name == "crop" or isinstance(getattr(stream, name), Path)
        if name not in identity and not is_exempt:
            yield f"identity() does not contain the option {name}, on which the results depend"
    for text in _texts(identity):
        if text.startswith(("/", "~", "file:")) or (Path(text).suffix and Path(text).exists()):
            yield f"identity() contains the path {text!r}: expected a digest of the file's content"


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        yield from _texts(list(values.values()))
    elif isinstance(values, Sequence):
        for value in values:
            yield from _texts(value)


def _compute_in_new_process(stream: Stream, sample: _Sample) -> Rows:
    """All rows, computed in a freshly spawned process. A script needs a `__main__` guard."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_load_and_compute, stream, sample).result()
