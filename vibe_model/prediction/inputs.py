"""What a model reads of windows: its features, and other streams beside them.  features -> [windows] -> training"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from vibe_model.settings.run_config import Reading

if TYPE_CHECKING:
    from cache import Split

Array = NDArray[Any]
NOTHING: Final[Mapping[str, Reading]] = MappingProxyType({})  # beside the features


def with_history(rows: Array, history: int) -> Array:
    """(B, history + T, size) -> (B, T, (history + 1) * size): each frame's own row after those before it.

    >>> with_history(np.array([[[1], [2], [3]]]), 1).tolist()
    [[[1, 2], [2, 3]]]
    """
    every = np.lib.stride_tricks.sliding_window_view(rows, history + 1, axis=1)  # (B, T, size, history + 1)
    n_windows, n_frames, size, _ = every.shape
    return np.array(np.moveaxis(every, -1, 2)).reshape(n_windows, n_frames, (history + 1) * size)


def streams_of(stream: str, beside: Mapping[str, Reading]) -> tuple[str, ...]:
    """All that must be there of a frame: the stream of its features first."""
    return (stream, *(one.stream for one in beside.values()))


def windows_with(split: Split, seqlen: int, stream: str, beside: Mapping[str, Reading], stride: int = 1) -> Array:
    """(W, 2) of [start, stop): the windows that have all streams, as `Split.windows` has them."""
    if not beside:
        return split.windows(seqlen, stride, stream)
    return split.windows(seqlen, stride, streams=streams_of(stream, beside))


def read_inputs(split: Split, windows: Array, stream: str, beside: Mapping[str, Reading]) -> dict[str, Array]:
    """(B, 2) windows -> the arguments of `VideoModel.regress`: `features` (B, T, dim), and those of `beside`, float32.

    Raises as `Split.read` does.
    """
    if not beside:
        return split.read(windows, stream=stream, fields=("features",))
    names = streams_of(stream, beside)
    history = {one.stream: one.history for one in beside.values() if one.history}
    found = split.read(windows, streams=names, history=history, fields=names)
    return {
        "features": found[stream],
        **{name: with_history(found[one.stream], one.history) for name, one in beside.items()},
    }
