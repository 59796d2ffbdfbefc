"""A working lab that is killed and damaged: is everything in the cache that must be there, after thousands of steps?

    .venv/bin/python benchmarks/crashes.py --minutes 60

A step edits raw videos of demo data (added, removed, corrected, spoiled, other pictures) and converts, extracts, copies
the split, or collects garbage; or damages a file and repairs the cache. Its command (`python -m pipeline`) runs
undisturbed, beside a reader, with another writer, or ends by SIGKILL or SIGTERM at a random moment; then the cache must
verify, every track must be as before or as after, and the command must then succeed. After each step, all that readers
get of every track is compared with a cache that is made from the raw folder at once. Shards have 16 rows, so that there
are many. What happens at any one change of a file is for tests/cache/test_histories.py.

Prints a line a step. A difference ends it with 1, and prints the seed, the step and the folder, which is kept:
`--seed S --steps N` does the same steps (when processes come to a moment is the system's). Writes
benchmarks/crashes.md. Training that is killed: tests/vibe_model/training/test_training.py.
"""

from __future__ import annotations

import argparse
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

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # where `benchmarks` is, also for a script

import cache  # noqa: E402
from benchmarks.common import report  # noqa: E402
from cache.write import split_writer  # noqa: E402
from pipeline.__main__ import main as pipeline_main  # noqa: E402
from vibe_extensions.demo import writing as synthetic  # noqa: E402
from vibe_extensions.demo.files import jpeg, write_mat  # noqa: E402

SPLIT, STREAM = "penn_action/train", "homography"
LONGEST: Final = 300.0  # s that a command may take
ENDED: Final = (0, 1, 2, 143, -signal.SIGTERM, -signal.SIGKILL)
Contents = Mapping[str, tuple[Any, ...]]  # track -> its columns; its flags and bytes of the stream, None where it lags

FRESH: Final = multiprocessing.get_context("forkserver")  # a new process is a fork of one that has imported these
FRESH.set_forkserver_preload(["__main__", "pipeline.__main__"])


class Difference(Exception):
    """The cache is not as it must be."""


def small_shards() -> None:
    """For all that this process writes."""
    for name, rows in (("ROWS_PER_SHARD", 16), ("ROWS_PER_CHUNK", 4)):
        setattr(split_writer, name, rows)


def run_command(words: Sequence[str], log: str) -> None:
    """A command in a process of its own."""
    small_shards()
    with Path(log).open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        sys.exit(pipeline_main(list(words)))


def contents(root: Path) -> Contents:
    """All that readers get of a split, by its tracks; and what became of its videos."""
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


def seen(root: Path) -> str:
    """The same as one digest, also while another process writes."""
    while True:
        with contextlib.suppress(cache.CacheChanged):  # replaced since it was opened: open it again
            return hashlib.sha256(repr(sorted(contents(root).items())).encode()).hexdigest()


@contextlib.contextmanager
def reader_beside(root: Path) -> Iterator[Callable[[], set[str]]]:
    """A process that reads all of a cache again and again. Gives what ends it, and returns all states that it saw."""
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
    """What the process does."""
    pipe.send("reading")
    states = set[str]()
    while not pipe.poll():
        try:
            states.add(seen(Path(root)))
        except Exception as error:  # whatever it is: a reader must never meet it
            states.add(f"{type(error).__name__}: {error}")
        time.sleep(0.005)  # the writer needs the processor too
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
        """Videos that are there."""
        return sorted(file.stem for file in (self.raw / "labels").glob("*.mat"))

    def edit(self, rng: random.Random) -> str:
        """Change one video, and say how."""
        away = sorted(file.stem for file in (self.spare / "labels").glob("*.mat"))
        verbs = ["correct", "picture", "broken picture", "spoil", "touch", *["add"] * (3 if away else 0)]
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
        elif verb == "spoil":  # and the next time restored
            spoiled = label.with_suffix(".whole")
            if spoiled.exists():
                spoiled.replace(label)
            else:
                shutil.copyfile(label, spoiled)
                label.write_bytes(label.read_bytes()[:-100])
        elif verb == "touch":
            os.utime(label)
        else:
            picture = rng.choice(sorted(frames.glob("*.jpg")))
            grey = jpeg(np.full((270, 480, 3), rng.randrange(256), np.uint8))
            # Names and sizes tell whether pictures have changed, and a file's time that it is worth to look.
            os.utime(label)
            picture.write_bytes((grey if verb == "picture" else b"no picture") + bytes(next(self.sizes)))
        return f"{name}: {verb}"


