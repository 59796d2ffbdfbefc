"""Which right people are refused or noted, and which wrong files are neither? Posed demo bodies.

    .venv/bin/python benchmarks/people_checks.py --out benchmarks/people_checks.md

Bodies in 12 poses are seen from 8 sides by cameras from 80 degrees below to 80 above, with noise of
0.2 and 1 % of their height, 40 people a file, in the order coco. The poses are not those of the
tests, on which the limits of `pipeline.clips.labels.checks` were chosen. Files whose order is named
or stated are read alike.

Boxes alone are those of somebody 1.75 m high who walks straight towards a still camera 1.2 to 4 m
above the ground, from 6 to 15 m away to 2 to 4 m, from and to -4 to 1 m beside its axis, with the
horizon at -0.3 to 0.6 of the image's height: boxes that are wholly in the image; all boxes, cut off
at its border; all boxes, uncut, as trackers predict them. Walks with fewer than 20 boxes do not
count.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from pipeline.clips.labels.checks import find_odd
from pipeline.people.body import Body
from pipeline.people.checked_people import CORNERS, CheckedPeople
from pipeline.people.skeletons import convert, joint_names

Doubles = NDArray[np.float64]
Pose = dict[int, tuple[float, float, float]]  # SMPL's joint -> its rotation vector, rad

N_PEOPLE: Final = 40
HEIGHT_PX: Final = 300.0
HEIGHT_M: Final = 1.7
IMAGE: Final = np.array([1000.0, 1000.0])
SPREAD: Final = 0.05  # rad, of each joint about its pose
SIDES: Final = range(0, 360, 45)  # degrees
CAMERAS: Final = range(-80, 81, 20)  # degrees above the horizon
NOISES: Final = (0.002, 0.01)  # of the person's height
DOWN: Final[Pose] = {16: (0, 0, -1.3), 17: (0, 0, 1.3)}
OVERHEAD: Final[Pose] = {16: (0, 0, 1.3), 17: (0, 0, -1.3)}
HUG: Final[Pose] = {16: (0, -1.2, -0.8), 17: (0, 1.2, 0.8), 18: (0, -1.5, 0), 19: (0, 1.5, 0)}
POSES: Final[dict[str, Pose]] = {
    "standing, arms down": DOWN,
    "arms apart": {},
    "arms overhead": OVERHEAD,
    "one knee raised": DOWN | {1: (-1.6, 0, 0), 4: (1.6, 0, 0)},
    "split step": DOWN | {1: (-0.8, 0, 0), 2: (0.7, 0, 0)},
    "kneeling": DOWN | {4: (1.6, 0, 0), 5: (1.6, 0, 0)},
    "curled up": HUG | {1: (-2.2, 0, 0), 2: (-2.2, 0, 0), 4: (2.3, 0, 0), 5: (2.3, 0, 0)},
    "on all fours": {0: (1.5, 0, 0), 1: (-1.5, 0, 0), 2: (-1.5, 0, 0), 4: (1.5, 0, 0)}
    | {5: (1.5, 0, 0), 16: (0, -1.5, 0), 17: (0, 1.5, 0)},
    "bent to the floor": OVERHEAD | {0: (2.5, 0, 0), 1: (-2.5, 0, 0), 2: (-2.5, 0, 0)},
    "downward dog": OVERHEAD | {0: (2.2, 0, 0), 1: (-1.6, 0, 0), 2: (-1.6, 0, 0)},
    "handstand": OVERHEAD | {0: (3.1, 0, 0)},
    "lying along the view": DOWN | {0: (-1.5, 0, 0)},
}
COCO: Final = joint_names("coco")
N_WALKS: Final = 3000  # in an image
LEAST_BOXES: Final = 20
IMAGES: Final = ((1920, 1080), (1080, 1920), (640, 480))


def _exchange(*pairs: tuple[str, str]) -> list[int]:
    """Columns of coco in which joints with these parts of names are exchanged."""
    columns = [*range(len(COCO))]
    for part, other in pairs:
        for place, name in enumerate(COCO):
            if part in name:
                columns[place] = COCO.index(name.replace(part, other))
            elif other in name:
                columns[place] = COCO.index(name.replace(other, part))
    return columns


WRONG: Final[dict[str, list[int]]] = {
    "names moved by one": [*range(1, 17), 0],
    "names moved by two": [*range(2, 17), 0, 1],
    "left side first": [0, 1, 3, 2, 4, *range(5, 17, 2), *range(6, 17, 2)],
    "reversed": [*range(16, -1, -1)],
    "elbows for wrists": _exchange(("elbow", "wrist")),
    "knees for ankles": _exchange(("knee", "ankle")),
    "shoulders for hips": _exchange(("shoulder", "hip")),
    "wrists for ankles": _exchange(("wrist", "ankle")),
    "nose for a hip": [11, *range(1, 11), 0, *range(12, 17)],
    "legs before the arms": [*range(5), *range(11, 17), *range(5, 11)],
}


def _joints(pose: Pose, rng: np.random.Generator) -> Doubles:
    """(N, 49, 3) m of bodies about a pose, y up."""
    angles = rng.normal(0, SPREAD, (N_PEOPLE, 24, 3))
    for joint, rotation in pose.items():
        angles[:, joint] += rotation
    matrices = Rotation.from_rotvec(angles.reshape(-1, 3)).as_matrix()
    rotmat = torch.tensor(matrices.reshape(-1, 24, 3, 3), dtype=torch.float32)
    betas = torch.tensor(rng.normal(0, 1, (N_PEOPLE, 10)), dtype=torch.float32)
    return Body.stand_in().joints(betas=betas, rotmat=rotmat).double().numpy()


def _seen(joints: Doubles, side: float, camera: float, noise: float, seed: int) -> Doubles:
    """(N, 17, 3) px px score of joints in the order coco, seen from a side and a height."""
    turn = Rotation.from_euler("yx", [side, camera], degrees=True)
    xy = turn.apply(joints.reshape(-1, 3)).reshape(joints.shape)[..., :2]
    xy = xy * [1, -1] * HEIGHT_PX / HEIGHT_M + IMAGE / 2
    rng = np.random.default_rng(seed)
    xy = xy + rng.normal(0, noise * HEIGHT_PX, xy.shape)
    points = np.concatenate([xy, np.full((*xy.shape[:2], 1), 0.9)], axis=-1)
    return convert(points, source="spin49", target="coco")


def _people(points: Doubles, *, is_assumed: bool) -> CheckedPeople:
    nobody = np.full((len(points), 2, 2), np.nan)
    frame = np.arange(len(points))
    return CheckedPeople("coco", points, frame, nobody, "x y w h", IMAGE, is_assumed)


def _found(people: CheckedPeople) -> tuple[bool, list[str]]:
    """Whether a file of these people is refused, and what is noted, without numbers."""
    odd = [check for check, _ in find_odd(people)]
    notes = [check.text.format(limit=check.limit) for check in odd if not check.key]
    return len(notes) < len(odd), notes


def _views(seed: int) -> Iterator[tuple[str, int, Doubles]]:
    """Yield pose, camera and people (N, 17, 3)."""
    rng = np.random.default_rng(seed)
    for pose, rotations in POSES.items():
        joints = _joints(rotations, rng)
        for camera in CAMERAS:
            for side in SIDES:
                for noise in NOISES:
                    yield pose, camera, _seen(joints, side, camera, noise, seed + side)


def _walk(size: Doubles, rng: np.random.Generator) -> Doubles:
    """(T, 2, 2) px, corners around somebody who walks towards the camera."""
    focal = rng.uniform(0.5, 1.5) * size.max()
    z = np.linspace(rng.uniform(6, 15), rng.uniform(2, 4), 120)
    x = np.linspace(rng.uniform(-4, 1), rng.uniform(-4, 1), 120)
    middle = size * [0.5, rng.uniform(-0.3, 0.6)]
    feet = middle + focal * np.stack([x, np.full(120, rng.uniform(1.2, 4))], axis=1) / z[:, None]
    sides = focal * np.array([0.55, 1.75]) / z[:, None]
    low = feet - sides * [0.5, 1]
    return np.stack([low, low + sides], axis=1)


def _lines_of_walks(seed: int) -> Iterator[str]:
    counts: dict[tuple[int, int, str], Counter[str]] = {}
    for image in IMAGES:
        size = np.array(image, np.float64)
        rng = np.random.default_rng(seed)
        for _ in range(N_WALKS):
            uncut = _walk(size, rng)
            cut = uncut.clip(0, size)
            is_whole = (cut == uncut).all(axis=(1, 2))
            is_seen = (cut[:, 1] - cut[:, 0] > 5).all(axis=1)
            kinds = {"in the image": uncut[is_whole], "cut": cut[is_seen], "uncut": uncut[is_seen]}
            for kind, boxes in kinds.items():
                if len(boxes) < LEAST_BOXES:
                    continue
                points = np.concatenate([boxes, np.full((len(boxes), 2, 1), 0.9)], axis=-1)
                frame = np.arange(len(boxes))
                people = CheckedPeople(CORNERS, points, frame, boxes, "x y w h", size)
                is_refused, notes = _found(people)
                count = counts.setdefault((*image, kind), Counter[str]())
                count.update(walks=1, refused=is_refused, noted=bool(notes))
                count["corners"] += "boxes may be two corners, x y x y" in notes
    yield "\n## Boxes alone of somebody who walks towards the camera\n"
    heads = ("image", "boxes", "walks", "refused", "noted", "noted: may be two corners")
    keys = ("walks", "refused", "noted", "corners")
    rows = [
        (f"{width} x {height}", kind, *(count[key] for key in keys))
        for (width, height, kind), count in counts.items()
    ]
    yield from table(heads, rows)


def _lines(seed: int) -> Iterator[str]:
    n_files = Counter[str]()
    refused = Counter[tuple[str, bool]]()
    noted = Counter[str]()
    by_note = Counter[str]()
    wrong = {name: Counter[str]() for name in WRONG}
    for pose, camera, points in _views(seed):
        n_files[pose] += 1
        notes: list[str] = []
        for is_assumed in (False, True):
            is_refused, notes = _found(_people(points, is_assumed=is_assumed))
            refused[pose, is_assumed] += is_refused
        noted[pose] += bool(notes)
        by_note.update(notes)
        if camera in (0, 20):
            for name, columns in WRONG.items():
                is_refused, notes = _found(_people(points[:, columns], is_assumed=False))
                key = "neither"
                if is_refused:
                    key = "refused"
                elif notes:
                    key = "noted"
                wrong[name][key] += 1
    yield "## Right people\n"
    heads = ("pose", "files", "refused: named or stated", "refused: assumed", "noted")
    rows = [
        (pose, n, refused[pose, False], refused[pose, True], noted[pose])
        for pose, n in n_files.items()
    ]
    totals = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    yield from table(heads, [*rows, ("all", *totals)])
    yield "\n## Notes about right people\n"
    yield from table(("note", "files"), by_note.most_common())
    yield "\n## Wrong orders, with cameras of 0 and 20 degrees\n"
    keys = ("refused", "noted", "neither")
    rows_of_wrong = [(name, *(wrong[name][key] for key in keys)) for name in WRONG]
    yield from table(("order", *keys), rows_of_wrong)
    yield from _lines_of_walks(seed)


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--seed", type=int, default=7300)
    args = options.parse_args()
    title = "Which right people are refused or noted, and which wrong orders are neither?"
    report(f"Files of {N_PEOPLE} people, and of boxes alone.", title, _lines(args.seed), args)


if __name__ == "__main__":
    main()
