"""Takes: moving people and a camera; their labels and frames.  motion -> [pixels and
labels]

Labels and pixels come from the same numbers. Bodies are drawn with the neutral template; gender is
only a label.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator

from pipeline.extras.demo.appearance import Renderer, dress
from pipeline.extras.demo.body import VERTEX_IDS, procedural, skin, spin49
from pipeline.extras.demo.camera import Camera, frame_people
from pipeline.extras.demo.motion import ActorMotion, perform, random_betas
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array, Bools, Doubles

# a joint is hidden if it is this far behind the visible surface (joints are inside bodies)
OCCLUDED_M: Final = 0.16
GENDERS: Final = ("male", "female")
ROOM_M: Final = (0.75, 1.1)  # least and largest distance between people, across the view


@dataclass(frozen=True, slots=True)
class Shot:
    """All that a take depends on: the same shot gives the same bytes."""

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
    file: str = ""  # path in the dataset's folder, if the name does not determine it

    def rng(self, purpose: str) -> Generator:
        """An independent generator for each purpose."""
        words = (self.dataset, self.split, self.name, purpose)
        numbers = [zlib.crc32(word.encode()) for word in words]
        return np.random.default_rng([self.seed, *numbers])


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One person of a take: T frames in the world (y up, ground at 0)."""

    motion: ActorMotion
    gender: str  # a label: the pixels show the neutral body
    pose: Doubles  # (T, 72) rad
    betas: Doubles  # (10,)
    trans: Doubles  # (T, 3) m
    joints: Doubles  # (T, 24, 3) m, SMPL's
    spin49: Doubles  # (T, 49, 3) m
    kp_2d: Doubles  # (T, 49, 2) px, pixel centres at integers from 0


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """A performed shot: the ground truth of a video."""

    shot: Shot
    camera: Camera | None  # None without video (AMASS)
    actors: tuple[Actor, ...]

    @property
    def view(self) -> Camera:
        """The camera. Raises ValueError for a take without a camera."""
        if self.camera is None:
            raise ValueError(f"{self.shot.name} has no camera")
        return self.camera

    def switch_camera(self, camera: Camera) -> Take:
        """The same take seen by another camera."""
        actors = tuple(replace(actor, kp_2d=camera.project(actor.spin49)) for actor in self.actors)
        return replace(self, camera=camera, actors=actors)


class _SceneFrame(NamedTuple):
    """A frame and its visible joints."""

    image: Image
    visible: tuple[Bools, ...]  # per actor (49,): in the image and not occluded


def stage(shot: Shot) -> Take:
    """Perform a shot: everyone's motion and position, and a camera that keeps them in view."""
    body = procedural()
    rng = shot.rng("motion")
    facing = float(rng.uniform(-np.pi, np.pi))
    motions = []
    for person in range(shot.n_people):
        faces = facing + (rng.uniform(-0.6, 0.6) if person else 0.0)
        betas = random_betas(rng)
        motions.append(perform(rng, betas, faces, shot.n_frames, shot.fps, shot.actions))
    places = _spaced_out([motion.trans for motion in motions], facing, rng)
    bodies = []
    for motion, trans in zip(motions, places, strict=True):
        bodies.append(skin(body, motion.betas, motion.pose, trans))
    keypoints = [spin49(body, skinned) for skinned in bodies]
    # head, hands, feet: what is farthest out
    ends = [skinned.verts[:, [*VERTEX_IDS.values()]] for skinned in bodies]
    camera = frame_people(
        shot.rng("camera"),
        np.concatenate([*keypoints, *ends], axis=1),
        (shot.width, shot.height),
        heading=facing,
        hand_held=shot.hand_held,
    )
    actors = []
    for motion, trans, skinned, joints in zip(motions, places, bodies, keypoints, strict=True):
        actor = Actor(
            motion=motion,
            gender=str(rng.choice(GENDERS)),
            pose=motion.pose,
            betas=motion.betas,
            trans=trans,
            joints=skinned.joints,
            spin49=joints,
            kp_2d=camera.project(joints),
        )
        actors.append(actor)
    return Take(shot, camera, tuple(actors))


def film(take: Take, step: int = 1) -> Iterator[_SceneFrame]:
    """Render every step-th frame of a take in order."""
    body = procedural()
    camera = take.view
    rng = take.shot.rng("looks")
    renderer = Renderer(camera, body.faces)
    outfits = [dress(body, rng, number) for number in range(len(take.actors))]
    skinned = [skin(body, actor.betas, actor.pose, actor.trans).verts for actor in take.actors]
    for frame in range(0, take.shot.n_frames, step):
        people = [(verts[frame], outfit) for verts, outfit in zip(skinned, outfits, strict=True)]
        image, depth = renderer.view(frame, people)
        visible = [_visible(camera, frame, actor, depth) for actor in take.actors]
        yield _SceneFrame(image, tuple(visible))


def corners(points: Array) -> tuple[Array, Array]:
    """The lowest and the highest coordinates (..., 2) of points (..., J, 2)."""
    return points.min(axis=-2), points.max(axis=-2)


def _spaced_out(paths: list[Doubles], facing: float, rng: Generator) -> list[Doubles]:
    """Translations (T, 3) that put people side by side, none closer than ROOM_M in any frame."""
    sideways = np.array([np.cos(facing), 0, -np.sin(facing)])  # of a camera in front of them
    sideways *= rng.choice([-1.0, 1.0])
    forward = np.array([np.sin(facing), 0, np.cos(facing)])
    placed = paths[:1]
    for path in paths[1:]:
        closest = ((placed[-1] - path) @ sideways).max()
        aside = closest + rng.uniform(*ROOM_M)
        placed.append(path + aside * sideways + rng.uniform(-0.5, 0.5) * forward)
    return placed


def _visible(camera: Camera, frame: int, actor: Actor, depth_map: Array) -> Bools:
    """Whether each joint of an actor is in the image and not occluded, (49,)."""
    visible = camera.sees(actor.kp_2d[frame])
    in_image = np.where(visible[:, None], actor.kp_2d[frame], 0)
    x, y = np.round(in_image).astype(np.int64).T
    z_axis = camera.extrinsics[frame, 2]
    z = actor.spin49[frame] @ z_axis[:3] + z_axis[3]
    return np.asarray(visible & (z < depth_map[y, x] + OCCLUDED_M))
