"""Does a killed command lose or mix anything? SIGKILL, hundreds of times; what readers see, and how it ends.

    make data && .venv/bin/python benchmarks/crashes.py

Two kinds of jobs are killed at random moments: the commands `python -m pipeline convert` and `extract` over demo data,
and a short training on what `make data` has written. Every other killed job is started again and killed once more.
After every kill a cache must verify, and readers must find all of the old state or all of the new one; so must a reader
that reads all the time. Then the job is started again, and must end in the same bytes as one that was never disturbed
(of a training: the same checkpoints and metrics). Kills at any change of a file: tests/cache/test_histories.py.
Writes benchmarks/crashes.md; ends with 1 when anything was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # where `benchmarks` is, also for a script

from benchmarks.common import report  # noqa: E402

OUTSIDE: Final = ("provenance.json", "stamps.json", ".stamps.json.part")  # of the promise of equal bytes: times
LONGEST: Final = 600.0  # s that any one job may take
FRESH: Final = multiprocessing.get_context("forkserver")  # a new process is a fork of one that has imported these
FRESH.set_forkserver_preload(["__main__", "cache"])


# ------------------------------------------------------------------------------------------------- what is killed


@dataclass(frozen=True)
class Command:
    """What is killed: a command on a folder, which it is given as the last argument, from one state to the next."""

    name: str
    arguments: Sequence[str]

    def run(self, root: Path, after: float = LONGEST) -> int:
        """Do it, and kill it after some seconds. The exit status."""
        log = root.with_name(f"{root.name}.txt")
        with log.open("w") as out:  # a pipe would be held open by what the killed process started
            process = subprocess.Popen(
                [sys.executable, *self.arguments, str(root)], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
            )
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"{' '.join(self.arguments)} ended with {process.returncode}:\n{log.read_text()}")
        return process.returncode

    def seen(self, root: Path) -> str | None:
        """The state that a reader finds; raises CacheError when a reader would, and for damage."""
        if (root / "zarr.json").exists() and not (verified := cache.verify(root)).ok:
            raise cache.CacheError(str(verified.problems))
        return seen(root)

    def contents(self, root: Path) -> dict[str, bytes]:
        """All that must be the same in the end."""
        return tree(root)


class Training(Command):
    """A training run; its states are not a reader's, only its end counts."""

    def seen(self, root: Path) -> str | None:
        return "finished" if list(root.glob("*/metrics.json")) else None

    def contents(self, root: Path) -> dict[str, bytes]:
        """Checkpoints and every other file but curves, without where the run is."""
        import torch

        found = {}
        for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("events.")):
            found[path.name] = path.read_bytes().replace(str(root).encode(), b"")
            if path.suffix == ".pt":
                state = torch.load(path, weights_only=True)
                state.get("config", {}).pop("runs", None)
                torch.save(state, written := io.BytesIO())
                found[path.name] = written.getvalue()
        return found


def seen(root: Path) -> str | None:
    """All that a reader finds in a cache, as one digest; None while nothing is committed.

    Raises CacheError when a reader would.
    """
    while True:
        with contextlib.suppress(cache.CacheChanged):  # replaced since it was opened: open it again
            if not (root / "zarr.json").is_file() or not (names := cache.open(root).splits):
                return None
            digest = hashlib.sha256()
            for part in (part for name in names for part in parts_of(cache.open(root)[name])):
                digest.update(part)
            return digest.hexdigest()


def parts_of(split: cache.Split) -> Iterator[bytes]:
    """Everything in a split: tables, rows, and every window of two rows as training reads them."""
    yield repr((split.name, dict(split.manifest), list(split.tracks), list(split.videos))).encode()
    for column in split.columns:
        for track in split.tracks:
            yield split.rows(column, track.start, track.stop).tobytes()
    for stream in (None, *split.streams):
        windows, manifest = split.windows(2, 1, stream), {} if stream is None else dict(split.stream_manifest(stream))
        yield repr((windows.tolist(), manifest)).encode()
        if manifest.get("dtype") == "bytes":
            yield b"".join(split.blobs(str(stream), np.unique(windows - [0, 1])))
        else:
            yield from (array.tobytes() for array in split.read(windows, stream).values())


