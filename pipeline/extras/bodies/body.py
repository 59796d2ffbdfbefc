"""Anny's body in torch: parameters and rotations -> vertices and joints, differentiable.  [body] ->
fits

`AnnyBody.shape` makes a body of six parameters, `pose` moves its bones, and `vertices` and
`keypoints` then give points of the posed bodies.

Positions are in metres. Rotations are what the package anny calls `local-ref`: each is the rotation
of a bone relative to its parent, from the reference pose, in the axes of the world. The root's
rotation and translation are its pose in the world, so they decide in which axes bodies are.

Shapes: B bones, V vertices, J keypoints, N bodies, and G bones whose rotations `pose` takes. A head
is the point at which a bone begins. A body is a template plus a weighted sum of 216 shapes: for
each of the 72 combinations of LEVELS (2 * 4 * 3 * 3) its change of the body, then for each of them
the change by height, then that by proportions (`body_file`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.extras.bodies.body_file import LEVELS, BodyArrays

PARAMETERS: Final = (*LEVELS, "height", "proportions")


class RestBody(NamedTuple):
    """A body of one shape before it is posed."""

    coefficients: Tensor  # (216,) weights of the body's shapes
    heads: Tensor  # (B, 3) m, where bones begin
    rotations: Tensor  # (B, 3, 3) of bones, from the rest pose to the reference pose


class _Posed(NamedTuple):
    """Transforms of N bodies' bones: a point x of the rest body moves to rotations @ x + shifts."""

    rotations: Tensor  # (N, B, 3, 3)
    shifts: Tensor  # (N, B, 3) m


class AnnyBody:
    """Anny's body: computes vertices and joints from parameters and rotations.

    bones: Names of the G bones whose rotations `pose` takes, the root first, parents before
    children; (): all. Other bones keep their rotation of the reference pose, so each moves with the
    nearest of its ancestors among the G.
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
        given_of_bone = [0]  # the root's
        ancestors = torch.eye(len(parents))
        for bone, parent in enumerate(parents[1:], 1):
            name = self.bone_names[bone]
            given_of_bone.append(given_index.get(name, given_of_bone[parent]))
            ancestors[bone] += ancestors[parent]
        # (B,) number of each bone's parent among the B bones
        self._parents = torch.tensor(parents, device=device)
        # (B,) number, among the G, of the bone whose rotation a bone has: itself, or an ancestor
        self._given_of_bone = torch.tensor(given_of_bone, device=device)
        # (B, B) row: a bone; 1 in the columns of its ancestors and its own
        self._ancestors = ancestors.to(device, dtype)
        # G numbers among the G: of each one's nearest ancestor
        self._given_parents: list[int] = []
        for name in self.bones:
            parent = parents[self.bone_names.index(name)]
            self._given_parents.append(given_of_bone[parent])

    def shape(self, parameters: Tensor) -> RestBody:
        """Shape a body by these parameters (6,), each 0 .. 1, in the order of PARAMETERS."""
        shares = _combination_shares(parameters)  # (72,)
        height, proportions = parameters[len(LEVELS) :].clamp(0, 1)
        coefficients = torch.cat([shares, height * shares, proportions * shares])  # (216,)
        matrices = _blend(self._orientations, self._orientation_shapes, coefficients)
        heads = _blend(self._heads, self._head_shapes, coefficients)
        # The root's is the reference; the gradient at its three equal singular values would be NaN.
        root_rotation = self._references[:1]
        orientations = _nearest_rotations(matrices[1:])
        other_rotations = self._references[1:] @ orientations.mT
        rotations = torch.cat([root_rotation, other_rotations])
        return RestBody(coefficients, heads, rotations)

    def pose(self, rest: RestBody, rotations: Tensor, translation: Tensor) -> _Posed:
        """Pose N bodies by rotations (N, G, 3, 3) and translations (N, 3) m of the root."""
        global_rotations = [rotations[:, 0]]  # relative to the world, no longer to the parent
        for i, parent in enumerate(self._given_parents[1:], 1):
            rotation = global_rotations[parent] @ rotations[:, i]
            global_rotations.append(rotation)
        world = torch.stack(global_rotations, 1)[:, self._given_of_bone]  # (N, B, 3, 3)

        # A head is the root's plus the steps from parent to child on the way to the bone.
        parent_heads = rest.heads[self._parents]
        offsets = _rotate(rest.rotations[self._parents], rest.heads - parent_heads)  # (B, 3)
        steps = _rotate(world[:, self._parents], offsets)  # (N, B, 3), 0 of the root
        heads = self._ancestors @ steps + translation[:, None]

        bone_rotations = world @ rest.rotations
        shifts = heads - _rotate(bone_rotations, rest.heads)
        return _Posed(bone_rotations, shifts)

    def points(self, rest: RestBody) -> Tensor:
        """Vertices (V, 3) m of the rest body, which stands upright."""
        return _blend(self._template, self._shapes, rest.coefficients)

    def vertices(self, rest: RestBody, posed: _Posed) -> Tensor:
        """Vertices of the posed bodies, (N, V, 3) m."""
        points = self.points(rest)
        blended = self._weights @ posed.rotations.flatten(2)
        rotations = blended.view(-1, len(points), 3, 3)
        shifts = self._weights @ posed.shifts
        return _rotate(rotations, points) + shifts

    def keypoints(self, rest: RestBody, posed: _Posed) -> Tensor:
        """Joints of the posed bodies, (N, J + B, 3) m: keypoints, then the heads of all bones."""
        template, shapes = self._keypoint_moments
        moments = _blend(template, shapes, rest.coefficients)  # (J, B, 4)
        transforms = torch.cat([posed.rotations, posed.shifts[..., None]], -1)  # (N, B, 3, 4)
        # sum over bones b and the four columns k of a transform
        keypoints = torch.einsum("nbik,jbk->nji", transforms, moments)
        heads = _rotate(posed.rotations, rest.heads) + posed.shifts
        return torch.cat([keypoints, heads], 1)

    @functools.cached_property
    def _keypoint_moments(self) -> tuple[Tensor, Tensor]:
        """The moments of the keypoints: the template's (J, B, 4), and their changes by shape
        (216, J, B, 4).

        A keypoint is a mean of posed vertices, with weights w[v]. A posed vertex is the sum over
        bones of s[v, b] (R[b] x[v] + t[b]), with skinning weights s and the vertex x of the rest
        body. So the keypoint is

            sum over b of [R[b] t[b]] @ moment[b],  moment[b] = sum over v of w[v] s[v, b] (x[v], 1)

        which needs no posed vertices.
        """
        template = []
        shapes = []
        for vertex_weights in self._regressor:
            used = vertex_weights.nonzero()[:, 0]  # U vertices
            weights = (vertex_weights[used, None] * self._weights[used]).T  # (B, U) w[v] s[v, b]
            sums = weights @ self._template[used]  # (B, 3)
            totals = weights.sum(1, keepdim=True)  # (B, 1)
            template.append(torch.cat([sums, totals], -1))
            changes = weights @ self._shapes[:, used]  # (216, B, 3)
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
    ones = torch.ones_like(sign)
    signs = torch.stack([ones, ones, sign], -1)
    rotations: Tensor = u * signs[:, None] @ vt
    return rotations.to(matrices.dtype)
