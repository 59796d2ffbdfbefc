"""Bodies fitted to BlazePose's joints in metres: a shape per track, a pose per row.  joints ->
[bodies]

`Fitter.fit` gets the joints of a track's rows, and returns the body's shape, and the rotations and
position of each row. Adam minimises the joints' squared distances, weighted by visibility, with
weak priors: the reference pose, an average shape, and little acceleration. The shape is fitted
first, to rows spread over the track; then the poses, with this shape, chunk by chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.cli.progress import Progress, silent
from pipeline.extras.bodies.body import PARAMETERS, AnnyBody
from pipeline.extras.bodies.body_file import BodyArrays
from pipeline.people.rotations import axis_angle_to_matrix, matrix_to_axis_angle, nearest_rotations
from pipeline.people.skeletons import BLAZE, Array

POINTS: Final = {  # point -> keypoint of the body, or bone whose head it is, and the point's weight
    **{name: (name, 0.5) for name in ("nose", "eye", "ear")},
    **{name: (name, 1.0) for name in ("shoulder", "elbow", "wrist", "knee", "ankle")},
    "hip": ("upperleg01", 1.0),
}
# The same for "hung" points, which hang on a wrist or an ankle, their anchor. Only their direction
# from it counts, not their distance: BlazePose's hands and feet are short.
HUNG: Final = {
    "heel": ("heel", 0.1),
    "foot_index": ("toe2-1", 0.1),
    "index": ("finger2-1", 0.1),
    "pinky": ("finger5-1", 0.1),
    "thumb": ("finger1-2", 0.05),
}
BONES: Final = (  # whose rotations are fitted
    "root",
    *("upperleg01.L", "lowerleg01.L", "foot.L"),
    *("upperleg01.R", "lowerleg01.R", "foot.R"),
    *("spine04", "spine02"),
    *("clavicle.L", "upperarm01.L", "lowerarm01.L", "wrist.L"),
    *("clavicle.R", "upperarm01.R", "lowerarm01.R", "wrist.R"),
    *("neck01", "head"),
)
STIFFER: Final = 5.0  # times REFERENCE
STIFF: Final = ("spine", "clavicle", "neck", "head", "wrist", "foot")  # bones that turn less
TORSO: Final = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
AGE: Final = PARAMETERS.index("age")  # which is not fitted

CHUNK: Final = 256  # rows at once
OVERLAP: Final = 8  # rows before and after a chunk, fitted again
SHAPE_ROWS: Final = 128  # for the shape
STEPS: Final = 200
UNSEEN: Final = 0.01  # least visibility that a joint counts with
RATE: Final = 0.08  # rad of the largest steps
SHAPE_RATE: Final = RATE / 4  # of the shape's parameters, likewise
# Weights beside squared distances in m^2
REFERENCE: Final = 5e-6  # squared angle of a rotation, in rad
AVERAGE: Final = 2e-5  # squared deviation of the shape's parameters from 0.5, in units of SPREAD
SPREAD: Final = 0.2
TURN: Final = 2e-5  # squared change of a rotation between rows
ACCELERATION: Final = 0.02  # squared second difference of a joint


class _TargetJoints(NamedTuple):
    """Joints of N rows to fit, K of each."""

    points: Tensor  # (N, K, 3) m; of hung points, from their anchors
    weights: Tensor  # (N, K) how much each point counts for the pose, of sum 1
    # (N, K) how much each counts for the translation, of sum 1; 0 of hung points
    translation_weights: Tensor
    follows: Tensor  # (N - 1,) 1 if the next row is one step later, else 0


class _MatchedPoints(NamedTuple):
    """K points that BlazePose and the body share."""

    columns: list[int]  # of BlazePose's joints
    keypoints: list[int]  # columns of `AnnyBody.keypoint_levers`
    # positions in these lists: of a hung point, its wrist or ankle; of another, itself
    anchors: list[int]
    weights: list[float]


class _FittedChunk(NamedTuple):
    """N rows that are fitted together. `_minimise` changes `angles` and `change` in place."""

    target: _TargetJoints
    levers: Tensor | None  # of a known shape's keypoints; None: the shape is fitted, too
    first_turns: Tensor  # (N, 3, 3) rotations of the root from which the fit starts
    angles: Tensor  # (N, len(BONES), 3) rad, fitted rotations; the root's precede `first_turns`
    change: Tensor  # (6,) fitted deviation of the shape's parameters from the average


class _PosedRows(NamedTuple):
    """The bodies of N rows."""

    matrices: Tensor  # (N, len(BONES), 3, 3) rotations
    translation: Tensor  # (N, 3) m of the root, the best for the target
    points: Tensor  # (N, K, 3) m, those that BlazePose has, too


class FittedBodies(NamedTuple):
    """Bodies of N rows; axes x right, y down, z away from the camera; m about the stream's
    origin.
    """

    parameters: Array  # (6,) in the order of PARAMETERS
    height: Array  # () m, standing
    rotations: Array  # (N, len(BONES), 3) axis times angle, rad
    translation: Array  # (N, 3) m of the root
    keypoints: Array  # (N, J, 3) m
    # (N,) m, mean distance of COCO's 17 joints to the stream's, weighted by visibility
    distance: Array


class Fitter:
    """Fits tracks with one body. age: its parameter, which joints do not show."""

    def __init__(self, arrays: BodyArrays, *, age: float, device: str = "cpu") -> None:
        self.body = AnnyBody(arrays, BONES, device)
        self._device = device
        self._average = torch.full((len(PARAMETERS),), 0.5, device=device)  # the average shape
        self._average[AGE] = age
        self._is_age = torch.arange(len(PARAMETERS), device=device) == AGE
        self._matched = _match_points(self.body)
        anchors = self._matched.anchors
        self._hung = self._tensor(np.arange(len(anchors)) != anchors)[:, None]  # (K, 1) 1 or 0
        is_stiff = np.array([bone.startswith(STIFF) for bone in BONES[1:]])
        self._stiffness = self._tensor(np.where(is_stiff, STIFFER * REFERENCE, REFERENCE))

    def fit(
        self,
        joints: Array,
        follows: Array,
        progress: Progress = silent,
        done: int = 0,
        total: int = 0,
    ) -> FittedBodies:
        """Fit the body to the rows of one track: first the shape, then the poses.

        joints: (N, 33, 4) m and visibility. follows: (N,) whether a row is one step after the row
        before it. done, total: rows that were fitted before, and of all tracks, for progress.
        """
        n_rows = len(joints)
        spread = np.linspace(0, n_rows - 1, min(n_rows, SHAPE_ROWS))
        chosen = np.unique(spread.round().astype(int))
        none_follows = np.zeros(len(chosen))
        chunk = self._fit_chunk(joints[chosen], none_follows, None)
        with torch.no_grad():
            parameters = self._parameters(chunk)
            rest = self.body.shape(parameters)
            levers = self.body.keypoint_levers(rest)

        parts = []
        for start in range(0, n_rows, CHUNK):
            first = max(start - OVERLAP, 0)
            stop = start + CHUNK + OVERLAP
            chunk = self._fit_chunk(joints[first:stop], follows[first:stop], levers)
            rows = slice(start - first, start - first + CHUNK)  # without the overlap
            parts.append([array[rows] for array in self._fitted_rows(chunk, levers)])
            progress(done + min(start + CHUNK, n_rows), total)

        arrays = map(np.concatenate, zip(*parts, strict=True))
        z = self.body.points(rest)[:, 2]
        height = z.max() - z.min()
        return FittedBodies(parameters.cpu().numpy(), height.cpu().numpy(), *arrays)

    def vertices(self, fitted: FittedBodies) -> Callable[[int], Array]:
        """A function that computes the vertices (V, 3) m of a row. It holds 230 bytes a vertex."""
        with torch.no_grad():
            rest = self.body.shape(self._tensor(fitted.parameters))
            levers = self.body.vertex_levers(rest)

        def pose(row: int) -> Array:
            rotations = axis_angle_to_matrix(self._tensor(fitted.rotations[[row]]))
            translation = self._tensor(fitted.translation[[row]])
            verts: Array = self.body.pose(levers, rotations, translation)[0].cpu().numpy()
            return verts

        return pose

    def _fit_chunk(self, joints: Array, follows: Array, levers: Tensor | None) -> _FittedChunk:
        """Fit rows together: their poses to a body of a known shape, or poses and shape.

        levers: of the known shape's keypoints; None to fit the shape, too.
        """
        if levers is None:
            first_levers = self._levers(self._average)
        else:
            first_levers = levers
        chunk = _FittedChunk(
            self._read_joints(joints, follows),
            levers,
            self._first_turns(first_levers, joints),
            torch.zeros(len(joints), len(BONES), 3, device=self._device, requires_grad=True),
            torch.zeros_like(self._average, requires_grad=levers is None),
        )
        _minimise(functools.partial(self._loss, chunk), chunk.angles, chunk.change)
        return chunk

    def _fitted_rows(self, chunk: _FittedChunk, levers: Tensor) -> list[Array]:
        """The arrays of `FittedBodies` that have a row for each row, in its order. levers: of the
        keypoints.
        """
        target = chunk.target
        named_levers = levers[:, : len(self.body.keypoint_names)]
        with torch.no_grad():
            posed = self._pose(chunk)
            offsets = posed.points - target.points
            distance = (target.translation_weights * offsets.norm(dim=-1)).sum(1)
            named = self.body.pose(named_levers, posed.matrices, posed.translation)
            rotations = matrix_to_axis_angle(posed.matrices)
        tensors = (rotations, posed.translation, named, distance)
        return [tensor.cpu().numpy() for tensor in tensors]

    def _parameters(self, chunk: _FittedChunk) -> Tensor:
        """The parameters (6,) of the shape; the age stays as it is given."""
        return torch.where(self._is_age, self._average, self._average + chunk.change)

    def _levers(self, parameters: Tensor) -> Tensor:
        """The levers of the keypoints of a body with these parameters (6,)."""
        return self.body.keypoint_levers(self.body.shape(parameters))

    def _pose(self, chunk: _FittedChunk) -> _PosedRows:
        """Pose the body as the chunk has it now, and move it as near to the target as possible."""
        levers = chunk.levers
        if levers is None:
            levers = self._levers(self._parameters(chunk))
        matrices = axis_angle_to_matrix(chunk.angles)
        root = chunk.first_turns @ matrices[:, 0]
        matrices = torch.cat([root[:, None], matrices[:, 1:]], 1)
        matched_levers = levers[:, self._matched.keypoints]
        points = self.body.pose(matched_levers, matrices, root.new_zeros(1, 3))

        target = chunk.target
        offsets = target.points - points
        # the weighted mean offset has the least squared distance
        translation = (target.translation_weights[..., None] * offsets).sum(1)
        return _PosedRows(matrices, translation, points + translation[:, None])

    def _loss(self, chunk: _FittedChunk) -> Tensor:
        """Distances of the points (N, K, 3) to the target's, and priors of pose, motion and shape,
        summed over rows.
        """
        target = chunk.target
        angles = chunk.angles
        points = self._pose(chunk).points
        ends = self._from_anchors(points)
        length = ends.detach().norm(dim=-1, keepdim=True)
        target_length = target.points.norm(dim=-1, keepdim=True) + 1e-6
        # a hung point's target is moved to the distance that the body's point has from its anchor
        scale = torch.where(self._hung > 0, length / target_length, 1)
        squared_distance = (ends - scale * target.points).square().sum(-1)
        squared_angle = angles[:, 1:].square().sum(-1)
        squared_turn = angles.diff(dim=0).square().sum((1, 2))
        acceleration = points.diff(n=2, dim=0).square().sum(-1).mean(1)
        pairs = target.follows[1:] * target.follows[:-1]
        loss = (target.weights * squared_distance).sum()
        loss = loss + (self._stiffness * squared_angle).sum()
        loss = loss + TURN * (target.follows * squared_turn).sum()
        loss = loss + ACCELERATION * (pairs * acceleration).sum()
        squared_change = (chunk.change / SPREAD).square().sum()
        return loss + len(points) * AVERAGE * squared_change

    def _from_anchors(self, points: Tensor) -> Tensor:
        """Points (N, K, 3), hung ones from their anchors."""
        return points - self._hung * points[:, self._matched.anchors]

    def _read_joints(self, joints: Array, follows: Array) -> _TargetJoints:
        """The points to fit, and how much each counts, from joints (N, 33, 4)."""
        matched = joints[:, self._matched.columns]
        visibility = np.clip(matched[..., 3], UNSEEN, 1)
        weights = self._tensor(np.array(self._matched.weights) * visibility)
        translation_weights = weights * (1 - self._hung[:, 0])
        return _TargetJoints(
            self._from_anchors(self._tensor(matched[..., :3])),
            weights / weights.sum(1, keepdim=True),
            translation_weights / translation_weights.sum(1, keepdim=True),
            self._tensor(follows[1:]),
        )

    def _first_turns(self, levers: Tensor, joints: Array) -> Tensor:
        """Rotations (N, 3, 3) of the root that turn the torso of the reference pose to the
        joints'. levers: of the keypoints.
        """
        identity = torch.eye(3, device=self._device).expand(1, len(BONES), 3, 3)
        with torch.no_grad():
            keypoints = self.body.pose(levers, identity, identity[0, 0, :1])[0].cpu().numpy()
        model = keypoints[[self.body.keypoint_names.index(name) for name in TORSO]]
        model = model - model.mean(0)
        target = joints[:, [BLAZE.index(name) for name in TORSO], :3]
        target = target - target.mean(1, keepdims=True)
        return self._tensor(nearest_rotations(np.einsum("nki,kj->nij", target, model)))

    def _tensor(self, array: Any) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array, np.float32), device=self._device)


def _minimise(loss: Callable[[], Tensor], angles: Tensor, change: Tensor) -> None:
    """Make the loss small by changing its variables in place: the angles (rad) and, if it has a
    gradient, the change of the shape's parameters.
    """
    groups: list[dict[str, Any]] = [{"params": [angles], "lr": RATE}]
    if change.requires_grad:
        groups.append({"params": [change], "lr": SHAPE_RATE})
    adam = torch.optim.Adam(groups, betas=(0.9, 0.95))
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        adam, rates, STEPS, pct_start=0.1, final_div_factor=100
    )
    for _ in range(STEPS):
        adam.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
        with torch.no_grad():
            change.clamp_(-0.5, 0.5)  # of 0.5, so that parameters stay within 0 and 1


def _match_points(body: AnnyBody) -> _MatchedPoints:
    """Find the points that BlazePose and the body share, by their names."""
    numbers = {name: i for i, name in enumerate([*body.keypoint_names, *body.bone_names])}
    body_points = POINTS | HUNG
    columns = []
    keypoints = []
    anchors = []  # of BlazePose's joints, too
    weights = []
    for column, name in enumerate(BLAZE):
        side, _, part = name.partition("_")
        if (part or name) not in body_points:
            continue
        point, weight = body_points[part or name]
        names = (point, f"{side}_{point}", f"{point}.{side[0].upper()}")
        matches = [numbers[match] for match in names if match in numbers]
        if not matches:
            continue
        anchor = name
        if part in ("heel", "foot_index"):
            anchor = f"{side}_ankle"
        elif part in HUNG:
            anchor = f"{side}_wrist"
        columns.append(column)
        keypoints.append(matches[0])
        anchors.append(BLAZE.index(anchor))
        weights.append(weight)
    positions = [columns.index(anchor) for anchor in anchors]
    return _MatchedPoints(columns, keypoints, positions, weights)
