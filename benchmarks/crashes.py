"""Does a killed run lose or mix anything? SIGKILL, hundreds of times, and every time what a reader sees, and the end.

    .venv/bin/python benchmarks/crashes.py

Two kinds of runs are killed: those of `interrupted_runs.py`, over one tiny split, before their n-th change of a file
or folder, or in the middle of a write, the n spread evenly over all changes; and the commands `python -m pipeline
convert` and `extract` over embedded data, half of them so and half at random moments. Shards hold 8 rows, so that
there are many states to be killed in. Every other killed run is started again and killed once more. After every kill
the cache must verify, and readers must find all of the old state or all of the new one; so must a reader that looks on
all the time. Then the run is started again, and must end in the same bytes as one that was never disturbed. Writes
benchmarks/crashes.md; ends with 1 when anything was not so.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib
import json
import multiprocessing
import os
import platform
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

from interrupted_runs import RUNS, Death, Moment, run_toy, seen, tree, watched, without_waiting

import cache

ROOT: Final = Path(__file__).parents[1]
DATASET: Final = "penn_action"
ROWS_PER_SHARD: Final = 8
OUTSIDE: Final = ("provenance.json", "stamps.json", ".stamps.json.part")  # of the promise of equal bytes: times
LONGEST: Final = 600.0  # s that any one run may take
EXACTLY: Final = ("--precision", "exact", "--device", "cpu")
TOY: Final = 150  # tiny runs that are killed, by default, every other one twice
COMMANDS: Final = 40  # commands, likewise

FRESH: Final = multiprocessing.get_context("forkserver")  # a new process is a fork of one that has imported these
FRESH.set_forkserver_preload(["__main__", "cache"])


class Job(Protocol):
    """What is killed: brings a cache from one state to the next."""

    @property
    def name(self) -> str: ...

    def run(self, root: Path, moment: Moment | None = None) -> tuple[int, int, float]:
        """Do it, in a process of its own if it is to die. (exit status, changes, seconds from the first)"""


@dataclass(frozen=True, slots=True)
class Toy:
    """One of `RUNS`."""

    name: str

    def run(self, root: Path, moment: Moment | None = None) -> tuple[int, int, float]:
        if moment is None:
            with without_waiting(), watched(death := Death()):
                RUNS[self.name](root)
            return 0, death.count, death.seconds
        process = FRESH.Process(target=run_toy, args=(self.name, str(root), moment))
        process.start()
        process.join(LONGEST)
        process.kill()
        process.join()
        return int(process.exitcode or 0), 0, 0.0


@dataclass(frozen=True, slots=True)
class Command:
    """`python -m pipeline ...` with --cache, in a process of its own, which kills itself at the moment."""

    name: str
    arguments: Sequence[str]

    def run(self, root: Path, moment: Moment | None = None) -> tuple[int, int, float]:
        told = root.with_name(f"{root.name}.json")
        spec = json.dumps([str(told), *(moment or Moment())])
        command = [sys.executable, __file__, "--command", spec, *self.arguments, "--cache", str(root)]
        log = root.with_name(f"{root.name}.txt")
        with log.open("w") as out:  # a pipe would be held open by what the killed process started
            ended = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=LONGEST)
        if ended.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{log.read_text()}")
        count, seconds = json.loads(told.read_text()) if ended.returncode == 0 else (0, 0.0)
        return ended.returncode, count, seconds


def run_command(spec: str, arguments: Sequence[str]) -> None:
    """`python -m pipeline`, to its end or to the moment: what a `Command` starts."""
    writer: Any = importlib.import_module("cache.write.split_writer")
    writer.ROWS_PER_SHARD = writer.ROWS_PER_CHUNK = ROWS_PER_SHARD
    told, *moment = json.loads(spec)
    death = Death(*moment)
    sys.argv = ["pipeline", *arguments]
    status: Any = 0
    with watched(death):
        try:
            runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code
    Path(told).write_text(json.dumps([death.count, death.seconds]))
    sys.exit(status)


@dataclass(slots=True)
class Tally:
    """What became of one job's kills."""

    name: str
    changes: int
    kills: int = 0
    again: int = 0  # of them, of runs that went on after an earlier kill
    old: int = 0  # kills after which readers found the old state
    new: int = 0
    states: set[str] = field(default_factory=set)  # different contents of the cache's folder after a kill
    looks: int = 0  # of the reader beside it
    wrong: list[str] = field(default_factory=list)


