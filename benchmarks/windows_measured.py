"""The measurements of benchmarks/windows.py: each gives a table."""

from __future__ import annotations

import ctypes
import json
import mmap
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from windows_data import SEQLEN, SPLITS, STREAM, Data
from windows_ways import H5_OPEN, OURS, SLICES, SLOW, TAKE, buffer, compare, draw, read_all, ways

import cache

Numbers = dict[str, list[float]]  # by way, one a round

MIB: Final = 2**20


@dataclass
class Table:
    """One section of the report."""

    title: str
    about: list[str]
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)


def windows(data: Data, *, rounds: int, batch: int, passes: int) -> list[Table]:
    """Windows a second of every way: the whole run, and its first pass alone."""
    one_pass = max(data.rows // SEQLEN // batch, 1) * batch
    first: Numbers = {way: [] for way in ways(data)}
    whole: Numbers = {way: [] for way in ways(data)}
    for turn in range(rounds):
        starts = draw(data, one_pass * passes, turn)
        compare(data, starts[:batch], batch)
        for way, opened in ways(data).items():
            out = buffer(way, batch, data.dim)
            count = min(SLOW[way], len(starts) // 20) if way in SLOW else len(starts)
            count = max(count // batch, 1) * batch
            began = time.perf_counter()
            read = opened()
            opening = time.perf_counter() - began
            seconds = opening + read_all(read, starts[: min(one_pass, count)], out)
            first[way].append(min(one_pass, count) / seconds)
            seconds += read_all(read, starts[min(one_pass, count) : count], out)
            whole[way].append(count / seconds)
    slow = ", ".join(f"{SLOW[way]:,}" for way in SLOW)
    about = [
        f"Random windows into a given buffer, warm page cache, {one_pass * passes:,} a round ({passes} passes of",
        f"{one_pass:,}; slow ways at most {slow}), {rounds} rounds. Opening, page faults and our",
        "checksums are in it; nearly all of these fall into the first pass.",
    ]
    table = Table("Windows", about, ["", "windows/s", "lowest - highest", "first pass", "ours : it", "first pass"])
    for way, speeds in whole.items():
        middle, early = statistics.median(speeds), statistics.median(first[way])
        ratio = paired(whole[OURS], speeds)
        table.rows.append(
            [
                way,
                f"{middle:,.0f}",
                span(speeds),
                f"{early:,.0f}",
                f"**{ratio:.2f}**",
                f"{paired(first[OURS], first[way]):.2f}",
            ]
        )
    return [table]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def span(speeds: Sequence[float]) -> str:
    return f"{min(speeds):,.0f} - {max(speeds):,.0f}"


class Batches:
    """Whole training batches of all splits, into the same tensors each time."""

    def __init__(self, data: Data, batch: int) -> None:
        import torch  # here, since the processes that only read do without

        self._as_tensor = torch.from_numpy
        opened = cache.open(data.root)
        self._splits = [opened[name] for name in SPLITS]
        self._windows = [split.windows(SEQLEN, 1, STREAM) for split in self._splits]
        ends = np.cumsum([round(batch * part) for _, _, part in SPLITS.values()])
        self._parts = [slice(a, b) for a, b in zip([0, *ends[:-1]], [*ends[:-1], batch], strict=True)]
        rest = {"kp_2d": (49, 3), "kp_3d": (49, 3), "theta": (85,), "w_3d": (), "w_smpl": (), "valid": ()}
        self._arrays: dict[str, NDArray[Any]] = {
            "features": np.zeros((batch, SEQLEN, data.dim), np.float16),
            **{name: np.zeros((batch, SEQLEN, *shape), np.float32) for name, shape in rest.items()},
        }
        self.n_bytes = sum(array.nbytes for array in self._arrays.values())

    def read(self, draws: NDArray[np.float64]) -> dict[str, Any]:
        """One batch; `draws` (B,) from 0 to 1 choose the windows."""
        for split, windows, part in zip(self._splits, self._windows, self._parts, strict=True):
            chosen = windows[(draws[part] * len(windows)).astype(np.int64)]
            split.read(chosen, STREAM, dtype="float16", out={name: array[part] for name, array in self._arrays.items()})
        return {name: self._as_tensor(array) for name, array in self._arrays.items()}


def whole_batches(data: Data, *, rounds: int) -> Table:
    """Training batches beside copies of as many bytes."""
    about = ["All seven fields of 3 splits in the mixture 60 : 20 : 20 (2D alone, 3D joints, 3D joints and bodies), as"]
    about += [
        "tensors, features in float16; and one np.copyto a window of as many bytes from random places of one array."
    ]
    table = Table(
        "Whole training batches",
        about,
        ["batch", "MB", "batches/s", "windows/s", "copied: windows/s", "rate of copying"],
    )
    memory = np.asarray(np.load(data.npy, mmap_mode="r")).view(np.uint8).reshape(-1)
    memory[::4096].sum()  # all pages are mapped, so that copying pays for none
    for batch in (64, 256):
        batches = Batches(data, batch)
        size = min(batches.n_bytes // batch, len(memory) // 2)
        target = np.zeros((batch, size), np.uint8)
        speeds: Numbers = {"read": [], "copied": []}
        for turn in range(rounds + 1):  # the first round, in which shards are opened and checked, is not told
            n_batches = max(min(20_000, data.rows) // batch, 1)
            draws = np.random.default_rng(turn).random((n_batches, batch))
            began = time.perf_counter()
            for some in draws:
                batches.read(some)
            middle = time.perf_counter()
            for some in draws:
                for window, at in enumerate((some * (len(memory) - size)).astype(np.int64).tolist()):
                    np.copyto(target[window], memory[at : at + size])
            ended = time.perf_counter()
            if turn:
                speeds["read"].append(n_batches * batch / (middle - began))
                speeds["copied"].append(n_batches * batch / (ended - middle))
        read, copied = (statistics.median(speeds[name]) for name in ("read", "copied"))
        ratio = f"**{paired(speeds['read'], speeds['copied']):.2f}**"
        megabytes = f"{batches.n_bytes / 1e6:.1f}"
        table.rows.append([str(batch), megabytes, f"{read / batch:,.0f}", f"{read:,.0f}", f"{copied:,.0f}", ratio])
    return table


def cold(data: Data, *, rounds: int, batch: int) -> Table:
    """Windows a second with nothing in the page cache."""
    names = (OURS, SLICES, H5_OPEN)
    speeds: Numbers = {way: [] for way in names}
    left = 0.0
    for turn in range(rounds):
        starts = draw(data, 8 * batch, 1000 + turn)
        for way in names:
            out = buffer(way, batch, data.dim)
            read = ways(data)[way]()
            left = max(left, drop_page_cache(data.files))
            speeds[way].append(len(starts) / read_all(read, starts, out))
    about = [f"{8 * batch} random windows a round, {rounds} rounds, opened before the page cache was dropped; at most "]
    about += [
        f"{100 * left:.1f}% of the files' pages were left in it. The disk decides, and our checksums read whole chunks."
    ]
    table = Table("Cold", about, ["", "windows/s", "lowest - highest", "ours : it"])
    for way in names:
        middle = statistics.median(speeds[way])
        table.rows.append([way, f"{middle:,.0f}", span(speeds[way]), f"{paired(speeds[OURS], speeds[way]):.2f}"])
    return table


def drop_page_cache(files: Sequence[Path]) -> float:
    """Have the kernel let go of the files' pages. Returns the share that it kept."""
    total = kept = 0
    for file in files:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if size:
                with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as mapped:
                    resident = resident_pages(mapped)
                total, kept = total + len(resident), kept + int((resident & 1).sum())
    return kept / max(total, 1)


def resident_pages(mapped: mmap.mmap) -> NDArray[np.uint8]:
    """One byte a page of a map; its lowest bit: the page is in memory (mincore)."""
    view = np.frombuffer(mapped, np.uint8)
    pages = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    address, size, target = (
        ctypes.c_void_p(view.ctypes.data),
        ctypes.c_size_t(len(view)),
        ctypes.c_void_p(pages.ctypes.data),
    )
    if libc.mincore(address, size, target):
        raise OSError(ctypes.get_errno(), "mincore")
    return pages


def two_processes(data: Data, *, rounds: int, batch: int) -> Table:
    """Windows a second of two processes together, and of one."""
    names = (OURS, SLICES, TAKE)
    speeds: dict[str, Numbers] = {way: {"one": [], "two": []} for way in names}
    context = multiprocessing.get_context("spawn")
    count = min(data.rows // SEQLEN * 2, 100_000) // batch * batch
    with context.Pool(2) as pool:
        for turn in range(rounds):
            for way in names:
                for title, n_processes in (("one", 1), ("two", 2)):
                    begin = time.time() + 0.5  # both have started by then, and opened what they read
                    tasks = [(data, way, count, batch, 10 * turn + k, begin) for k in range(n_processes)]
                    speeds[way][title].append(sum(pool.starmap(_one_process, tasks, chunksize=1)))
    about = [
        f"{count:,} windows each, {rounds} rounds, both at once; the sum of their speeds. Opened anew in each round."
    ]
    table = Table(
        "Two processes", about, ["", "one: windows/s", "two: windows/s", "lowest - highest", "two : one", "ours : it"]
    )
    for way in names:
        one, two = (statistics.median(speeds[way][title]) for title in ("one", "two"))
        ratio = paired(speeds[OURS]["two"], speeds[way]["two"])
        row = [way, f"{one:,.0f}", f"{two:,.0f}", span(speeds[way]["two"]), f"{two / one:.2f}", f"{ratio:.2f}"]
        table.rows.append(row)
    return table


def _one_process(data: Data, way: str, count: int, batch: int, seed: int, begin: float) -> float:
    """Windows a second of one of the processes."""
    starts, out, read = draw(data, count, seed), buffer(way, batch, data.dim), ways(data)[way]()
    time.sleep(max(begin - time.time(), 0))
    return count / read_all(read, starts, out)


def memory(data: Data) -> Table:
    """Anonymous memory of a process that reads windows from all over the cache."""
    code = "import sys, windows_measured; windows_measured.read_in_little_memory(sys.argv[1], *map(int, sys.argv[2:]))"
    feature_bytes = data.rows * data.dim * 2
    limit = max(feature_bytes // 20, 16 * MIB)
    n_windows = 4 * data.rows // SEQLEN
    command = [sys.executable, "-c", code, str(data.root), str(data.rows), str(data.dim), str(limit), str(n_windows)]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    found = json.loads(subprocess.check_output(command, env=os.environ | {"PYTHONPATH": path}))
    about = [
        f"{n_windows:,} random windows of {feature_bytes / MIB:,.0f} MiB of features, and kp_2d, with `ulimit -n 256`.",
        f"The process may have {limit / MIB:.0f} MiB more private memory than before reading (RLIMIT_DATA: what it",
        "asked for, touched or not; mapped files are not in it, they are page cache). MiB of /proc/self/status.",
    ]
    table = Table("Memory", about, ["", "before reading", "highest while reading", "grown"])
    for name in ("RssAnon", "VmData", "RssFile"):
        low, high = found["before"][name] / 1024, found["highest"][name] / 1024
        table.rows.append([name, f"{low:.0f}", f"{high:.0f}", f"{high - low:.1f}"])
    return table


def read_in_little_memory(root: str, rows: int, dim: int, limit: int, n_windows: int) -> None:
    """Read random windows; prints the kernel's account of this process's memory as JSON."""
    data = Data(Path(root), Path(), Path(), rows, dim)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    split, out = data.split(), buffer(OURS, 64, dim)
    starts = draw(data, n_windows, 0)
    before = status()
    allowed = before["VmData"] * 1024 + limit
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    highest = dict(before)
    for at in range(0, n_windows - 63, 64):
        windows = np.stack([starts[at : at + 64], starts[at : at + 64] + SEQLEN], axis=1)
        split.read(windows, STREAM, fields=("features", "kp_2d"), dtype="float16", out={"features": out})
        if at % 1024 == 0:
            highest = {name: max(kib, highest[name]) for name, kib in status().items()}
    print(json.dumps({"before": before, "highest": highest}))


def status() -> dict[str, int]:
    """KiB by name, of /proc/self/status."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    wanted = ("RssAnon:", "RssFile:", "VmData:")
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words and words[0] in wanted}
