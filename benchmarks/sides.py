r"""Are left and right put right, and left alone where nobody exchanged them?

    git show 3e733d41:pipeline/datasets/detected/sides.py |
        sed -E 's/pipeline\.(boxes|homography|skeletons)/pipeline.people.\1/' > BEFORE.py
    .venv/bin/python benchmarks/sides.py --before BEFORE.py --out benchmarks/sides.md

A figure of 17 joints makes 36 motions of 6.5 s, seen by a camera at 60 to 5 frames a second with a
detector's noise. `put_sides_right` gets each as it is, and at 25 and 30 frames a second with
exchanges: of the whole person or of one limb, in single frames or stretches. Constants were chosen
on three sets of phases, speeds, angles, cameras and noise; they are judged on three others.
`--before` compares the version that counted in frames.

In profile: the shoulders are less than half as far apart in the image as their width.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.motions import MOTIONS, Clip, record
from pipeline.clips.tracks.sides import put_sides_right
from pipeline.people.skeletons import opposite_joints

Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

# seeds on which constants were chosen, and those of which no result was seen before
CHOSEN: Final = (0, 1, 2)
JUDGED: Final = (2000, 2001, 2002)
RATES: Final = (60, 50, 30, 25, 20, 15, 12.5, 10, 5)
PLANTED_RATES: Final = (25, 30)
SINGLE, PROFILE, FRONT = "single frames", "a stretch in profile", "a stretch, not in profile"
SHARES: Final = (0.05, 0.1, 0.2, 0.3)
PLANTS: Final = [(SINGLE, 0.05), *((kind, share) for kind in (FRONT, PROFILE) for share in SHARES)]
OPPOSITE: Final = np.array(opposite_joints("coco"))
LIMBS: Final = {"all": range(17), "arms": range(7, 11), "legs": range(13, 17)}


def exchange(clip: Clip, rows: Ints, joints: range) -> Doubles:
    """The keypoints with left and right exchanged."""
    changed = clip.keypoints.copy()
    chosen = np.array(joints)
    changed[rows[:, None], chosen] = clip.keypoints[rows[:, None], OPPOSITE[chosen]]
    return changed


def wrong_rows(clip: Clip, keypoints: Doubles, joints: range = range(17)) -> Bools:
    """(T,) whether sides are wrong; eyes and ears aside."""
    chosen = np.array([joint for joint in joints if joint >= 5])
    is_wrong: Bools = (keypoints[:, chosen] != clip.keypoints[:, chosen]).any(axis=(1, 2))
    return is_wrong


class Planted(NamedTuple):
    """What became of an exchange."""

    motion: str
    limb: str
    kind: str
    share: float
    rows: int  # that were exchanged
    left: int  # of them that are not put right
    others: int  # that became wrong


def plant(clip: Clip, kind: str, share: float, rng: np.random.Generator) -> Ints | None:
    """Rows to exchange: single ones, or a stretch; None without one of this kind."""
    n = len(clip.seconds)
    if kind == SINGLE:
        apart = rng.permutation(np.arange(1, n - 1, 3))
        return np.sort(apart[: round(share * n)])
    length = max(round(share * n), 2)
    starts = []
    for start in range(n - length + 1):
        around = clip.width[max(start - 1, 0) : start + length + 1]
        in_profile = around.max() < 0.5
        in_front = around.min() >= 0.5
        if in_profile if kind == PROFILE else in_front:
            starts.append(start)
    if not starts:
        return None
    rows: Ints = rng.choice(starts) + np.arange(length)
    return rows


Method = Callable[[Clip, Doubles], Doubles]


def by_time(clip: Clip, keypoints: Doubles) -> Doubles:
    """The keypoints by `put_sides_right`; the camera is still."""
    frames = np.arange(len(keypoints))
    return put_sides_right(keypoints.copy(), frames, clip.seconds, "coco", {}).keypoints


def by_frames(file: Path) -> Method:
    """The method of a former `sides.py`."""
    spec = importlib.util.spec_from_file_location("before", file)
    assert spec is not None
    assert spec.loader is not None
    before: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(before)

    def method(_clip: Clip, keypoints: Doubles) -> Doubles:
        fixed: Doubles
        fixed, _ = before.put_sides_right(keypoints, np.arange(len(keypoints)), "coco", {})
        return fixed

    return method


def made_wrong(method: Method, seed: int) -> dict[tuple[str, float], tuple[int, int]]:
    """Rows that become wrong, and rows, of each motion and rate."""
    results = {}
    for name in MOTIONS:
        for rate in RATES:
            clip = record(name, rate, seed)
            wrong = wrong_rows(clip, method(clip, clip.keypoints))
            results[name, rate] = (int(wrong.sum()), len(wrong))
    return results


def planted(method: Method, seed: int) -> Iterator[Planted]:
    """What becomes of planted exchanges."""
    for name in MOTIONS:
        for rate in PLANTED_RATES:
            clip = record(name, rate, seed)
            for limb, joints in LIMBS.items():
                for number, (kind, share) in enumerate(PLANTS):
                    rng = np.random.default_rng([seed, len(limb), number])
                    rows = plant(clip, kind, share, rng)
                    if rows is None:
                        continue
                    wrong = wrong_rows(clip, method(clip, exchange(clip, rows, joints)))
                    n_left = int(wrong[rows].sum())
                    n_others = int(wrong.sum()) - n_left
                    yield Planted(name, limb, kind, share, len(rows), n_left, n_others)


def main() -> None:
    """Put right, print, and write the page."""
    options = parser(__doc__)
    options.add_argument("--before", type=Path, help="sides.py of an earlier commit")
    args = options.parse_args()
    about = "A figure of 17 joints: the right answer is known of each row."
    trials: list[tuple[str, Method, Sequence[int]]] = [
        ("chosen on", by_time, CHOSEN),
        ("judged on", by_time, JUDGED),
    ]
    if args.before:
        trials.append(("judged on, before", by_frames(args.before), JUDGED))
    lines = [*_untouched(trials), *_exchanged(trials)]
    report(about, "Left and right of a person's joints", lines, args)


def _untouched(trials: Sequence[tuple[str, Method, Sequence[int]]]) -> Iterator[str]:
    """Rows made wrong where nothing was exchanged, by rate and by motion."""
    yield "## Rows made wrong where nobody exchanged them"
    yield ""
    rows = []
    motions = []
    for title, method, seeds in trials:
        by_rate = dict.fromkeys(RATES, 0)
        by_motion = dict.fromkeys(MOTIONS, 0)
        n_rows = 0
        for seed in seeds:
            for (name, rate), (n_wrong, number) in made_wrong(method, seed).items():
                by_rate[rate] += n_wrong
                by_motion[name] += n_wrong
                n_rows += number
        total = sum(by_rate.values())
        rows.append((title, f"{n_rows:,}", *by_rate.values(), total, f"{total / n_rows:.2%}"))
        named = [f"{name}: {number}" for name, number in by_motion.items() if number]
        motions += [f"{title.capitalize()}: {'; '.join(named)}.", ""]
    header = ("motions", "rows", *(f"{rate:g} fps" for rate in RATES), "all", "share")
    yield from table(header, rows)
    yield ""
    yield from motions


def _exchanged(trials: Sequence[tuple[str, Method, Sequence[int]]]) -> Iterator[str]:
    """Share of planted exchanges that are put right, and what else becomes wrong."""
    yield "## Planted exchanges that are put right, at 25 and 30 frames a second"
    yield ""
    yield "In brackets: other rows that become wrong, as a share of the exchanged ones."
    yield ""
    cells: dict[tuple[str, str, str], list[str]] = {}
    worse: list[str] = []
    for title, method, seeds in trials:
        totals: dict[tuple[str, str, str], Ints] = {}
        n_cases = 0
        n_worse = Counter[str]()
        for seed in seeds:
            for case in planted(method, seed):
                counts = np.array([case.rows, case.left, case.others])
                n_cases += 1
                n_worse[case.limb] += case.left + case.others > case.rows
                shares = [f"{case.share:.0%}"]
                if case.kind != SINGLE:
                    shares.append("5% to 30%")
                for share in shares:
                    key = (case.limb, case.kind, share)
                    totals[key] = totals.get(key, np.zeros(3, np.int64)) + counts
        for key, (n, n_left, n_others) in totals.items():
            text = f"{1 - n_left / n:.1%} ({n_others / n:.1%})"
            cells.setdefault(key, []).append(text)
        by_limb = ", ".join(f"{limb} {n_worse[limb]}" for limb in LIMBS)
        worse.append(f"{title} {n_worse.total()} of {n_cases:,} ({by_limb})")
    kinds = (SINGLE, FRONT, PROFILE)
    keys = sorted(cells, key=lambda key: (key[0], kinds.index(key[1]), len(key[2])))
    rows = [(*key, *cells[key]) for key in keys]
    yield from table(("exchanged", "where", "rows", *(title for title, *_ in trials)), rows)
    yield ""
    yield f"Tracks that end with more wrong rows than were exchanged: {'; '.join(worse)}."


if __name__ == "__main__":
    main()
