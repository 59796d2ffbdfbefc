"""Decoding processes for one split after the other: those that are there are used again.  pixels -> [crops]"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.features.engine.decoders import Decoders
from pipeline.features.engine.memory import SharedCrops
from pipeline.features.streams.base import ByteStream

REST: Final = 30.0  # s that they wait for the next split

_Key = tuple[int, int, float, ByteStream | None]
_resting: dict[_Key, tuple[SharedCrops, Decoders]] = {}  # one at most


@contextmanager
def decoding(
    n: int, n_slots: int, timeout: float, encoder: ByteStream | None
) -> Iterator[tuple[SharedCrops, Decoders]]:
    """`n` processes and the memory that they fill. After an error they are ended, otherwise they rest for a while."""
    key = (n, n_slots, timeout, encoder)
    held = _resting.pop(key, None)
    end_resting()
    if held is None:
        new = SharedCrops.new(n_slots, n)
        held = new, Decoders(n, new, timeout=timeout, encoder=encoder)
    memory, decoders = held
    try:
        decoders.begin()
        yield held
    except BaseException:
        _end(memory, decoders)
        raise
    decoders.rest(REST)
    memory.give_back()  # nobody has it pinned any more: what computes from it has been left before this
    _resting[key] = held


def end_resting() -> None:
    """End the processes that wait for another split."""
    while _resting:
        _end(*_resting.popitem()[1])


def _end(memory: SharedCrops, decoders: Decoders) -> None:
    decoders.close()
    memory.close()


atexit.register(end_resting)
os.register_at_fork(after_in_child=_resting.clear)  # they are the parent's
