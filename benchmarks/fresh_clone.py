"""How long does it take from a clone to the report?

    .venv/bin/python benchmarks/fresh_clone.py --out benchmarks/fresh_clone.md

Clones this repository's last commit into a folder of its own, and runs the README's commands there, one after the
other: what a new user waits for. How long pip takes says more of the network than of us. DEMO DATA: the embedded
default.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
STEPS: Final = (  # a command, and what it is to a new user
    (("make", "setup"), "packages"),
    (("make", "data"), "data, converted and extracted"),
    (("make", "data"), "again: nothing to do"),
    (("make", "train"), "VIBE and its per-frame baseline trained and evaluated"),
    (("make", "report"), "the report"),
    (("make", "report"), "again: nothing to do"),
)


@dataclass(frozen=True, slots=True)
class Step:
    command: str
    what: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the README's commands in a fresh clone.")
    parser.add_argument("--out", type=Path, help="the report; else it is printed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fresh-clone-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        steps = list(timed(clone))
        size = (clone / "runs/report.html").stat().st_size
    text = "\n".join(report(steps, size)) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        args.out.write_text(text)
    return 0


def timed(clone: Path) -> Iterator[Step]:
    """Each step, run in the clone. Raises CalledProcessError for one that fails."""
    for command, what in STEPS:
        began = time.monotonic()
        subprocess.run(command, cwd=clone, check=True, stdout=sys.stderr)  # so that one sees how far it is
        yield Step(" ".join(command), what, time.monotonic() - began)


def report(steps: Sequence[Step], size: int) -> Iterator[str]:
    yield "# How long does it take from a clone to the report?"
    yield ""
    yield "DEMO DATA, the embedded default. Made by `.venv/bin/python benchmarks/fresh_clone.py`."
    yield ""
    cores = len(os.sched_getaffinity(0))
    loads = f"a load of {os.getloadavg()[2]:.1f} at the end"
    yield f"{date.today()}, {cores} cores ({platform.machine()}), Python {platform.python_version()}, {loads}."
    yield ""
    yield "| command | what | seconds |"
    yield "|---|---|---|"
    for step in steps:
        yield f"| `{step.command}` | {step.what} | {step.seconds:.0f} |"
    after = sum(step.seconds for step in steps if step.command != "make setup" and "again" not in step.what)
    yield ""
    told = f"The report has {size / 1e6:.1f} MB."
    yield f"From data to report, once the packages are there: {after / 60:.1f} minutes. {told}"


if __name__ == "__main__":
    sys.exit(main())
