"""Measure how much time each stage of a step takes.  pixels -> [raw keypoints, crops, features]

Detection and extraction decode in processes, compute with a network, and write; the busiest of
these stages is the bottleneck.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pipeline.cli.text import rate

# "row" is the computation of rows without a network
_DECODER_STAGES: Final = ("decode", "crop", "row")  # in decoding processes
BUSY: Final = 0.5  # share of the time from which a stage is a bottleneck

_ADDING: Final = threading.Lock()


@dataclass(slots=True)
class Meter:
    """Busy seconds of each stage, and the number of its processes or threads. The busiest stage is
    the bottleneck. Several threads add seconds; one counts frames and rows.
    """

    decoders: int = 1  # number of decoding processes
    lanes: int = 1  # number of the network's threads
    device: str = ""  # the network's device
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    frames: int = 0  # decoded
    rows: int = 0  # computed
    worked: float = 0.0  # s that all workers have worked; 0 if there are none

    def add(self, **seconds: float) -> None:
        with _ADDING:
            for stage, spent in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def include(self, other: Meter) -> None:
        """Add the frames, rows and seconds of another meter."""
        self.frames += other.frames
        self.rows += other.rows
        self.add(**other.seconds)

    def include_part(self, part: Meter) -> None:
        """Add the part of a worker. All workers are alike."""
        self.include(part)
        self.worked += part.elapsed
        self.decoders = part.decoders
        self.lanes = part.lanes
        self.device = part.device or self.device

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the seconds that the `with` block takes to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(**{stage: time.perf_counter() - began})

    @property
    def elapsed(self) -> float:
        """Seconds until the end, or until now; never 0."""
        end = self.ended
        if end is None:
            end = time.monotonic()
        return max(end - self.began, 1e-3)

    def stop(self) -> None:
        """Stop the clock: `elapsed` does not grow any more."""
        self.ended = time.monotonic()

    def busy(self) -> dict[str, float]:
        """Stage -> share of the time, 0 to 1, that its processes or threads were busy."""
        workers = dict.fromkeys(_DECODER_STAGES, self.decoders) | {"model": self.lanes, "write": 1}
        elapsed = self.worked or self.elapsed
        return {
            stage: min(1.0, self.seconds[stage] / elapsed / n_workers)
            for stage, n_workers in workers.items()
            if stage in self.seconds
        }

    @property
    def bottleneck(self) -> str:
        """The name of the busiest stage; "none" if all are idle for most of the time.

        Decoding processes also crop and compute rows, so these three stages are added up. If they
        are the busiest together, the bottleneck is the one that takes most of their time.

        >>> def bottleneck(decoding):
        ...     return Meter(began=0, ended=10, seconds={"decode": decoding, "row": 4}).bottleneck
        >>> [bottleneck(seconds) for seconds in (0.7, 1.5, 5)]
        ['none', 'row', 'decode']
        """
        busy = Counter(self.busy())
        decoding = max(_DECODER_STAGES, key=busy.__getitem__)
        shares = {
            decoding: sum(busy[stage] for stage in _DECODER_STAGES),
            "model": busy["model"],
            "write": busy["write"],
        }
        stage = max(shares, key=shares.__getitem__)
        return stage if shares[stage] >= BUSY else "none"

    @property
    def slowest(self) -> str:
        """The bottleneck as the end of a line: ", bottleneck: model"; "" without one."""
        return "" if self.bottleneck == "none" else f", bottleneck: {self.bottleneck}"

    def __str__(self) -> str:
        """96 rows/s on cpu, bottleneck: model (busy: decode 22%, crop 3%, model 98%, write 1%)

        >>> str(Meter(began=0, ended=10, rows=50, seconds={"row": 4}))
        '5.0 rows/s (busy: row 40%)'
        """
        return f"{rate(self.rows / self.elapsed, 'row')}{self.load}"

    @property
    def load(self) -> str:
        """`str` without the mean rate."""
        text = f" on {self.device}" if self.device else ""
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in self.busy().items())
        if shares:
            text += f"{self.slowest} (busy: {shares})"
        return text
