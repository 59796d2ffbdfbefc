"""How fast are windows read, and in how much memory? Against np.memmap, h5py and zarr-python, in one run.

    .venv/bin/python benchmarks/windows.py

Makes a cache of three splits (features float16, 2048 numbers a row) and the features of the first one once more as .npy
and as HDF5, then reads random windows of 16 frames from all of them:

- Windows: into a given buffer, a batch at a time, `--passes` times as many windows as there are rows / 16. Everybody
  opens anew in every round, so page faults, and our checksums, are in the figures; the slow ones read fewer windows.
- Whole batches: all seven fields from three splits (60% with 2D labels alone) as tensors, features left in float16,
  beside copying as many bytes from random places of one array that lies in memory.
- Cold: the same windows with nothing of the files in the page cache (asked of the kernel by mincore).
- Two processes at once, each with its own reader.
- Memory: a process that may allocate 1/20 of the features' size more than it has when it starts to read (RLIMIT_DATA:
  heap and other private memory; the mapped files are not in it, the kernel takes them back as it likes).

Rounds are interleaved: A B C A B C. Told is the median with the lowest and the highest round. `--out` writes the
report, `--small` makes all of it tiny, to see that it works.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import windows_data
import windows_measured
from windows_measured import Table

ROOT: Final = Path(__file__).parents[1]


def main() -> None:
    """Make the data, measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=409_600, help="of the split that windows are read from")
    parser.add_argument("--batch", type=int, default=64, help="windows a batch")
    parser.add_argument("--passes", type=int, default=10, help="times as many windows as rows / 16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="4,096 rows of 32 numbers, one round")
    parser.add_argument("--at", type=Path, help="where to make the files (5 GB); a temporary folder by default")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/windows.md")
    args = parser.parse_args()
    rows, dim, rounds = (4_096, 32, 1) if args.small else (args.rows, 2048, args.rounds)
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        data = windows_data.make(Path(folder), rows=rows, dim=dim)
        tables = [
            *windows_measured.windows(data, rounds=rounds, batch=args.batch, passes=args.passes),
            windows_measured.whole_batches(data, rounds=2 * rounds),
            windows_measured.cold(data, rounds=min(rounds, 3), batch=args.batch),
            windows_measured.two_processes(data, rounds=min(rounds, 3), batch=args.batch),
            windows_measured.memory(data),
        ]
    text = report(tables, rows=rows, dim=dim, batch=args.batch)
    print(text)
    if args.out:
        args.out.write_text(text)


def report(tables: list[Table], *, rows: int, dim: int, batch: int) -> str:
    """All tables, and what they were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB"
    lines = [
        "# How fast are windows read, and in how much memory?",
        "",
        "Made by `.venv/bin/python benchmarks/windows.py --out benchmarks/windows.md`; what is compared, and how,",
        "stands at its beginning. All ways gave the same bytes in the same run.",
        "",
        f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}. {rows:,} rows of {dim} float16, windows of {windows_data.SEQLEN} frames, "
        f"{batch} a batch; one thread, unless told otherwise.",
        "",
    ]
    for table in tables:
        lines += [f"## {table.title}", "", *table.about, ""]
        lines += ["| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
