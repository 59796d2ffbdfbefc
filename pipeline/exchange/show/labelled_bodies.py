"""Bodies of labels as their pictures show them.  tracks -> [bodies] -> clips, recordings"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cameras import project
from pipeline.exchange.show.drawing import load_body
from pipeline.exchange.show.painted_bodies import Painter, SeenBody
from pipeline.exchange.show.tracks import ShownTrack

if TYPE_CHECKING:
    from pipeline.body import Body

Array = NDArray[Any]
Colour = tuple[float, float, float]

FEWEST: Final = 4  # visible joints from which a weak perspective camera is estimated
DISTANCE_M: Final = 10.0  # any: such a camera has none


class PosedBody(NamedTuple):
    """A row's body, in the camera's axes, without its translation."""

    verts: Array  # (6890, 3) float64 m
    joints: Array  # (49, 3) float64 m


class LabelledBodies:
    """Poses the bodies of rows with the model in a folder. Raises as `Body.load` does."""

    def __init__(self, folder: Path) -> None:
        self._neutral = load_body(folder)

    @functools.cached_property
    def faces(self) -> Array:
        """(F, 3) int64, of every gender."""
        return self._neutral.faces.cpu().numpy()

    @functools.cached_property
    def painter(self) -> Painter:
        """What paints them."""
        return Painter(self.faces)

    def posed(self, track: ShownTrack, row: int) -> PosedBody | None:
        """The body of the track's gender in a row; None where the row has no pose or betas."""
        import torch
        from scipy.spatial.transform import Rotation

        rows = track.rows
        if "pose" not in rows or "betas" not in rows or ("has_smpl" in rows and rows["has_smpl"][row] != 1):
            return None
        pose, betas = rows["pose"][row], rows["betas"][row]
        if not (np.isfinite(pose).all() and np.isfinite(betas).all()):
            return None
        body: Body = self._neutral.of(track.record.gender)
        rotmat = torch.from_numpy(Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()[None]).float()
        with torch.no_grad():
            out = body(betas=torch.from_numpy(betas[None]).float(), rotmat=rotmat)
        return PosedBody(out.verts[0].double().numpy(), out.joints[0].double().numpy())

    def seen(self, track: ShownTrack, row: int, colour: Colour) -> list[SeenBody]:
        """The body of a row in the picture: by its own camera, else by the weak perspective that fits its 2D joints.

        Empty where the row has no body, or nothing says where it is.
        """
        body, intrinsics = self.posed(track, row), intrinsics_of(track, row)
        if body is None:
            return []
        trans = track.rows["trans"][row] if "trans" in track.rows else np.full(3, np.nan)
        if intrinsics is not None and np.isfinite(trans).all():
            verts = body.verts + trans
            return [SeenBody(body.verts, project(verts, intrinsics), verts[:, 2], colour)]
        pixels = None if "kp_2d" not in track.rows else weak_perspective(body, track.rows["kp_2d"][row])
        return [] if pixels is None else [SeenBody(body.verts, pixels, body.verts[:, 2] + DISTANCE_M, colour)]


def intrinsics_of(track: ShownTrack, row: int) -> Array | None:
    """(3, 3) px of the camera in a row: the row's own where it zooms, else the track's; None where not known."""
    cameras = (track.rows["intrinsics"][row] if "intrinsics" in track.rows else None, track.record.intrinsics)
    return next((camera for camera in cameras if camera is not None and np.isfinite(camera).all()), None)


def weak_perspective(body: PosedBody, kp_2d: Array) -> Array | None:
    """The vertices' pixels (6890, 2) by the scale and shift that fit the visible joints best; None for too few.

    kp_2d: (49, 3) px px confidence.
    """
    visible = kp_2d[:, 2] > 0
    if visible.sum() < FEWEST:
        return None
    joints, points = body.joints[visible, :2], kp_2d[visible, :2].astype(np.float64)
    spread, centre = joints - joints.mean(axis=0), points.mean(axis=0)
    scale = (spread * (points - centre)).sum() / max((spread**2).sum(), 1e-9)
    pixels: Array = scale * (body.verts[:, :2] - joints.mean(axis=0)) + centre
    return pixels if scale > 0 else None
