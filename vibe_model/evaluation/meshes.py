"""Meshes for evaluation, and the genders of labels' bodies.  features -> windows -> [evaluation]"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MissingAssets
from vibe_model.evaluation.protocols import Protocol
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import device_of
from vibe_model.rotations import axis_angle_to_matrix
from vibe_model.runs import NEUTRAL_BODY

if TYPE_CHECKING:
    from cache import Split, TrackRecord
    from pipeline.body import Body

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Order = Literal["common14", "spin49", "smpl"]  # of joints
Root = tuple[Order, tuple[int, ...]]  # joints whose middle moves to 0; none: vertices are not moved


class Mesh(NamedTuple):
    """N bodies of one gender, on the model's device."""

    body: Body
    betas: Tensor  # (N, 10)
    rotmat: Tensor  # (N, 24, 3, 3) relative to parents
    verts: Tensor | None = None  # (N, 6890, 3) m

    @classmethod
    def from_theta(cls, body: Body, theta: Floats, like: Tensor) -> Mesh:
        """From labels (N, 85), on the device and in the type of `like`."""
        label = torch.as_tensor(theta).to(like)
        return cls(body, label[:, 75:], axis_angle_to_matrix(label[:, 3:75].reshape(-1, 24, 3)))

    def take(self, rows: Bools) -> Mesh:
        if rows.all():
            return self
        some = torch.as_tensor(rows)
        verts = None if self.verts is None else self.verts[some]
        return Mesh(self.body, self.betas[some], self.rotmat[some], verts)

    def with_vertices(self) -> Mesh:
        return self._replace(verts=self.body(betas=self.betas, rotmat=self.rotmat).verts)

    def unpose(self, units: Tensor) -> Mesh:
        """Unposed, with vertices. units: `unit_shapes` of its body."""
        verts = units[10] + torch.einsum("nb,bvc->nvc", self.betas, units[:10] - units[10])
        rest = torch.eye(3, device=verts.device).expand(len(self.betas), 24, 3, 3)
        return Mesh(self.body, self.betas, rest, verts)

    def joints(self, order: Order) -> Tensor:
        """(N, J, 3) m."""
        if order == "common14" and self.verts is not None:
            return self.body.common14(self.verts)
        return self.body.joints(betas=self.betas, rotmat=self.rotmat, order=order)

    def vertices(self, root: Root) -> Tensor:
        """(N, 6890, 3) m about a root."""
        assert self.verts is not None
        order, places = root
        return self.verts - self.joints(order)[:, places].mean(dim=1, keepdim=True) if places else self.verts


def unit_shapes(body: Body) -> Tensor:
    """(11, 6890, 3) m at rest, of the ten unit shapes and of shape 0: vertices are linear in the shape."""
    device = body.mean_shape.device
    rest = torch.eye(3, device=device).expand(11, 24, 3, 3)
    verts: Tensor = body(betas=torch.eye(11, 10, device=device), rotmat=rest).verts
    return verts


def genders_of(protocol: Protocol, split: Split) -> tuple[str, ...]:
    """Genders of the bodies that a protocol compares with; "declared": those of the reader's 3D labels."""
    if protocol.body == "own":
        return tuple(sorted({track.gender for track in split.tracks})) or (NEUTRAL_BODY,)
    declared = split.manifest.get("reader", {}).get("genders") if protocol.body == "declared" else None
    return tuple(declared or (NEUTRAL_BODY,))


def label_gender(track: TrackRecord, genders: Sequence[str]) -> str:
    """Gender of the body of a track's labels: its own if in `genders_of`, else the first."""
    return track.gender if track.gender in genders else genders[0]


def label_bodies(generator: VideoModel, split: Split, genders: Iterable[str]) -> dict[str, Body]:
    """Bodies by gender, on the generator's device. Raises MissingAssets if a gender's files are missing."""
    try:
        of_genders = {
            gender: generator.body.of(gender).to(device_of(generator)) for gender in genders if gender != NEUTRAL_BODY
        }
    except MissingAssets as error:
        raise MissingAssets(f"{split.name}: PVE compares with the gendered bodies of its labels: {error}") from None
    return {NEUTRAL_BODY: generator.body, **of_genders}
