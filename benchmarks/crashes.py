"""A lab that works and is killed: does its cache hold what it must, after thousands of steps?

    .venv/bin/python benchmarks/crashes.py --steps 1000 --minutes 120 --out benchmarks/crashes.md

A step edits raw videos of demo data (adds, removes, corrects, spoils, changes images, exchanges two
videos) and converts, extracts or collects garbage. Its command (`python -m pipeline`) runs
undisturbed, beside a reader, with another writer, after two parts of an array job, on two workers
of a Dask cluster or in processes of two devices, of which one may be killed, or ends by SIGKILL or
SIGTERM at a random moment.
Then the cache must verify, all tracks must be as before or as after, and the command must succeed
when repeated.

After each step, all that readers get of each track is compared with a cache made from the raw
folder at once. Without --drop-removed, tracks of videos that are missing now, or would lose rows,
must stay as they were.
Shards have 16 rows, so that there are many. Tests of each single change of a file:
tests/cache/test_histories.py; of damaged files: tests/cache/verification/; of killed training:
tests/vibe_model/training/test_training.py.

Prints a line per step. A difference ends it with 1; it prints the seed, the step and the folder,
which stays. `--seed S --steps N` repeats the same steps, except for the moments of kills.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

from distributed import LocalCluster

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.lab import (
    FRESH,
    SHRUNK,
    SPLIT,
    STREAM,
    Contents,
    Lab,
    children_of,
    contents,
    differences,
    reader_beside,
    run_command,
    shrink,
    state_of,
    videos_of,
)
from cache.write import parts
from pipeline.__main__ import main as pipeline_main
from pipeline.cli.command_line import TRY_LATER
from pipeline.files.raw.changes import CONTENTS

LONGEST: Final = 300.0  # s that a command may take
ENDED: Final = (0, 1, 2, TRY_LATER, 143, -signal.SIGTERM, -signal.SIGKILL)
# and their frequencies
KINDS: Final = {"convert": 10, "extract": 7, "gc": 1}
WAYS: Final = ("calm", "killed", "killed", "ended", "two", "reader", "parts", "dask", "devices")
SHARED: Final = ("parts", "dask", "devices")  # ways in which several processes do the work
DROP: Final = "--drop-removed"


class _Difference(Exception):
    """The cache differs from what it must be."""


class Steps:
    """Steps of a lab and its cache."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work = work
        self.root = work / "cache"
        self.lab = Lab(work)
        self.seed = seed
        self.step = 0
        self.rng = random.Random()
        self.notes: list[str] = []
        self.kinds = Counter[str]()
        self.n_killed = 0
        self.seconds: dict[str, float] = {}
        self.current: Contents = {}
        shrink()

    def do(self) -> str:
        """Take one step. Return its line."""
        began = time.perf_counter()
        self.step += 1
        self.rng = random.Random(f"{self.seed} {self.step}")
        kind = "convert"
        if self.current:
            kind = self.rng.choices([*KINDS], [*KINDS.values()])[0]
        self.notes = [kind]

        if kind == "convert":
            self._convert()
        else:
            self._command(self.words(kind), self.current)

        self.kinds[kind] += 1
        return f"step {self.step} {', '.join(self.notes)} [{time.perf_counter() - began:.1f} s]"

    def words(self, command: str, root: Path | None = None) -> list[str]:
        """A command line."""
        where = ["--cache", str(root or self.root)]
        if command == "convert":
            options = ["--raw", str(self.lab.raw), "--workers", "1"]
        elif command == "extract":
            options = ["--stream", STREAM, "--kind", STREAM, "--device", "cpu", "--workers", "1"]
        else:
            return [command, *where]
        return [command, SPLIT, *where, *options]

    def fresh(self) -> Contents:
        """The contents of a cache made at once from the raw folder."""
        root = self.work / "fresh"
        shutil.rmtree(root, ignore_errors=True)
        for words in ([*self.words("convert", root), DROP], self.words("extract", root)):
            self.end(words)
        return contents(root)

    def _convert(self) -> None:
        """Edit videos, and convert with or without the rows of removed ones."""
        for _ in range(self.rng.choice((1, 1, 2, 4))):
            self.notes.append(self.lab.edit(self.rng))
        words = self.words("convert")
        expected = self.fresh()

        if self.rng.random() < 0.5:
            words.append(DROP)
            self.notes.append(DROP)
        else:
            expected = {**expected, **self.lost(expected)}
        self._command(words, expected)

    def lost(self, computed: Contents) -> Contents:
        """Entries of the cache whose videos are missing now, or would lose rows.

        computed: the content of a cache that is made from the raw folder at once.
        """
        before = videos_of(self.current)
        now = videos_of(computed)
        new_contents = {
            video.fingerprint[:CONTENTS] for name, video in now.items() if video != before.get(name)
        }
        lost = set[str]()
        for name, video in before.items():
            n_rows = 0
            if name in now:
                n_rows = now[name].account["kept"]
                if now[name].pixels != video.pixels:
                    n_rows = min(n_rows, self.lab.count_images(name))
            elif video.fingerprint[:CONTENTS] in new_contents:  # renamed
                continue
            if n_rows < video.account["kept"]:
                lost.add(name)
        return {name: entry for name, entry in self.current.items() if entry.video in lost}

    def _command(self, words: list[str], expected: Contents) -> None:
        """Run a command in one of several ways, and then undisturbed."""
        command = words[0]
        way = self.rng.choice(WAYS)
        if command == "gc" and way in SHARED:
            way = "calm"
        self.notes.append(f"-> {way}")

        if command == "extract":
            expected = self.fresh_stream()
        if way == "reader":
            self._with_reader(words)
        elif way == "parts":
            self._in_parts(words)
        elif way in SHARED:
            self._on_workers(words, way, expected)
        elif way != "calm":
            self._disturbed(words, way, expected)

        began = time.perf_counter()
        self.end(words)
        self.seconds[command] = time.perf_counter() - began
        self.current = self.require([expected], complete=command == "extract")

    def fresh_stream(self) -> Contents:
        """The current entries, with the stream of a cache that is made at once; a lost video keeps
        its features.
        """
        computed = self.fresh()
        entries = dict(self.current)
        for name, entry in self.current.items():
            video = f"video {entry.video}"
            if computed.get(video) == self.current[video]:
                entries[name] = entry._replace(stream=computed[name].stream)
        return entries

    def _with_reader(self, words: list[str]) -> None:
        """Run a command while another process reads: it must see the old state or the new one."""
        before = state_of(self.root)
        with reader_beside(self.root) as end:
            self.end(words)
            states = end()
        if states - {before, state_of(self.root)}:
            raise _Difference(f"a reader saw {states}, neither the old nor the new state")

    def _in_parts(self, words: list[str]) -> None:
        """Run two parts of an array job, of which one may be killed. They commit nothing."""
        shared = [word for word in words if word != DROP]
        processes = [self._started([*shared, "--part", f"{number}/2"]) for number in (1, 2)]
        if self.rng.random() < 0.5:
            self.notes.append("one killed")
            victim = self.rng.choice(processes)
            self._let_run(victim, words)
            victim.kill()
        self._join(processes, words)
        time.sleep(parts.FRESH)  # commands refuse to run beside a part that was killed just now
        self.require([self.current])

    def _on_workers(self, words: list[str], way: str, expected: Contents) -> None:
        """Run a command whose work is done by a cluster or by two devices; videos are read by two
        processes.
        """
        if way == "devices":
            words = [{"cpu": "cpu,cpu", "1": "2"}.get(word, word) for word in words]
            self._lose_one(words, children_of, expected)
            return
        words = [word for word in words if word not in ("--device", "cpu")]
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # of the workers
        with LocalCluster(n_workers=2, dashboard_address=None, preload=[SHRUNK]) as cluster:  # type: ignore[no-untyped-call]
            workers = [nanny.pid for nanny in cluster.workers.values()]
            words += ["--scheduler", cluster.scheduler_address]
            self._lose_one(words, lambda _: workers, expected)

    def _lose_one(
        self, words: list[str], helpers: Callable[[int], list[int]], expected: Contents
    ) -> None:
        """Run a command, one of whose helpers may be killed. `helpers` returns their process
        numbers for the command's.
        """
        process = self._started(words)
        if self.rng.random() < 0.5:
            self._let_run(process, words)
            victims = helpers(process.pid)
            if victims:
                self.notes.append("one killed")
                os.kill(self.rng.choice(victims), signal.SIGKILL)
        self._join([process], words)
        self.current = self.require([self.current, expected])

    def _disturbed(self, words: list[str], way: str, expected: Contents) -> None:
        """Kill or end a command, or run another one on the same split."""
        processes = [self._started(words)]
        if way == "two":
            other = self.rng.choice(("convert", "extract", "gc"))
            other_words = self.words(other)
            if DROP in words and other == "convert":
                other_words.append(DROP)
            processes.append(self._started(other_words))
        else:
            self._let_run(processes[0], words)
            if way == "ended":
                processes[0].terminate()
            else:
                processes[0].kill()
        self._join(processes, words)

        if (self.root / "zarr.json").exists():
            self.end(["verify", "--cache", str(self.root)], (0,))
        self.current = self.require([self.current, expected])

    def _let_run(self, process: Any, words: Sequence[str]) -> None:
        """Wait until a random moment, before a command's end or a second after it."""
        process.join(self.rng.random() * (1 + self.seconds.get(words[0], 1)))

    def _join(self, processes: Sequence[Any], words: Sequence[str]) -> None:
        """Wait for processes, which must have ended as commands do."""
        for process in processes:
            process.join(LONGEST)
            text = process.log.read_text()
            if process.exitcode == -signal.SIGKILL:
                self.n_killed += 1
            if process.exitcode not in ENDED or "defect" in text or "Traceback" in text:
                raise _Difference(f"{words[0]} ended with {process.exitcode}: {text}")

    def require(self, states: Collection[Contents], *, complete: bool = False) -> Contents:
        """The contents of the cache. Raises _Difference unless they are one of `states`.

        complete: no row of the stream may be missing.
        """
        actual = contents(self.root)
        wrong = []
        for state in states:
            names = differences(actual, state, complete=complete)
            if not names:
                return actual
            wrong.append(", ".join(names[:3]))
        raise _Difference(f"{SPLIT}: other than expected: {'; '.join(wrong)}")

    def _started(self, words: list[str]) -> Any:
        log = Path(tempfile.mkstemp(dir=self.work, suffix=".txt")[1])
        process: Any = FRESH.Process(target=run_command, args=(words, str(log)))
        process.start()
        process.log = log
        return process

    def end(self, words: Sequence[str], codes: Sequence[int] = (0, 1)) -> str:
        """Run a command in this process, which must end with one of these codes. Return its
        output.
        """
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            code = pipeline_main(list(words))
        if code not in codes or "defect" in out.getvalue():
            raise _Difference(
                f"{' '.join(words)} ended with {code}, expected {codes}: {out.getvalue()}"
            )
        return out.getvalue()


