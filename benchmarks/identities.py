"""Are right identities of a file used, and wrong ones told? Simulated scenes, numbered three ways.

    .venv/bin/python benchmarks/identities.py --out benchmarks/identities.md

The detections of each frame are numbered by person, by score, or from left to right, in scenes of
`benchmarks/scenes.py`, by the rule of `pipeline.clips.tracks.identities`. In some, two people come
together, are unseen for a while, and go back: linking exchanges them, a file that numbers them
does not. The rule's constants were chosen on other scenes, of people who pass each other again and
again.

Identities that are not used, or that a note doubts, are told. "Exchanged" is the share of steps,
from a frame to the next, in which a number goes from a person to another one, in clips whose
identities are used without a word.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.scenes import Clip, Detected, Doubles, Ints, Scene, simulate
from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.label_content import NOT_STATED
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.identities import used_identities
from pipeline.clips.tracks.linking import link

FIRST_SEED: Final = 9200
SEEN: Final = 0.3  # confidence below which a joint is not seen
PEOPLE: Final = {
    "2 people cross": Scene(2, rows=1),
    "2 people run past each other": Scene(2, rows=0.5, speed=5),
    "2 people": Scene(2),
    "3 people": Scene(3),
    "6 people": Scene(6),
    "12 people": Scene(12),
}
GAPS: Final = (0.0, 0.1, 0.25, 0.5, 0.8)  # s that people who meet and turn back are unseen
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
    "people": lambda frame: frame.person,
    "by score": lambda frame: _ranks(-frame.scores),
    "left to right": lambda frame: _ranks(frame.boxes[:, 0]),
}


class _Judged(NamedTuple):
    """What becomes of the identities of a clip."""

    is_used: bool
    is_noted: bool
    exchanged: float  # share of steps with another person

    @property
    def is_silent(self) -> bool:
        return self.is_used and not self.is_noted


def _detections(clip: Clip, number: Callable[[Detected], Ints]) -> Detections:
    at = np.array([t for t, frame in enumerate(clip.frames) if len(frame.person)])
    seen = [clip.frames[t] for t in at]
    keypoints = [np.where(frame.keypoints[..., 2:] < SEEN, 0, frame.keypoints) for frame in seen]
    identity = ByFrame.join([number(frame) for frame in seen])
    no_hands = np.zeros((sum(map(len, keypoints)), 0, 3))
    return Detections("coco", at, ByFrame.join(keypoints), identity, at, no_hands)


def _judge(clip: Clip, fps: float, number: Callable[[Detected], Ints]) -> _Judged:
    seen = [frame for frame in clip.frames if len(frame.person)]
    identity = [number(frame) for frame in seen]
    n_steps = 0
    n_exchanged = 0
    for before, after, old, new in zip(seen, seen[1:], identity, identity[1:], strict=False):
        _, rows, later = np.intersect1d(old, new, return_indices=True)
        n_steps += len(rows)
        n_exchanged += int((before.person[rows] != after.person[later]).sum())
    detections = _detections(clip, number)
    account = VideoAccount("clip")
    seconds = detections.frame_index / fps
    used = used_identities(detections, seconds, account, NOT_STATED.identities)
    is_used = used.detections.identity is not None
    return _Judged(is_used, bool(account.notes), n_exchanged / max(n_steps, 1))


def _rows_of_others(clip: Clip, fps: float) -> float:
    """Share of the rows in tracks of another person, if people are linked. The person of a track is
    that of its first row.
    """
    detections = _detections(clip, NUMBERS["people"])
    persons = detections.identity
    assert persons is not None
    camera = clip.known_camera()
    n_others = 0
    for track in link(detections.keypoints, detections.frame_index, camera=camera, fps=fps):
        of_rows = np.array([persons[t][p] for t, p in track])
        n_others += int((of_rows != of_rows[0]).sum())
    return n_others / detections.n_persons


def _clips(people: Scene, fps: float, seeds: range) -> Iterator[Clip]:
    for camera in CAMERAS.values():
        scene = replace(people, fps=fps, **camera)
        for seed in seeds:
            yield simulate(scene, seed)


def _lines(n_seeds: int) -> Iterator[str]:
    seeds = range(FIRST_SEED, FIRST_SEED + n_seeds)
    n_clips = len(CAMERAS) * n_seeds
    yield f"{n_clips} clips a row: {len(CAMERAS)} cameras, seeds {seeds[0]} to {seeds[-1]}."
    judged: dict[str, list[tuple[str, ...]]] = {name: [] for name in NUMBERS}
    for label, people in PEOPLE.items():
        for fps in RATES:
            clips = [*_clips(people, fps, seeds)]
            for name, number in NUMBERS.items():
                results = [_judge(clip, fps, number) for clip in clips]
                silent = [result.exchanged for result in results if result.is_silent]
                exchanged = f"{np.mean(silent):.1%}" if silent else ""
                not_used = sum(not result.is_used for result in results)
                noted = n_clips - not_used - len(silent)
                row = (label, str(fps), str(not_used), str(noted), str(len(silent)), exchanged)
                judged[name].append(row)
    for name, rows in judged.items():
        yield f"\n## Numbered: {name}\n"
        heads = ("scene", "frames a second", "not used", "used, noted", "used", "exchanged")
        yield from table(heads, rows)

    yield "\n## Two people who meet, are unseen and turn back, numbered as people\n"
    meetings: list[tuple[str, ...]] = []
    for gap in GAPS:
        for fps in RATES:
            meeting = Scene(2, rows=0.5, turns_back=True, away=gap)
            clips = [*_clips(meeting, fps, seeds)]
            results = [_judge(clip, fps, NUMBERS["people"]) for clip in clips]
            n_silent = sum(result.is_silent for result in results)
            others = np.mean([_rows_of_others(clip, fps) for clip in clips])
            meetings.append((f"{gap:g}", str(fps), str(n_silent), f"{others:.1%}"))
    of_gaps = ("unseen, s", "frames a second", "used", "rows of the other person if linked")
    yield from table(of_gaps, meetings)


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=6)
    args = options.parse_args()
    title = "Are right identities used, and wrong ones told?"
    report("People who are numbered.", title, _lines(args.seeds), args)


if __name__ == "__main__":
    main()