def tree(root: Path) -> dict[str, bytes]:
    """Every file of a cache but those outside the promise of equal bytes."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in OUTSIDE)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def pipeline_commands(work: Path) -> list[Command]:
    """First conversion, extraction, and both again once raw videos have changed."""
    from pipeline import synthetic  # here: the processes of the tiny runs start in no time without it

    changed = work / "changed/penn_action"
    synthetic.write_dataset("penn_action", changed, n_videos=5, n_frames=8)
    raw = Path(shutil.copytree(changed, work / "raw/penn_action"))
    train = sorted(path.stem for path in (raw / "labels").glob("*.mat"))[::2]
    gone, recomputed, shorter, _, new = train
    for folder, name in ((changed, gone), (raw, new)):
        (folder / "labels" / f"{name}.mat").unlink()
        shutil.rmtree(folder / "frames" / name)
    max((changed / "frames" / shorter).glob("*.jpg")).unlink()
    picture, other = sorted((changed / "frames" / recomputed).glob("*.jpg"))[:2]
    picture.unlink()  # so that its folder has another time
    shutil.copyfile(other, picture)
    jobs = []
    for folder, what in ((raw, ""), (changed, " of changes")):
        place = ["penn_action", "train", "--raw", str(folder)]
        for verb, options in (
            ("convert", ["--workers", "2", "--drop-removed"]),
            ("extract", ["--precision", "exact", "--device", "cpu"]),
        ):
            arguments = ["-m", "pipeline", verb, *place, *options, "--cache"]
            jobs.append(Command(f"`pipeline {verb}`{what}", arguments))
    return jobs


def training() -> Training:
    """48 steps in 3 epochs, saved every 4 steps, on what `make data` has written."""
    from vibe_model import TrainConfig

    short: Any = {"epochs": 3, "iterations": 16, "checkpoint_every": 4, "batch_size": 8, "device": "cpu"}
    config = replace(TrainConfig.embedded(), cache=ROOT / "data/cache", body=ROOT / "data/embedded/body", **short)
    code = (
        "import json, sys\nfrom vibe_model import TrainConfig, training\n"
        "training.run(TrainConfig.from_dict({**json.loads(sys.argv[1]), 'runs': sys.argv[2]}))"
    )
    return Training("training", ["-c", code, json.dumps(config.as_dict())])


# ---------------------------------------------------------------------------------------------- kills, and what is left


@dataclass(slots=True)
class Tally:
    """What became of one job's kills."""

    name: str
    kills: int = 0
    again: int = 0  # of them, of jobs that went on after an earlier kill
    old: int = 0  # kills after which readers found the old state
    new: int = 0
    states: set[str] = field(default_factory=set)  # different contents of the folder after a kill
    reads: int = 0  # of the reader beside it
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def reader_beside(root: Path) -> Iterator[Callable[[], tuple[int, set[str | None]]]]:
    """A process that reads all of a cache again and again. Gives what ends it: (how often it read, what it saw)."""
    here, there = FRESH.Pipe()
    process = FRESH.Process(target=keep_reading, args=(str(root), there), daemon=True)
    process.start()
    here.recv()  # it is reading

    def end() -> tuple[int, set[str | None]]:
        here.send("end")
        reads, found = here.recv()
        return reads, found

    try:
        yield end
    finally:
        process.kill()
        process.join()


def keep_reading(root: str, pipe: Connection) -> None:
    """What the process does."""
    pipe.send("reading")
    reads, found = 0, set()
    while not pipe.poll():
        try:
            state = seen(Path(root))
        except Exception as error:  # whatever it is: a reader must never meet it
            state = f"{type(error).__name__}: {error}"
        found.add(state)
        reads += state is not None
        time.sleep(0.005)  # the writer needs the processor too
    pipe.send((reads, found))


