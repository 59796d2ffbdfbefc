"""Crops of people as a backbone gets to see them, without any dataset.  [crops] -> features"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.body.body import procedural
from pipeline.synthetic.body.skinning import skin
from pipeline.synthetic.scene.backdrop import Backdrop
from pipeline.synthetic.scene.camera import Camera
from pipeline.synthetic.scene.outfit import dress
from pipeline.synthetic.scene.render import Image, Renderer
from pipeline.synthetic.scene.scene import Shot, stage
from pipeline.track import CROP_SCALE

CROP_PX: Final = 224
BOX_FACTOR: Final = 1.1  # box / extent of the joints, as in most datasets
POSES_A_PERSON: Final = 8
SECONDS_BETWEEN: Final = 0.7  # poses are taken so far apart: hardly two alike


def calibration_crops(n: int) -> NDArray[np.uint8]:
    """(n, 224, 224, 3) RGB: people of all shapes in all poses, boxed and cropped as converted data are.

    Always the same crops: the first of many are the first of few. Rendered straight into the crop, so a little sharper
    than a resampled picture. For the statistics of an untrained network's features.
    """
    crops = np.empty((n, CROP_PX, CROP_PX, 3), np.uint8)
    for first in range(0, n, POSES_A_PERSON):
        shot = Shot(
            dataset="calibration",
            split="",
            name=f"{first // POSES_A_PERSON:05d}",
            number=first // POSES_A_PERSON,
            seed=0,
            n_frames=POSES_A_PERSON,
            fps=1 / SECONDS_BETWEEN,
        )
        for i, image in zip(range(first, min(first + POSES_A_PERSON, n)), _cropped(shot), strict=False):
            crops[i] = image
    return crops


def _cropped(shot: Shot) -> Iterator[Image]:
    """The person of a shot in each frame, seen by a camera whose whole picture is the crop."""
    body = procedural()
    take = stage(body, shot)
    if take.camera is None:
        raise AssertionError("a staged take has a camera")
    actor, rng = take.actors[0], shot.rng("looks")
    backdrop, renderer, outfit = Backdrop(rng), Renderer(body.faces), dress(body, rng)
    verts = skin(body, actor.betas, actor.pose, actor.trans).verts
    for frame, kp_2d in enumerate(actor.kp_2d):
        camera = _zoom(take.camera, frame, kp_2d)
        yield renderer.view(camera, 0, [(verts[frame], outfit)], backdrop).image


def _zoom(camera: Camera, frame: int, kp_2d: NDArray[Any]) -> Camera:
    """The camera whose whole picture is the crop: its affine map goes into the intrinsics."""
    low, high = kp_2d.min(axis=0), kp_2d.max(axis=0)
    centre, side = (low + high) / 2, (high - low).max() * BOX_FACTOR * CROP_SCALE
    scale = CROP_PX / side
    shift = CROP_PX / 2 - scale * centre
    crop = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    return Camera(CROP_PX, CROP_PX, crop @ camera.intrinsics, camera.extrinsics[frame : frame + 1])
