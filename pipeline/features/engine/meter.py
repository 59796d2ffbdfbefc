"""Where the time of an extraction goes, as measured while it runs.  crops -> features"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Meter:
    """Busy seconds of each stage, and how many work at it. A stage that is always busy is what limits the rest."""

    decoders: int = 1
    lanes: int = 1
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    frames: int = 0  # decoded
    rows: int = 0  # computed
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **seconds: float) -> None:
        """Busy seconds by stage: decode, crop, copy, network, write."""
        with self._lock:
            for stage, spent in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    @property
    def elapsed(self) -> float:
        """s from its beginning to its end, or to now; never 0."""
        return max((time.monotonic() if self.ended is None else self.ended) - self.began, 1e-3)

    def stop(self) -> None:
        """Count no longer."""
        self.ended = time.monotonic()

    def busy(self) -> dict[str, float]:
        """Stage -> share of the time, 0 to 1, in which those who do it did."""
        many = {"decode": self.decoders, "crop": self.decoders, "copy": self.lanes, "network": self.lanes}
        return {
            stage: min(1.0, spent / self.elapsed / many.get(stage, 1)) for stage, spent in tuple(self.seconds.items())
        }

    @property
    def limit(self) -> str:
        """The stage at which everything else waits: decode (with crop), network (with copy) or write."""
        busy = self.busy()
        together = {
            "decode": busy.get("decode", 0) + busy.get("crop", 0),
            "network": busy.get("network", 0) + busy.get("copy", 0),
            "write": busy.get("write", 0),
        }
        return max(together, key=together.__getitem__)

    def words(self) -> str:
        """96 a second, limit: network (busy: decode 22%, crop 3%, network 98%, write 1%)"""
        shares = ", ".join(f"{stage} {share:.0%}" for stage, share in sorted(self.busy().items(), key=_order))
        rate = f"{self.rows / self.elapsed:.0f} a second"
        return f"{rate}, limit: {self.limit} (busy: {shares})" if shares else rate

    def as_dict(self) -> dict[str, Any]:
        """For the record of how a stream came about."""
        return {
            "seconds": round(self.elapsed, 3),
            "rows": self.rows,
            "frames_decoded": self.frames,
            "rows_a_second": round(self.rows / self.elapsed, 2),
            "busy": {stage: round(share, 4) for stage, share in sorted(self.busy().items(), key=_order)},
            "limit": self.limit if self.seconds else "",
            "decoding_processes": self.decoders,
            "network_lanes": self.lanes,
        }


_STAGES = ("decode", "crop", "copy", "network", "write")


def _order(item: tuple[str, float]) -> int:
    return _STAGES.index(item[0]) if item[0] in _STAGES else len(_STAGES)
