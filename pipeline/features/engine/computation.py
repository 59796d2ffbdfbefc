"""What becomes of full batches: a network's numbers, or what decoding processes have encoded.  crops -> [features]"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from pipeline.errors import PipelineError
from pipeline.features.engine.assembly import Data
from pipeline.features.engine.memory import SharedCrops
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.slabs import Slab
from pipeline.features.streams.base import ByteStream, Computer, Copies, Machine, NumberStream, Stream

BYTES_AT_ONCE: Final = 16  # crops in a batch that goes through no network

Compute = Callable[[Slab], Data]  # a full batch -> what there is for each of its slots


class Computation(ABC):
    """How a stream is computed here."""

    batch_size: int
    lanes: int
    provenance: Mapping[str, Any]
    encoder: ByteStream | None = None  # what decoding processes make of crops; None: they leave them as they are

    @abstractmethod
    def computing(self, memory: SharedCrops, meter: Meter) -> AbstractContextManager[Compute]:
        """What to call with each full batch, in up to `lanes` threads at a time."""


def computation(stream: Stream, machine: Machine, recorded: Mapping[str, Any] | None) -> Computation:
    """A stream's computation, loaded."""
    if isinstance(stream, NumberStream):
        return _Numbers(stream, stream.load(machine, recorded))
    if isinstance(stream, ByteStream):
        return _Bytes(stream)
    raise TypeError(f"{type(stream).__name__} is neither a NumberStream nor a ByteStream")


class _Numbers(Computation):
    def __init__(self, stream: NumberStream, computer: Computer) -> None:
        self._computer, self._kind, self._shape = computer, stream.kind, (computer.batch_size, stream.dim)
        self.batch_size, self.lanes, self.provenance = computer.batch_size, computer.lanes, computer.provenance

    @contextmanager
    def computing(self, memory: SharedCrops, meter: Meter) -> Iterator[Compute]:
        def compute(slab: Slab) -> Data:
            began = time.perf_counter()
            computed = self._computer(memory.slots[slab.span])
            spent = time.perf_counter() - began
            copied = min(spent, self._computer.copied()) if isinstance(self._computer, Copies) else 0.0
            meter.add(network=spent - copied, **({"copy": copied} if copied else {}))
            if computed.shape != self._shape:  # what can be broadcast would go into the stream unseen
                found = f"expected {self._shape} numbers of a batch, found {computed.shape}"
                raise PipelineError(f"the stream {self._kind!r} does not compute what it says: {found}")
            return computed

        self._computer.adopt(memory.slots)
        try:
            yield compute
        finally:
            self._computer.release()


class _Bytes(Computation):
    """What is in the slots is what processes have encoded."""

    batch_size, lanes = BYTES_AT_ONCE, 1

    def __init__(self, stream: ByteStream) -> None:
        self.encoder, self.provenance = stream, stream.provenance

    @contextmanager
    def computing(self, memory: SharedCrops, meter: Meter) -> Iterator[Compute]:  # noqa: ARG002 - nothing is computed
        def collect(slab: Slab) -> Data:
            slots = memory.slots[slab.span].reshape(slab.size, -1)
            return [slot[:size].tobytes() for slot, size in zip(slots, slab.sizes.tolist(), strict=True)]

        yield collect
