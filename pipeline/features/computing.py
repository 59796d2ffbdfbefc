"""Call a stream's own code, which may be a plug-in's, and check what it returns.  crops -> [features]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.streams.base import Computer, LabelComputer, Labels, Machine, Stream, region_of
from pipeline.files.pixels.frames import Image

REPEATED: Final = 16  # rows of a batch that are computed twice
RELATIVE: Final = 1e-3  # by which the same row may differ in another batch, of the largest number


def load(stream: Stream, machine: Machine, recorded: Mapping[str, Any] | None) -> tuple[Any, Mapping[str, Any]]:
    """Return the computer of a stream's batches, None where decoding processes compute it, and its provenance.

    Raises what loading raises, and PlugInError where another package's code fails.
    """
    with streams.calling(stream.kind, "load"):
        computer = stream.load(machine, recorded)
        if computer is not None and stream.reads.crops > 1:
            raise PipelineError(f"{streams.label(stream.kind)}: a row of several crops is computed one by one: no load")
        return computer, stream.provenance if computer is None else computer.provenance


def device_of(provenance: Sequence[Mapping[str, Any] | None]) -> str:
    """Return the device of several streams' networks, which `auto` may have chosen; "" without a network."""
    return next((str(of_stream["device"]) for of_stream in provenance if of_stream and "device" in of_stream), "")


def region_slices(policy: CropPolicy) -> tuple[slice, slice]:
    """Return the rows and columns of a crop that a network takes as its input."""
    height, width = region_of(policy)
    top, left = (policy.size - height) // 2, (policy.size - width) // 2
    return slice(top, top + height), slice(left, left + width)


def numbers_of(stream: Stream, computer: Computer, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute a batch of crops. Raises PlugInError where another package's code fails, PipelineError for numbers of
    another shape than the stream declares."""
    with streams.calling(stream.kind, "the function that load returned"):
        computed = computer(crops)
        _require_shape(stream, computed, (len(crops), stream.dim))
    return computed


def labelled(
    stream: Stream, computer: LabelComputer, labels: Labels, n: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Compute n rows from labels: (n, dim) numbers, and (n,) whether they are known. Raises as `numbers_of`.

    Some rows are computed once more without those next to them: PipelineError where their numbers differ then, since
    these are not of the row's own labels.
    """

    def compute(rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        with streams.calling(stream.kind, "the function that load returned"):
            computed, known = computer({name: values[rows] for name, values in labels.items()})
            _require_shape(stream, computed, (len(rows), stream.dim))
            _require_shape(stream, known, (len(rows),), "flags")
        return computed, known

    computed, known = compute(np.arange(n))
    again = np.arange(n)[:: -max(2, -(-n // REPEATED))]
    repeated, known_again = compute(again)
    if not np.array_equal(known[again], known_again) or different(computed[again], repeated):
        raise PipelineError(
            f"{streams.label(stream.kind)}: a row's numbers depend on the other rows of its batch, which are any rows. "
            "Declare the rows before and after it that it looks at: `history`, `future`."
        )
    return computed, known


def different(numbers: NDArray[Any], others: NDArray[Any]) -> bool:
    """Whether numbers of the same rows differ by more than rounding in another batch does."""
    near = RELATIVE * max(np.abs(values[np.isfinite(values)]).max(initial=0) for values in (numbers, others))
    return not np.allclose(numbers, others, rtol=RELATIVE, atol=near, equal_nan=True)


def row_of(stream: Stream, crops: Sequence[Image], labels: Labels, where: str) -> NDArray[np.float32] | None:
    """Compute one row of a stream without a computer; None: its value is not known. `where`: for messages.

    Raises PipelineError where the stream's code fails, and for any other result than `dim` finite numbers.
    """
    try:
        row = stream.computed(crops, labels)
    except Exception as error:
        why = f"{type(error).__name__}: {error}. --debug shows where."
        raise PipelineError(f"{streams.label(stream.kind)} cannot compute {where}: {why}") from error
    if row is None:
        return None
    numbers = np.asarray(row, np.float32)
    if numbers.shape != (stream.dim,) or not np.isfinite(numbers).all():
        values = numbers.tolist() if numbers.size < 20 else numbers.shape
        raise _undeclared(stream, f"{stream.dim} finite numbers of {where}", f"{values}")
    return np.ascontiguousarray(numbers)


def _require_shape(stream: Stream, computed: Any, expected: tuple[int, ...], what: str = "numbers") -> None:
    shape = tuple(computed.shape) if hasattr(computed, "shape") else f"a {type(computed).__name__}"
    if shape != expected:  # what can be broadcast would go into the stream unseen
        raise _undeclared(stream, f"{expected} {what} of a batch", f"{shape}")


def _undeclared(stream: Stream, expected: str, found: str) -> PipelineError:
    return PipelineError(
        f"{streams.label(stream.kind)} does not compute what it declares: expected {expected}, found {found}"
    )
