"""The parts of an extraction put together.  tracks -> [crops -> features]"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from cache import Split
from pipeline.errors import ConfigError
from pipeline.features.engine.assembly import Assembly, OpenShard, Shards
from pipeline.features.engine.computation import Computation, computation
from pipeline.features.engine.decoders import AHEAD, cores
from pipeline.features.engine.engine import Engine
from pipeline.features.engine.jobs import Job, jobs
from pipeline.features.engine.meter import Meter
from pipeline.features.engine.pieces import Pixels
from pipeline.features.engine.resting import decoding
from pipeline.features.engine.slabs import MOST_ROWS, Slabs
from pipeline.features.streams.base import Machine, Stream

MOST_PERSONS: Final = 256  # of a frame that are cropped at once
OPEN_OF_BYTES: Final = 3  # shards of a stream of bytes, which take some 200 MB each

MOST_WORKERS: Final = 16  # decoding processes for each core: more would only be in each other's way

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resources:
    """What an extraction may take of this machine."""

    machine: Machine = field(default_factory=Machine)
    workers: int = 0  # decoding processes; 0: one a core
    timeout: float = 60.0  # s without a sign of life after which one is ended


class Run(Generic[T]):
    """An extraction of some of a split's shards, by this machine.

    Args:
        pixels_of: number of a video -> where its crops come from.
        write: called for one shard at a time, mostly in a thread of its own, when all its rows are there.
        recorded: the provenance of the rows that the stream has already.
        tell: called with rows done a few times a second.
    """

    def __init__(
        self,
        split: Split,
        shards: Shards,
        stream: Stream,
        *,
        pixels_of: Callable[[int], Pixels],
        write: Callable[[OpenShard], T],
        resources: Resources,
        recorded: Mapping[str, Any] | None = None,
        tell: Callable[[int, Meter], None] = lambda rows, meter: None,  # noqa: ARG005 - nobody listens
    ) -> None:
        self._split, self._stream, self._pixels_of = split, stream, pixels_of
        self._write, self._resources, self._recorded, self._told = write, resources, recorded, tell
        self._assembly = Assembly(split, shards, stream)
        self.meter = Meter()
        self.provenance: Mapping[str, Any] | None = None  # of what computed rows; None: nothing had to be loaded

    def over(self, pending: Sequence[int]) -> Iterator[T]:
        """What `write` gave of each pending shard, as soon as it has been written. `pending` is ascending.

        Raises what `write` and the stream raise, and PipelineError for pixels that are not those that were converted.
        """
        coming = jobs(self._split, pending, self._assembly, self._pixels_of, MOST_PERSONS)
        first: Job | None = None
        for first in coming:
            if first is not None:
                break
            yield from self._finished()
        if first is None:  # everything was there already: no process is started, and no network loaded
            yield from self._finished()
        else:
            what = computation(self._stream, self._resources.machine, self._recorded)
            self.provenance = what.provenance
            yield from self._computed(itertools.chain([first], coming), what)
        self.meter.stop()
        self._tell()

    def _finished(self) -> Iterator[T]:
        for shard in self._assembly.finished():
            yield self._write(shard)
            self._tell()

    def _computed(self, coming: Iterator[Job | None], what: Computation) -> Iterator[T]:
        workers = self._resources.workers or cores()
        if workers > MOST_WORKERS * cores():
            raise ConfigError(
                f"workers {workers}: this machine has {cores()} cores; {MOST_WORKERS} for each is the most"
            )
        meter = self.meter = Meter(decoders=workers, lanes=what.lanes)
        self._tell()
        n_slots = slots(what, meter.decoders)
        with (
            decoding(meter.decoders, n_slots, self._resources.timeout, what.encoder) as (memory, decoders),
            what.computing(memory, meter) as compute,
        ):
            yield from Engine(
                coming,
                self._assembly,
                slabs=Slabs(memory, what.batch_size),
                decoders=decoders,
                compute=compute,
                lanes=what.lanes,
                write=self._write,
                meter=meter,
                tell=self._tell,
                most_open=OPEN_OF_BYTES if what.encoder else meter.decoders + 2,
            ).run()

    def _tell(self) -> None:
        done = self.meter.rows + self._assembly.carried + self._assembly.given_up
        self._told(done, self.meter)


def slots(what: Computation, n_decoders: int) -> int:
    """How many crops are in memory: what the lanes are at and have before them, and what decoders have been given."""
    n_batches = 3 * what.lanes + 2 + -(-2 * n_decoders * AHEAD * MOST_ROWS // what.batch_size)
    return max(n_batches * what.batch_size, 2 * MOST_PERSONS)
