"""Joints of posed bodies without their vertices.  raw -> tracks; training; evaluation

A joint that is regressed from SMPL's vertices is linear in them, and each of them is linear in its bones' motions and
in the surface at rest. So the sum over vertices is taken once, before any body is posed: what is left of a joint is one
point on each bone. Exact for any regressor, and a hundredth of the work of skinning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.smpl.assets import N_JOINTS, SmplArrays

Floats = NDArray[np.floating]


class PosedJoints(nn.Module):
    """Shape and rotations -> joints (Loper et al. 2015, equations 2-4 and 8-10, summed over the vertices).

    regressors: (K, V), from posed vertices to further joints. take: which joints are wanted, in which order: 0 to 23
    are SMPL's own, the regressed ones follow. Buffers are float32 and not persistent.
    """

    by_depth: Tensor  # (24,) SMPL's joints such that parents come first, level by level; below, bones are in this order
    parent: Tensor  # (24,) where in the level before it each bone's parent stands
    rest: Tensor  # (11, 24 * 3) joints at rest, of (1, betas), m
    points: (
        Tensor  # (11 + 207, 24 * 3 * K) each bone's point of each joint, from its own joint, of (1, betas, R - I), m
    )
    share: Tensor  # (K, 24) how much of each joint moves with each bone
    take: Tensor  # (J,) into SMPL's joints by depth and the regressed ones

    def __init__(self, arrays: SmplArrays, regressors: Floats, take: Sequence[int]) -> None:
        super().__init__()
        levels, parent = _levels(arrays.parents.tolist())
        self._levels = [len(level) for level in levels]
        by_depth = np.concatenate(levels)
        rest = np.einsum("jv,vci->jci", arrays.J_regressor[by_depth], _shaped(arrays, slice(None)))  # (24, 3, 11)
        points, share = _points(arrays, np.asarray(regressors, np.float64), by_depth, rest)
        places = np.append(np.argsort(by_depth), np.arange(N_JOINTS, N_JOINTS + len(share)))
        buffers = {
            "by_depth": torch.tensor(by_depth),
            "parent": torch.tensor(parent),
            "rest": torch.tensor(rest.reshape(-1, rest.shape[-1]).T.copy(), dtype=torch.float32),
            "points": torch.tensor(points, dtype=torch.float32),
            "share": torch.tensor(share, dtype=torch.float32),
            "take": torch.tensor(places[list(take)]),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, betas: Tensor, rotmat: Tensor) -> Tensor:
        """betas (B, 10), rotmat (B, 24, 3, 3) relative to parents -> (B, J, 3) m."""
        n = len(betas)
        shape = torch.cat((torch.ones_like(betas[:, :1]), betas), dim=1)  # (B, 11)
        correctives = (rotmat[:, 1:] - torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)).flatten(1)  # (B, 207)
        points = torch.cat((shape, correctives), dim=1) @ self.points  # (B, 24 * 3 * K)
        turned, places = self._bones((shape @ self.rest).view(n, N_JOINTS, 3), rotmat)
        # All bones side by side: one product sums each joint over them.
        side_by_side = turned.transpose(1, 2).reshape(n, 3, N_JOINTS * 3)
        regressed = (side_by_side @ points.view(n, N_JOINTS * 3, -1)).transpose(1, 2) + self.share @ places  # (B, K, 3)
        return torch.cat((places, regressed), dim=1).index_select(1, self.take)

    def _bones(self, rest: Tensor, rotmat: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations (B, 24, 3, 3) and joints (B, 24, 3) m of all bones in the body's frame, by depth."""
        local = torch.split(rotmat.index_select(1, self.by_depth), self._levels, dim=1)
        rests, parents = torch.split(rest, self._levels, dim=1), torch.split(self.parent, self._levels)
        turned, places = [local[0]], [rests[0]]
        for level in range(1, len(self._levels)):
            turn = turned[-1].index_select(1, parents[level])  # the parents', (B, n, 3, 3)
            arm = rests[level] - rests[level - 1].index_select(1, parents[level])  # (B, n, 3)
            moved = turn @ torch.cat((local[level], arm[..., None]), dim=-1)  # (B, n, 3, 4)
            turned.append(moved[..., :3])
            places.append(places[-1].index_select(1, parents[level]) + moved[..., 3])
        return torch.cat(turned, dim=1), torch.cat(places, dim=1)


def _levels(parents: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Joints by their depth in the tree, and each one's parent as a place in the level before."""
    levels, place = [[joint for joint, parent in enumerate(parents) if parent < 0]], [0]
    while children := [joint for joint, parent in enumerate(parents) if parent in levels[-1]]:
        place += [levels[-1].index(parents[joint]) for joint in children]
        levels.append(children)
    return levels, place


def _shaped(arrays: SmplArrays, vertices: slice | NDArray[np.intp]) -> Floats:
    """Vertices at rest as a function of (1, betas): (v, 3, 11)."""
    return np.concatenate([arrays.v_template[vertices, :, None], arrays.shapedirs[vertices]], axis=2)


def _points(arrays: SmplArrays, regressors: Floats, by_depth: NDArray[np.int64], rest: Floats) -> tuple[Floats, Floats]:
    """`PosedJoints.points` (218, 24 * 3 * K) and `PosedJoints.share` (K, 24)."""
    points, shares = [], []
    for regressor in regressors:
        some = np.flatnonzero(regressor)
        weights = regressor[some, None] * arrays.weights[some][:, by_depth]  # (v, 24)
        surface = np.concatenate([_shaped(arrays, some), arrays.posedirs[some]], axis=2)  # (v, 3, 218)
        point = np.tensordot(weights, surface, axes=(0, 0))  # (24, 3, 218)
        share = weights.sum(0)  # (24,)
        point[..., : rest.shape[-1]] -= share[:, None, None] * rest  # a bone turns about its own joint
        points.append(point)
        shares.append(share)
    stacked = np.stack(points, axis=-1)  # (24, 3, 218, K)
    return np.moveaxis(stacked, 2, 0).reshape(stacked.shape[2], -1), np.stack(shares)
