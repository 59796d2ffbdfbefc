"""Reports of benchmarks, their tables and options, and made-up caches."""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache

ROOT: Final = Path(__file__).parents[1]


def report(about: str, title: str, lines: Iterable[str], args: argparse.Namespace) -> None:
    """Print the `page`, and write it to `args.out` if set."""
    text = page(about, title, lines, args)
    print(text)
    if args.out:
        args.out.write_text(text)


def page(about: str, title: str, lines: Iterable[str], args: argparse.Namespace) -> str:
    """The lines below their command, date and machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    command = " ".join((f".venv/bin/python benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]))
    facts = [
        str(datetime.date.today()),
        f"{cores} cores ({platform.machine()})",
        f"{memory:.0f} GiB",
        _gpu_of(args),
        f"Python {platform.python_version()}",
        f"NumPy {version('numpy')}",
        f"torch {version('torch')}",
        f"a load of {os.getloadavg()[1]:.0f}.",
    ]
    text = [
        f"# {title}",
        "",
        f"{about} Made by `{command}`, whose docstring describes the comparison.",
        "",
        ", ".join(facts),
        "",
        *lines,
        "",
    ]
    return "\n".join(text)


def _gpu_of(args: argparse.Namespace) -> str:
    """The name of the GPU of `--device`, if any."""
    if not getattr(args, "device", "").startswith("cuda"):
        return "no GPU used"
    import torch

    return torch.cuda.get_device_name(args.device)


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser with the option of all benchmarks: --out. Their files are in TMPDIR."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--out", type=Path, help="write the report here, for example benchmarks/<name>.md"
    )
    return made


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def spread(values: Sequence[float], form: str = ",.2f") -> str:
    """The median of the rounds, the lowest and the highest.

    >>> spread([3, 1, 2.5])
    '2.50 (1.00 - 3.00)'
    """
    return f"{statistics.median(values):{form}} ({min(values):{form}} - {max(values):{form}})"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def in_a_process(function: Callable[..., Any], *arguments: object) -> Any:
    """The result of a function in a fresh process, whose memory and caches are its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def peak_mib() -> float:
    """The largest resident set of this process; getrusage would count its parent's too."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def write_split(
    root: Path,
    name: str,
    columns: Sequence[str],
    videos: Iterable[Sequence[Mapping[str, NDArray[Any]]]],
    **pixels: Any,
) -> None:
    """Write a split; of the arrays of each video's tracks, these columns. pixels: of all videos, as
    in `cache.VideoEntry`.
    """
    with cache.SplitWriter(root, name, columns=columns, plan="made up") as writer:
        following = writer.begin()
        for number, of_video in enumerate(videos):
            video = f"{number:06d}"
            tracks = []
            for person, rows in enumerate(of_video):
                labels = {column: rows[column] for column in columns}
                track = cache.TrackRows(
                    name=f"{video}/{person}",
                    video=video,
                    step=1,
                    fps=25.0,
                    crop_scale=1.3,
                    columns=labels,
                )
                tracks.append(track)
            following.append(cache.VideoEntry(name=video, **pixels), tracks)
        following.commit({"stand_in": True})


def write_stream(
    root: Path,
    split: str,
    stream: str,
    dim: int,
    values: Callable[[NDArray[np.int64]], NDArray[Any]],
    flags: NDArray[np.bool_] | None = None,
    dtype: str = "float16",
) -> None:
    """Write a stream. values: row numbers (n,) -> (n, dim); flags: of all rows, whether they are
    known.
    """
    form = cache.StreamForm(dim, dtype)
    with cache.StreamWriter(root, split, stream, form, plan="made up") as writer:
        for shard in writer.shards.pending:
            rows = np.asarray(writer.shards.rows(shard))
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            known = np.ones(len(rows), bool) if flags is None else flags[rows]
            writer.write(shard, values(rows).astype(dtype), known, keys)
        writer.commit({"stand_in": True})
