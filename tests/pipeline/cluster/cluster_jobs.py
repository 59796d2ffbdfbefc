"""What the tests of the cluster have workers do. They import it, beside made_up.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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

    def __call__(self, item: int, alive: Callable[[], None] = lambda: None) -> int:
        log(self.folder, str(item))
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            time.sleep(0.01)
            alive()
        if item == self.spoiled:
            raise LookupError(f"item {item}")
        return 2 * item
