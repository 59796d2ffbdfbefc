"""Simulated scenes: what a detector finds of people who walk, and how the camera moves.

People of 1.5 to 1.9 m walk on a plane, 5 to 12 m from a camera at 2.2 m, so that nearer ones are
larger and lower in the image, and hide those behind them. 1280 x 720 px, 10 s.

`FIRST`: 13 scenes at 25 frames a second. `TUNING`: the camera moves, too. Constants are chosen on
these two. `SECOND` judges them: six kinds of a moving camera, 1 to 24 people who turn within 0.3 s,
at one to three times the speed, and 5 to 60 frames a second. `INSTANT`, in which they turn round
within one frame, is reported, and judges nothing.

The camera's motions are stated in frames at 25 frames a second, and take the same time at other
rates: `drift` has the same standard deviation and loses as much of itself in a second, sines have
the same period. Nobody leaves the image because the camera moves; people leave the window of
`crop`, which has the image's size, and moves over a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WIDTH, HEIGHT, SECONDS = 1280, 720, 10  # px, px, s
RATE: Final = 25  # frames a second: of the first set, and of the frames of the camera's motions
FOCAL: Final = 900.0  # px
HORIZON: Final = 250.0  # px from the top
CAMERA_HEIGHT: Final = 2.2  # m
NEAREST, MIDDLE, FARTHEST = 5.0, 8.5, 12.0  # m
# COCO's joints of a figure of height 1: to the side, and up
BODY: Final = np.array(
    [
        [0, 0.93], [0.02, 0.95], [-0.02, 0.95], [0.04, 0.94], [-0.04, 0.94],
        [0.11, 0.82], [-0.11, 0.82], [0.14, 0.65], [-0.14, 0.65], [0.14, 0.49],
        [-0.14, 0.49], [0.07, 0.5], [-0.07, 0.5], [0.07, 0.27], [-0.07, 0.27],
        [0.07, 0.04], [-0.07, 0.04],
    ]
)  # fmt: skip
# forward, in a step
SWING: Final = np.array([0] * 7 + [0.06, -0.06, 0.12, -0.12, 0, 0, -0.06, 0.06, -0.14, 0.14])
MEETING_S, NEAREST_TWO = 5.0, 0.3  # s, m: those who turn back meet then, and are twice as far apart
MARGIN: Final = 0.04  # heights: of a box around joints
# heights: standard deviations of joints that the camera sees, and of hidden ones, which a network
# guesses; it takes some of them from the person in front
NOISE, GUESS = 0.012, 0.06
MISTAKEN: Final = 0.3
BOX_NOISE: Final = 0.01  # heights, of a box of somebody who is not hidden; up to 5 times as much
# shares of visible joints below which nobody is detected, and from which on everybody is
LEAST, ENOUGH = 0.1, 0.4

PERSISTENCE: Final = 0.8  # share of `drift` that is left a frame later
SWINGS: Final = 70  # frames: period of pan, roll and zoom
CROP: Final = np.array([[200, 28], [40, 17]])  # px, frames: sines of the window, in x and in y
KNOWN: Final = 1.0  # px: standard deviation of the error of a homography that is known


@dataclass(frozen=True)
class Scene:
    """A kind of scene."""

    people: int = 12
    speed: float = 1.2  # m a second
    rows: float = 0.0  # m between the nearest and farthest of two rows that meet; 0: all wander
    turns_back: bool = False  # two rows meet after 5 s, are unseen for `away`, and go back
    shake: float = 0.0  # px, standard deviation of the camera's position from frame to frame
    missed: float = 0.0  # share of detections
    false: float = 0.0  # detections a frame that are nobody, or part of somebody
    confidence: float = 1.0  # factor of scores and of joints' confidences
    stay: float = 10.0  # s that each person stays
    away: float = 0.0  # s that each person is behind something, once
    doors: bool = False  # somebody leaves through each of n / 2 doors, then another one enters
    turn: float = 3.75  # rad a second, at most
    fps: float = RATE
    # the camera: it drifts by normal steps of so many px a frame, and returns (`PERSISTENCE`)
    drift: float = 0.0
    pan: float = 0.0  # px, to each side
    roll: float = 0.0  # rad, to each side
    zoom: float = 0.0  # share, in and out
    crop: bool = False  # a window that moves up to 45 px a frame

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(SECONDS * self.fps)


class Detected(NamedTuple):
    """The P detections of a frame."""

    person: Ints  # (P,) number of the person, -1 for nobody
    boxes: Doubles  # (P, 4) corners
    scores: Doubles  # (P,)
    keypoints: Doubles  # (P, 17, 3)

    def select(self, rows: NDArray[Any]) -> Detected:
        """These detections alone: their positions, or (P,) whether each is one of them."""
        return Detected(
            self.person[rows], self.boxes[rows], self.scores[rows], self.keypoints[rows]
        )


class Clip(NamedTuple):
    """A simulated scene of T frames."""

    frames: list[Detected]  # T of them
    # (T, 3, 3) homographies that map px of the frame before to this frame, for things that do not
    # move; the first is the identity
    camera: Doubles

    def known_camera(self) -> dict[int, Doubles]:
        """Frame -> homography, KNOWN px off, as `detect` measures it; {} for a still camera."""
        steps = self.camera[1:].copy()
        if not (steps - np.eye(3)).any():
            return {}
        steps[:, :2, 2] += np.random.default_rng(0).normal(0, KNOWN, (len(steps), 2))
        return dict(enumerate(steps, 1))


FIRST: Final = {
    "six people walk past each other, up to 2 m apart in depth": Scene(6, rows=2),
    "six people walk past each other, up to 0.6 m apart": Scene(6, rows=0.6),
    "two people cross": Scene(2, rows=1),
    "a crowd of 12": Scene(),
    "12 people who run": Scene(speed=3),
    "12 people, a camera that shakes by 5 px": Scene(shake=5),
    "12 people, 25% of detections missed": Scene(missed=0.25),
    "8 people, 1.5 false detections a frame": Scene(8, false=1.5),
    "8 people, half as certain": Scene(8, confidence=0.5),
    "24 people who come and go": Scene(24, stay=4),
    "4 people leave by a door, others come in by it": Scene(8, doors=True),
    "4 people, each unseen for 0.8 s": Scene(4, away=0.8),
    "12 people run, camera shake, 25% missed": Scene(speed=3, shake=5, missed=0.25),
}
TUNING: Final = {
    "2 people, drift 9 px": Scene(2, drift=9),
    "2 people who meet": Scene(2, rows=1, drift=7),
    "6 people who meet, drift 5 px": Scene(6, rows=2, drift=5),
    "6 people, drift 8 px": Scene(6, drift=8),
    "8 people, drift 12 px, half as certain": Scene(8, drift=12, confidence=0.5),
    "8 people, drift 7 px, 1.5 false detections a frame": Scene(8, drift=7, false=1.5),
    "12 people, drift 3 px": Scene(drift=3),
    "12 people, drift 8 px": Scene(drift=8),
    "12 people, pan 150 px, drift 6 px": Scene(pan=150, drift=6),
    "12 people, drift 8 px, 25% missed": Scene(drift=8, missed=0.25),
    "12 people run, drift 8 px": Scene(drift=8, speed=3),
    "12 people, roll 0.08": Scene(roll=0.08),
    "12 people, zoom 25%": Scene(zoom=0.25),
    "24 people who come and go, drift 8 px": Scene(24, stay=4, drift=8),
    "4 people, each unseen for 0.8 s, pan 150 px": Scene(4, away=0.8, pan=150),
    "1 person who runs": Scene(1, speed=4),
    "3 people who run": Scene(3, speed=4),
    "1 person, drift 9 px": Scene(1, drift=9),
    "3 people run, drift 7 px": Scene(3, speed=3, drift=7),
    "12 people at 8 frames a second, pan 150 px": Scene(fps=8, pan=150),
    "6 people run at 50 frames a second, drift 7 px": Scene(6, speed=3, fps=50, drift=7),
    "12 people at 50 frames a second": Scene(fps=50),
    "12 people at 50 frames a second, drift 8 px": Scene(fps=50, drift=8),
    "12 people at 12 frames a second": Scene(fps=12),
    "6 people at 8 frames a second, drift 6 px": Scene(6, fps=8, drift=6),
}
TURN: Final = math.pi / 0.3  # rad a second
CAMERAS: Final[dict[str, dict[str, Any]]] = {
    "still": {},
    "2 px": {"drift": 2},
    "4 px": {"drift": 4},
    "6 px": {"drift": 6},
    "10 px": {"drift": 10},
    "pan": {"pan": 220},
    "pan, 4 px": {"pan": 220, "drift": 4},
    "roll": {"roll": 0.12},
    "zoom": {"zoom": 0.35},
    "crop": {"crop": True},
}
FEW: Final = ("still", "6 px", "pan, 4 px")  # cameras at other speeds and rates


def _second() -> Iterator[tuple[str, Scene]]:
    """Name and scene of each of the second set."""
    for people in (1, 2, 3, 6, 12):
        for camera, motion in CAMERAS.items():
            yield f"{people}, {camera}", Scene(people, turn=TURN, **motion)
    for camera in ("still", "10 px", "pan, 4 px"):
        yield f"24, {camera}", Scene(24, turn=TURN, **CAMERAS[camera])
    for people in (3, 12):
        for camera in FEW:
            scene = Scene(people, turn=TURN, **CAMERAS[camera])
            for factor in (2, 3):
                fast = replace(scene, speed=factor * scene.speed)
                yield f"{people}, {camera}, {factor} times as fast", fast
            for fps in (5, 10, 15, 60):
                yield f"{people}, {camera}, {fps} frames a second", replace(scene, fps=fps)


SECOND: Final = dict(_second())  # "people, camera": as fast as in the first set, at its rate
# scenes that are linked with homographies, too
FIRST_KNOWN: Final = {name: scene for name, scene in FIRST.items() if scene.shake}
SECOND_KNOWN: Final = {
    name: scene
    for name, scene in SECOND.items()
    # the homographies make all cameras that only shift alike: "pan, 4 px" is enough
    if scene.roll or scene.zoom or scene.crop or (scene.pan and scene.drift)
}
INSTANT: Final = {
    f"{name}, turns within a frame": replace(SECOND[name], turn=math.inf)
    for name in ("12, still", "12, still, 3 times as fast", "12, 6 px, 3 times as fast")
}


def simulate(scene: Scene, seed: int) -> Clip:
    """What a detector finds in a scene, and how its camera moves; the same for the same seed.

    Scenes that differ by the camera alone have the same people and errors, but for `shake`.
    """
    rng = np.random.default_rng(seed)
    times = np.arange(scene.frames)[:, None] / scene.fps
    places, heading, is_there = _meet(scene, times, rng) if scene.rows else _wander(scene, rng)
    is_there &= _is_present(scene, times, rng)
    depth = places[..., 1]
    height = FOCAL * rng.uniform(1.5, 1.9, scene.people) / depth
    phase = 2 * np.pi * ((0.4 + 0.5 * scene.speed) * times + rng.random(scene.people))
    swing = SWING * (np.sin(phase) * np.cos(heading))[..., None]
    across = BODY[:, 0] * np.sin(heading)[..., None] + swing  # (T, N, 17)
    x = (WIDTH / 2 + FOCAL * places[..., 0] / depth)[..., None] + across * height[..., None]
    y = (HORIZON + FOCAL * CAMERA_HEIGHT / depth)[..., None] - BODY[:, 1] * height[..., None]
    joints = np.stack([x, y], axis=-1)
    shift = rng.normal(0, scene.shake, (scene.frames, 2))
    views = _move_camera(scene, shift, np.random.default_rng([seed, 1]))
    frames = []
    for t, view in enumerate(views):
        here = np.flatnonzero(is_there[t])
        people = here[np.argsort(depth[t, here])]
        seen = _detect(scene, people, joints[t, people], height[t, people, None], rng)
        for _ in range(rng.poisson(scene.false)):
            seen = _add_nobody(seen, rng)
        order = rng.permutation(len(seen.person))
        frames.append(_view(scene, seen.select(order), view))
    steps = np.tile(np.eye(3), (scene.frames, 1, 1))
    steps[1:] = views[1:] @ np.linalg.inv(views[:-1])
    return Clip(frames, steps)


def _move_camera(scene: Scene, shift: Doubles, rng: np.random.Generator) -> Doubles:
    """Similarities (T, 3, 3) from px of a camera that is still to those of each frame.

    shift: (T, 2) px, what is added to the camera's other motions.
    """
    frames = np.arange(scene.frames) * RATE / scene.fps
    left = PERSISTENCE ** (RATE / scene.fps)  # of the drift after a frame
    spread = scene.drift / np.sqrt(1 - PERSISTENCE**2)
    drift = rng.normal(0, spread, 2)
    start = rng.uniform(0, 2 * np.pi, 5)  # of the sines
    shift = shift.copy()
    for t in range(scene.frames):
        shift[t] += drift
        drift = left * drift + rng.normal(0, spread * np.sqrt(1 - left**2), 2)
    swing = 2 * np.pi * frames / SWINGS
    shift[:, 0] += scene.pan * np.sin(swing + start[0])
    if scene.crop:
        length, period = CROP.T
        shift -= length * np.sin(2 * np.pi * frames[:, None] / period + start[1:3])
    angle = scene.roll * np.sin(swing + start[3])
    scale = (1 + scene.zoom) ** np.sin(swing + start[4])
    views = np.tile(np.eye(3), (scene.frames, 1, 1))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    views[:, :2, :2] = np.moveaxis(np.array([[cosine, -sine], [sine, cosine]]), -1, 0)
    middle = np.array([WIDTH / 2, HEIGHT / 2])
    views[:, :2, 2] = middle - views[:, :2, :2] @ middle + shift
    return views


def _view(scene: Scene, seen: Detected, view: Doubles) -> Detected:
    """These detections in px of a frame, whose similarity is `view` (3, 3)."""
    keypoints = seen.keypoints.copy()
    keypoints[..., :2] = keypoints[..., :2] @ view[:2, :2].T + view[:2, 2]
    corners = seen.boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ view[:2, :2].T + view[:2, 2]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    viewed = seen._replace(boxes=boxes, keypoints=keypoints)
    if not scene.crop:
        return viewed
    centre = boxes.reshape(-1, 2, 2).mean(axis=1)
    return viewed.select(((centre > 0) & (centre < [WIDTH, HEIGHT])).all(axis=1))


def _meet(scene: Scene, times: Doubles, rng: np.random.Generator) -> tuple[Doubles, Doubles, Bools]:
    """Two rows of N people walk past each other. As `_wander`; times: (T, 1) s."""
    n = scene.people
    way = np.where(np.arange(n) % 2, 1.0, -1.0)
    speed = way * scene.speed * rng.uniform(0.7, 1.3, n)
    x = speed * (times - rng.uniform(4, 6, n)) + rng.uniform(-1, 1, n)
    sway = 0.1 * np.sin(times * rng.uniform(0.5, 1.5, n) + rng.uniform(0, 6, n))
    depth = 7.5 + scene.rows * rng.uniform(-0.5, 0.5, n) + sway
    if scene.turns_back:
        since = times - MEETING_S
        x = -way * (NEAREST_TWO + np.abs(speed * since))
        way = np.where(since < 0, way, -way)
    return np.stack([x, depth], axis=-1), np.arctan2(0, way + 0 * x), np.ones(x.shape, bool)


def _wander(scene: Scene, rng: np.random.Generator) -> tuple[Doubles, Doubles, Bools]:
    """N people wander. Places (T, N, 2) m, to the right and away from the camera; headings (T, N)
    rad, 0 to the right; and whether they are before a door, (T, N).
    """
    n = scene.people
    speed = scene.speed * rng.uniform(0.7, 1.3, n)
    place: Doubles = np.column_stack([rng.uniform(-0.6, 0.6, n), rng.uniform(NEAREST, FARTHEST, n)])
    place[:, 0] *= place[:, 1]
    facing: Doubles = rng.uniform(-np.pi, np.pi, n)
    left = rng.integers(75, 175, n // 2)  # frames: people of even numbers go through a door,
    entered = left + rng.integers(5, 26, n // 2)  # and those of odd numbers come out of it
    is_there = np.ones((scene.frames, n), bool)
    door = place[::2]
    places, headings = [], []
    for t in range(scene.frames):
        if scene.doors:
            is_there[t, ::2] = t < left
            is_there[t, 1::2] = t >= entered
            door = np.where(np.equal(left, t)[:, None], place[::2], door)
            place[1::2] = np.where(np.equal(entered, t)[:, None], door, place[1::2])
            facing[1::2] = np.where(t == entered, facing[::2] + np.pi, facing[1::2])
        # those who leave the plane that the camera sees turn back to its middle
        outside = np.abs(place[:, 0]) > 0.6 * place[:, 1]
        outside |= np.abs(place[:, 1] - MIDDLE) > MIDDLE - NEAREST
        back = np.arctan2(MIDDLE - place[:, 1], -place[:, 0])
        turn = (back - facing + np.pi) % (2 * np.pi) - np.pi
        sway = rng.normal(0, 0.1, n) * np.sqrt(RATE / scene.fps)
        most = scene.turn / scene.fps
        facing = facing + sway + outside * np.clip(turn, -most, most)
        step = np.column_stack([np.cos(facing), np.sin(facing)])
        place = place + step * speed[:, None] / scene.fps
        places.append(place)
        headings.append(facing)
    return np.stack(places), np.stack(headings), is_there


def _is_present(scene: Scene, times: Doubles, rng: np.random.Generator) -> Bools:
    """(T, N) whether people are there, and not behind something. times: (T, 1) s."""
    begin = rng.uniform(-scene.stay / 2, SECONDS - scene.stay / 2, scene.people)
    begin = np.where(scene.stay < SECONDS, begin, 0)
    leaves = rng.uniform(1, 8, scene.people)
    if scene.turns_back:
        leaves = np.full(scene.people, MEETING_S - scene.away / 2)
    stays = (times >= begin) & (times < begin + scene.stay)
    return stays & ((times < leaves) | (times >= leaves + scene.away))


def _detect(
    scene: Scene, people: Ints, joints: Doubles, height: Doubles, rng: np.random.Generator
) -> Detected:
    """What a detector finds of N people, nearest first: their joints (N, 17, 2) px, and heights
    (N, 1) px.
    """
    n = len(people)
    if not n:
        return Detected(people, np.zeros((0, 4)), np.zeros(0), np.zeros((0, 17, 3)))
    low = joints.min(axis=1) - MARGIN * height
    high = joints.max(axis=1) + MARGIN * height
    is_within = (joints[:, :, None] > low) & (joints[:, :, None] < high)  # (N, 17, by N, 2)
    covers = is_within.all(axis=-1) & np.tri(n, k=-1, dtype=bool)[:, None]
    hidden = covers.any(axis=-1)
    visible = 1 - hidden.mean(axis=1)

    points = joints.copy()
    rows, columns = np.nonzero(hidden & (rng.random(hidden.shape) < MISTAKEN))
    points[rows, columns] = joints[covers.argmax(axis=-1)[rows, columns], columns]
    noise = np.where(hidden, GUESS, NOISE) * height
    points += rng.normal(0, 1, points.shape) * noise[..., None]
    guessed = rng.uniform(0.05, 0.5, hidden.shape)
    confidence = np.where(hidden, guessed, rng.uniform(0.55, 1, hidden.shape))
    scores = np.clip(0.25 + 0.65 * visible + rng.normal(0, 0.05, n), 0.05, 1)
    blur = BOX_NOISE * (5 - 4 * visible[:, None]) * height
    boxes = np.concatenate([low, high], axis=1) + rng.normal(0, 1, (n, 4)) * blur
    keypoints = np.concatenate([points, scene.confidence * confidence[..., None]], axis=-1)

    is_found = rng.random(n) < (visible - LEAST) / (ENOUGH - LEAST)
    is_found &= np.abs(joints[:, :, 0].mean(axis=1) - WIDTH / 2) < WIDTH / 2
    is_found &= rng.random(n) >= scene.missed
    return Detected(people, boxes, scene.confidence * scores, keypoints).select(is_found)


def _add_nobody(seen: Detected, rng: np.random.Generator) -> Detected:
    """Add a detection of nobody: a figure anywhere, or the upper half of somebody."""
    size = rng.uniform(120, 300)
    place = rng.uniform([0, HEIGHT / 2], [WIDTH, HEIGHT])
    points = place + size * (BODY * [1, -1] + rng.normal(0, 0.03, BODY.shape))
    confidence = rng.uniform(0.05, 0.6, 17)
    if len(seen.person) and rng.random() < 0.5:
        somebody = seen.keypoints[rng.integers(len(seen.person))]
        points = somebody[:, :2] + rng.normal(0, 3, points.shape)
        confidence = np.where(np.arange(17) < 11, somebody[:, 2], 0.05)
    half = points[confidence > 0.05]
    box = np.concatenate([half.min(axis=0), half.max(axis=0)])
    keypoints = np.column_stack([points, confidence])
    return Detected(
        np.append(seen.person, -1),
        np.concatenate([seen.boxes, [box]]),
        np.append(seen.scores, rng.uniform(0.1, 0.5)),
        np.concatenate([seen.keypoints, [keypoints]]),
    )
