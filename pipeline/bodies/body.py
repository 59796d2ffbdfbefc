"""Anny's body in torch: parameters and rotations -> vertices and joints, differentiable.  [body] ->
fits

Positions are in metres. Rotations are what the package anny calls `local-ref`: each is the rotation
of a bone relative to its parent, from the reference pose, in the axes of the world. The root's
rotation and translation are its pose in the world, so they decide in which axes bodies are.

Shapes: B bones, V vertices, J keypoints, N bodies. A head is the point at which a bone begins.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.bodies.body_file import LEVELS, BodyArrays

PARAMETERS: Final = (*LEVELS, "height", "proportions")


class RestBody(NamedTuple):
    """A body of one shape before it is posed."""

    coefficients: Tensor  # (216,) weights of the body's shapes
    heads: Tensor  # (B, 3) m, where bones begin
    turns: Tensor  # (B, 3, 3) rotations of bones from the rest pose to the reference pose


class Posed(NamedTuple):
    """Transforms of N bodies' bones: a point x of the rest body moves to rotations @ x + shifts."""

    rotations: Tensor  # (N, B, 3, 3)
    shifts: Tensor  # (N, B, 3) m


class AnnyBody:
    """Anny's body: computes vertices and joints from parameters and rotations.

    bones: Names of the bones whose rotations `pose` takes, parents first; (): all. Other bones keep
    their rotation of the reference pose.
    """

    def __init__(
        self,
        arrays: BodyArrays,
        bones: Sequence[str] = (),
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        to_tensor = functools.partial(torch.as_tensor, device=device, dtype=dtype)
        self._template = to_tensor(arrays.template)
        self._shapes = to_tensor(arrays.shapes)
        self._weights = to_tensor(arrays.weights)
        self._regressor = to_tensor(arrays.keypoints)
        self._heads = to_tensor(arrays.heads)
        self._head_shapes = to_tensor(arrays.head_shapes)
        self._orientations = to_tensor(arrays.orientations)
        self._orientation_shapes = to_tensor(arrays.orientation_shapes)
        self._references = to_tensor(arrays.references)
        self.faces = arrays.faces
        self.bone_names: list[str] = arrays.bone_names.tolist()
        self.keypoint_names: list[str] = arrays.keypoint_names.tolist()
        self.bones = list(bones or self.bone_names)
        above: list[int] = arrays.parents.clip(min=0).tolist()  # the root is its own parent
        number = {name: i for i, name in enumerate(self.bones)}
        nearest = [0]  # bone -> the given rotation that it follows
        chain = torch.eye(len(above))
        for bone, parent in enumerate(above[1:], 1):
            name = self.bone_names[bone]
            nearest.append(number.get(name, nearest[parent]))
            chain[bone] += chain[parent]
        self._nearest = torch.tensor(nearest, device=device)
        parents = [above[self.bone_names.index(name)] for name in self.bones]
        self._given_parents = [nearest[parent] for parent in parents]
        self._above = torch.tensor(above, device=device)
        self._chain = chain.to(device, dtype)  # (B, B) a bone's ancestors and itself

    def shape(self, parameters: Tensor) -> RestBody:
        """Shape a body by these parameters (6,), each 0 .. 1, in the order of PARAMETERS."""
        shares = parameters.new_ones(1)
        for value, names in zip(parameters, LEVELS.values(), strict=False):
            highest = len(names) - 1
            level = value.clamp(0, 1) * highest
            levels = torch.arange(len(names), device=level.device)
            distances = (level - levels).abs()
            level_shares = (1 - distances).clamp(min=0)
            products = shares[:, None] * level_shares
            shares = products.flatten()
        height, proportions = parameters[len(LEVELS) :].clamp(0, 1)
        by_height = height * shares
        by_proportions = proportions * shares
        coefficients = torch.cat([shares, by_height, by_proportions])
        matrices = _blend(self._orientations, self._orientation_shapes, coefficients)
        heads = _blend(self._heads, self._head_shapes, coefficients)
        # The root's is the reference; the gradient at its three equal singular values would be NaN.
        root = self._references[:1]
        rotations = _nearest_rotations(matrices[1:])
        others = self._references[1:] @ rotations.mT
        turns = torch.cat([root, others])
        return RestBody(coefficients, heads, turns)

    def pose(self, rest: RestBody, rotations: Tensor, translation: Tensor) -> Posed:
        """Pose N bodies by rotations (N, bones, 3, 3) and translations (N, 3) m of the root."""
        given = [rotations[:, 0]]
        for i, parent in enumerate(self._given_parents[1:], 1):
            rotation = given[parent] @ rotations[:, i]
            given.append(rotation)
        world = torch.stack(given, 1)[:, self._nearest]  # (N, B, 3, 3)
        heads_above = rest.heads[self._above]
        offsets = _turn(rest.turns[self._above], rest.heads - heads_above)  # (B, 3)
        steps = _turn(world[:, self._above], offsets)  # (N, B, 3), 0 of the root
        heads = self._chain @ steps + translation[:, None]
        turned = world @ rest.turns
        shifts = heads - _turn(turned, rest.heads)
        return Posed(turned, shifts)

    def points(self, rest: RestBody) -> Tensor:
        """Vertices (V, 3) m of the rest body, which stands upright."""
        return _blend(self._template, self._shapes, rest.coefficients)

    def vertices(self, rest: RestBody, posed: Posed) -> Tensor:
        """Vertices of the posed bodies, (N, V, 3) m."""
        points = self.points(rest)
        blended = self._weights @ posed.rotations.flatten(2)
        rotations = blended.view(-1, len(points), 3, 3)
        shifts = self._weights @ posed.shifts
        return _turn(rotations, points) + shifts

    def keypoints(self, rest: RestBody, posed: Posed) -> Tensor:
        """Joints of the posed bodies, (N, J + B, 3) m: keypoints, then the heads of all bones."""
        moments = _blend(*self._on_bones, rest.coefficients)  # (J, B, 4)
        transforms = torch.cat([posed.rotations, posed.shifts[..., None]], -1)  # (N, B, 3, 4)
        keypoints = torch.einsum("nbik,jbk->nji", transforms, moments)
        turned = _turn(posed.rotations, rest.heads)
        heads = turned + posed.shifts
        return torch.cat([keypoints, heads], 1)

    @functools.cached_property
    def _on_bones(self) -> tuple[Tensor, Tensor]:
        """The share of each bone in each keypoint: sums of weights times (x, 1) over its vertices.

        Returns sums of the template (J, B, 4), and changes of them by shape (216, J, B, 4).
        """
        template = []
        shapes = []
        for of_vertices in self._regressor:
            used = of_vertices.nonzero()[:, 0]
            shares = (of_vertices[used, None] * self._weights[used]).T  # (B, some V)
            places = shares @ self._template[used]
            totals = shares.sum(1, keepdim=True)
            template.append(torch.cat([places, totals], -1))
            shapes.append(functional.pad(shares @ self._shapes[:, used], (0, 1)))
        return torch.stack(template), torch.stack(shapes, 1)


def _blend(template: Tensor, shapes: Tensor, coefficients: Tensor) -> Tensor:
    """The template plus the weighted sum of its shapes (216, ...)."""
    blended: Tensor = template + torch.tensordot(coefficients, shapes, 1)
    return blended


def _turn(rotations: Tensor, vectors: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by rotations (..., 3, 3)."""
    return (rotations @ vectors[..., None])[..., 0]


def _nearest_rotations(matrices: Tensor) -> Tensor:
    """The nearest rotation to each matrix (B, 3, 3), no reflection."""
    u, _, vt = torch.linalg.svd(matrices.double())
    product = (u @ vt).detach()
    third = torch.linalg.det(product).sign()
    one = torch.ones_like(third)
    signs = torch.stack([one, one, third], -1)
    rotations: Tensor = u * signs[:, None] @ vt
    return rotations.to(matrices.dtype)
