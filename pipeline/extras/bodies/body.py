"""Anny's body in torch: parameters and rotations -> vertices and joints, differentiable.  [body] ->
fits

`AnnyBody.shape` makes a body of six parameters, `vertex_levers` or `keypoint_levers` prepare its
points, and `pose` moves them.

Positions are in metres. Rotations are what the package anny calls `local-ref`: each is the rotation
of a bone relative to its parent, from the reference pose, in the axes of the world. The root's
rotation and translation are its pose in the world, so they decide in which axes bodies are.

Shapes: B bones, V vertices, J keypoints, N bodies, and G bones whose rotations `pose` takes. A head
is the point at which a bone begins. A body is a template plus a weighted sum of 216 shapes: for
each of the 72 combinations of LEVELS (2 * 4 * 3 * 3) its change of the body, then for each of them
the change by height, then that by proportions (`body_file`).

A point of a body of known shape is linear in the G rotations relative to the world: the sum over
them of rotation @ lever, plus the root's translation. So K points of N bodies are the product of
two matrices: rotations (3 N, 3 G) and levers (3 G, K).
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


class _RestBody(NamedTuple):
    """A body of one shape before it is posed."""

    coefficients: Tensor  # (216,) weights of the body's shapes
    heads: Tensor  # (G, B, 3) m, levers of where bones begin
    # (G, B, 3, 4) a point x that moves with a bone has the levers transforms[:, bone] @ (x, 1)
    transforms: Tensor


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
        # (B, B) row: a bone; 1 in the columns of its ancestors and its own
        self._ancestors = ancestors.to(device, dtype)
        # (G, B) 1 where a bone has the rotation of that of the G: of itself, or of an ancestor
        given = torch.tensor(given_of_bone)
        attached = functional.one_hot(given, len(self.bones)).T
        self._attached = attached.to(device, dtype)
        # G numbers among the G: of each one's nearest ancestor
        self._given_parents: list[int] = []
        for name in self.bones:
            parent = parents[self.bone_names.index(name)]
            self._given_parents.append(given_of_bone[parent])

    def shape(self, parameters: Tensor) -> _RestBody:
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
        rotations = torch.cat([root_rotation, other_rotations])  # from rest pose to reference pose

        # A head is the root's plus the steps from parent to child on the way to the bone, which
        # turn with the parents.
        attached = self._attached[..., None]  # (G, B, 1)
        parents = self._parents
        steps = _rotate(rotations[parents], heads - heads[parents])  # (B, 3), 0 of the root
        step_levers = attached[:, parents] * steps  # (G, B, 3)
        head_levers = self._ancestors @ step_levers

        turns = attached[..., None] * rotations  # (G, B, 3, 3)
        shifts = head_levers - attached * _rotate(rotations, heads)
        transforms = torch.cat([turns, shifts[..., None]], -1)
        return _RestBody(coefficients, head_levers, transforms)

    def pose(self, levers: Tensor, rotations: Tensor, translation: Tensor) -> Tensor:
        """Points (N, K, 3) m with these levers (3 G, K) of N bodies, posed by rotations
        (N, G, 3, 3) and translations (N, 3) m of the root.
        """
        world = [rotations[:, 0]]  # relative to the world, no longer to the parent
        for i, parent in enumerate(self._given_parents[1:], 1):
            world.append(world[parent] @ rotations[:, i])
        points = torch.cat(world, -1) @ levers  # (N, 3, K)
        return points.mT + translation[:, None]

    def points(self, rest: _RestBody) -> Tensor:
        """Vertices (V, 3) m of the rest body, which stands upright."""
        return _blend(self._template, self._shapes, rest.coefficients)

    def vertex_levers(self, rest: _RestBody) -> Tensor:
        """Levers (3 G, V) of the vertices."""
        points = functional.pad(self.points(rest), (0, 1), value=1)  # (V, 4)
        moments = self._weights[..., None] * points[:, None]
        return _levers(rest, moments)

    def keypoint_levers(self, rest: _RestBody) -> Tensor:
        """Levers (3 G, J + B) of the keypoints, then of the heads of all bones."""
        template, shapes = self._keypoint_moments
        moments = _blend(template, shapes, rest.coefficients)
        named = _levers(rest, moments)
        heads = rest.heads.mT.flatten(0, 1)
        return torch.cat([named, heads], -1)

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


def _levers(rest: _RestBody, moments: Tensor) -> Tensor:
    """Levers (3 G, K) of points with these moments (K, B, 4): of each bone, the point times its
    share in it, and the share.
    """
    # sum over bones b and the four columns j of a transform
    levers = torch.einsum("gbij,kbj->gik", rest.transforms, moments)
    return levers.flatten(0, 1)


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