class Onlooker:
    """A process that reads all of a cache again and again while others write it."""

    def __init__(self) -> None:
        self._pipe, theirs = FRESH.Pipe()
        self._process = FRESH.Process(target=look_on, args=(theirs,), daemon=True)
        self._process.start()

    def start(self, root: Path) -> None:
        self._pipe.send(str(root))
        self._pipe.recv()  # it is looking

    def stop(self) -> tuple[int, set[str | None]]:
        """(how often it looked, what it saw)."""
        self._pipe.send("")
        looks, found = self._pipe.recv()
        return looks, found

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def look_on(pipe: Connection) -> None:
    """What an `Onlooker`'s process does."""
    while True:
        root = Path(pipe.recv())
        pipe.send("looking")
        looks, found = 0, set()
        while not pipe.poll():
            try:
                state = seen(root)
            except Exception as error:  # whatever it is: a reader must never meet it
                state = f"{type(error).__name__}: {error}"
            found.add(state)
            looks += state is not None
            time.sleep(0.005)  # the one that writes needs the processor too
        pipe.recv()
        pipe.send((looks, found))


def survive(job: Job, before: Path, work: Path, kills: int, rng: random.Random, *, timed: bool) -> Tally:
    """Kill it at `kills` moments from the state `before`; leave the state after it in work/calm."""
    calm, root = work / "calm", work / "killed"
    copy(before, calm)
    old = seen(calm)
    _, changes, seconds = job.run(calm)
    new, expected = seen(calm), contents(calm)
    tally = Tally(job.name, changes)
    if old == new:
        tally.wrong.append("the run changed nothing")
    onlooker = Onlooker()
    try:
        for number in range(kills):
            copy(before, root)
            onlooker.start(root)
            share = (number + rng.random()) / kills
            for again in range(1 + number % 2):
                if timed and number % 4 < 2:
                    moment = Moment(after=share * seconds)
                else:
                    moment = Moment(at=1 + int(share * changes), torn=rng.random())
                kill(job, root, moment, again, tally, (old, new))
                share = rng.random() / 2  # less is left to do
            job.run(root)
            looks, found = onlooker.stop()
            tally.looks += looks
            if strange := found - {old, new}:
                tally.wrong.append(f"a reader beside kill {number + 1} saw {strange}")
            if others := differences(contents(root), expected):
                tally.wrong.append(
                    f"kill {number + 1} ended with {len(others)} other files: {', '.join(others[:3])} ..."
                )
            if not cache.verify(root).ok or seen(root) != new:
                tally.wrong.append(f"kill {number + 1}: not intact at the end")
    finally:
        onlooker.end()
    return tally


def kill(job: Job, root: Path, moment: Moment, again: int, tally: Tally, states: tuple[str | None, str | None]) -> None:
    """Run until then, and look at what is there."""
    status, *_ = job.run(root, moment)
    if status == 0:  # it had less left to do than that
        return
    where = f"{moment}{' of a run that went on' * again}"
    if status != -signal.SIGKILL:
        tally.wrong.append(f"{where}: ended with {status}")
    tally.kills += 1
    tally.again += again
    tally.states.add(digest(root))
    if (root / "zarr.json").exists() and not (report := cache.verify(root)).ok:
        tally.wrong.append(f"{where}: {report.problems}")
    try:
        found = seen(root)
    except cache.CacheError as error:
        found = str(error)
    if found not in states:
        tally.wrong.append(f"{where}: a reader saw {found}")
    tally.old += found == states[0]
    tally.new += found == states[1]


def copy(before: Path, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, root)


def contents(root: Path) -> dict[str, bytes]:
    return tree(root, OUTSIDE)


def digest(root: Path) -> str:
    return hashlib.sha256(repr(contents(root)).encode()).hexdigest()


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    names = sorted(found.keys() | expected.keys())
    return [name for name in names if found.get(name) != expected.get(name)]


