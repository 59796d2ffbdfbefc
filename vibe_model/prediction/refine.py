"""Fit predicted bodies to the 2D joints of their track.  windows -> bodies -> [bodies] -> images

As the temporal refinement of VIBE's demo (`--run_smplify`; after Bogo et al., Keep it SMPL, ECCV
2016): L-BFGS with a strong Wolfe line search on the joints' distances in the image, under
Geman-McClure's robust function and weighted by the squared confidence, with one shape for the
track. VIBE holds the pose by a prior over all poses; here, pose, shape and camera stay near the
prediction.

The loss is twice the negative log likelihood of the prediction, the keypoints and smooth motion,
with the standard deviations below (`..._STD`). Its variables (`_Deviations`) are changes of the n
predicted bodies, in standard deviations:

    |turn|^2 + |shift|^2 + n |shape|^2
      + sum of confidence^2 rho(distance) / KEYPOINT_STD^2
      + sum of |acceleration / ACCELERATION_STD|^2

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

# Standard deviations
KEYPOINT_STD: Final = 0.02  # of a detected joint, in box sides
POSE_STD: Final = 0.2  # of a predicted rotation, rad
SHAPE_STD: Final = 1.0  # of a predicted beta
CAMERA_STD: Final = 0.1  # of the predicted scale, as a share of it, and of the predicted shift, m
ACCELERATION_STD: Final = 20.0  # of a joint, m/s^2

# Geman-McClure's scale, in box sides: joints further away are the detector's mistakes
OUTLIER: Final = 0.1

# Detectors place hips and neck elsewhere than the body; SPIN and VIBE leave them out, too.
UNUSED: Final = frozenset({"OP Neck", "OP MidHip", "OP RHip", "OP LHip", "rhip", "lhip", "neck"})
USED: Final = np.array([name not in UNUSED for name in JOINTS["spin49"]])
CHUNK: Final = 256  # frames fitted at once, so that memory does not grow with the track
CONTEXT: Final = 2  # frames before a chunk, fitted already, that an acceleration needs
ITERATIONS: Final = 100  # of L-BFGS, at most
LEAST_CHANGE: Final = 1e-4  # L-BFGS ends if the loss per frame changes by less
HISTORY: Final = 10  # earlier steps that L-BFGS uses, each a few waits for a GPU


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
    unchanged = Refined(np.array(theta, np.float32), before, before)
    if math.isnan(before):
        return unchanged
    fitted = refinement.fit(track)
    after = refinement.median_px(track._replace(theta=fitted))
    if after < before:
        return Refined(fitted.cpu().numpy(), before, after)
    return unchanged


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
    arrays = (bodies.camera, bodies.rotmat, bodies.shape)
    predicted = _BodyTensors(*map(torch.from_numpy, arrays))
    rate = bodies.track.fps / bodies.track.step
    refined = refine_bodies(
        predicted.to_theta().numpy(),
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
    fitted = _BodyTensors.from_theta(torch.from_numpy(refined.theta))
    camera, rotmat, shape = (tensor.numpy() for tensor in fitted)
    return replace(bodies, camera=camera, rotmat=rotmat, shape=shape), refined


class _TrackTensors(NamedTuple):
    """Tensors of n frames; as in `refine_bodies`, on the body's device."""

    theta: Tensor  # (n, 85)
    kp_2d: Tensor  # (n, 49, 3)
    bbox: Tensor  # (n, 4)
    run: Tensor  # (n,)

    def part(self, rows: Ints) -> _TrackTensors:
        return _TrackTensors(*(tensor[rows] for tensor in self))


class _BodyTensors(NamedTuple):
    """Bodies and cameras of n frames."""

    camera: Tensor  # (n, 3) scale, tx, ty in the crop
    rotmat: Tensor  # (n, 24, 3, 3) relative to parents
    betas: Tensor  # (n, 10)

    @classmethod
    def from_theta(cls, theta: Tensor) -> _BodyTensors:
        camera, pose, betas = torch.split(theta, PARTS, dim=1)
        return cls(camera, axis_angle_to_matrix(pose.reshape(-1, 24, 3)), betas)

    def to_theta(self) -> Tensor:
        """(n, 85)."""
        pose = matrix_to_axis_angle(self.rotmat).flatten(1)
        return torch.cat((self.camera, pose, self.betas), dim=1)


class _Deviations(NamedTuple):
    """Changes of n bodies and their cameras, in standard deviations."""

    turn: Tensor  # (n, 72) axis times angle, for each joint's rotation
    shift: Tensor  # (n, 3) of the camera
    shape: Tensor  # (10,) of the betas of all frames

    def move(self, bodies: _BodyTensors, is_free: Tensor) -> _BodyTensors:
        """Change bodies. is_free: (n, 1) 1 for frames that turn and shift, 0 for others."""
        angles = POSE_STD * is_free * self.turn
        rotmat = bodies.rotmat @ axis_angle_to_matrix(angles.reshape(-1, 24, 3))
        shift = CAMERA_STD * is_free * self.shift
        scale = bodies.camera[:, :1] * shift[:, :1].exp()
        place = bodies.camera[:, 1:] + shift[:, 1:]
        camera = torch.cat((scale, place), dim=1)
        return _BodyTensors(camera, rotmat, bodies.betas + SHAPE_STD * self.shape)


