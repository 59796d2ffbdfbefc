"""A take: people who move, a camera, a place; its labels and its frames.  motion -> [pixels and labels] -> raw

What a layout writes down it gets from here, and every label comes out of the same numbers as the pixels. Bodies are
drawn with the neutral template whatever the actor's gender: gender is a label only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.body.body import VERTEX_IDS
from pipeline.synthetic.body.skinning import skin, spin49
from pipeline.synthetic.motion.motion import Motion, perform, random_betas
from pipeline.synthetic.scene.backdrop import Backdrop
from pipeline.synthetic.scene.camera import Camera, frame_people
from pipeline.synthetic.scene.outfit import dress
from pipeline.synthetic.scene.render import Image, Renderer

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays

Array = NDArray[np.float64]

OCCLUDED_M: Final = 0.16  # a joint lies inside the body: what covers it by more than this hides it
SKINNED_AT_ONCE: Final = 16  # frames; one by one, half of the time would go into reading the pose blend shapes
ELBOW_ROOM_M: Final = 0.75  # people keep at least this distance from each other


@dataclass(frozen=True, slots=True)
class Shot:
    """What is to be recorded: all that a take depends on, so the same shot gives the same bytes anywhere."""

    dataset: str
    split: str
    name: str  # of the video, unique in the dataset
    number: int  # counts the shots of a dataset from 0
    seed: int
    n_frames: int
    fps: float
    width: int = 320
    height: int = 240
    n_people: int = 1
    actions: tuple[str, ...] = ()  # to choose from; all when empty
    hand_held: bool = False
    file: str = ""  # below the dataset's folder, where the name alone does not tell

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose: drawing more for one changes nothing in another."""
        words = (self.dataset, self.split, self.name, purpose)
        return np.random.default_rng([self.seed, *(zlib.crc32(word.encode()) for word in words)])


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One person of a take: T frames in the world (y up, ground at 0)."""

    motion: Motion
    gender: str  # a label: the pixels show the neutral body
    pose: Array  # (T, 72) rad
    betas: Array  # (10,)
    trans: Array  # (T, 3) m
    joints: Array  # (T, 24, 3) m, SMPL's
    spin49: Array  # (T, 49, 3) m
    kp_2d: Array  # (T, 49, 2) px, pixel centres at whole numbers from 0


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """A shot as it was played: the truth behind a written video."""

    shot: Shot
    camera: Camera | None  # None where nothing is filmed (AMASS)
    actors: tuple[Actor, ...]


class Filmed(NamedTuple):
    """One frame, and which joints are seen in it."""

    image: Image
    visible: tuple[NDArray[np.bool_], ...]  # per actor (49,): in the picture, and hidden by nothing


def stage(body: SmplArrays, shot: Shot) -> Take:
    """Play a shot: everyone's motion and place, and a camera that has them in view."""
    rng = shot.rng("motion")
    facing = float(rng.uniform(-np.pi, np.pi))
    motions = [
        _play(body, shot, rng, facing + (0.0 if i == 0 else rng.uniform(-0.6, 0.6))) for i in range(shot.n_people)
    ]
    places = _spaced_out([m.trans for m in motions], facing, rng)
    bodies = [skin(body, m.betas, m.pose, trans) for m, trans in zip(motions, places, strict=True)]
    keypoints = [spin49(body, skinned) for skinned in bodies]
    extremities = [skinned.verts[:, list(VERTEX_IDS.values())] for skinned in bodies]
    camera = frame_people(
        shot.rng("camera"),
        np.concatenate(keypoints + extremities, axis=1),
        heading=facing,
        width=shot.width,
        height=shot.height,
        hand_held=shot.hand_held,
    )
    actors = tuple(
        Actor(
            m,
            str(rng.choice(["male", "female"])),
            m.pose,
            m.betas,
            trans,
            skinned.joints,
            points,
            camera.project(points),
        )
        for m, trans, skinned, points in zip(motions, places, bodies, keypoints, strict=True)
    )
    return Take(shot, camera, actors)


def film(body: SmplArrays, take: Take) -> Iterator[Filmed]:
    """Render the frames of a take in order."""
    if take.camera is None:
        raise ValueError(f"{take.shot.name} was played without a camera")
    rng = take.shot.rng("looks")
    backdrop, renderer = Backdrop(rng), Renderer(body.faces)
    outfits = [dress(body, rng) for _ in take.actors]
    for start in range(0, take.shot.n_frames, SKINNED_AT_ONCE):
        part = slice(start, start + SKINNED_AT_ONCE)
        skinned = [skin(body, a.betas, a.pose[part], a.trans[part]).verts for a in take.actors]
        for frame, verts in enumerate(zip(*skinned, strict=True), start):
            view = renderer.view(take.camera, frame, list(zip(verts, outfits, strict=True)), backdrop)
            seen = tuple(_visible(take.camera, frame, a, view.depth) for a in take.actors)
            yield Filmed(view.image, seen)


def _play(body: SmplArrays, shot: Shot, rng: np.random.Generator, facing: float) -> Motion:
    betas = random_betas(rng)
    return perform(
        body, rng, n_frames=shot.n_frames, fps=shot.fps, betas=betas, facing=facing, actions=shot.actions or None
    )


def _spaced_out(paths: list[Array], facing: float, rng: np.random.Generator) -> list[Array]:
    """Translations (T, 3) with the people side by side, far enough apart in every frame."""
    sideways = np.array([np.cos(facing), 0, -np.sin(facing)])  # of a camera in front of them
    forward = np.array([np.sin(facing), 0, np.cos(facing)])
    placed = paths[:1]
    for path in paths[1:]:
        side, back = rng.choice([-1.0, 1.0]), rng.uniform(-0.5, 0.5)
        gap = rng.uniform(0.8, 1.1)
        moved = path + side * gap * sideways + back * forward
        while min(np.linalg.norm((moved - p)[:, [0, 2]], axis=1).min() for p in placed) < ELBOW_ROOM_M:
            gap += 0.1
            moved = path + side * gap * sideways + back * forward
        placed.append(moved)
    return placed


def _visible(camera: Camera, frame: int, actor: Actor, depth: NDArray[Any]) -> NDArray[np.bool_]:
    """(49,) a joint is seen when it lies in the picture and nothing is in front of the body around it."""
    seen = camera.sees(actor.kp_2d[frame])
    x, y = np.round(np.where(seen[:, None], actor.kp_2d[frame], 0)).astype(np.int64).T
    distance = actor.spin49[frame] @ camera.extrinsics[frame, 2, :3] + camera.extrinsics[frame, 2, 3]
    return np.asarray(seen & (distance < depth[y, x] + OCCLUDED_M))
