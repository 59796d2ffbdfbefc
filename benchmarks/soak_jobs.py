"""Commands on a split of the lab of benchmarks/soak.py: undisturbed, killed, on a failing disk, beside others; and what
they have left, compared with the model.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from benchmarks.crash_runs import Fault, seen, tree, watched
from benchmarks.crashes import FRESH, Death, Moment, reader_beside
from benchmarks.soak_lab import MOTION, SPLITS, STREAMS, Lab
from benchmarks.soak_model import Checks, Held, State
from cache.write import split_writer
from pipeline.__main__ import main as pipeline_main

LONGEST: Final = 300.0  # s that a command may take
FRESH.set_forkserver_preload(["__main__", "benchmarks.soak_lab", "pipeline.__main__"])


class Difference(Exception):
    """The cache is not as it must be."""


def small_shards() -> None:
    """For all that this process writes."""
    for name, rows in (("ROWS_PER_SHARD", 16), ("ROWS_PER_CHUNK", 4)):
        setattr(split_writer, name, rows)


def run_command(words: Sequence[str], moment: Moment, log: str) -> None:
    """A command in a process of its own."""
    small_shards()
    with Path(log).open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        sys.exit(_run(words, moment))


def _run(words: Sequence[str], moment: Moment) -> int:
    with watched(Death(moment)):
        return pipeline_main(list(words))


def descendants(process: int) -> Iterator[int]:
    """Children's children: the processes that read files and decode."""
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                for thread in Path(f"/proc/{child}/task").iterdir():
                    yield from map(int, (thread / "children").read_text().split())


@contextlib.contextmanager
def worker_killed(after: float) -> Iterator[list[int]]:
    """Kill one process of this one's server of processes, some time after it has any."""
    killed, ended = list[int](), threading.Event()

    def kill() -> None:
        while not ended.wait(0.005):
            if workers := list(descendants(os.getpid())):
                if not ended.wait(after):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(workers[0], signal.SIGKILL)
                        killed.append(workers[0])
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


class Job(NamedTuple):
    """A command, and the states of its split before and after it."""

    command: str
    words: list[str]
    split: str
    old: State
    new: State
    streams: Sequence[str]  # that it extracts