@dataclass(frozen=True, slots=True)
class _Refinement:
    """How to fit bodies; fields as in `refine_bodies`."""

    body: Body
    crop_scale: float
    rate: float  # rows per second
    project: Project

    def pose(self, bodies: _BodyTensors, bbox: Tensor) -> tuple[Tensor, Tensor]:
        """Pose bodies: joints (n, 49, 3) m, and their projections (n, 49, 2) px of the image."""
        joints = self.body.joints(betas=bodies.betas, rotmat=bodies.rotmat)
        centre = bbox[:, None, :2]
        half = bbox[:, None, 2:3] * self.crop_scale / 2
        return joints, centre + half * self.project(joints, bodies.camera)

    @torch.no_grad()
    def median_px(self, track: _TrackTensors) -> float:
        """Median distance (px) of seen joints to their keypoints; NaN without one."""
        distances = []
        for start in range(0, len(track.theta), CHUNK):  # not all at once, as in `fit`
            rows = slice(start, start + CHUNK)
            _, pixels = self.pose(_BodyTensors.from_theta(track.theta[rows]), track.bbox[rows])
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
        if n_chunks > 1:  # the shape first, by a chunk of frames from the whole track, each a run
            spread = frames[::n_chunks]
            single_runs = torch.as_tensor(spread, device=fitted.device)
            sample = track.part(spread)._replace(theta=fitted[spread], run=single_runs)
            fitted[:, BETAS] = self.solve(sample, fit_shape=True)[0, BETAS]
        for start in range(0, n_frames, CHUNK):
            first = max(start - CONTEXT, 0)
            rows = frames[first : start + CHUNK]
            chunk = track.part(rows)._replace(theta=fitted[rows])
            fitted[rows] = self.solve(chunk, n_fixed=start - first, fit_shape=n_chunks == 1)
        return fitted

    def solve(self, track: _TrackTensors, *, n_fixed: int = 0, fit_shape: bool) -> Tensor:
        """The theta (n, 85) of least loss, near that of the track. The first `n_fixed` frames stay;
        without `fit_shape`, the betas of all frames stay.
        """
        predicted = _BodyTensors.from_theta(track.theta)
        n = len(track.theta)
        is_free = track.theta.new_ones(n, 1)
        is_free[:n_fixed] = 0
        deviations = _Deviations(
            turn=track.theta.new_zeros(n, 72, requires_grad=True),
            shift=track.theta.new_zeros(n, 3, requires_grad=True),
            shape=track.theta.new_zeros(10, requires_grad=True),
        )
        optimiser = torch.optim.LBFGS(
            deviations if fit_shape else deviations[:2],
            max_iter=ITERATIONS,
            tolerance_change=LEAST_CHANGE,
            history_size=HISTORY,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            """Set the gradients of the loss per frame, and return it."""
            optimiser.zero_grad()
            loss = self._loss(track, deviations.move(predicted, is_free))
            loss = loss + deviations.turn.square().sum()
            loss = loss + deviations.shift.square().sum()
            loss = loss + n * deviations.shape.square().sum()
            (loss / n).backward()  # type: ignore[no-untyped-call]
            return loss.detach() / n

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return deviations.move(predicted, is_free).to_theta()

    def _loss(self, track: _TrackTensors, bodies: _BodyTensors) -> Tensor:
        """Twice the negative log likelihood of the keypoints and of the joints' accelerations."""
        joints, pixels = self.pose(bodies, track.bbox)
        sides = track.bbox[:, None, 2:3]
        error = (pixels - track.kp_2d[..., :2]) / sides
        squared = error.square().sum(-1)
        robust = squared / (1 + squared / OUTLIER**2)

        # Places in m, for accelerations. Joints are without the person's translation, so their
        # places across the image come from the pixels, and only their depth is without that motion.
        # One scale in px per m for all frames, the median of those given: with one for each frame,
        # a jump of the scale would move the whole person, as pixels count from the image's corner.
        scale_px = (track.theta[:, 0] * track.bbox[:, 2]).abs()
        px_per_m = scale_px.median().clamp(min=1) * self.crop_scale / 2
        places = torch.cat((pixels / px_per_m, joints[..., 2:]), dim=-1)
        second_difference = places[2:] - 2 * places[1:-1] + places[:-2]
        acceleration = second_difference * self.rate**2
        is_adjacent = track.run[2:] == track.run[:-2]
        uneven = (acceleration * is_adjacent[:, None, None] / ACCELERATION_STD).square().sum()
        return (_weights(track.kp_2d) * robust).sum() / KEYPOINT_STD**2 + uneven


def _weights(kp_2d: Tensor) -> Tensor:
    """Weights (n, 49) of keypoints (n, 49, 3); 0 for unseen and unused ones."""
    return kp_2d[..., 2].square() * torch.as_tensor(USED, device=kp_2d.device)
