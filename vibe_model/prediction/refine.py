"""Fit predicted bodies to the 2D joints of their track.  windows -> bodies -> [bodies] -> images

As the temporal refinement of VIBE's demo (`--run_smplify`; after Bogo et al., Keep it SMPL, ECCV
2016): L-BFGS with a strong Wolfe line search on the joints' distances in the image, under
Geman-McClure's robust function and weighted by the squared confidence, with one shape for the
track. VIBE holds the pose by a prior over all poses; here, pose, shape and camera stay near the
prediction.

The loss is twice the negative log likelihood of the prediction (with the deviations below),
the keypoints and smooth motion. The variables are deviations from the prediction, in standard
deviations:

    |turn|^2 + |shift|^2 + n |shape change|^2
      + sum of confidence^2 rho(distance) / KEYPOINT^2 + sum of |acceleration / ACCELERATION|^2

`refine_track` refines a prediction for `tasks predict --refine`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.body import Body
from pipeline.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from pipeline.show.video_file import DEFAULT_FPS
from pipeline.skeletons import JOINTS, zero_invalid_joints
from vibe_model.cameras import project
from vibe_model.constants import BETAS
from vibe_model.networks.video_model import Project, VideoModel
from vibe_model.prediction.predict import TrackBodies

Floats = NDArray[np.floating[Any]]
Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PARTS: Final = [3, 72, 10]  # numbers of theta: camera, pose, betas
KEYPOINT: Final = 0.02  # box sides, of a detected joint
# box sides, Geman-McClure's scale: joints further away are the detector's mistakes
OUTLIER: Final = 0.1
POSE: Final = 0.2  # rad, of a predicted rotation
SHAPE: Final = 1.0  # of a predicted beta
CAMERA: Final = 0.1  # of the predicted scale, as a share of it, and of the predicted shift, m
ACCELERATION: Final = 20.0  # m/s^2, of a joint

# Detectors place hips and neck elsewhere than the body; SPIN and VIBE leave them out, too.
UNUSED: Final = frozenset({"OP Neck", "OP MidHip", "OP RHip", "OP LHip", "rhip", "lhip", "neck"})
USED: Final = np.array([name not in UNUSED for name in JOINTS["spin49"]])
CHUNK: Final = 256  # frames fitted at once, so that memory does not grow with the track
CONTEXT: Final = 2  # frames before a chunk, fitted already, that an acceleration needs
ITERATIONS: Final = 100  # of L-BFGS, at most
LEAST_CHANGE: Final = 1e-4  # of the loss a frame, which ends it earlier
HISTORY: Final = 10  # earlier steps, each a few waits for a GPU


class Refined(NamedTuple):
    """A track's bodies, and the median distance of its keypoints to their joints."""

    theta: Float32s  # (T, 85)
    before: float  # px of the image; NaN without a keypoint
    after: float


def refine_bodies(
    theta: Floats,
    kp_2d: Floats,
    bbox: Floats,
    body: Body,
    *,
    crop_scale: float,
    run: Ints | None = None,
    rate: float = DEFAULT_FPS,
    project: Project = project,
) -> Refined:
    """Fit a person's bodies to the keypoints. Without a keypoint, or if they fit no better, `theta`
    is returned.

    Args:
        theta: (T, 85) camera 3 (scale, tx, ty in the crop), pose 72 (axis times angle, rad), betas
            10.
        kp_2d: (T, 49, 3) spin49, px of the image and confidence; 0 is not seen, nor is a joint that
            is not finite.
        bbox: (T, 4) centre and size, px of the image; the crop is `crop_scale` times as large. A
            frame whose box is not finite, or without width, keeps its pose.
        body: On the device to compute on.
        run: (T,) frames of equal number are neighbours. None: all are.
        rate: Rows per second.
        project: Projection of the model that predicted `theta`.
    """
    is_finite = np.isfinite(bbox).all(axis=1)
    has_no_box = ~(is_finite & (bbox[:, 2] > 0))
    keypoints, _ = zero_invalid_joints(kp_2d)
    arrays = (
        theta,
        np.where(has_no_box[:, None, None], 0, keypoints),
        np.where(has_no_box[:, None], 1, bbox),
        _isolate(has_no_box, run),
    )
    device = body.faces.device
    singles = (np.array(array, np.float32) for array in arrays)
    track = _TrackTensors(*(torch.as_tensor(single, device=device) for single in singles))

    refinement = _Refinement(body, crop_scale, rate, project)
    before = refinement.median_px(track)
    if math.isnan(before):
        return Refined(np.array(theta, np.float32), before, before)
    fitted = refinement.fit(track)
    after = refinement.median_px(track._replace(theta=fitted))
    if not after < before:
        return Refined(np.array(theta, np.float32), before, before)
    return Refined(fitted.cpu().numpy(), before, after)


