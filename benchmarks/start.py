"""How much does a command import, and how long does it take, before it works?

    git worktree add BEFORE 8b52af4a
    .venv/bin/python benchmarks/start.py --before BEFORE --out benchmarks/start.md

CPU seconds are the median of pairs: each command runs by the code before and by this code in turn,
so that the load of the machine is that of both. Modules are those that a bare Python does not have.
`status` and `convert` read a split of demo data that is up to date.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, table

PAIRS: Final = 9
SPLIT: Final = "penn_action/train"
COMMANDS: Final = {
    "--help": ["pipeline", "--help"],
    "convert --help": ["pipeline", "convert", "--help"],
    "export --help": ["pipeline", "export", "--help"],
    "python -m tasks --help": ["tasks", "--help"],
    "train --help": ["tasks", "train", "--help"],
    "predict --help": ["tasks", "predict", "--help"],
    "status of one split": ["pipeline", "status", "--cache", "CACHE"],
    "convert, nothing to do": ["pipeline", "convert", SPLIT, "--raw", "RAW", "--cache", "CACHE"],
}


def run(code: Path, words: Sequence[str], *flags: str) -> tuple[float, str]:
    """Run a command by the code of a checkout. Returns CPU seconds and what it wrote to stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *flags, *words]
    environment = os.environ | {"PYTHONPATH": str(code)}
    done = subprocess.run(
        command, cwd=code, env=environment, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, done.stderr


def imports(code: Path, words: Sequence[str]) -> set[str]:
    """Names of the modules that Python imports."""
    _, text = run(code, words, "-X", "importtime")
    lines = [line for line in text.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def measure(codes: Sequence[Path], folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield a row for each command: modules and seconds by each code, and the ratio of seconds."""
    bare = imports(ROOT, ["-c", "pass"])
    raw = str(folder / "raw/penn_action")
    for number, code in enumerate(codes):
        words = ["convert", SPLIT, "--raw", raw, "--cache", str(folder / str(number))]
        run(code, ["-m", "pipeline", *words])
    for title, words in COMMANDS.items():
        commands = []
        for number in range(len(codes)):
            places = {"RAW": raw, "CACHE": str(folder / str(number))}
            commands.append(["-m", *(places.get(word, word) for word in words)])
        counts = []
        for code, command in zip(codes, commands, strict=True):
            counts.append(len(imports(code, command) - bare))
        seconds: list[list[float]] = [[] for _ in codes]
        for _ in range(PAIRS):
            for number, code in enumerate(codes):
                seconds[number].append(run(code, commands[number])[0])
        medians = [statistics.median(values) for values in seconds]
        ratio = statistics.median(
            now / before for before, now in zip(seconds[0], seconds[-1], strict=True)
        )
        yield (title, *map(str, counts), *(f"{value:.2f}" for value in medians), f"{ratio:.2f}")


def main() -> None:
    """Measure, print, and write the page."""
    options = parser(__doc__)
    options.add_argument("--before", type=Path, required=True, help="checkout of an earlier commit")
    args = options.parse_args()
    codes = [args.before.resolve(), ROOT]
    header = (
        "command",
        "modules before",
        "modules",
        "CPU s before",
        "CPU s",
        "ratio of CPU s",
    )
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "pipeline", "synthesize", "--out", folder, "--size", "tiny"]
        run(ROOT, words)
        lines = [*table(header, measure(codes, Path(folder)))]
    title = "What does a command import, and how long does it take to start?"
    report("Modules and CPU time of a command's start.", title, lines, args)


if __name__ == "__main__":
    main()