def jobs_of_commands(work: Path) -> list[Command]:
    """First conversion, extraction, and both again once raw videos have changed."""
    from pipeline import synthetic  # here: the processes of the tiny runs start in no time without it

    raw = work / "raw" / DATASET
    synthetic.write_dataset(DATASET, raw, n_videos=3, n_frames=8)
    changed = Path(shutil.copytree(raw, work / "changed" / DATASET))
    labels = sorted(path.stem for path in (changed / "labels").glob("*.mat"))
    (changed / "labels" / f"{labels[0]}.mat").unlink()
    shutil.rmtree(changed / "frames" / labels[0])
    max((changed / "frames" / labels[1]).glob("*.jpg")).unlink()
    jobs = []
    for folder, what in ((raw, ""), (changed, " of changes")):
        place = [DATASET, "train", "--raw", str(folder)]
        jobs.append(Command(f"`pipeline convert`{what}", ["convert", *place, "--workers", "1" if what else "2"]))
        jobs.append(Command(f"`pipeline extract`{what}", ["extract", *place, *EXACTLY]))
    return jobs


def chain(jobs: Sequence[Job], work: Path, kills: int, rng: random.Random, *, timed: bool) -> list[Tally]:
    """Every job on what the one before it left."""
    before, tallies = work / "before", []
    for number, job in enumerate(jobs):
        share = kills * (number + 1) // len(jobs) - kills * number // len(jobs)
        tallies.append(survive(job, before, work, share, rng, timed=timed))
        copy(work / "calm", before)
        print(line(tallies[-1]), *tallies[-1].wrong, sep="\n  ", flush=True)
    return tallies


def main() -> int:
    """Kill, look, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", type=int, default=TOY, help="tiny runs that are killed, every other one twice")
    parser.add_argument("--commands", type=int, default=COMMANDS, help="commands that are killed, likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for raw data and caches; a temporary one by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/crashes.md")
    parser.add_argument("--command", help=argparse.SUPPRESS)
    args, others = parser.parse_known_args()
    if args.command:
        run_command(args.command, others)
    rng = random.Random(args.seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        toys, commands = Path(folder, "toys"), Path(folder, "commands")
        tallies = chain([Toy(name) for name in RUNS], toys, args.toy, rng, timed=False)
        if args.commands:
            tallies += chain(jobs_of_commands(commands), commands, args.commands, rng, timed=True)
    args.out.write_text(report(tallies, args.seed, time.perf_counter() - began))
    print(args.out)
    return int(any(tally.wrong for tally in tallies))


HEAD: Final = (
    "| run | changes in it | kills | of runs that went on | old state | new state | different folders "
    "| looks of a reader beside it | wrong |"
)


def line(tally: Tally) -> str:
    numbers = (tally.changes, tally.kills, tally.again, tally.old, tally.new, len(tally.states), tally.looks)
    return f"| {tally.name} | {' | '.join(f'{number:,}' for number in numbers)} | {len(tally.wrong)} |"


def report(tallies: Sequence[Tally], seed: int, seconds: float) -> str:
    """What was done, on what, and what came of it."""
    kills, wrong = sum(tally.kills for tally in tallies), [text for tally in tallies for text in tally.wrong]
    verdict = (
        "Every cache verified, every reader saw all of the old or all of the new state, and every run ended in the "
        "same bytes as an undisturbed one."
        if not wrong
        else f"{len(wrong)} things were wrong:"
    )
    lines = [
        "# Does a killed run lose or mix anything?",
        "",
        "STAND-IN data. Made by `.venv/bin/python benchmarks/crashes.py`; what is killed, when, and what is looked at "
        "afterwards, stands at its beginning.",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores "
        f"({platform.machine()}), Linux {platform.release()}, Python {platform.python_version()}, seed {seed}, "
        f"{seconds / 60:.0f} minutes.",
        "",
        f"**{kills} kills. {verdict}**",
        "",
        *(f"- {text}" for text in wrong),
        HEAD,
        "|---" * HEAD.count(" | ") + "|---|",
        *map(line, tallies),
        "",
        "A change is a call that changes a file or folder or makes it durable (open to write, write, fsync, rename, "
        "mkdir, unlink, ...). Different folders: how many different contents the cache's folder had after a kill, "
        "`provenance.json` and time stamps aside.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