class Jobs:
    """A cache, the lab that it is made from, and what must be in it."""

    def __init__(self, work: Path) -> None:
        self.work, self.root, self.lab, self.checks = work, work / "cache", Lab(work / "raw"), Checks()
        self.states: dict[str, State] = {split: State() for split in SPLITS}
        self.rng, self.notes = random.Random(), list[str]()
        self.ways, self.left = Counter[str](), Counter[str]()
        self.changes: dict[str, int] = {}  # of a command, when it ran last
        self.seconds: dict[str, float] = {}
        self.started = self.code = 0  # commands in processes of their own; the exit code of the last one in this one

    def _words(self, command: str, split: str, streams: Sequence[str] = ()) -> list[str]:
        if command == "gc":
            return ["gc", "--cache", str(self.root), *(["--unfinished"] if self.rng.random() < 0.5 else [])]
        words = [command, *split.split("/"), "--cache", str(self.root)]
        if command == "convert":
            raw = self.lab.folder / split.partition("/")[0]
            words += ["--raw", str(raw), "--workers", str(self.rng.choice((1, 2))), "--drop-removed"]
        if command == "extract":
            words += ["--stream", streams[0], "--kind", STREAMS[streams[0]], "--device", "cpu", "--workers", "2"]
            words += [word for name in streams[1:] for word in ("--also", f"{name}={STREAMS[name]}")]
        return words

    def _job(self, command: str, split: str, new: State, streams: Sequence[str] = ()) -> None:
        """A command that brings a split to its new state, in one of many ways."""
        weights = {"calm": 4, "kill": 5, "time": 3, "full": 3, "worker": 2, "two": 2, "beside": 1, "readonly": 1}
        way = self.rng.choices([*weights], [*weights.values()])[0]
        self.ways[way] += 1
        job = Job(command, self._words(command, split, streams), split, self.states[split], new, streams)
        self.notes.append(f"-> {way}")
        getattr(self, f"_{way}")(job)
        if way in ("kill", "time", "full", "two") and job.old != new:
            self.left["old" if self.states[split] == job.old else "new"] += 1
        if way == "calm":
            self._calmly(command, split, new, streams)
        elif self.rng.random() < 0.8 or way in ("worker", "beside"):
            self.notes.append("again")
            if command != "convert":  # a conversion at the same time may have committed others
                new = self.states[split]
            if streams and not split.startswith(MOTION):
                new = new.extracted(streams)
            self._calmly(command, split, new, streams)
        if self.rng.random() < 0.3 and self.root.joinpath("zarr.json").exists():
            self._end(["verify", "--cache", str(self.root)], (0,))

    def _calm(self, *_: Any) -> None:
        """Nothing happens."""

    def _kill(self, job: Job) -> None:
        """Before its n-th change, or in the middle of it."""
        at = 1 + int(self.rng.random() * self.changes.get(job.command, 200))
        process = self._started(job.words, Moment(at=at, torn=self.rng.random()))
        process.join(LONGEST)
        self._after(process, job.split, [job.old, job.new], f"at change {at}")

    def _time(self, job: Job) -> None:
        """After some time, by SIGKILL or SIGTERM."""
        process = self._started(job.words)
        process.join(self.rng.random() * (1 + self.seconds.get(job.command, 1)))
        if self.rng.random() < 0.5:
            process.terminate()
            process.join(LONGEST)
        process.kill()
        self._after(process, job.split, [job.old, job.new], "in time")

    def _two(self, job: Job) -> None:
        """Another command on the same split, started at the same time or a little later."""
        other = self.rng.choice([job.words, self._words("convert", job.split), self._words("gc", job.split)])
        videos = self.lab.of(job.split)
        others = [job.old, job.new, job.old.converted(videos), after := job.new.converted(videos)]
        if job.streams and not job.split.startswith(MOTION):  # of several streams, some before and some after it
            others.append(after.extracted(job.streams))
        processes = [self._started(job.words)]
        time.sleep(self.rng.choice((0, self.rng.random())))
        processes.append(self._started(other))
        for process in processes:
            process.join(LONGEST)
        self.notes.append(f"({other[0]})")
        for process in processes:
            self._after(process, job.split, others, "")

    def _full(self, job: Job) -> None:
        at = 1 + int(self.rng.random() * self.changes.get(job.command, 200))
        with watched(Fault(at, errno.ENOSPC, self.root)):
            self._end(job.words, (0, 1, 2))
        self.states[job.split] = self._match(job.split, [job.old, job.new] if self.code == 2 else [job.new])

    def _readonly(self, job: Job) -> None:
        before = tree(self.root, ())
        with watched(Fault(1, errno.EROFS, self.root)):
            self._end(job.words, (0, 1, 2))
        if tree(self.root, ()) != before:
            raise Difference(f"{job.command} has changed files that are read-only")
        self._match(job.split, [job.old])

    def _worker(self, job: Job) -> None:
        """A process that reads or decodes is killed: that costs nothing."""
        with worker_killed(self.rng.random() * 0.1) as killed:
            self._end(job.words, self._codes(job.command, job.split, job.new))
        self.notes.append("killed" if killed else "none")

    def _beside(self, job: Job) -> None:
        """A reader reads all of the cache all the time."""
        states: set[str | None] = {None, seen(self.root)}
        with reader_beside(self.root) as end:
            self._end(job.words, self._codes(job.command, job.split, job.new))
            reads, found = end()
        self.notes.append(f"{reads} reads")
        states |= {seen(self.root)}
        between = {state for state in found - states if state is None or ":" in state or "--also" not in job.words}
        if between:  # of several streams, each is a commit
            raise Difference(f"a reader saw {between}, neither the old nor the new state")

    def _calmly(self, command: str, split: str, new: State, streams: Sequence[str] = (), *, free: bool = False) -> None:
        """Undisturbed: it must succeed. `free`: without reading a video or computing a row."""
        began = time.perf_counter()
        codes = self._codes(command, split, new)
        with watched(death := Death()):
            out = self._end(self._words(command, split, streams), codes)
        self.changes[command] = max(death.count, self.changes.get(command, 0) * 9 // 10)
        self.seconds[command] = time.perf_counter() - began
        if free and "up to date" not in out and re.search(r"[1-9]\d* rows? computed| read \(", out):
            raise Difference(f"{command} {split} has done again what was there: {out}")
        self.states[split] = self._match(split, [new, self.states[split]] if 2 in codes else [new])

    def _codes(self, command: str, split: str, new: State) -> tuple[int, ...]:
        """Exit codes that the command may have: 2 where others than the committed videos are in the raw folder."""
        if command == "extract" and new.videos != self.lab.of(split):
            return (0, 2)
        return (0, 1) if command in ("convert", "extract") else (0,)  # extract: of a split without rows

    def _started(self, words: list[str], moment: Moment = Moment()) -> Any:  # noqa: B008
        self.started += 1
        log = self.work / f"{self.started} {words[0]}.txt"
        log.touch()
        process: Any = FRESH.Process(target=run_command, args=(words, moment, str(log)))
        process.start()
        process.log = log
        return process

    def _after(self, process: Any, split: str, states: Sequence[State], when: str) -> None:
        process.join()
        codes = (0, 1, 2, 143, -signal.SIGTERM, -signal.SIGKILL)
        text = process.log.read_text()
        if process.exitcode not in codes or "defect" in text or "Traceback" in text:
            raise Difference(f"{process.log.name} ended with {process.exitcode}: {text}")
        if process.exitcode in (0, 1) and when:
            states = states[-1:]
        elif when:
            self.notes.append(when)
        process.log.unlink()
        self.states[split] = self._match(split, states)

    def _end(self, words: Sequence[str], codes: Sequence[int]) -> str:
        """A command in this process, which must end with one of these codes. What it printed."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            code = self.code = pipeline_main(list(words))
        if code not in codes or "defect" in out.getvalue():
            raise Difference(f"{' '.join(words)} ended with {code}, expected {codes}: {out.getvalue()}")
        return out.getvalue()

    # -------------------------------------------------------------------------------------------------- what is there

    def compare(self) -> None:
        """Raise Difference unless all splits are as they must be."""
        for name, state in self.states.items():
            self._match(name, [state])

    def _match(self, name: str, states: Sequence[State]) -> State:
        """The one of these states that the cache has of a split; of each stream, the one of any of them."""
        there = (self.root / "zarr.json").exists() and name in cache.open(self.root)
        if not there:
            if not any(not state.there for state in states):
                raise Difference(f"{name} is not there")
            return State()
        split, wrong = cache.open(self.root)[name], ["it is there, and must not be"]
        possible = [state for state in states if state.there]
        for state in possible:
            if not (problems := self.checks.tracks(split, state.videos)):
                self.checks.remember(split, state.videos)
                return State(state.videos, self._streams(split, state, possible), there=True)
            wrong += problems
        raise Difference(f"{name}: {'; '.join(wrong[:4])}")

    def _streams(self, split: cache.Split, state: State, states: Sequence[State]) -> dict[str, Held]:
        """The rows that each stream has, as in one of these states."""
        found: dict[str, Held] = {}
        for stream in sorted({*split.streams}.union(*(one.streams for one in states))):
            every = [one.converted(state.videos).streams.get(stream) for one in states]
            wrong: list[str] = []
            for held in every:
                if (held is not None) != (stream in split.streams):
                    continue
                problems = [] if held is None else self.checks.stream(split, state.videos, stream, held)
                if not problems:
                    found |= {} if held is None else {stream: held}
                    break
                wrong += problems
            else:
                problem = "; ".join(wrong[:3]) or f"it has the streams {split.streams}"
                raise Difference(f"{split.name}, {stream}: {problem}")
        return found

    def _still_old(self, opened: cache.Split, state: State) -> None:
        """A split that was opened before gives the old state, or refuses."""
        with contextlib.suppress(cache.CacheError):
            wrong = self.checks.tracks(opened, state.videos)
            for stream in opened.streams:
                with contextlib.suppress(cache.CacheError):
                    wrong += self.checks.stream(opened, state.videos, stream, None)
            if wrong:
                raise Difference(f"a split that was opened before the step gave: {'; '.join(wrong[:3])}")
