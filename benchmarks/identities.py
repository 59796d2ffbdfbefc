"""Are identities of a file people, or places in a list? Simulated scenes, numbered in three ways.

    .venv/bin/python benchmarks/identities.py --out benchmarks/identities.md

The detections of each frame are numbered by score, from left to right, or by person, in scenes of
`benchmarks/scenes.py` under each kind of camera, by the rule of `pipeline.clips.tracks.identities`.
Its constants were chosen on other scenes, those of its tests, and on seeds from 7000 to 9099 of
these.

"Exchanged" is the share of steps, from a frame to the next, in which a number goes from a person to
another one: what the tracks of a clip whose numbers are used would have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.scenes import Clip, Detected, Doubles, Ints, Scene, simulate
from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.identities import used_identities

FIRST_SEED: Final = 9100
SEEN: Final = 0.3  # confidence below which a joint is not seen
PEOPLE: Final = {
    "2 people cross": Scene(2, rows=1),
    "2 people": Scene(2),
    "3 people": Scene(3),
    "6 people": Scene(6),
    "12 people": Scene(12),
}
CAMERAS: Final[dict[str, dict[str, Any]]] = {
    "still": {},
    "drift 10 px": {"drift": 10.0},
    "pan": {"pan": 220.0},
    "roll": {"roll": 0.12},
    "zoom": {"zoom": 0.35},
    "crop": {"crop": True},
}
RATES: Final = (5, 10, 15, 25, 60)


def _ranks(values: Doubles) -> Ints:
    """Positions, from 0, in ascending order."""
    return np.argsort(np.argsort(values))


NUMBERS: Final[dict[str, Callable[[Detected], Ints]]] = {
    "by score": lambda frame: _ranks(-frame.scores),
    "left to right": lambda frame: _ranks(frame.boxes[:, 0]),
    "people": lambda frame: frame.person,
}


def _judge(clip: Clip, fps: float, number: Callable[[Detected], Ints]) -> tuple[bool, float]:
    """Whether numbers are used as identities, and the share of steps with another person."""
    seen = [frame for frame in clip.frames if len(frame.person)]
    identity = [number(frame) for frame in seen]
    n_steps = 0
    n_exchanged = 0
    for before, after, old, new in zip(seen, seen[1:], identity, identity[1:], strict=False):
        _, rows, later = np.intersect1d(old, new, return_indices=True)
        n_steps += len(rows)
        n_exchanged += int((before.person[rows] != after.person[later]).sum())
    at = np.array([t for t, frame in enumerate(clip.frames) if len(frame.person)])
    keypoints = [np.where(frame.keypoints[..., 2:] < SEEN, 0, frame.keypoints) for frame in seen]
    detections = Detections("coco", at, ByFrame.of(keypoints), ByFrame.of(identity), at.tolist())
    used = used_identities(detections, at / fps, VideoAccount("clip"))
    return used.identity is not None, n_exchanged / max(n_steps, 1)


def _lines(n_seeds: int) -> Iterator[str]:
    seeds = range(FIRST_SEED, FIRST_SEED + n_seeds)
    yield (
        f"Clips whose numbers are used, of {len(CAMERAS) * n_seeds}: {len(CAMERAS)} cameras, seeds "
        f"{seeds[0]} to {seeds[-1]}; and their exchanged steps.\n"
    )
    rows = []
    for label, people in PEOPLE.items():
        for fps in RATES:
            cells = []
            for number in NUMBERS.values():
                n_used = 0
                exchanged = []
                for camera in CAMERAS.values():
                    scene = Scene(people.people, rows=people.rows, fps=fps, **camera)
                    for seed in seeds:
                        is_used, share = _judge(simulate(scene, seed), fps, number)
                        n_used += is_used
                        exchanged += [share] * is_used
                cells.append(f"{n_used}; {np.mean(exchanged):.1%}" if n_used else "0")
            rows.append((label, str(fps), *cells))
    yield from table(("scene", "frames a second", *NUMBERS), rows)


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=6)
    args = options.parse_args()
    title = "Are identities people, or places in a list?"
    report("People who are numbered.", title, _lines(args.seeds), args)


if __name__ == "__main__":
    main()
