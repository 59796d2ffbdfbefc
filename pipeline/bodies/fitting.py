"""Bodies fitted to BlazePose's joints in metres: a shape per track, a pose per row.  joints ->
[bodies]

Adam minimises the joints' squared distances, weighted by visibility, with weak priors: the
reference pose, an average shape, and little acceleration. Long tracks are fitted chunk by chunk
with the shape of rows spread over the track.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.bodies.body import PARAMETERS, AnnyBody, RestBody
from pipeline.bodies.body_file import BodyArrays
from pipeline.cli.progress import Progress, silent
from pipeline.rotations import axis_angle_to_matrix, matrix_to_axis_angle, nearest_rotations

Array = NDArray[Any]

BLAZE: Final = """
    nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear
    right_ear mouth_left
    mouth_right left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist
    left_pinky right_pinky
    left_index right_index left_thumb right_thumb left_hip right_hip left_knee right_knee
    left_ankle right_ankle
    left_heel right_heel left_foot_index right_foot_index
""".split()  # noqa: SIM905 - the 33 points, in its order
POINTS: Final = {  # point -> keypoint of the body, or bone whose head it is, and the point's weight
    **{name: (name, 0.5) for name in ("nose", "eye", "ear")},
    **{name: (name, 1.0) for name in ("shoulder", "elbow", "wrist", "knee", "ankle")},
    "hip": ("upperleg01", 1.0),
}
# the same for points whose direction alone counts: BlazePose's hands and feet are short
HUNG: Final = {
    "heel": ("heel", 0.1),
    "foot_index": ("toe2-1", 0.1),
    "index": ("finger2-1", 0.1),
    "pinky": ("finger5-1", 0.1),
    "thumb": ("finger1-2", 0.05),
}
BONES: Final = (  # whose rotations are fitted
    "root",
    *(f"{bone}.{side}" for side in "LR" for bone in ("upperleg01", "lowerleg01", "foot")),
    *("spine04", "spine02"),
    *(
        f"{bone}.{side}"
        for side in "LR"
        for bone in ("clavicle", "upperarm01", "lowerarm01", "wrist")
    ),
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
RATE: Final = 0.08  # rad of the first steps
# Weights beside squared distances in m^2
REFERENCE: Final = 5e-6  # squared angle of a rotation, in rad
AVERAGE: Final = 2e-5  # squared deviation of the shape's parameters from 0.5, in units of SPREAD
SPREAD: Final = 0.2
TURN: Final = 2e-5  # squared change of a rotation between rows
ACCELERATION: Final = 0.02  # squared second difference of a joint


class _TargetJoints(NamedTuple):
    """Joints of N rows to fit, K of each."""

    points: Tensor  # (N, K, 3) m; of hung points, from their anchors
    weights: Tensor  # (N, K) of sum 1
    placing: Tensor  # (N, K) of sum 1, 0 of hung points
    follows: Tensor  # (N - 1,) 1 if the next row is one step later, else 0


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
        self._age = age
        self._device = device
        self._blaze, self._own, self._anchors, self._weights = _match_points(self.body)
        self._hung = self._tensor(np.arange(len(self._anchors)) != self._anchors)[:, None]  # (K, 1)
        self._stiffness = self._tensor(
            [REFERENCE * (STIFFER if bone.startswith(STIFF) else 1) for bone in BONES[1:]]
        )

    def fit(
        self,
        joints: Array,
        follows: Array,
        progress: Progress = silent,
        done: int = 0,
        total: int = 0,
    ) -> FittedBodies:
        """Fit a track's rows: joints (N, 33, 4) m and visibility; follows (N,): whether a row is a
        step after the last.

        done, total: rows, for progress.
        """
        chosen = np.unique(
            np.linspace(0, len(joints) - 1, min(len(joints), SHAPE_ROWS)).round().astype(int)
        )
        parameters = self._fit_chunk(joints[chosen], np.zeros(len(chosen)), None)[0]
        with torch.no_grad():
            rest = self.body.shape(parameters)
        parts = []
        for start in range(0, len(joints), CHUNK):
            first = max(start - OVERLAP, 0)
            stop = min(start + CHUNK + OVERLAP, len(joints))
            arrays = self._fit_chunk(joints[first:stop], follows[first:stop], rest)[1:]
            parts.append(
                [array[start - first : start - first + CHUNK].cpu().numpy() for array in arrays]
            )
            progress(done + min(start + CHUNK, len(joints)), total)
        rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        z = self.body.points(rest)[:, 2]
        return FittedBodies(parameters.cpu().numpy(), (z.max() - z.min()).cpu().numpy(), *rows)

    def vertices(self, fitted: FittedBodies, row: int) -> Array:
        """Vertices (V, 3) m of a row."""
        with torch.no_grad():
            rest = self.body.shape(self._tensor(fitted.parameters))
            rotations = axis_angle_to_matrix(self._tensor(fitted.rotations[[row]]))
            posed = self.body.pose(rest, rotations, self._tensor(fitted.translation[[row]]))
            verts: Array = self.body.vertices(rest, posed)[0].cpu().numpy()
        return verts

    def _fit_chunk(
        self, joints: Array, follows: Array, rest: RestBody | None
    ) -> tuple[Tensor, ...]:
        """Parameters, rotations, translation, keypoints and distances of rows. rest: None to fit
        the shape, too.
        """
        target = self._read_joints(joints, follows)
        body = self.body
        first = torch.full((len(PARAMETERS),), 0.5, device=self._device)
        first[AGE] = self._age
        change = torch.zeros_like(first, requires_grad=rest is None)
        angles = torch.zeros(len(joints), len(BONES), 3, device=self._device, requires_grad=True)
        turned = self._first_turns(rest or body.shape(first), joints)
        fixed = torch.arange(len(first), device=self._device) == AGE

        def pose() -> tuple[Tensor, Tensor, Tensor]:
            shape = rest or body.shape(torch.where(fixed, first, first + change))
            matrices = axis_angle_to_matrix(angles)
            matrices = torch.cat([(turned @ matrices[:, 0])[:, None], matrices[:, 1:]], 1)
            keypoints = body.keypoints(shape, body.pose(shape, matrices, turned.new_zeros(1, 3)))
            offsets = target.points - keypoints[:, self._own]
            shift = (target.placing[..., None] * offsets).sum(1)  # the best translation
            return matrices, shift, keypoints + shift[:, None]

        rates = [RATE, RATE / 4] if rest is None else [RATE]
        groups = [
            {"params": [leaf], "lr": rate}
            for leaf, rate in zip((angles, change), rates, strict=False)
        ]
        adam = torch.optim.Adam(groups, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            adam, rates, STEPS, pct_start=0.1, final_div_factor=100
        )
        for _ in range(STEPS):
            adam.zero_grad()
            loss = self._loss(target, angles, pose()[2][:, self._own])
            loss = loss + len(joints) * AVERAGE * (change / SPREAD).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            schedule.step()
            with torch.no_grad():
                change.clamp_(-0.5, 0.5)
        with torch.no_grad():
            matrices, shift, keypoints = pose()
            distance = (
                target.placing * (keypoints[:, self._own] - target.points).norm(dim=-1)
            ).sum(1)
            named = keypoints[:, : len(body.keypoint_names)]
            return (
                torch.where(fixed, first, first + change),
                matrix_to_axis_angle(matrices),
                shift,
                named,
                distance,
            )

    def _loss(self, wanted: _TargetJoints, angles: Tensor, found: Tensor) -> Tensor:
        """Distances of the points (N, K, 3) to the wanted ones, and priors of pose and motion,
        summed over rows.
        """
        ends = found - self._hung * found[:, self._anchors]
        lengths = ends.detach().norm(dim=-1, keepdim=True) / (
            wanted.points.norm(dim=-1, keepdim=True) + 1e-6
        )
        target = torch.where(self._hung > 0, lengths, 1) * wanted.points
        loss = (wanted.weights * (ends - target).square().sum(-1)).sum()
        loss = loss + (self._stiffness * angles[:, 1:].square().sum(-1)).sum()
        loss = loss + TURN * (wanted.follows * angles.diff(dim=0).square().sum((1, 2))).sum()
        pairs = wanted.follows[1:] * wanted.follows[:-1]
        return loss + ACCELERATION * (pairs * found.diff(n=2, dim=0).square().sum(-1).mean(1)).sum()

    def _read_joints(self, joints: Array, follows: Array) -> _TargetJoints:
        points = self._tensor(joints[:, self._blaze, :3])
        weights = self._tensor(
            np.array(self._weights) * np.clip(joints[:, self._blaze, 3], UNSEEN, 1)
        )
        placing = weights * (1 - self._hung[:, 0])
        return _TargetJoints(
            points - self._hung * points[:, self._anchors],
            weights / weights.sum(1, keepdim=True),
            placing / placing.sum(1, keepdim=True),
            self._tensor(follows[1:]),
        )

    def _first_turns(self, rest: RestBody, joints: Array) -> Tensor:
        """Rotations (N, 3, 3) of the root that turn the torso of the reference pose to the
        joints'.
        """
        identity = torch.eye(3, device=self._device).expand(1, len(BONES), 3, 3)
        with torch.no_grad():
            shown = (
                self.body.keypoints(rest, self.body.pose(rest, identity, identity[0, 0, :1]))[0]
                .cpu()
                .numpy()
            )
        model = shown[[self.body.keypoint_names.index(name) for name in TORSO]]
        target = joints[:, [BLAZE.index(name) for name in TORSO], :3]
        target = target - target.mean(1, keepdims=True)
        return self._tensor(
            nearest_rotations(np.einsum("nki,kj->nij", target, model - model.mean(0)))
        )

    def _tensor(self, array: Any) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array, np.float32), device=self._device)


def _match_points(body: AnnyBody) -> tuple[list[int], list[int], list[int], list[float]]:
    """Match K points by name: their columns in the stream, those of `AnnyBody.keypoints`, anchors
    and weights.

    A hung point's anchor is its wrist or ankle, as a position in these lists; that of others is the
    point itself.
    """
    numbers = {name: i for i, name in enumerate([*body.keypoint_names, *body.bone_names])}
    matched = []
    for number, name in enumerate(BLAZE):
        side, _, part = name.partition("_")
        point, weight = (POINTS | HUNG).get(part or name, ("", 0.0))
        names = (point, f"{side}_{point}", f"{point}.{side[0].upper()}")
        anchor = (
            f"{side}_{'ankle' if part in ('heel', 'foot_index') else 'wrist'}"
            if part in HUNG
            else name
        )
        matched += [
            (number, numbers[found], BLAZE.index(anchor), weight)
            for found in names
            if found in numbers
        ][:1]
    blaze, points, anchors, weights = zip(*matched, strict=True)
    return list(blaze), list(points), [blaze.index(anchor) for anchor in anchors], list(weights)
