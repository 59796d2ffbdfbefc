"""How do label files and crowds grow?  CPU time and peak memory.

    .venv/bin/python benchmarks/growth.py [--large]

Each row doubles one dimension of made-up labels, in a fresh process: the length of a label file of
three people, and the people who stand apart in frames. An exponent of 1 is linear. `--large`: up to
500 MB, and 300 people.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import in_a_process, peak_mib, table
from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import Detections, read_detections
from pipeline.datasets.detected.people import Rules, people

SIZE: Final = (1280, 720)
PEOPLE: Final = 3  # in each frame of a file
FRAMES: Final = 40  # of a crowd
# px of COCO's joints about a person's neck
X: Final = (0, 2, -2, 4, -4, 10, -10, 14, -14, 15, -15, 7, -7, 8, -8, 8, -8)
Y: Final = (-10, -12, -12, -11, -11, 0, 0, 17, 17, 35, 35, 35, 35, 60, 60, 85, 85)
BODY: Final = np.column_stack([X, Y]).astype(np.float64)


class _Cost(NamedTuple):
    """Of one run."""

    cpu: float  # s
    peak: float  # MiB above the start


def _write(file: Path, n_rows: int) -> None:
    """A file of n people in frames; its format by its ending."""
    rng = np.random.default_rng(0)
    with file.open("w") as stream:
        if file.suffix == ".csv":
            stream.write("track,frame,x,y,w,h\n")
        else:
            stream.write("[")
        for row in range(n_rows):
            frame, person = divmod(row, PEOPLE)
            if file.suffix == ".csv":
                stream.write(
                    f"{person},{frame},{100 + 200 * person + rng.random():.2f},80,60,150\n"
                )
                continue
            joints = np.ones((17, 3))
            joints[:, :2] = BODY + np.array([100 + 200 * person, 200]) + rng.normal(0, 0.3, (17, 2))
            flat = joints.round(2).ravel().tolist()
            entry = {"image_id": frame, "category_id": 1, "keypoints": flat, "idx": person + 1}
            stream.write(", " * bool(row) + json.dumps(entry))
        if file.suffix != ".csv":
            stream.write("]")


def _crowd(n_people: int, linked: bool) -> None:
    """Make the tracks of people who stand 200 px apart and tremble."""
    rng = np.random.default_rng(0)
    place = np.stack(divmod(np.arange(n_people), 20), axis=1) * 200.0 + 100
    keypoints = []
    for _ in range(FRAMES):
        place = place + rng.normal(0, 0.5, place.shape)
        joints = np.ones((n_people, 17, 3))
        joints[..., :2] = place[:, None] + BODY + rng.normal(0, 0.3, (n_people, 17, 2))
        keypoints.append(joints)
    identity = None if linked else [np.arange(n_people)] * FRAMES
    detections = Detections("coco", np.arange(FRAMES), keypoints, identity, range(FRAMES))
    account = VideoAccount("crowd")
    account.found = detections.n_persons
    rules = Rules(20, put_sides_right=False, cut_at_switches=not linked)
    list(people(detections, account, rules, fps=25.0))


def _read(file: Path) -> None:
    read_detections(file, file.stem, lambda: [SIZE])


def _cost(work: Callable[..., None], *arguments: object) -> _Cost:
    _crowd(2, linked=True)  # imports what is imported when it is needed
    before = peak_mib()
    start = time.process_time()
    work(*arguments)
    return _Cost(time.process_time() - start, peak_mib() - before)


def _row(name: str, sizes: Sequence[float], costs: Sequence[_Cost]) -> list[str]:
    """A line of the table: sizes, costs, and the exponent of the last two sizes."""
    ratio = math.log(sizes[-1] / sizes[-2])
    exponent = math.log(costs[-1].cpu / costs[-2].cpu) / ratio
    texts = [f"{cost.cpu:.2f} s, {cost.peak:.0f} MiB" for cost in costs]
    return [f"{name}: {', '.join(f'{size:g}' for size in sizes)}", *texts, f"{exponent:.2f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="up to 500 MB and 300 people")
    large = parser.parse_args().large
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, a_row in (("x.csv", 27), ("x.json", 420)):
            megabytes = [125, 250, 500] if large else [4, 8, 16]
            costs = []
            for size in megabytes:
                file = Path(folder, name)
                in_a_process(_write, file, size * 1_000_000 // a_row)
                costs.append(in_a_process(_cost, _read, file))
            rows.append(_row(f"MB of {name[2:]}", megabytes, costs))
    for name, linked in (("with identities", False), ("linked", True)):
        counts = [75, 150, 300] if large else [40, 80, 160]
        costs = [in_a_process(_cost, _crowd, n, linked) for n in counts]
        rows.append(_row(f"people, {name}", counts, costs))
    print(*table(["", "CPU time, memory", "", "", "exponent"], rows), sep="\n")


if __name__ == "__main__":
    main()
