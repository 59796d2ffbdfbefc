"""After how much work does `try` show a page, and the bodies?

    .venv/bin/python benchmarks/first_page.py --beside CHECKOUT --out benchmarks/first_page.md

CHECKOUT is a folder with another commit. `try` runs in both in turn, each time in a new folder; the
clip, the weights and the body are fetched before. CPU seconds of a whole command, user and system,
its processes included: when it names its page for the first time, and at its end. Of all pairs of
runs, the table has the ratio. The bodies of the last pair are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.clips import detectors
from pipeline.extras.bodies.body_file import body_file
from pipeline.extras.bodies.commands.try_clip import CLIP, DETECTOR, PAGE
from pipeline.files.packages import fetch_files

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, spread, table

RUN: Final = "import sys; from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"


class Run(NamedTuple):
    """What a run of `try` cost."""

    first_page: float  # CPU s
    all: float  # CPU s
    mebibytes: float  # of the last page


class Body(NamedTuple):
    """A track's bodies."""

    height: float  # m
    keypoints: NDArray[np.float64]  # (N, J, 3) m


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--beside", type=Path, required=True, help="folder of another commit")
    options.add_argument("--pairs", type=int, default=3, help="pairs of runs")
    args = options.parse_args()
    fetch_files(CLIP)
    detectors.get(DETECTOR).identity()
    body_file()
    checkouts = (args.beside.resolve(), ROOT)
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for pair in range(args.pairs):
            places = [Path(folder) / f"{pair} {number}" for number in range(len(checkouts))]
            runs = [measure(*where) for where in zip(checkouts, places, strict=True)]
            print(f"pair {pair + 1}: {runs}", file=sys.stderr, flush=True)
            pairs.append(runs)
        bodies = [read_bodies(place / "bodies") for place in places]
    lines = [*table_of(pairs, checkouts), "", difference(*bodies)]
    about = "Sports2D's clip: 230 frames of 1768 x 994 px, three tracks, 366 rows."
    report(about, "After how much work does `try` show a page, and the bodies?", lines, args)


def measure(checkout: Path, out: Path) -> Run:
    """Run `try` in a checkout, into a new folder."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", RUN, "try", "--out", str(out)]
    first_page = None
    with subprocess.Popen(
        command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first_page is None and PAGE in line:
                first_page = tree_seconds(process.pid)
    if process.returncode or first_page is None:
        raise SystemExit(f"{checkout}: `try` ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(first_page, seconds, (out / PAGE).stat().st_size / 2**20)


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process and of those that it started, also of those that ended."""
    total = 0.0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        place = Path(f"/proc/{pid}")
        ticks = place.joinpath("stat").read_text().rpartition(")")[2].split()[11:15]
        total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        for children in place.glob("task/*/children"):
            total += sum(tree_seconds(int(child)) for child in children.read_text().split())
    return total


def read_bodies(folder: Path) -> dict[str, Body]:
    """The bodies of all tracks by name."""
    bodies = {}
    for track in json.loads((folder / "bodies.json").read_bytes())["tracks"]:
        with np.load(folder / track["file"]) as stored:
            bodies[track["name"]] = Body(float(stored["height"]), stored["keypoints"])
    return bodies


def table_of(pairs: Sequence[Sequence[Run]], checkouts: Sequence[Path]) -> Iterator[str]:
    """A row for each checkout, with medians, and one for their ratios."""
    old = np.array([pair[0] for pair in pairs])
    new = np.array([pair[1] for pair in pairs])
    rows = []
    for name, runs in ((commit_of(checkouts[0]), old), ("this one", new)):
        rows.append([name, *(f"{value:.1f}" for value in np.median(runs, axis=0))])
    rows.append(["ratio", *map(spread, (new / old).T.tolist())])
    yield from table(["commit", "first page, CPU s", "all, CPU s", "page, MiB"], rows)
    yield ""
    yield f"Medians of {len(pairs)} pairs; the ratio's median, least and largest."


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short=8", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def difference(old: dict[str, Body], new: dict[str, Body]) -> str:
    """A sentence about the largest differences."""
    if old.keys() != new.keys():
        return f"**Other tracks: {sorted(old)} and {sorted(new)}.**"
    height = 0.0
    keypoint = 0.0
    for name, body in old.items():
        height = max(height, abs(new[name].height - body.height))
        distances = np.linalg.norm(new[name].keypoints - body.keypoints, axis=-1)
        keypoint = max(keypoint, float(distances.max()))
    return (
        f"The same {len(old)} tracks have bodies. Heights differ by at most {1000 * height:.3f} "
        f"mm, keypoints by at most {1000 * keypoint:.2f} mm."
    )


if __name__ == "__main__":
    main()
