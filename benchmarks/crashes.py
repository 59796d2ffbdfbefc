"""A lab that works, is killed and repairs damage: does its cache hold what it must, after thousands of steps?

    .venv/bin/python benchmarks/crashes.py --minutes 60 --out benchmarks/crashes.md

A step edits raw videos of demo data (adds, removes, corrects, spoils, changes images) and converts, extracts, copies
the split, or collects garbage; or it damages a file and repairs the cache. Its command (`python -m pipeline`) runs
undisturbed, beside a reader, with another writer, or ends by SIGKILL or SIGTERM at a random moment. Then the cache must
verify, all tracks must be as before or as after, and the command must succeed when repeated. After each step, all that
readers get of each track is compared with a cache made from the raw folder at once. Shards have 16 rows, so that there
are many. Tests of each single change of a file: tests/cache/test_histories.py; of killed training:
tests/vibe_model/training/test_training.py.

Prints a line per step. A difference ends it with 1; it prints the seed, the step and the folder, which stays. `--seed S
--steps N` repeats the same steps, except for the moments of kills.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.io import loadmat

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

import cache
from benchmarks.common import parser, report, table
from cache.write import split_writer
from pipeline.__main__ import main as pipeline_main
from vibe_extensions.demo import writing as synthetic
from vibe_extensions.demo.files import jpeg, write_mat

SPLIT, STREAM = "penn_action/train", "homography"
LONGEST: Final = 300.0  # s that a command may take
ENDED: Final = (0, 1, 2, 143, -signal.SIGTERM, -signal.SIGKILL)
Contents = Mapping[str, tuple[Any, ...]]  # track -> its columns; its flags and bytes of the stream, None where it lags

FRESH: Final = multiprocessing.get_context("forkserver")  # forks a process that has imported these modules
FRESH.set_forkserver_preload(["__main__", "pipeline.__main__"])


class Difference(Exception):
    """The cache differs from what it must be."""


def small_shards() -> None:
    """Let this process write small shards."""
    for name, rows in (("ROWS_PER_SHARD", 16), ("ROWS_PER_CHUNK", 4)):
        setattr(split_writer, name, rows)


def run_command(words: Sequence[str], log: str) -> None:
    """Run a command in this process, whose output goes to a file."""
    small_shards()
    with Path(log).open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        sys.exit(pipeline_main(list(words)))


def contents(root: Path) -> Contents:
    """All that readers get of a split's tracks, and the accounts of its videos."""
    if not (root / "zarr.json").exists() or SPLIT not in cache.open(root):
        return {}
    split = cache.open(root)[SPLIT]
    size = split.manifest["geometry"]["rows_per_shard"]
    shards = {*split.stream_shards(STREAM)} if STREAM in split.streams else set[int]()
    tracks: dict[str, tuple[Any, ...]] = {}
    for track in split.tracks:
        stored: Any = None
        if {*range(track.start // size, (track.stop - 1) // size + 1)} <= shards:
            ok = split.rows(f"features/{STREAM}_ok", track.start, track.stop)
            stored = (ok.tolist(), split.rows(f"features/{STREAM}", track.start, track.stop).tobytes())
        rows = {name: split.rows(name, track.start, track.stop).tobytes() for name in split.columns}
        tracks[track.name] = (track.video, repr(track[4:]), rows), stored
    return tracks | {f"video {video.name}": (video.fingerprint, video.account) for video in split.videos}


def state_of(root: Path) -> str:
    """A digest of `contents`, also while another process writes."""
    while True:
        with contextlib.suppress(cache.CacheChanged):  # replaced since it was opened: open it again
            return hashlib.sha256(repr(sorted(contents(root).items())).encode()).hexdigest()


@contextlib.contextmanager
def reader_beside(root: Path) -> Iterator[Callable[[], set[str]]]:
    """A process that reads a cache again and again. Yields a function that ends it and returns all states it saw."""
    here, there = FRESH.Pipe()
    process = FRESH.Process(target=keep_reading, args=(str(root), there), daemon=True)
    process.start()
    here.recv()  # it is reading

    def end() -> set[str]:
        here.send("end")
        states: set[str] = here.recv()
        return states

    try:
        yield end
    finally:
        process.kill()
        process.join()


def keep_reading(root: str, pipe: Connection[Any, Any]) -> None:
    """The reader's loop."""
    pipe.send("reading")
    states = set[str]()
    while not pipe.poll():
        try:
            states.add(state_of(Path(root)))
        except Exception as error:  # a reader must never meet any
            states.add(f"{type(error).__name__}: {error}")
        time.sleep(0.005)  # leaves time for the writer
    pipe.send(states)


class Lab:
    """A raw folder of Penn Action that is edited, and videos that are not in it."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.spare, self.sizes = folder / "raw/penn_action", folder / "spare", itertools.count()
        synthetic.write_dataset("penn_action", self.raw, n_videos=6, n_frames=9)
        for kind in ("labels", "frames"):
            (self.spare / kind).mkdir(parents=True)

    @property
    def names(self) -> list[str]:
        """Present videos."""
        return sorted(file.stem for file in (self.raw / "labels").glob("*.mat"))

    def edit(self, rng: random.Random) -> str:
        """Change one video. Return its name and the change."""
        away = sorted(file.stem for file in (self.spare / "labels").glob("*.mat"))
        verbs = ["correct", "image", "broken image", "spoil", "touch", *["add"] * (3 if away else 0)]
        verb = rng.choice([*verbs, *["remove"] * (2 if len(self.names) > 3 else 0)])
        name = rng.choice(away if verb == "add" else self.names)
        label, frames = self.raw / f"labels/{name}.mat", self.raw / "frames" / name
        if verb in ("add", "remove"):
            start, end = (self.spare, self.raw) if verb == "add" else (self.raw, self.spare)
            for path in (f"labels/{name}.mat", f"frames/{name}"):
                (start / path).rename(end / path)
        elif verb == "correct":
            with contextlib.suppress(ValueError, TypeError, OSError):  # a spoiled one stays so
                variables = {key: value for key, value in loadmat(label).items() if not key.startswith("__")}
                variables["x"][rng.randrange(len(variables["x"]))] += 1
                write_mat(label, variables)
        elif verb == "spoil":  # and restore it the next time
            spoiled = label.with_suffix(".whole")
            if spoiled.exists():
                spoiled.replace(label)
            else:
                shutil.copyfile(label, spoiled)
                label.write_bytes(label.read_bytes()[:-100])
        elif verb == "touch":
            os.utime(label)
        else:
            image = rng.choice(sorted(frames.glob("*.jpg")))
            grey = jpeg(np.full((270, 480, 3), rng.randrange(256), np.uint8))
            # A new size shows a changed image, and the label's new time that sizes are compared at all.
            os.utime(label)
            image.write_bytes((grey if verb == "image" else b"no image") + bytes(next(self.sizes)))
        return f"{name}: {verb}"


class Steps:
    """Steps of a lab and its cache."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.root, self.lab, self.seed = work, work / "cache", Lab(work), seed
        self.step, self.rng, self.notes = 0, random.Random(), list[str]()
        self.kinds, self.n_killed, self.seconds = Counter[str](), 0, dict[str, float]()
        self.current: Contents = {}
        small_shards()

    def do(self) -> str:
        """Take one step. Return its line."""
        self.step, began = self.step + 1, time.perf_counter()
        self.rng = random.Random(f"{self.seed} {self.step}")
        weights = {"convert": 10, "extract": 7, "copy": 1, "gc": 1, "damage": 3}
        kind = self.rng.choices([*weights], [*weights.values()])[0] if self.current else "convert"
        self.notes = [kind]
        if kind == "convert":
            self.notes += [self.lab.edit(self.rng) for _ in range(self.rng.choice((1, 1, 2, 4)))]
        if kind == "copy":
            self._copy()
        elif kind == "damage":
            self._damage()
        else:
            self._command(kind)
        self.kinds[kind] += 1
        return f"step {self.step} {', '.join(self.notes)} [{time.perf_counter() - began:.1f} s]"

    def words(self, command: str, root: Path | None = None) -> list[str]:
        """A command line."""
        where = ["--cache", str(root or self.root)]
        if command == "convert":
            how = ["--raw", str(self.lab.raw), "--workers", "1", "--drop-removed"]
        elif command == "extract":
            how = ["--stream", STREAM, "--kind", STREAM, "--device", "cpu", "--workers", "1"]
        else:
            return [command, *where]
        return [command, *SPLIT.split("/"), *where, *how]

    def fresh(self) -> Contents:
        """The contents of a cache made at once from the raw folder."""
        root = self.work / "fresh"
        shutil.rmtree(root, ignore_errors=True)
        self._update(root)
        return contents(root)

    def _update(self, root: Path) -> None:
        for command in ("convert", "extract"):
            self.end(self.words(command, root), (0, 1))

    def _command(self, command: str) -> None:
        """Run a command in one of several ways, and then undisturbed."""
        way = self.rng.choice(("calm", "killed", "killed", "ended", "two", "reader"))
        self.notes.append(f"-> {way}")
        expected = self.fresh()
        if way == "reader":
            before = state_of(self.root)
            with reader_beside(self.root) as end:
                self.end(self.words(command), (0, 1, 2))
                states = end()
            if states - {before, state_of(self.root)}:
                raise Difference(f"a reader saw {states}, neither the old nor the new state")
        elif way != "calm":
            self._disturbed(command, way, expected)
        began = time.perf_counter()
        self.end(self.words(command), (0, 1, 2))
        self.seconds[command] = time.perf_counter() - began
        states_after = [expected] if command == "convert" else [expected, self.current]
        self.current = self.require(states_after, complete=command == "extract")

    def _disturbed(self, command: str, way: str, expected: Contents) -> None:
        """Kill or end the command, or run another one on the same split."""
        commands = [command, self.rng.choice(("convert", "extract", "gc"))] if way == "two" else [command]
        processes = [self._started(self.words(name)) for name in commands]
        if way != "two":
            processes[0].join(self.rng.random() * (1 + self.seconds.get(command, 1)))
            processes[0].terminate() if way == "ended" else processes[0].kill()
        for process in processes:
            process.join(LONGEST)
            text = process.log.read_text()
            if process.exitcode == -signal.SIGKILL:
                self.n_killed += 1
            if process.exitcode not in ENDED or "defect" in text or "Traceback" in text:
                raise Difference(f"{command} ended with {process.exitcode}: {text}")
            process.log.unlink()
        if (self.root / "zarr.json").exists():
            self.end(["verify", "--cache", str(self.root)], (0,))
        self.current = self.require([self.current, expected])

    def _copy(self) -> None:
        other = self.work / "other"
        self.end(["copy", SPLIT, "--cache", str(self.root), "--to", str(other)], (0,))
        self.end(["verify", "--cache", str(other)], (0,))
        self.require([self.current], other)
        shutil.rmtree(other)

    def _damage(self) -> None:
        """Damage a file. Verification names it, readers get no other data, and it is repaired or restored."""
        self._update(self.root)
        self.current = contents(self.root)
        files = [file for file in sorted((self.root / SPLIT).rglob("*")) if file.is_file() and "c" in file.parts]
        file = self.rng.choice(files)
        data, key = file.read_bytes(), file.relative_to(self.root).as_posix()
        at = self.rng.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << self.rng.randrange(8)]) + data[at + 1 :])
        self.notes.append(key)
        if key not in (out := self.end(["verify", "--cache", str(self.root)], (1,))):
            raise Difference(f"verify did not name {key}: {out}")
        with contextlib.suppress(cache.CacheError):
            self.require([self.current])
        if file.relative_to(self.root / SPLIT).parts[0].startswith(("track_", "video_", "run_")):
            file.write_bytes(data)
        else:
            self.end(["verify", "--repair", "--cache", str(self.root)], (0,))
        self._update(self.root)
        self.end(["verify", "--cache", str(self.root)], (0,))
        self.require([self.fresh()], complete=True)

    def require(self, states: Collection[Contents], root: Path | None = None, *, complete: bool = False) -> Contents:
        """The contents of a cache. Raises Difference unless they are one of `states`.

        complete: no row of the stream may be missing.
        """
        actual, wrong = contents(root or self.root), []
        for state in states:
            if not (names := differences(actual, state, complete=complete)):
                return actual
            wrong.append(", ".join(names[:3]))
        raise Difference(f"{SPLIT}: other than expected: {'; '.join(wrong)}")

    def _started(self, words: list[str]) -> Any:
        log = Path(tempfile.mkstemp(dir=self.work, suffix=".txt")[1])
        process: Any = FRESH.Process(target=run_command, args=(words, str(log)))
        process.start()
        process.log = log
        return process

    def end(self, words: Sequence[str], codes: Sequence[int]) -> str:
        """Run a command in this process, which must end with one of these codes. Return its output."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            code = pipeline_main(list(words))
        if code not in codes or "defect" in out.getvalue():
            raise Difference(f"{' '.join(words)} ended with {code}, expected {codes}: {out.getvalue()}")
        return out.getvalue()


def differences(actual: Contents, state: Contents, *, complete: bool) -> list[str]:
    """Names of tracks and videos that differ. complete: a missing row of the stream is a difference."""
    names = list(actual.keys() ^ state.keys())
    for name in actual.keys() & state.keys():
        (ours, stored), (theirs, expected) = actual[name], state[name]
        same = stored == expected or name.startswith("video ") or (stored is None and not complete)
        names += [] if ours == theirs and (same or expected is None) else [name]
    return sorted(names)


def main() -> int:
    """Take steps until the time is over or something differs. Print and write the report."""
    options = parser(__doc__, at="the lab, which stays after a difference")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=10**9)
    options.add_argument("--minutes", type=float, default=60)
    args = options.parse_args()
    work = Path(tempfile.mkdtemp(prefix="crashes-", dir=args.at))
    began, steps, wrong = time.perf_counter(), Steps(work, args.seed), ""
    while steps.step < args.steps and time.perf_counter() - began < 60 * args.minutes and not wrong:
        try:
            print(steps.do(), flush=True)
        except Exception as error:
            wrong = f"seed {args.seed}, step {steps.step}: {', '.join(steps.notes)}\n{type(error).__name__}: {error}"
            if not isinstance(error, Difference):
                traceback.print_exc()
    minutes, n_differences = (time.perf_counter() - began) / 60, "1" if wrong else "no"
    lines = [
        f"Seed {args.seed}, {minutes:.0f} minutes.",
        "",
        f"**{steps.step:,} steps, {steps.n_killed:,} of their commands killed: {n_differences} difference.**",
        "",
        *([f"```text\n{wrong}\n```", ""] if wrong else []),
        *table(("step", "times"), ((kind, f"{n:,}") for kind, n in steps.kinds.most_common())),
    ]
    report("DEMO DATA.", "A working lab that is killed and damaged", lines, args)
    print(f"{wrong}\nThe lab and its cache are in {work}" if wrong else "")
    if not wrong:
        shutil.rmtree(work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