def _isolate(has_no_box: Bools, run: Ints | None) -> Ints:
    """Run numbers (T,), ascending, such that frames without a box are no frame's neighbours."""
    is_first = has_no_box.copy()
    is_first[1:] |= has_no_box[:-1]
    isolated: Ints = np.cumsum(is_first)
    return isolated if run is None else isolated + run


def refine_track(
    bodies: TrackBodies, kp_2d: Floats, generator: VideoModel
) -> tuple[TrackBodies, Refined]:
    """`refine_bodies` of a prediction. kp_2d: (F, 49, 3). Past and future bodies keep their
    poses.
    """
    axis_angle = matrix_to_axis_angle(torch.from_numpy(bodies.rotmat))
    pose = axis_angle.flatten(1).numpy()
    rate = bodies.track.fps / bodies.track.step
    refined = refine_bodies(
        np.concatenate([bodies.camera, pose, bodies.shape], axis=1),
        kp_2d,
        bodies.bbox,
        generator.body,
        crop_scale=float(bodies.track.crop_scale),
        run=bodies.run,
        rate=rate if math.isfinite(rate) and rate > 0 else DEFAULT_FPS,
        project=generator.project,
    )
    if not refined.after < refined.before:
        return bodies, refined
    borders = np.cumsum(PARTS)[:-1]
    camera, pose, shape = np.split(refined.theta, borders, axis=1)
    axis_angle = torch.from_numpy(pose).reshape(-1, 24, 3)
    rotmat = axis_angle_to_matrix(axis_angle).numpy()
    return replace(bodies, camera=camera, rotmat=rotmat, shape=shape), refined


class _TrackTensors(NamedTuple):
    """Tensors of n frames; as in `refine_bodies`, on the body's device."""

    theta: Tensor  # (n, 85)
    kp_2d: Tensor  # (n, 49, 3)
    bbox: Tensor  # (n, 4)
    run: Tensor  # (n,)

    def part(self, rows: Ints) -> _TrackTensors:
        return _TrackTensors(*(tensor[rows] for tensor in self))

    def alone(self) -> _TrackTensors:
        """The same frames, of which none are neighbours."""
        runs = torch.arange(len(self.run), device=self.run.device)
        return self._replace(run=runs)


