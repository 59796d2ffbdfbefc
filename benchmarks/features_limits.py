"""How many pictures a machine decodes, how many crops its network takes, and what both allow together.

The decoding processes are those of an extraction, without a network; the network is that of an extraction, without
decoding. Used by benchmarks/features.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import Split
from pipeline.errors import PipelineError
from pipeline.features.engine import Resources
from pipeline.features.engine.decoders import AHEAD, Decoders, cores, ready
from pipeline.features.engine.jobs import RUN_ROWS, Job
from pipeline.features.engine.memory import SharedCrops
from pipeline.features.engine.pieces import Done, Pixels
from pipeline.features.engine.shards import MOST_PERSONS
from pipeline.features.engine.slabs import MOST_ROWS, Slabs
from pipeline.features.streams.base import Computer

BATCH: Final = 16  # crops that are thrown away together
LOOK_EVERY: Final = 0.25  # s between looks for processes that hang
# Rows of a video, which can only be decoded from its start: enough that opening is cheap.
IN_ORDER_ROWS: Final = 8 * RUN_ROWS


@dataclass(frozen=True, slots=True)
class DecodeLimit:
    """What the decoding processes do by themselves, cropping included."""

    pictures: float  # a second
    crops: float  # a second
    processes: int


@dataclass(frozen=True, slots=True)
class NetworkLimit:
    """What the network does by itself, in all its lanes."""

    crops: float  # a second
    lanes: int
    batch_size: int
    provenance: Mapping[str, Any]

    @property
    def shares_cores(self) -> bool:
        """Whether it computes on the cores that decode."""
        return str(self.provenance.get("device", "cpu")) == "cpu"


@dataclass(frozen=True, slots=True)
class Limits:
    """Both, measured on one machine."""

    decode: DecodeLimit
    network: NetworkLimit
    n_cores: int

    @property
    def together(self) -> float:
        """Crops a second that both allow when they run at the same time."""
        if not self.network.shares_cores:
            return min(self.decode.crops, self.network.crops)
        both = (self.decode.crops, self.decode.processes), (self.network.crops, self.network.lanes)
        return on_shared_cores(*both, n_cores=self.n_cores)

    @property
    def limit(self) -> str:
        """What costs more: decode or network."""
        return "network" if self.network.crops < self.decode.crops else "decode"

    def as_dict(self) -> dict[str, Any]:
        """For a machine to read, but for the network."""
        return {
            "pictures_a_second": round(self.decode.pictures, 2),
            "crops_a_second": round(self.decode.crops, 2),
            "decoding_processes": self.decode.processes,
            "together_crops_a_second": round(self.together, 2),
            "limit": self.limit,
        }


def on_shared_cores(*workers: tuple[float, int], n_cores: int) -> float:
    """(crops a second, cores that this takes) of each -> crops a second when all of them go through all of it.

    With everybody on all cores alone, 1 / (1/a + 1/b):

    >>> round(on_shared_cores((1000.0, 2), (100.0, 2), n_cores=2), 3) == round(1 / (1 / 1000 + 1 / 100), 3)
    True
    >>> on_shared_cores((1000.0, 1), (100.0, 1), n_cores=2)  # a core for each
    100.0
    """
    core_seconds = sum(min(took, n_cores) / rate for rate, took in workers)  # for one crop
    return min(n_cores / core_seconds, *(rate for rate, _ in workers))


def decode_limit(coming: Iterator[Job], resources: Resources, *, seconds: float) -> DecodeLimit:
    """Decode and crop for so many seconds, in the processes of an extraction, and throw the crops away.

    `coming`: jobs without end. What it costs to start the processes is left out. Raises PipelineError when none of the
    frames can be decoded.
    """
    n = resources.workers or cores()
    n_batches = 2 + -(-2 * n * AHEAD * MOST_ROWS // BATCH)
    memory = SharedCrops.new(max(n_batches * BATCH, 2 * MOST_PERSONS), n)
    try:
        with Decoders(n, memory, timeout=resources.timeout) as decoders:
            return _Decoding(coming, Slabs(memory, BATCH), decoders, n).measured(seconds)
    finally:
        memory.close()


class _Decoding:
    """What `pipeline.features.engine.engine` does, without a network and without an end."""

    def __init__(self, coming: Iterator[Job], slabs: Slabs, decoders: Decoders, n: int) -> None:
        self._coming, self._slabs, self._decoders, self._n = coming, slabs, decoders, n
        self._busy: dict[int, tuple[Job, int]] = {}  # process -> its job, and the row that it goes on with
        self._persons: dict[int, int] = {}  # piece -> crops in it
        self._pictures = self._crops = 0
        self._problem = ""

    def measured(self, seconds: float) -> DecodeLimit:
        """From when every process has answered once."""
        answered: set[int] = set()
        while len(answered) < self._n:
            answered |= self._listened()
        self._pictures = self._crops = 0
        began = time.perf_counter()
        while (took := time.perf_counter() - began) < seconds or not self._pictures:
            self._listened()
            if took >= seconds and self._problem and not self._pictures:
                raise PipelineError(f"none of the frames could be decoded, the last one: {self._problem}")
        return DecodeLimit(self._pictures / took, self._crops / took, self._n)

    def _listened(self) -> set[int]:
        """Hand out what there is room for, and take what has been done. Returns who has done something."""
        for number in range(self._n):
            while self._give(number):
                pass
        assert self._decoders.outstanding, "there is no room for the persons of one frame"
        said = ready(self._decoders.connections, LOOK_EVERY)
        at_work = set()
        for number, done in (*self._decoders.answers(said), *self._decoders.hung()):
            self._take(done)
            at_work.add(number)
        return at_work

    def _give(self, number: int) -> bool:
        if self._decoders.room(number) < 1:
            return False
        job, start = self._busy.pop(number) if number in self._busy else (next(self._coming), 0)
        if self._decoders.is_lost(job.number):
            return True
        asked = self._slabs.ask(job, start)
        if asked is None:
            self._busy[number] = (job, start)
            return False
        piece, stop = asked
        if stop < len(job.rows):
            self._busy[number] = (job, stop)
        self._persons[piece.number] = sum(len(frame.persons) for frame in piece.frames)
        self._decoders.give(number, piece)
        return True

    def _take(self, done: Done) -> None:
        lost = self._slabs.fill(done)
        self._pictures += done.frames
        self._crops += self._persons.pop(done.piece) - sum(map(len, lost.values()))
        if done.problems:
            _, self._problem = next(iter(done.problems.values()))
        while self._slabs.full:
            self._slabs.free(self._slabs.full.popleft())


def network_limit(computer: Computer, *, seconds: float) -> NetworkLimit:
    """Compute for so many seconds, in all lanes at a time, from memory as in an extraction."""
    size, lanes = computer.batch_size, computer.lanes
    memory = SharedCrops.new(2 * lanes * size, 1)
    memory.slots[:] = np.random.default_rng(0).integers(0, 256, memory.slots.shape, np.uint8)
    computer.adopt(memory.slots)
    halves = memory.slots.reshape(lanes, 2, size, *memory.slots.shape[1:])

    def lane(batches: NDArray[np.uint8]) -> float:
        began, n = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds or not n:
            computer(batches[n % 2])
            n += 1
        return n * size / took

    try:
        with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
            list(pool.map(computer, halves[:, 0]))  # what is only done once is done now
            crops = sum(pool.map(lane, halves))
    finally:
        computer.release()
        memory.close()
    return NetworkLimit(crops, lanes, size, computer.provenance)


def of_split(split: Split, pixels_of: Callable[[int], Pixels]) -> Iterator[Job]:
    """Parts of the split's videos, shuffled, again and again. `pixels_of`: number of a video -> its pixels."""
    rng = np.random.default_rng(0)
    video = split.tracks.video
    for number in itertools.count():
        drawn = int(rng.choice(video))  # a video with more tracks is more of the work
        yield _part(split, number, np.flatnonzero(video == drawn), pixels_of(drawn), rng)


def _part(split: Split, number: int, tracks: NDArray[np.intp], pixels: Pixels, rng: np.random.Generator) -> Job:
    """Some of a video's rows: from its start where it has to be decoded in order, else from anywhere."""
    spans = [(int(split.tracks.start[track]), int(split.tracks.stop[track])) for track in tracks]
    rows = np.concatenate([np.arange(*span) for span in spans])
    bbox = np.concatenate([split.rows("bbox", *span) for span in spans])
    scale = np.concatenate(
        [np.full(b - a, split.tracks.crop_scale[t]) for t, (a, b) in zip(tracks, spans, strict=True)]
    )
    frame = rows if pixels.by_row else np.concatenate([split.rows("frame_index", *span) for span in spans])
    order = np.lexsort((rows, frame))
    if pixels.in_order:
        order = order[:IN_ORDER_ROWS]
    else:
        start = int(rng.integers(max(1, len(order) - RUN_ROWS + 1)))
        order = order[start : start + RUN_ROWS]
    return Job(
        number, pixels, rows[order], frame[order], bbox[order], scale[order], first=False, goes_on=False, shards=()
    )
