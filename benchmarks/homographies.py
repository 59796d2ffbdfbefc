"""What does a row of the stream `homography` cost, beside the plain way, and how far off is it?

    .venv/bin/python benchmarks/homographies.py --out benchmarks/homographies.md

Pairs of 224 px crops of noise on all scales with planted motions, without decoding, in one thread, each way in turn.
The plain way: OpenCV row by row, the preset's flow forth and back, a loop over the points, and `findHomography` with
RANSAC.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import crops, homography
from pipeline.features.streams.homography import Homography

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.pixels import FRAMES, Bytes, Floats, textured
from benchmarks.training import report


def main() -> None:
    """Measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200, help="of crops, a round")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/homographies.md")
    args = parser.parse_args()
    args.device = "cpu"
    about = "Made-up crops: how far off real motions are is not in it."
    report(about, "What does a homography cost?", [*table(args.rounds, args.pairs)], args)


def table(n_rounds: int, n_pairs: int) -> Iterator[str]:
    """A line a way; ratios are within rounds."""
    rounds = [measured(n_pairs, turn) for turn in range(n_rounds)]
    yield f"{n_rounds} rounds of {n_pairs} pairs; CPU time of one thread, the median (lowest - highest).\n"
    yield "| way | ms a row | rows a second of a core | plain way : it | mean error, px |\n|---|---|---|---|---|"
    plain = [one["plain way"][0] for one in rounds]
    for name in rounds[0]:
        ms = [one[name][0] for one in rounds]
        ratio = statistics.median(usual / of_it for usual, of_it in zip(plain, ms, strict=True))
        error = statistics.median(one[name][1] for one in rounds)
        cells = f"{statistics.median(ms):.1f} ({min(ms):.1f} - {max(ms):.1f}) | {1e3 / statistics.median(ms):,.0f}"
        yield f"| {name} | {cells} | {ratio:.2f} | {error:.3f} |"


def measured(n_pairs: int, turn: int) -> dict[str, tuple[float, float]]:
    """Of each way the CPU time of a pair in ms, and the mean error in px of a crop."""
    cv2.setNumThreads(1)
    ways: Mapping[str, Callable[[Bytes, Bytes], Any]] = {
        "plain way": plain_homography,
        "ours": Homography().pair,
    }
    seconds, errors = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    size = crops.CROP_SIZE
    grid = homography.normalise(homography.grid(size, size), size, size)
    for number in range(-1, n_pairs):  # the first one, in which buffers are made, does not count
        random = np.random.default_rng(turn * FRAMES + number + 1)
        previous, current, planted = moved_crops(number % FRAMES, random)
        for name, way in ways.items():
            began = time.process_time()
            found = way(previous, current)
            if number >= 0:
                seconds[name] += time.process_time() - began
                moved = homography.transfer(np.eye(3) + found.reshape(3, 3), grid)
                off = np.linalg.norm(moved - homography.transfer(planted, grid), axis=1).mean()
                errors[name] += float(off) * size / 2
    return {name: (seconds[name] / n_pairs * 1e3, errors[name] / n_pairs) for name in ways}


def moved_crops(seed: int, rng: np.random.Generator) -> tuple[Bytes, Bytes, NDArray[np.float64]]:
    """Two 224 px crops, and the homography between them: up to 3 degrees, 3%, 4% of the crop, and some perspective."""
    size, angle, scale = crops.CROP_SIZE, np.deg2rad(rng.uniform(-3, 3)), 1 + rng.uniform(-0.03, 0.03)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    planted = np.eye(3)
    planted[:2, :2], planted[:2, 2], planted[2, :2] = turned, rng.uniform(-0.08, 0.08, 2), rng.uniform(-0.01, 0.01, 2)
    of_pixels = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
    matrix, previous = np.linalg.inv(of_pixels) @ planted @ of_pixels, textured((size, size), seed)
    warp = functools.partial(cv2.warpPerspective, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return previous, np.asarray(warp(previous, matrix, (size, size)), np.uint8), planted


def plain_homography(previous: Bytes, current: Bytes) -> Floats:
    """As it is written at first: H - I, (9,)."""
    first, second = (cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in (previous, current))
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forth, back = dis.calc(first, second, None), dis.calc(second, first, None)
    half, source, target = len(first) / 2, [], []
    for x, y in homography.grid(*first.shape):
        u, v = forth[y, x]
        there = round(float(x + u)), round(float(y + v))
        if not (0 <= there[0] < first.shape[1] and 0 <= there[1] < first.shape[0]):
            continue
        if np.hypot(u + back[there[1], there[0]][0], v + back[there[1], there[0]][1]) < 1:
            source.append([(x + 0.5) / half - 1, (y + 0.5) / half - 1])
            target.append([(x + u + 0.5) / half - 1, (y + v + 0.5) / half - 1])
    found, _ = cv2.findHomography(np.array(source), np.array(target), cv2.RANSAC, 0.01)
    return np.asarray(found - np.eye(3), np.float32).ravel()


if __name__ == "__main__":
    main()
