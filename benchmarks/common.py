"""What reports of benchmarks share: tables, medians of rounds, and the command, date and machine to begin with."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


def report(about: str, title: str, lines: Iterable[str], args: argparse.Namespace) -> None:
    """Print the lines with their command, date and machine, and write them to `args.out` where that is set."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    software = f"Python {platform.python_version()}, NumPy {version('numpy')}, torch {version('torch')}"
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB, {gpu_of(args)}"
    command = " ".join((f".venv/bin/python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]))
    text = [f"# {title}", "", f"{about} Made by `{command}`, which describes at its beginning what is compared.", ""]
    text += [f"{datetime.date.today()}, {machine}, {software}, a load of {os.getloadavg()[1]:.0f}.", "", *lines, ""]
    print("\n".join(text))
    if args.out:
        args.out.write_text("\n".join(text))


def gpu_of(args: argparse.Namespace) -> str:
    """The name of the GPU that `--device` names, if any."""
    if not getattr(args, "device", "").startswith("cuda"):
        return "no GPU used"
    import torch

    return torch.cuda.get_device_name(args.device)


def parser(about: str | None, *, at: str) -> argparse.ArgumentParser:
    """One with what all of them have: --at, a folder for `at`, and --out."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--at", type=Path, help=f"folder for {at}; a temporary one by default")
    made.add_argument("--out", type=Path, help="write the report here, for example benchmarks/<name>.md")
    return made


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table of Markdown, a line at a time."""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def spread(values: Sequence[float], form: str = ",.2f") -> str:
    """The median of the rounds, the lowest and the highest.

    >>> spread([3, 1, 2.5])
    '2.50 (1.00 - 3.00)'
    """
    return f"{statistics.median(values):{form}} ({min(values):{form}} - {max(values):{form}})"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def pipeline(*words: object) -> str:
    """What a command of `python -m pipeline` prints. Ends the benchmark where it fails."""
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} ended with {done.returncode}")
    return done.stdout
