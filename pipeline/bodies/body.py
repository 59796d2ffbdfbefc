"""Anny's body in torch: parameters and rotations -> vertices and joints, differentiable.  [body] ->
fits

Metres; the axes are those of the root's rotation. Rotations are the package's `local-ref`: of a
bone against its parent, in the world's axes, from the reference pose; the root's rotation and
translation are its pose in the world.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from pipeline.bodies.body_file import LEVELS, BodyArrays

PARAMETERS: Final = (*LEVELS, "height", "proportions")


class RestBody(NamedTuple):
    """A body of one shape before it is posed."""

    coefficients: Tensor  # (216,) of the shapes
    heads: Tensor  # (B, 3) m
    turns: Tensor  # (B, 3, 3) from the rest orientation to the reference's


class Posed(NamedTuple):
    """Transforms of N bodies' bones: a point x of the rest body moves to rotations @ x + shifts."""

    rotations: Tensor  # (N, B, 3, 3)
    shifts: Tensor  # (N, B, 3) m


class AnnyBody:
    """The body in the arrays.

    bones: Names of the bones whose rotations are given, parents first; (): all. The others keep the
    reference's.
    """

    def __init__(
        self,
        arrays: BodyArrays,
        bones: Sequence[str] = (),
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        floats = [
            torch.as_tensor(a, device=device, dtype=dtype) for a in arrays if a.dtype.kind == "f"
        ]
        (
            self._template,
            self._shapes,
            self._weights,
            self._regressor,
            self._heads,
            self._head_shapes,
        ) = floats[:6]
        self._orientations, self._orientation_shapes, self._references = floats[6:]
        self.faces = arrays.faces
        self.bone_names: list[str] = arrays.bone_names.tolist()
        self.keypoint_names: list[str] = arrays.keypoint_names.tolist()
        self.bones = list(bones or self.bone_names)
        parents: list[int] = arrays.parents.tolist()
        number = {self.bone_names.index(name): i for i, name in enumerate(self.bones)}
        nearest: list[int] = []  # bone -> the given rotation that it follows
        for bone, parent in enumerate(parents):
            nearest.append(number.get(bone, nearest[parent] if parent >= 0 else 0))
        self._nearest = torch.tensor(nearest, device=device)
        self._given_parents = [
            nearest[max(parents[self.bone_names.index(name)], 0)] for name in self.bones
        ]
        self._above = torch.tensor([max(parent, 0) for parent in parents], device=device)
        chain = torch.eye(len(parents))
        for bone, parent in enumerate(parents[1:], 1):
            chain[bone] += chain[parent]
        self._chain = chain.to(device, dtype)  # (B, B) a bone's ancestors and itself

    def shape(self, parameters: Tensor) -> RestBody:
        """The body of these parameters (6,), in the order of PARAMETERS, each 0 .. 1."""
        shares = parameters.new_ones(1)
        for value, names in zip(parameters, LEVELS.values(), strict=False):
            at = value.clamp(0, 1) * (len(names) - 1)
            levels = (1 - (at - torch.arange(len(names), device=at.device)).abs()).clamp(min=0)
            shares = (shares[:, None] * levels).flatten()
        height, proportions = parameters[len(LEVELS) :].clamp(0, 1)
        coefficients = torch.cat([shares, height * shares, proportions * shares])
        matrices = self._orientations + torch.tensordot(coefficients, self._orientation_shapes, 1)
        # The root's is the reference; the gradient at its three equal singular values would be NaN.
        turns = torch.cat(
            [self._references[:1], self._references[1:] @ _nearest_rotations(matrices[1:]).mT]
        )
        return RestBody(
            coefficients, self._heads + torch.tensordot(coefficients, self._head_shapes, 1), turns
        )

    def pose(self, rest: RestBody, rotations: Tensor, translation: Tensor) -> Posed:
        """Transforms of rotations (N, bones, 3, 3) and translations (N, 3) m of the root."""
        given = [rotations[:, 0]]
        for i, parent in enumerate(self._given_parents[1:], 1):
            given.append(given[parent] @ rotations[:, i])
        world = torch.stack(given, 1)[:, self._nearest]  # (N, B, 3, 3)
        offsets = rest.heads - rest.heads[self._above]  # (B, 3)
        offsets = (rest.turns[self._above] @ offsets[..., None])[..., 0]
        steps = (world[:, self._above] @ offsets[..., None])[..., 0]  # (N, B, 3), 0 of the root
        heads = self._chain @ steps + translation[:, None]
        turned = world @ rest.turns
        return Posed(turned, heads - (turned @ rest.heads[..., None])[..., 0])

    def points(self, rest: RestBody) -> Tensor:
        """Vertices (V, 3) m of the rest body, which stands upright."""
        points: Tensor = self._template + torch.tensordot(rest.coefficients, self._shapes, 1)
        return points

    def vertices(self, rest: RestBody, posed: Posed) -> Tensor:
        """(N, V, 3) m."""
        points = self.points(rest)
        rotations = (self._weights @ posed.rotations.flatten(2)).view(-1, len(points), 3, 3)
        verts: Tensor = (rotations @ points[:, :, None])[..., 0] + self._weights @ posed.shifts
        return verts

    def keypoints(self, rest: RestBody, posed: Posed) -> Tensor:
        """(N, J + B, 3) m: the keypoints, then the heads of all bones."""
        template, shapes = self._on_bones
        moments = template + torch.tensordot(rest.coefficients, shapes, 1)  # (J, B, 4)
        transforms = torch.cat([posed.rotations, posed.shifts[..., None]], -1)  # (N, B, 3, 4)
        keypoints = torch.einsum("nbik,jbk->nji", transforms, moments)
        heads = (posed.rotations @ rest.heads[..., None])[..., 0] + posed.shifts
        return torch.cat([keypoints, heads], 1)

    @functools.cached_property
    def _on_bones(self) -> tuple[Tensor, Tensor]:
        """What each bone holds of each keypoint: sums (J, B, 4) and by shape (216, J, B, 4) of
        weights times (x, 1).
        """
        template = []
        shapes = []
        for of_vertices in self._regressor:
            used = of_vertices.nonzero()[:, 0]
            shares = (of_vertices[used, None] * self._weights[used]).T  # (B, some V)
            template.append(
                torch.cat([shares @ self._template[used], shares.sum(1, keepdim=True)], -1)
            )
            shapes.append(torch.nn.functional.pad(shares @ self._shapes[:, used], (0, 1)))
        return torch.stack(template), torch.stack(shapes, 1)


def _nearest_rotations(matrices: Tensor) -> Tensor:
    """The nearest rotation to each matrix (B, 3, 3), no reflection."""
    u, _, vt = torch.linalg.svd(matrices.double())
    third = torch.linalg.det((u @ vt).detach()).sign()
    rotations: Tensor = u * torch.stack([third.abs(), third.abs(), third], -1)[:, None] @ vt
    return rotations.to(matrices.dtype)
