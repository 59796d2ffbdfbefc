"""Evaluation of past and future bodies predicted from one frame.  features -> windows -> training
-> [evaluation]

PA-MPJPE of the bodies before and after a still image, compared with baselines without motion
(Kanazawa et al., CVPR 2019, section 6.3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from cache.windows import windows_of
from pipeline.people.rotations import rotation_6d_to_matrix
from pipeline.people.skeletons import Float32s, Floats, Ints
from vibe_model import metrics
from vibe_model.losses import COMMON14
from vibe_model.networks import evaluating
from vibe_model.networks.video_model import POSED_AT_ONCE, Estimate, VideoModel
from vibe_model.prediction.windows import NOTHING, ModelStreams, select_tracks
from vibe_model.reading import Reading

if TYPE_CHECKING:
    from cache import Split


# The model, and the baselines; the last two use the truth, for scale.
FROM_A_STILL: Final = "from a still"
CONSTANT: Final = "constant"  # its current body at all times
NEAREST: Final = "nearest"  # the training pose nearest to the true one, with its past and future
STILL: Final = "true pose, still"  # the true pose at all times
_COMPARED_AT_ONCE: Final = 256  # true poses compared with all training poses


class _LabelledSteps(NamedTuple):
    """The frames of a track that have 3D labels both now and at every step in time."""

    joints: Floats  # (T, 14, 3) m, of all the track's rows
    positions: Ints  # (n,) positions of the frames in the track
    rows: Ints  # (n,) their rows in the split

    def shift(self, step: int) -> Floats:
        """Joints (n, 14, 3) m `step` frames after (or before, if negative) each frame."""
        return self.joints[self.positions + step]


class _KnownPoses:
    """Training poses with a labelled past and future, for nearest-neighbour search.

    The distance is that of the joints after Procrustes alignment of each body to the mean body.
    """

    def __init__(self, splits: Mapping[str, Split], generator: VideoModel) -> None:
        joints = [np.zeros((0, 14, 3), np.float32)]
        positions = [np.zeros(0, np.int64)]
        n_before = 0
        for split in splits.values():
            for track in _labelled_frames(split, generator.steps):
                joints.append(track.joints)
                positions.append(n_before + track.positions)
                n_before += len(track.joints)
        self._joints = np.concatenate(joints)
        self._positions = np.concatenate(positions)
        body = generator.body
        rotmat = rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
        template = body.joints(
            betas=body.mean_shape.reshape(1, -1), rotmat=rotmat, order="common14"
        )
        self._template = template.detach().cpu().numpy()  # (1, 14, 3)
        self._aligned = self._align(self._joints[self._positions])  # (N, 42)

    def __len__(self) -> int:
        return len(self._positions)

    def nearest(self, joints: Floats, steps: Sequence[int]) -> list[Floats]:
        """Find the training pose nearest to each of the joints (F, 14, 3) m.

        Returns for each step the joints (F, 14, 3) m that many frames from these training poses.
        """
        nearest = [np.zeros(0, np.int64)]
        for start in range(0, len(joints), _COMPARED_AT_ONCE):
            aligned = self._align(joints[start : start + _COMPARED_AT_ONCE])
            # |known - pose|^2 without |pose|^2, which is the same for all known poses
            distances = np.square(self._aligned).sum(1) - 2 * aligned @ self._aligned.T
            nearest.append(distances.argmin(axis=1))
        rows = self._positions[np.concatenate(nearest)]
        return [self._joints[rows + step] for step in steps]

    def _align(self, joints: Floats) -> Float32s:
        return metrics.procrustes_align(joints, self._template).reshape(-1, 42).astype(np.float32)


def bind_dynamics(
    generator: VideoModel, training: Mapping[str, Split]
) -> Callable[..., dict[str, Any]]:
    """Make the function that `Protocol.dynamics` needs: `dynamics` of a model.

    Its nearest-pose baseline searches the poses of the training splits.
    """
    poses = None
    if training:
        poses = _KnownPoses(training, generator)
    return functools.partial(dynamics, generator, known=poses)


def dynamics(
    generator: VideoModel,
    split: Split,
    *,
    stream: str,
    extra_streams: Mapping[str, Reading] = NOTHING,
    tracks: str = "*",
    known: _KnownPoses | None = None,
) -> dict[str, Any]:
    """Measure predicted past and future: PA-MPJPE in mm by model and step in frames ("0": now).

    All models are evaluated on the frames with 3D labels now and at every step. Numbers are means
    over tracks of each track's mean. The result is empty for a model without past and future, and
    for a split without such frames.

    known: For the nearest training pose; None: omit this baseline.
    """
    if not generator.steps:
        return {}
    streams = ModelStreams(stream, extra_streams)
    steps = (0, *generator.steps)
    by_track: dict[str, list[list[float]]] = {}  # model -> for each track, its mean at every step
    n_frames = 0
    with evaluating(generator):
        for track in _labelled_frames(split, steps, tracks, streams):
            truth = [track.shift(step) for step in steps]
            predicted = _from_stills(generator, split, track.rows, streams)
            guesses = {FROM_A_STILL: predicted, CONSTANT: [predicted[0]] * len(steps)}
            if known:
                guesses[NEAREST] = known.nearest(truth[0], steps)
            guesses[STILL] = [truth[0]] * len(steps)
            n_frames += len(track.positions)
            for model, by_step in guesses.items():
                errors = []
                for guess, true in zip(by_step, truth, strict=True):
                    errors.append(float(metrics.pa_mpjpe(guess, true).mean()))
                by_track.setdefault(model, []).append(errors)
    if not n_frames:
        return {}
    table = {}
    for model, errors_of_tracks in by_track.items():
        means = np.mean(errors_of_tracks, axis=0).tolist()
        in_time_order = sorted(zip(steps, means, strict=True))
        table[model] = {str(step): mean for step, mean in in_time_order}
    return {"frames": n_frames, "tracks": len(by_track[FROM_A_STILL]), "pa_mpjpe": table}


def _labelled_frames(
    split: Split,
    steps: Sequence[int],
    tracks: str = "*",
    streams: ModelStreams | None = None,
) -> Iterator[_LabelledSteps]:
    """Yield the frames of each track that are labelled at 0 and at all `steps`.

    Frames between the steps must exist. With streams, the frames have features. Tracks without
    such a frame are skipped.
    """
    first = min(0, *steps)
    last = max(0, *steps)
    whole = windows_of(split.runs, seqlen=last - first + 1, stride=1)[:, 0] - first
    if streams is not None:
        runs = split.runs_with(streams.names)
        with_features = windows_of(runs, seqlen=1, stride=1)[:, 0]
        whole = np.intersect1d(whole, with_features)
    for track in select_tracks(split, tracks):
        positions = whole[(whole >= track.start) & (whole < track.stop)] - track.start
        if not len(positions):
            continue
        window = np.array([(track.start, track.stop)], np.int64)
        read = split.read(window, stream=None, fields=("kp_3d", "w_3d", "valid"))
        counted = (read["w_3d"][0] > 0) & (read["valid"][0] > 0)
        positions = positions[np.all([counted[positions + step] for step in (0, *steps)], axis=0)]
        if not len(positions):
            continue
        joints = read["kp_3d"][0]
        if joints.shape[1] != len(COMMON14):
            joints = joints[:, COMMON14]
        yield _LabelledSteps(joints, positions, positions + track.start)


@torch.no_grad()
def _from_stills(
    generator: VideoModel,
    split: Split,
    rows: Ints,
    streams: ModelStreams,
) -> list[Floats]:
    """Joints (n, 14, 3) m predicted from single rows, now and at each of the model's steps."""
    joints = []
    for start in range(0, len(rows), POSED_AT_ONCE):
        windows = rows[start : start + POSED_AT_ONCE, None] + np.array([0, 1])
        read = streams.read(split, windows)  # (n, 1, F) each
        inputs = {}
        for name, array in read.items():
            inputs[name] = torch.as_tensor(array, device=generator.device)
        moments = generator.regress_stills(**inputs)
        parts = zip(*moments.values(), strict=True)
        together = Estimate(*(torch.cat(part, dim=1) for part in parts))
        posed = generator.pose(together, eval_joints=True, vertices=False)
        joints.append(posed["kp_3d"].float().cpu().numpy())
    return list(np.concatenate(joints).swapaxes(0, 1))
