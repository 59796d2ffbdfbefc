"""What the tests of the cluster have workers do. They import it: it is alone on their path."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.features.streams.base import Machine, NumberStream


def log(folder: Path, line: str) -> None:
    """One line, whole, also when other processes write."""
    with (folder / "log").open("ab", buffering=0) as file:
        file.write(f"{os.getpid()} {line}\n".encode())


def logged(folder: Path) -> list[tuple[int, str]]:
    """(process, line) of everything so far."""
    file = folder / "log"
    lines = [line.split(" ", 1) for line in file.read_text().splitlines()] if file.exists() else []
    return [(int(process), text) for process, text in lines]


@dataclass(frozen=True)
class Doubled:
    """A slow job, with one item that cannot be done. It ends early when its result is no longer needed."""

    folder: Path
    seconds: float = 0.0
    spoiled: int = -1
    deadly: int = -1

    def __call__(self, item: int, alive: Callable[[], None] = lambda: None) -> int:
        log(self.folder, str(item))
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            time.sleep(0.01)
            alive()
        if item == self.spoiled:
            raise LookupError(f"item {item}")
        if item == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * item


@dataclass(frozen=True, kw_only=True)
class Means(NumberStream):
    """A stream that costs nothing: means over stripes of a crop."""

    seconds: float = 0.0

    kind: ClassVar[str] = "means"
    dim: ClassVar[int] = 8
    dtype: ClassVar[str] = "float32"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Any:
        return MeansComputer(self.seconds)


class MeansComputer:
    batch_size, lanes = 4, 1
    provenance: ClassVar[Mapping[str, Any]] = {"arithmetic": "means"}

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def adopt(self, memory: Any) -> None:
        pass

    def release(self) -> None:
        pass

    def __call__(self, crops: Any) -> Any:
        time.sleep(self.seconds)
        return crops.reshape(len(crops), 8, -1).mean(axis=2, dtype=np.float32)
