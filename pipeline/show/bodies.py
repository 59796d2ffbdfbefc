"""Draw shaded, transparent bodies over images, and pose the bodies of labels.  tracks -> [images]

    LabelledBodies.project_body   pose and betas of a row -> a `SeenBody`: vertices in the image
    BodyPainter.paint             image, `SeenBody`s -> image

A body is sampled within its bounding rectangle, at most RASTER_PX samples wide and high, and then
resized.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

from pipeline.files.pixels.frames import Image
from pipeline.people.cameras import fit_weak_perspective, project
from pipeline.people.skeletons import Array, Floats, Ints
from pipeline.show.drawing import load_body
from pipeline.show.rasterising import SmoothNormals, rasterise
from pipeline.show.tracks import ShownTrack

if TYPE_CHECKING:
    from pipeline.people.body import BodyOutput

Colour = tuple[float, float, float]  # RGB, 0 .. 1

DISTANCE_M: Final = 10.0  # arbitrary for a weak perspective camera
RASTER_PX: Final = 360  # most samples across a body
FINEST: Final = 2.0  # most samples per pixel, for smooth edges of small bodies
AMBIENT: Final = 0.35  # share of ambient light
# unit vector to a light behind the viewer's left shoulder
TO_LIGHT: Final = np.array([-0.45, -0.6, -0.66], np.float32)
OPACITY: Final = 0.75
COLOURS: Final = (  # RGB, distinguishable (Okabe and Ito's, lightened)
    (0.45, 0.75, 0.95),
    (0.98, 0.70, 0.25),
    (0.40, 0.80, 0.62),
    (0.95, 0.60, 0.75),
    (0.97, 0.92, 0.45),
    (0.90, 0.50, 0.25),
    (0.55, 0.60, 0.95),
)


class SeenBody(NamedTuple):
    """A projected body."""

    verts: Floats  # (V, 3) m, camera axes (x right, y down, z forward), used for shading
    pixels: Floats  # (V, 2) image px
    depth: Floats  # (V,) m; points behind the camera are not drawn
    colour: Colour


class BodyPainter:
    """Draws bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: Array) -> None:
        self._normals = SmoothNormals(faces)

    def paint(self, image: Image, bodies: Sequence[SeenBody], opacity: float = OPACITY) -> Image:
        """Draw bodies over a copy of an image (H, W, 3) uint8 RGB, the first one at the bottom."""
        painted = image.copy()
        for body in bodies:
            self._add(painted, body, opacity)
        return painted

    def _add(self, image: Image, body: SeenBody, opacity: float) -> None:
        height, width = image.shape[:2]
        in_front = body.depth > 0
        if not in_front.any() or not np.isfinite(body.pixels).all():
            return
        points = body.pixels[in_front]
        low = np.maximum(np.floor(points.min(axis=0)), 0)
        high = np.minimum(np.ceil(points.max(axis=0)) + 1, (width, height))
        if (low >= high).any():
            return

        layer = self._shade(body, low, (high - low).astype(np.int64))
        colour = layer[..., :3]
        coverage = layer[..., 3:]
        left, top = low.astype(int)
        right, bottom = high.astype(int)
        part = image[top:bottom, left:right]
        painted = part * (1 - opacity * coverage) + (255 * opacity) * colour
        part[...] = np.clip(painted + 0.5, 0, 255).astype(np.uint8)

    def _shade(self, body: SeenBody, low: Floats, size: Ints) -> Floats:
        """RGB times coverage, and coverage (height, width, 4) of a body in a rectangle of the
        image: its first pixel `low` (2,), its width and height `size` (2,).
        """
        samples_per_px = min(FINEST, RASTER_PX / size.max())
        n_samples = np.maximum(np.rint(size * samples_per_px), 1).astype(np.int64)
        # A pixel's centre has whole coordinates, so its edge is 0.5 before it; so is a sample's.
        from_edge = body.pixels - low + 0.5
        layer = self._sample(body, from_edge * (n_samples / size) - 0.5, n_samples)
        how = cv2.INTER_AREA if n_samples[0] > size[0] else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(layer, size.tolist(), interpolation=how), np.float32)

    def _sample(self, body: SeenBody, points: Floats, n_samples: Ints) -> Floats:
        """What `_shade` returns, but for each sample. points: (V, 2) vertices, in samples."""
        faces = self._normals.faces
        n_vertices = len(body.depth)
        inverse_depth = np.divide(1, body.depth, out=np.zeros(n_vertices), where=body.depth > 0)
        width, height = n_samples
        visible = rasterise(points[faces], inverse_depth[faces], width, height)

        facing = self._normals(body.verts) @ TO_LIGHT  # (V,) cosine
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0)
        return visible.shade(light[faces], np.broadcast_to(body.colour, (len(faces), 3)))


