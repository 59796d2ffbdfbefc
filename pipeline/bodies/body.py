"""Anny's body in torch: parameters and rotations -> vertices and joints, differentiable.  [body] ->
fits

`AnnyBody.shape` makes a body of six parameters, `pose` moves its bones, and `vertices` and
`keypoints` then give points of the posed bodies.

Positions are in metres. Rotations are what the package anny calls `local-ref`: each is the rotation
of a bone relative to its parent, from the reference pose, in the axes of the world. The root's
rotation and translation are its pose in the world, so they decide in which axes bodies are.

Shapes: B bones, V vertices, J keypoints, N bodies. A head is the point at which a bone begins. The
216 shapes are changes of the body; their weighted sum is added to a template.
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
    rotations: Tensor  # (B, 3, 3) of bones, from the rest pose to the reference pose


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
        # arrays as `BodyArrays` describes them
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

        parents: list[int] = arrays.parents.clip(min=0).tolist()  # the root is its own parent
        given_index = {name: i for i, name in enumerate(self.bones)}
        # bone -> index of the given rotation that it follows: its own, or an ancestor's
        follows = [0]
        chain = torch.eye(len(parents))
        for bone, parent in enumerate(parents[1:], 1):
            name = self.bone_names[bone]
            follows.append(given_index.get(name, follows[parent]))
            chain[bone] += chain[parent]
        self._parents = torch.tensor(parents, device=device)
        self._follows = torch.tensor(follows, device=device)
        self._chain = chain.to(device, dtype)  # (B, B) 1 for a bone's ancestors and itself
        self._given_parents: list[int] = []  # of each of `bones`, also an index into these
        for name in self.bones:
            parent = parents[self.bone_names.index(name)]
            self._given_parents.append(follows[parent])

    def shape(self, parameters: Tensor) -> RestBody:
        """Shape a body by these parameters (6,), each 0 .. 1, in the order of PARAMETERS."""
        shares = _combination_shares(parameters)
        height, proportions = parameters[len(LEVELS) :].clamp(0, 1)
        coefficients = torch.cat([shares, height * shares, proportions * shares])
        matrices = _blend(self._orientations, self._orientation_shapes, coefficients)
        heads = _blend(self._heads, self._head_shapes, coefficients)
        # The root's is the reference; the gradient at its three equal singular values would be NaN.
        root_rotation = self._references[:1]
        orientations = _nearest_rotations(matrices[1:])
        other_rotations = self._references[1:] @ orientations.mT
        rotations = torch.cat([root_rotation, other_rotations])
        return RestBody(coefficients, heads, rotations)

    def pose(self, rest: RestBody, rotations: Tensor, translation: Tensor) -> Posed:
        """Pose N bodies by rotations (N, bones, 3, 3) and translations (N, 3) m of the root."""
        given = [rotations[:, 0]]  # in the world's axes
        for i, parent in enumerate(self._given_parents[1:], 1):
            rotation = given[parent] @ rotations[:, i]
            given.append(rotation)
        world = torch.stack(given, 1)[:, self._follows]  # (N, B, 3, 3)

        # A head is where the steps from parent to child lead, from the root on.
        parent_heads = rest.heads[self._parents]
        offsets = _rotate(rest.rotations[self._parents], rest.heads - parent_heads)  # (B, 3)
        steps = _rotate(world[:, self._parents], offsets)  # (N, B, 3), 0 of the root
        heads = self._chain @ steps + translation[:, None]

        bone_rotations = world @ rest.rotations
        shifts = heads - _rotate(bone_rotations, rest.heads)
        return Posed(bone_rotations, shifts)

    def points(self, rest: RestBody) -> Tensor:
        """Vertices (V, 3) m of the rest body, which stands upright."""
        return _blend(self._template, self._shapes, rest.coefficients)

    def vertices(self, rest: RestBody, posed: Posed) -> Tensor:
        """Vertices of the posed bodies, (N, V, 3) m."""
        points = self.points(rest)
        blended = self._weights @ posed.rotations.flatten(2)
        rotations = blended.view(-1, len(points), 3, 3)
        shifts = self._weights @ posed.shifts
        return _rotate(rotations, points) + shifts

    def keypoints(self, rest: RestBody, posed: Posed) -> Tensor:
        """Joints of the posed bodies, (N, J + B, 3) m: keypoints, then the heads of all bones."""
        template, shapes = self._keypoint_moments
        moments = _blend(template, shapes, rest.coefficients)  # (J, B, 4)
        transforms = torch.cat([posed.rotations, posed.shifts[..., None]], -1)  # (N, B, 3, 4)
        keypoints = torch.einsum("nbik,jbk->nji", transforms, moments)
        heads = _rotate(posed.rotations, rest.heads) + posed.shifts
        return torch.cat([keypoints, heads], 1)

    @functools.cached_property
    def _keypoint_moments(self) -> tuple[Tensor, Tensor]:
        """The moment of each bone for each keypoint: the sum of weights times (x, 1) over the
        keypoint's vertices x.

        A keypoint is a mean of vertices, and a vertex a weighted sum of the bones' transforms, so
        it is also the sum over bones of transform @ moment. Returns the template's moments
        (J, B, 4), and their changes by shape (216, J, B, 4).
        """
        template = []
        shapes = []
        for vertex_weights in self._regressor:
            used = vertex_weights.nonzero()[:, 0]
            weights = (vertex_weights[used, None] * self._weights[used]).T  # (B, used V)
            sums = weights @ self._template[used]
            totals = weights.sum(1, keepdim=True)
            template.append(torch.cat([sums, totals], -1))
            changes = weights @ self._shapes[:, used]
            shapes.append(functional.pad(changes, (0, 1)))  # the totals do not change
        return torch.stack(template), torch.stack(shapes, 1)


def _combination_shares(parameters: Tensor) -> Tensor:
    """The share (72,) of each combination of the levels of LEVELS, of sum 1. parameters: (6,).

    A parameter between two levels is shared by them: its level shares are 1 - distance.
    """
    shares = parameters.new_ones(1)
    for value, names in zip(parameters, LEVELS.values(), strict=False):
        level = value.clamp(0, 1) * (len(names) - 1)
        levels = torch.arange(len(names), device=level.device)
        distances = (level - levels).abs()
        level_shares = (1 - distances).clamp(min=0)
        products = shares[:, None] * level_shares
        shares = products.flatten()
    return shares


def _blend(template: Tensor, shapes: Tensor, coefficients: Tensor) -> Tensor:
    """The template plus the weighted sum of its shapes (216, ...)."""
    blended: Tensor = template + torch.tensordot(coefficients, shapes, 1)
    return blended


def _rotate(rotations: Tensor, vectors: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by rotations (..., 3, 3)."""
    return (rotations @ vectors[..., None])[..., 0]


def _nearest_rotations(matrices: Tensor) -> Tensor:
    """The nearest rotation to each matrix (B, 3, 3), no reflection."""
    u, _, vt = torch.linalg.svd(matrices.double())
    product = (u @ vt).detach()
    sign = torch.linalg.det(product).sign()  # -1 of a reflection
    one = torch.ones_like(sign)
    signs = torch.stack([one, one, sign], -1)
    rotations: Tensor = u * signs[:, None] @ vt
    return rotations.to(matrices.dtype)