class Steps:
    """One step after the other."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.root, self.lab, self.seed = work, work / "cache", Lab(work), seed
        self.step, self.rng, self.notes = 0, random.Random(), list[str]()
        self.kinds, self.n_killed, self.seconds = Counter[str](), 0, dict[str, float]()
        self.current: Contents = {}
        small_shards()

    def do(self) -> str:
        """One step, and its line."""
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
        """The command line."""
        where = ["--cache", str(root or self.root)]
        if command == "convert":
            return [
                "convert",
                *SPLIT.split("/"),
                *where,
                "--raw",
                str(self.lab.raw),
                "--workers",
                "1",
                "--drop-removed",
            ]
        if command == "extract":
            kind = ["--stream", STREAM, "--kind", STREAM, "--device", "cpu", "--workers", "1"]
            return ["extract", *SPLIT.split("/"), *where, *kind]
        return [command, *where]

    def fresh(self, *, extracted: bool) -> Contents:
        """What a cache has that is made at once from the raw folder."""
        root = self.work / "fresh"
        shutil.rmtree(root, ignore_errors=True)
        self.end(self.words("convert", root), (0, 1))
        if extracted:
            self.end(self.words("extract", root), (0, 1))
        return contents(root)

    def _command(self, command: str) -> None:
        """A command in one of several ways, and then undisturbed."""
        way = self.rng.choice(("calm", "killed", "killed", "ended", "two", "extra_streams"))
        self.notes.append(f"-> {way}")
        expected = self.fresh(extracted=True)
        if way == "extra_streams":
            before = seen(self.root)
            with reader_beside(self.root) as end:
                self.end(self.words(command), (0, 1, 2))
                states = end()
            if states - {before, seen(self.root)}:
                raise Difference(f"a reader saw {states}, neither the old nor the new state")
        elif way != "calm":
            self._disturbed(command, way, expected)
        began = time.perf_counter()
        self.end(self.words(command), (0, 1, 2))
        self.seconds[command] = time.perf_counter() - began
        found = contents(self.root)
        self.require(
            found, [expected] if command == "convert" else [expected, self.current], complete=command == "extract"
        )
        self.current = found

    def _disturbed(self, command: str, way: str, expected: Contents) -> None:
        """Killed, asked to end, or with another command on the same split."""
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
        found = contents(self.root)
        self.require(found, [self.current, expected])
        self.current = found

    def _copy(self) -> None:
        other = self.work / "other"
        self.end(["copy", SPLIT, "--cache", str(self.root), "--to", str(other)], (0,))
        self.end(["verify", "--cache", str(other)], (0,))
        self.require(contents(other), [self.current])
        shutil.rmtree(other)

    def _damage(self) -> None:
        """Damage a file: verification names it, readers get no other data, and it is repaired or restored."""
        for command in ("convert", "extract"):
            self.end(self.words(command), (0, 1))
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
            self.require(contents(self.root), [self.current])
        if file.relative_to(self.root / SPLIT).parts[0].startswith(("track_", "video_", "run_")):
            file.write_bytes(data)
        else:
            self.end(["verify", "--repair", "--cache", str(self.root)], (0,))
        for command in ("convert", "extract"):
            self.end(self.words(command), (0, 1))
        self.end(["verify", "--cache", str(self.root)], (0,))
        self.require(contents(self.root), [self.fresh(extracted=True)], complete=True)

    def require(self, found: Contents, states: Collection[Contents], *, complete: bool = False) -> None:
        """Raise Difference unless the cache is one of these. `complete`: of the stream, no row may be missing."""
        wrong = []
        for state in states:
            names = list(found.keys() ^ state.keys())
            for name in found.keys() & state.keys():
                (ours, stored), (theirs, expected) = found[name], state[name]
                same = stored == expected or name.startswith("video ") or (stored is None and not complete)
                names += [] if ours == theirs and (same or expected is None) else [name]
            if not names:
                return
            wrong.append(", ".join(sorted(names)[:3]))
        raise Difference(f"{SPLIT}: other than expected: {'; '.join(wrong)}")

    def _started(self, words: list[str]) -> Any:
        log = Path(tempfile.mkstemp(dir=self.work, suffix=".txt")[1])
        process: Any = FRESH.Process(target=run_command, args=(words, str(log)))
        process.start()
        process.log = log
        return process

    def end(self, words: Sequence[str], codes: Sequence[int]) -> str:
        """A command in this process, which must end with one of these codes. What it printed."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            code = pipeline_main(list(words))
        if code not in codes or "defect" in out.getvalue():
            raise Difference(f"{' '.join(words)} ended with {code}, expected {codes}: {out.getvalue()}")
        return out.getvalue()


def main() -> int:
    """Steps until the time is over or something differs, and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--work", type=Path, help="where the lab's folder is made; default: that for temporary files")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/crashes.md")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="crashes-", dir=args.work))
    began, steps, wrong = time.perf_counter(), Steps(work, args.seed), ""
    while steps.step < args.steps and time.perf_counter() - began < 60 * args.minutes and not wrong:
        try:
            print(steps.do(), flush=True)
        except Exception as error:
            wrong = f"seed {args.seed}, step {steps.step}: {', '.join(steps.notes)}\n{type(error).__name__}: {error}"
            if not isinstance(error, Difference):
                traceback.print_exc()
    minutes = (time.perf_counter() - began) / 60
    lines = [
        f"Seed {args.seed}, {minutes:.0f} minutes.",
        "",
        f"**{steps.step:,} steps, {steps.n_killed:,} of their commands killed: {'1' if wrong else 'no'} difference.**",
        "",
        *([f"```text\n{wrong}\n```", ""] if wrong else []),
        *("| step | times |", "|---|---|", *(f"| {kind} | {n:,} |" for kind, n in steps.kinds.most_common())),
    ]
    report("DEMO DATA.", "A working lab that is killed and damaged", lines, args)
    print(f"{wrong}\nThe lab and its cache are in {work}" if wrong else "")
    if not wrong:
        shutil.rmtree(work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