@dataclass(frozen=True, slots=True)
class _Refinement:
    body: Body
    crop_scale: float
    rate: float
    project: Project

    def pose(
        self, camera: Tensor, rotmat: Tensor, betas: Tensor, bbox: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pose bodies: joints (n, 49, 3) m, and their projections (n, 49, 2) px of the image."""
        joints = self.body.joints(betas=betas, rotmat=rotmat)
        centre = bbox[:, None, :2]
        half = bbox[:, None, 2:3] * self.crop_scale / 2
        return joints, centre + half * self.project(joints, camera)

    @torch.no_grad()
    def median_px(self, track: _TrackTensors) -> float:
        """Median distance (px) of seen joints to their keypoints; NaN without one."""
        camera, pose, betas = torch.split(track.theta, PARTS, dim=1)
        distances = []
        for start in range(0, len(pose), CHUNK):  # not all at once, as in `solve`
            rows = slice(start, start + CHUNK)
            rotmat = axis_angle_to_matrix(pose[rows].reshape(-1, 24, 3))
            _, pixels = self.pose(camera[rows], rotmat, betas[rows], track.bbox[rows])
            keypoints = track.kp_2d[rows]
            distance = (pixels - keypoints[..., :2]).norm(dim=-1)
            is_seen = _weights(keypoints) > 0
            distances.append(distance[is_seen])
        seen = torch.cat(distances)
        if not len(seen):
            return math.nan
        return float(seen.median())

    def fit(self, track: _TrackTensors) -> Tensor:
        """Find the theta (T, 85) with the least loss, chunk by chunk, with one shape for all."""
        fitted = track.theta.clone()
        fitted[:, BETAS] = fitted[:, BETAS].mean(dim=0)
        n_frames = len(fitted)
        frames = np.arange(n_frames)
        n_chunks = -(-n_frames // CHUNK)
        if n_chunks > 1:  # the shape first, by a chunk of frames from the whole track
            spread = frames[::n_chunks]
            sample = track.part(spread).alone()._replace(theta=fitted[spread])
            fitted[:, BETAS] = self.solve(sample, fit_shape=True)[0, BETAS]
        for start in range(0, n_frames, CHUNK):
            first = max(start - CONTEXT, 0)
            rows = frames[first : start + CHUNK]
            chunk = track.part(rows)._replace(theta=fitted[rows])
            fitted[rows] = self.solve(chunk, n_fixed=start - first, fit_shape=n_chunks == 1)
        return fitted

    def solve(self, track: _TrackTensors, *, n_fixed: int = 0, fit_shape: bool) -> Tensor:
        """The theta (n, 85) of least loss. The first `n_fixed` frames stay."""
        camera, pose, betas = torch.split(track.theta, PARTS, dim=1)
        rotmat = axis_angle_to_matrix(pose.reshape(-1, 24, 3))
        n = len(pose)
        is_moving = torch.arange(n, device=pose.device) >= n_fixed
        moving = is_moving.float()[:, None]
        # in standard deviations
        turn = torch.zeros_like(pose, requires_grad=True)
        shift = torch.zeros_like(camera, requires_grad=True)
        shape_change = torch.zeros_like(betas[0], requires_grad=True)

        def move_bodies() -> tuple[Tensor, Tensor, Tensor]:
            angles = POSE * moving * turn
            turned = rotmat @ axis_angle_to_matrix(angles.reshape(-1, 24, 3))
            moved = CAMERA * moving * shift
            scale = camera[:, :1] * moved[:, :1].exp()
            place = camera[:, 1:] + moved[:, 1:]
            changed_camera = torch.cat((scale, place), dim=1)
            return changed_camera, turned, betas + SHAPE * shape_change

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = self._loss(track, *move_bodies())
            loss = loss + turn.square().sum()
            loss = loss + shift.square().sum()
            loss = loss + n * shape_change.square().sum()
            (loss / n).backward()  # type: ignore[no-untyped-call]
            return loss.detach() / n

        variables = [turn, shift]
        if fit_shape:
            variables.append(shape_change)
        optimiser = torch.optim.LBFGS(
            variables,
            max_iter=ITERATIONS,
            tolerance_change=LEAST_CHANGE,
            history_size=HISTORY,
            line_search_fn="strong_wolfe",
        )
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            camera, rotmat, betas = move_bodies()
            pose = matrix_to_axis_angle(rotmat).flatten(1)
            return torch.cat((camera, pose, betas), dim=1)

    def _loss(self, track: _TrackTensors, camera: Tensor, rotmat: Tensor, betas: Tensor) -> Tensor:
        """Twice the negative log likelihood of the keypoints and of the joints' accelerations."""
        joints, pixels = self.pose(camera, rotmat, betas, track.bbox)
        sides = track.bbox[:, None, 2:3]
        error = (pixels - track.kp_2d[..., :2]) / sides
        squared = error.square().sum(-1)
        robust = squared / (1 + squared / OUTLIER**2)

        # Metres in the image's plane, by the prediction's scale, and in depth from the body's root.
        scale_px = (track.theta[:, 0] * track.bbox[:, 2]).abs()
        px_per_m = scale_px.median().clamp(min=1) * self.crop_scale / 2
        places = torch.cat((pixels / px_per_m, joints[..., 2:]), dim=-1)
        second_difference = places[2:] - 2 * places[1:-1] + places[:-2]
        acceleration = second_difference * self.rate**2
        is_adjacent = track.run[2:] == track.run[:-2]
        uneven = (acceleration * is_adjacent[:, None, None] / ACCELERATION).square().sum()
        return (_weights(track.kp_2d) * robust).sum() / KEYPOINT**2 + uneven


def _weights(kp_2d: Tensor) -> Tensor:
    """Weights (n, 49) of keypoints (n, 49, 3); 0 for unseen and unused ones."""
    return kp_2d[..., 2].square() * torch.as_tensor(USED, device=kp_2d.device)