def main() -> int:
    """Take steps until the time is over or something differs. Print and write the report."""
    options = parser(__doc__)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=10**9)
    options.add_argument("--minutes", type=float, default=60)
    args = options.parse_args()
    work = Path(tempfile.mkdtemp(prefix="crashes-"))
    began = time.perf_counter()
    steps = Steps(work, args.seed)
    wrong = ""
    while steps.step < args.steps and time.perf_counter() - began < 60 * args.minutes and not wrong:
        try:
            print(steps.do(), flush=True)
        except Exception:
            notes = ", ".join(steps.notes)
            wrong = f"seed {args.seed}, step {steps.step}: {notes}\n{traceback.format_exc()}"

    lines = [
        f"Seed {args.seed}, {(time.perf_counter() - began) / 60:.0f} minutes.",
        "",
        f"**{steps.step:,} steps, {steps.n_killed:,} of their commands killed: "
        f"{int(bool(wrong))} differences.**",
        "",
    ]
    if wrong:
        lines += [f"```text\n{wrong}\n```", ""]
    lines += table(("step", "times"), ((kind, f"{n:,}") for kind, n in steps.kinds.most_common()))
    report("DEMO DATA.", "A working lab that is killed", lines, args)
    if wrong:
        print(f"{wrong}\nThe lab and its cache are in {work}")
    else:
        shutil.rmtree(work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
