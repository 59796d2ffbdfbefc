"""A working lab in fast motion: is everything in the cache that must be there, after each of thousands of steps?

    .venv/bin/python benchmarks/soak.py --minutes 60

A step edits raw videos and converts, extracts or deletes a stream, removes a split, has its copy take its place,
collects garbage, or damages a file and repairs the cache. Its command (`python -m pipeline`) runs undisturbed, beside a
reader, with another writer, with a worker killed, is killed (before its n-th change of a file, in the middle of one,
after some time; SIGKILL or SIGTERM), or runs on a disk that is full from its n-th change on, or read-only. What did not
end well must leave the old state or the new one, and must then succeed. After each step all that readers get is
compared with a model in memory (soak_model.py): videos with what became of them, tracks, columns to the byte, which
rows streams have, and their numbers. Shards have 16 rows, so that there are many.

Prints a line a step. A difference ends it with 1, and prints the seed, the step and the folder, which is kept:
`--seed S --steps N` does the same steps (when threads and processes come to a moment is the system's). Writes
benchmarks/soak.md.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # where `benchmarks` is, also for a script

import cache  # noqa: E402
from benchmarks.common import report  # noqa: E402
from benchmarks.crash_runs import Fault, tree, watched  # noqa: E402
from benchmarks.soak_jobs import Difference, Jobs, small_shards  # noqa: E402
from benchmarks.soak_lab import MOTION, SPLITS, STREAMS, install  # noqa: E402
from benchmarks.soak_model import State  # noqa: E402

WARM: Final = 50  # steps after which caches of modules are filled


class Soak(Jobs):
    """One step after the other."""

    def __init__(self, work: Path, seed: int) -> None:
        super().__init__(work)
        self.seed, self.step, self.kinds = seed, 0, Counter[str]()
        self.np_rng = np.random.default_rng()
        install(work / "path")
        sys.path.insert(0, str(work / "path"))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(work / "path"), str(ROOT)])
        os.environ["OMP_NUM_THREADS"] = "1"
        small_shards()

    def do(self) -> str:
        """One step, and its line."""
        self.step += 1
        self.rng = random.Random(f"{self.seed} {self.step}")
        self.np_rng = np.random.default_rng([self.seed, self.step])
        self.notes, began, before = [], time.perf_counter(), self.checks.count
        weights = {"convert": 12, "extract": 8, "copy": 2, "collect": 1, "damage": 3, "idle": 1, "shrink": 1}
        kind = self.rng.choices([*weights], [*weights.values()])[0]
        split = self.rng.choice(SPLITS)
        state = self.states[split]
        if not state.there or len(self.lab.of(split)) < 3:
            kind = "convert"
        self.notes.append(f"{kind} {split}:")
        opened = cache.open(self.root)[split] if state.there else None
        getattr(self, f"_{kind}")(split)
        if opened is not None:
            self._still_old(opened, state)
        self.compare()
        self.kinds[kind] += 1
        took = f"[{time.perf_counter() - began:.1f} s, {self.checks.count - before:,} checks]"
        return f"step {self.step} {' '.join(self.notes)} {took}"

    def _convert(self, split: str) -> None:
        dataset = split.partition("/")[0]
        edits = range(self.rng.choice((1, 1, 2, 4)))
        self.notes.append(", ".join(self.lab.edit(dataset, self.np_rng) for _ in edits))
        while len(self.lab.of(split)) < 3:
            self.notes.append(self.lab.edit(dataset, self.np_rng))
        self._job("convert", split, self.states[split].converted(self.lab.of(split)))

    def _extract(self, split: str) -> None:
        names = self.rng.sample([*STREAMS], self.rng.choice((1, 1, 2, 4)))
        self.notes.append(", ".join(names))
        state = self.states[split]
        self._job("extract", split, state if split.startswith(MOTION) else state.extracted(names), names)

    def _copy(self, split: str) -> None:
        """Into another cache, whose folder then takes the place of this one's where no stream lags behind."""
        other = self.work / "other"
        printed = self._end(["copy", split, "--cache", str(self.root), "--to", str(other)], (0,))
        if "missing" not in printed:
            shutil.rmtree(self.root / split)
            (other / split).rename(self.root / split)
        self._end(["verify", "--cache", str(other)], (0,))
        shutil.rmtree(other)

    def _collect(self, split: str) -> None:
        self._job("gc", split, self.states[split])

    def _idle(self, _: str) -> None:
        """Commands that only look, on a disk that cannot be written."""
        before = tree(self.root, ())
        for words in (["status"], ["verify", "--fast"], ["verify"]):
            codes = (0, 1) if words == ["status"] else (0,)  # 1: videos of a split have gone that is not converted yet
            with watched(Fault(1, errno.EROFS, self.root)):
                self._end([*words, "--cache", str(self.root)], codes)
        if tree(self.root, ()) != before:
            raise Difference("commands that only look have changed files")

    def _shrink(self, split: str) -> None:
        """Delete a stream or a whole split."""
        state = self.states[split]
        if state.streams and self.rng.random() < 0.7:
            stream = self.rng.choice(sorted(state.streams))
            self.notes.append(f"stream {stream} deleted")
            cache.delete_stream(self.root, split, stream)
            self.states[split] = replace(state, streams={k: v for k, v in state.streams.items() if k != stream})
        else:
            self.notes.append("removed")
            shutil.rmtree(self.root / split)
            self.states[split] = State()

    def _damage(self, split: str) -> None:
        """Damage a file: verification finds it, readers get no other data, and it is repaired as the message says."""
        self._calmly("convert", split, self.states[split].converted(self.lab.of(split)))
        names = [*self.states[split].streams]
        if names:
            self._calmly("extract", split, self.states[split].extracted(names), names)
        home = self.root / split
        files = [file for file in sorted(home.rglob("*")) if ".writing" not in file.parts]
        files = [file for file in files if file.suffix != ".json" or file.name in ("zarr.json", "manifest.json")]
        files = [file for file in files if file.is_file()]
        file = self.rng.choice(files)
        data = file.read_bytes()
        how, bit = self.rng.choice(("flipped", "flipped", "cut", "gone")), self.rng.randrange(8 * len(data))
        self.notes.append(f"{file.relative_to(home)} {how}{f' at bit {bit}' if how == 'flipped' else ''}")
        if how == "gone":
            file.unlink()
        else:
            flipped = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
            file.write_bytes(flipped if how == "flipped" else data[: len(data) // 2])
        key = file.relative_to(self.root).as_posix()
        if key not in (out := self._end(["verify", "--cache", str(self.root)], (1,))):
            raise Difference(f"verify did not name {key}: {out}")
        with contextlib.suppress(cache.CacheError):
            self._still_old(cache.open(self.root)[split], self.states[split])
        if self.rng.random() < 0.3:
            self.notes.append("-> restored from a backup")
            file.write_bytes(data)
            return
        self._repair(split, key)
        self._calmly("convert", split, self.states[split])
        if names:
            self._calmly("extract", split, self.states[split].extracted(names), names, free=True)
        self._end(["verify", "--cache", str(self.root)], (0,))

    def _repair(self, split: str, key: str) -> None:
        """As far as `verify --repair` can; else as its message says."""
        words = ["verify", "--repair", "--cache", str(self.root)]
        name = key.removeprefix(f"{split}/")
        if not (name.endswith("manifest.json") or name.startswith(("track_", "video_", "run_"))):
            self.notes.append("-> repaired")
            self._end(words, (0,))
            return
        out = self._end(words, (1, 2))
        stream = name.split("/")[1] if name.startswith("features/") else None
        self.notes.append("-> " + ("extracted again" if stream else "converted again"))
        if stream and "--replace" in out:
            self._end([*self._words("extract", split, [stream]), "--replace"], (0,))
        elif not stream and "convert the split again" in " ".join(out.split()):
            (self.root / split / "manifest.json").unlink(missing_ok=True)
            self._end(self._words("convert", split), (0, 1))
            state = self.states[split]  # its rows are in new shards: streams carry theirs over when they are extracted
            self.states[split] = replace(state, streams={name: {} for name in state.streams})
        else:
            raise Difference(f"verify --repair does not tell what to do about {key}: {out}")


# ----------------------------------------------------------------------------------------------------------- the report


def results(soak: Soak, wrong: str, seconds: float, files: tuple[int, int], memory: tuple[int, int]) -> list[str]:
    """What was done, and what differed."""
    return [
        f"Seed {soak.seed}, {seconds / 60:.0f} minutes.",
        "",
        f"**{soak.step:,} steps, {soak.checks.count:,} checks, {'1 difference' if wrong else 'no difference'}.**",
        "",
        *([f"```text\n{wrong}\n```", ""] if wrong else []),
        *("| step | times |", "|---|---|", *(f"| {kind} | {n:,} |" for kind, n in soak.kinds.most_common())),
        "",
        *("| way of a job | times |", "|---|---|", *(f"| {way} | {n:,} |" for way, n in soak.ways.most_common())),
        "",
        f"Killed, refused or interrupted commands that left the old state, the new one: {soak.left['old']:,}, "
        f"{soak.left['new']:,}.",
        f"Open files of this process after {WARM} steps and at the end: {files[0]}, {files[1]}; "
        f"its memory: {memory[0]:,}, {memory[1]:,} MiB.",
    ]


def footprint() -> tuple[int, int]:
    """Open files and MiB of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return len([*Path("/proc/self/fd").iterdir()]), pages * resource.getpagesize() >> 20


def soak_for(work: Path, seed: int, steps: int, seconds: float) -> tuple[list[str], str]:
    """(results, what differs or "")."""
    began, soak, wrong = time.perf_counter(), Soak(work, seed), ""
    early = footprint()
    while soak.step < steps and time.perf_counter() - began < seconds and not wrong:
        try:
            print(soak.do(), flush=True)
        except Exception as error:
            wrong = f"seed {seed}, step {soak.step}: {' '.join(soak.notes)}\n{type(error).__name__}: {error}"
            if not isinstance(error, Difference):
                traceback.print_exc()
        if soak.step == WARM:
            early = footprint()
    late = footprint()
    lines = results(soak, wrong, time.perf_counter() - began, (early[0], late[0]), (early[1], late[1]))
    return lines, wrong


def main() -> int:
    """Steps until the time is over or something differs, and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--work", type=Path, help="where the lab's folder is made; default: that for temporary files")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/soak.md")
    args = parser.parse_args()
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="soak-", dir=args.work))
    lines, wrong = soak_for(work, args.seed, args.steps, 60 * args.minutes)
    report("MADE-UP DATA.", "A working lab in fast motion", lines, args)
    print(f"{wrong}\nThe lab and its cache are in {work}" if wrong else "")
    if not wrong:
        shutil.rmtree(work)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
