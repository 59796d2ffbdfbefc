"""What the tests of the cluster have workers do. They import it, beside made_up.py."""

import time
from dataclasses import dataclass
from pathlib import Path


def logged(folder: Path) -> list[str]:
    """A line for each item that was begun."""
    file = folder / "log"
    return file.read_text().splitlines() if file.exists() else []


@dataclass(frozen=True)
class Doubled:
    """A slow job."""

    folder: Path
    seconds: float = 0.0

    def __call__(self, item: int) -> int:
        with (self.folder / "log").open("ab", buffering=0) as file:  # one line, whole, also when other processes write
            file.write(b"begun\n")
        time.sleep(self.seconds)
        return 2 * item
