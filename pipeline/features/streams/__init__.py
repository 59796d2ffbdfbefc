"""The kinds of feature streams, and their registry.  crops -> [streams] -> features

A package adds a stream by an entry point of the group "vibe_pipeline.streams", which has the
stream's kind as its name and the class as its value. A class is imported when it is used, and torch
only when the stream computes.

A stream computes rows in one of two ways. Either `load` returns a computer, which computes batches
of rows on a device: `compute_batch` calls it for crops, `compute_labels` for labels. Or it has no
computer, and decoding processes compute single rows: `compute_row` calls `Stream.computed`. An
exception in another package's code becomes an error that names the package, and results are
checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Bools, Floats
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.streams.base import LabelComputer, Labels, Machine, Provenance, Stream
from pipeline.files.pixels.frames import Image
from pipeline.plug_ins import STREAMS, ClassRegistry

ENTRY_POINTS: Final = STREAMS

_REGISTRY: Final[ClassRegistry[Stream]] = ClassRegistry("stream", ENTRY_POINTS, Stream, "kind")
names = _REGISTRY.names
is_known = _REGISTRY.is_known
find = _REGISTRY.find
get = _REGISTRY.get
label = _REGISTRY.label
calling = _REGISTRY.calling


def of_identity(identity: Mapping[str, Any]) -> Stream | None:
    """Make a stream from the options in a manifest's identity; None if they are incomplete.

    The stream has the version of the current code, which may differ from the identity's. Raises
    PipelineError for a kind that is not installed, ConfigError for invalid options.
    """
    return find(str(identity.get("kind"))).from_identity(identity)


def load(stream: Stream, machine: Machine, recorded: Provenance | None) -> tuple[Any, Provenance]:
    """Load a stream's computer. Returns it (None if the stream has none), and its provenance.

    Args:
        recorded: provenance of the rows that the stream already has, if any.

    Raises what `stream.load` raises; PlugInError if another package's code fails; PipelineError or
    ConfigError if the stream's inputs cannot be combined with a computer.
    """
    with calling(stream.kind, "load"):
        computer = stream.load(machine, recorded)
        if computer is None:
            return None, stream.provenance
        reads = stream.reads
        name = label(stream.kind)
        if reads.crops > 1 or reads.is_whole:
            raise PipelineError(
                f"{name}: rows of several crops, or of whole frames, need `computed`, not `load`"
            )
        labels_of_crop = reads.labels if reads.crops else ()
        if labels_of_crop and stream.policy.jitter:
            raise ConfigError(
                f"crop {stream.policy}: {name} reads {', '.join(labels_of_crop)}, which do "
                "not follow a crop with jitter. Delete jitter."
            )
        return computer, computer.provenance


def compute_batch(
    stream: Stream,
    computer: Callable[..., Floats],
    crops: NDArray[np.uint8],
    labels: Labels,
) -> Floats:
    """Compute a batch with a stream's computer: crops (n, height, width, 3) -> numbers (n, dim).

    Args:
        labels: columns (n, ...) of the same rows, used if the stream reads columns.

    Raises PlugInError if another package's code fails, PipelineError if the result does not have
    the declared shape.
    """
    with calling(stream.kind, "the function that load returned"):
        if stream.reads.labels:
            computed = computer(crops, labels)
        else:
            computed = computer(crops)
        _require_shape(stream, computed, (len(crops), stream.dim))
    return computed


def compute_labels(
    stream: Stream, computer: LabelComputer, labels: Labels, n: int
) -> tuple[Floats, Bools]:
    """Compute n rows of a label stream: numbers (n, dim), and whether they are known (n,).

    Raises as `compute_batch` does.
    """
    with calling(stream.kind, "the function that load returned"):
        computed, is_known = computer(labels)
        _require_shape(stream, computed, (n, stream.dim))
        _require_shape(stream, is_known, (n,), "flags")
    return computed, is_known


def compute_row(
    stream: Stream, crops: Sequence[Image], labels: Labels, where: str
) -> Floats | None:
    """Compute one row (dim,) of a stream without a computer; None: the row's value is unknown.

    Args:
        where: what is computed, for messages, such as "frame 3".

    Raises PipelineError if the stream's code fails or does not return `dim` numbers.
    """
    try:
        row = stream.computed(crops, labels)
    except Exception as error:
        why = f"{type(error).__name__}: {error}. --debug shows where."
        raise PipelineError(f"{label(stream.kind)} cannot compute {where}: {why}") from error
    if row is None:
        return None
    numbers = np.asarray(row, np.float32)
    if numbers.shape != (stream.dim,):
        raise _undeclared_error(
            stream, f"{stream.dim} numbers of {where}", f"the shape {numbers.shape}"
        )
    return np.ascontiguousarray(numbers)


def _require_shape(
    stream: Stream, computed: Any, expected: tuple[int, ...], noun: str = "numbers"
) -> None:
    """Raise PipelineError for another shape: NumPy would broadcast some of them."""
    found: object = f"a {type(computed).__name__}"
    if hasattr(computed, "shape"):
        found = tuple(computed.shape)
    if found != expected:
        raise _undeclared_error(stream, f"{expected} {noun} of a batch", f"{found}")


def _undeclared_error(stream: Stream, expected: str, found: str) -> PipelineError:
    return PipelineError(
        f"{label(stream.kind)} does not compute what it declares: expected {expected}, found "
        f"{found}"
    )