def survive(job: Command, before: Path, work: Path, kills: int, rng: random.Random) -> Tally:
    """Kill it at `kills` moments from the state `before`; leave the state after it in work/calm."""
    calm, root = work / "calm", work / "killed"
    copy(before, calm)
    old, began = job.seen(calm), time.perf_counter()
    job.run(calm)
    seconds = time.perf_counter() - began
    new, expected = job.seen(calm), job.contents(calm)
    tally = Tally(job.name)
    if old == new:
        tally.wrong.append("it changed nothing")
    for number in range(kills):
        copy(before, root)
        share = (number + rng.random()) / kills
        with reader_beside(root) as end:
            for again in range(1 + number % 2):
                after = share * seconds
                share = rng.random() / 2  # less is left to do
                if job.run(root, after) == -signal.SIGKILL:  # else it had less left to do than that
                    examine(job, root, f"{after:.2f} s{' of a job that went on' * again}", tally, (old, new))
                    tally.again += again
            job.run(root)
            reads, states = end()
        tally.reads += reads
        tally.wrong += [f"a reader beside kill {number + 1} saw {state}" for state in states - {None, old, new}]
        ended = job.contents(root)
        if others := sorted(name for name in ended.keys() | expected.keys() if ended.get(name) != expected.get(name)):
            tally.wrong.append(f"kill {number + 1} ended with {len(others)} other files: {', '.join(others[:3])} ...")
        if job.seen(root) != new:
            tally.wrong.append(f"kill {number + 1}: another state at the end")
    return tally


def examine(job: Command, root: Path, where: str, tally: Tally, states: tuple[str | None, str | None]) -> None:
    """Count a kill, by what it has left."""
    tally.kills += 1
    tally.states.add(hashlib.sha256(repr(tree(root)).encode()).hexdigest())
    try:
        found = job.seen(root)
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


def chain(jobs: Sequence[Command], work: Path, kills: int, rng: random.Random) -> list[Tally]:
    """Every job on what the one before it left."""
    before, tallies = work / "before", []
    for number, job in enumerate(jobs):
        share = kills * (number + 1) // len(jobs) - kills * number // len(jobs)
        tallies.append(survive(job, before, work, share, rng))
        copy(work / "calm", before)
        print(line(tallies[-1]), *tallies[-1].wrong, sep="\n  ", flush=True)
    return tallies


HEAD: Final = (
    "| job | kills | of jobs that went on | old state | new state | different folders | reads beside it | wrong |"
)


def line(tally: Tally) -> str:
    numbers = (tally.kills, tally.again, tally.old, tally.new, len(tally.states), tally.reads, len(tally.wrong))
    return f"| {tally.name} | {' | '.join(f'{number:,}' for number in numbers)} |"


def results(tallies: Sequence[Tally], seed: int, seconds: float) -> list[str]:
    """What was done, and what came of it."""
    kills, wrong = sum(tally.kills for tally in tallies), [text for tally in tallies for text in tally.wrong]
    verdict = (
        "Every cache verified, every reader saw all of the old or all of the new state, and every job ended in the "
        "same bytes as an undisturbed one."
        if not wrong
        else f"{len(wrong)} things were wrong:"
    )
    return [
        f"Seed {seed}, {seconds / 60:.0f} minutes.",
        "",
        f"**{kills} kills. {verdict}**",
        "",
        *(f"- {text}" for text in wrong),
        HEAD,
        "|---" * (HEAD.count("|") - 1) + "|",
        *map(line, tallies),
        "",
        "Different folders: how many different contents the folder had after a kill, times aside.",
    ]


def main() -> int:
    """Kill, read, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=40, help="commands that are killed, every other one twice")
    parser.add_argument("--training", type=int, default=12, help="training runs that are killed, likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for raw data and caches; a temporary one by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/crashes.md")
    args = parser.parse_args()
    if args.training and not (ROOT / "data/cache").is_dir():  # before minutes of kills whose report would be lost
        parser.error("there is no data/cache to train on: run `make data`, or take --training 0")
    began, tallies = time.perf_counter(), []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        kinds: list[tuple[int, Callable[[], Sequence[Command]]]] = [
            (args.commands, partial(pipeline_commands, Path(folder))),
            (args.training, lambda: [training()]),
        ]
        for number, (kills, jobs) in enumerate(kinds):
            (work := Path(folder, str(number))).mkdir()
            tallies += chain(jobs(), work, kills, random.Random(args.seed)) if kills else []
    lines = results(tallies, args.seed, time.perf_counter() - began)
    report("DEMO DATA.", "Does a killed command lose or mix anything?", lines, args)
    return int(any(tally.wrong for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
