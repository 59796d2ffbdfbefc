"""Does a killed training run lose anything? SIGKILL at random moments, and every end compared with the undisturbed one.

    make data && .venv/bin/python benchmarks/training_crashes.py

Trains a short run on what `make data` has made, once undisturbed. Then the same again, killed at moments drawn
uniformly over the time that the undisturbed run took (start, steps, checkpoints, validation, evaluation), started again
and killed again, until it has been killed as often as is asked for (--each), and then left to end; and so on until
there have been --kills. Every end must have the same bits as the undisturbed run: both checkpoints, the metrics, every
other file, and the curves as TensorBoard shows them (rates of speed apart). Writes benchmarks/training_crashes.md; ends
with 1 when anything was not so.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vibe_model import TrainConfig

ROOT: Final = Path(__file__).parents[1]
TRAIN: Final = (
    "import json, sys\n"
    "from vibe_model import TrainConfig, training\n"
    "training.run(TrainConfig.from_dict(json.loads(sys.argv[1])))"
)


def main() -> None:
    """Train, kill, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "data/cache")
    parser.add_argument("--body", type=Path, default=ROOT / "data/embedded/body")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=4, help="kills of one run before it is left to end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/training_crashes.md")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    short = {"epochs": 3, "iterations": 16, "checkpoint_every": 4, "batch_size": 8, "device": "cpu"}
    config = replace(TrainConfig.embedded(), cache=args.cache, body=args.body, **short)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        whole = to_the_end(replace(config, runs=Path(scratch) / "undisturbed"))
        lasts = time.perf_counter() - began
        rows: list[dict[str, Any]] = []
        for number in itertools.count():
            if not (left := args.kills - sum(len(row["killed at"]) for row in rows)):
                break
            again = replace(config, runs=Path(scratch) / f"run{number}")
            row = disturbed(again, whole, min(args.each, left), lasts, chance)
            if row["killed at"] or row["differs"]:  # else it ended before it could be killed
                rows.append(row)
                print(text_of(row), flush=True)
    args.out.write_text(report(config, rows, lasts))
    good = all(not row["differs"] for row in rows)
    print(f"{args.out}: {'every end was the undisturbed one' if good else 'NOT EQUAL'}")
    sys.exit(not good)


def disturbed(config: TrainConfig, whole: Path, kills: int, lasts: float, chance: random.Random) -> dict[str, Any]:
    """One run, killed `kills` times and then left to end: when, at which steps it was then, and what differs."""
    killed_at: list[float] = []
    steps: list[int] = []
    while len(killed_at) < kills:
        moment = chance.uniform(0, lasts)
        process = start(config)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed_at.append(moment)
            steps.append(saved_step(config.runs))
            continue
        break  # it had little left to do, and ended: nothing is left to be killed
    folder = to_the_end(config)
    return {"killed at": killed_at, "steps": steps, "differs": differences(folder, whole)}


def start(config: TrainConfig) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TRAIN, json.dumps(config.as_dict())], cwd=ROOT)


def to_the_end(config: TrainConfig) -> Path:
    """The finished run's folder."""
    if status := start(config).wait():
        raise SystemExit(f"training ended with {status}")
    (folder,) = config.runs.iterdir()
    return folder


def saved_step(runs: Path) -> int:
    """How far the state on the disk is."""
    states = list(runs.glob("*/last.pt"))
    return int(torch.load(states[0], weights_only=True)["course"]["step"]) if states else 0


def differences(found: Path, expected: Path) -> list[str]:
    """Names of what is not the same to the bit."""
    differ = [name for name in ("last.pt", "best.pt") if not same(load(found / name), load(expected / name))]
    files, others = (dict(other_files(folder)) for folder in (found, expected))
    differ += sorted(name for name in files.keys() | others.keys() if files.get(name) != others.get(name))
    return differ + (["curves"] if curves(found) != curves(expected) else [])


def load(path: Path) -> Any:
    state = torch.load(path, weights_only=True)
    state.get("config", {}).pop("runs", None)  # where the run lies, which must differ here
    return state


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def other_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file but checkpoints and curves; of config.json all but where the run lies."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".pt" or path.name.startswith("events."):
            continue
        content = path.read_bytes()
        if path.name == "config.json":
            content = content.replace(str(folder.parent).encode(), b"")
        yield path.relative_to(folder).as_posix(), content


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve as TensorBoard shows it, but rates of speed."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    names = [name for name in events.Tags()["scalars"] if not name.startswith("speed/")]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def text_of(row: Mapping[str, Any]) -> str:
    moments = ", ".join(f"{moment:.1f}" for moment in row["killed at"])
    return f"| {moments} | {', '.join(map(str, row['steps']))} | {', '.join(row['differs']) or 'nothing'} |"


def report(config: TrainConfig, rows: list[dict[str, Any]], lasts: float) -> str:
    """The table with what it was measured on."""
    kills = sum(len(row["killed at"]) for row in rows)
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), no GPU used"
    steps = config.epochs * config.iterations
    lines = [
        "# Does a killed training run lose anything?",
        "",
        "Made by `make data && .venv/bin/python benchmarks/training_crashes.py`, on STAND-IN data.",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}, torch "
        f"{torch.__version__.split('+')[0]}. {kills} kills of runs of {steps} steps in {config.epochs} epochs, saved "
        f"every {config.checkpoint_every} steps; undisturbed, one takes {lasts:.1f} s.",
        "",
        "| killed at (s after its start) | step saved by then | differs from the undisturbed run's end |",
        "|---|---|---|",
        *map(text_of, rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