class _PosedBody(NamedTuple):
    """A row's body in camera axes, without translation."""

    verts: Array  # (6890, 3) float64 m
    joints: Array  # (49, 3) float64 m


class LabelledBodies:
    """Poses the bodies of rows with the model in a folder. Raises what `Body.load` raises."""

    def __init__(self, folder: Path) -> None:
        self._neutral = load_body(folder)

    @functools.cached_property
    def faces(self) -> Array:
        """(F, 3) int64, the same for all genders."""
        return self._neutral.faces.cpu().numpy()

    @functools.cached_property
    def painter(self) -> BodyPainter:
        return BodyPainter(self.faces)

    def skin(self, pose: Array, betas: Array, gender: str = "neutral") -> BodyOutput:
        """Bodies in poses (N, 72) rad with betas (N, 10), without translation."""
        import torch

        from pipeline.people.body import rotations_of

        body = self._neutral.of(gender)
        shape = torch.from_numpy(betas).float()
        with torch.no_grad():
            output: BodyOutput = body(betas=shape, rotmat=rotations_of(pose))
        return output

    def pose(self, track: ShownTrack, row: int) -> _PosedBody | None:
        """The body of the track's gender in a row; None if the row has no pose or betas."""
        rows = track.rows
        if "pose" not in rows or "betas" not in rows:
            return None
        if "has_smpl" in rows and rows["has_smpl"][row] != 1:
            return None
        pose = rows["pose"][row]
        betas = rows["betas"][row]
        if not np.isfinite(pose).all() or not np.isfinite(betas).all():
            return None
        output = self.skin(pose, betas[None], track.record.gender)
        return _PosedBody(output.verts[0].double().numpy(), output.joints[0].double().numpy())

    def project_body(self, track: ShownTrack, row: int, colour: Colour) -> list[SeenBody]:
        """Project the body of a row with its camera, else with the weak perspective that fits its
        2D joints best.

        Empty if the row has no body, or its position is unknown.
        """
        body = self.pose(track, row)
        if body is None:
            return []
        intrinsics = track.intrinsics_of(row)
        if intrinsics is not None and "trans" in track.rows:
            trans = track.rows["trans"][row]
            if np.isfinite(trans).all():
                verts = body.verts + trans
                return [SeenBody(body.verts, project(verts, intrinsics), verts[:, 2], colour)]
        if "kp_2d" not in track.rows:
            return []
        pixels = _weak_perspective(body, track.rows["kp_2d"][row])
        if pixels is None:
            return []
        return [SeenBody(body.verts, pixels, body.verts[:, 2] + DISTANCE_M, colour)]


def _weak_perspective(body: _PosedBody, kp_2d: Array) -> Array | None:
    """Project a body's vertices, (6890, 2) px, by the weak perspective that fits its joints best.

    kp_2d: (49, 3) px and confidence, the labelled joints. None if too few of them are visible.
    """
    visible = kp_2d[:, 2] > 0
    (camera,) = fit_weak_perspective(body.joints[None, :, :2], kp_2d[None, :, :2], visible[None])
    if np.isnan(camera).any():
        return None
    scale, *shift = camera
    pixels: Array = scale * body.verts[:, :2] + shift
    return pixels
