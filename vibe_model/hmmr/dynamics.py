"""Evaluation of past and future bodies predicted from one frame.  features -> windows -> training
-> [evaluation]

PA-MPJPE of the bodies before and after a still image, compared with baselines without motion
(Kanazawa et al., CVPR 2019, section 4.3).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from cache.windows import windows_of
from pipeline.rotations import rotation_6d_to_matrix
from vibe_model import metrics
from vibe_model.losses import COMMON14
from vibe_model.networks import evaluating
from vibe_model.networks.video_model import Estimate, VideoModel
from vibe_model.prediction.predict import POSED_AT_ONCE
from vibe_model.prediction.windows import NOTHING, read_inputs, select_tracks, streams_of
from vibe_model.settings import Reading

if TYPE_CHECKING:
    from cache import Split

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

FROM_A_STILL, CONSTANT, NEAREST, STILL = MODELS = (
    "from a still",
    "constant",
    "nearest",
    "true pose, still",
)
"""The model; its current body at all times; the training pose nearest to the true one with its past
and future; the true pose at all times. The last two use the truth, for scale."""
_COMPARED_AT_ONCE: Final = 256  # true poses compared with all training poses


class KnownPoses:
    """Training poses with a labelled past and future, for nearest-neighbour search.

    The distance is that of the joints after Procrustes alignment of each body to the mean body.
    """

    def __init__(self, splits: Mapping[str, Split], generator: VideoModel) -> None:
        tracks = [
            track for split in splits.values() for track in _labelled_frames(split, generator.steps)
        ]
        joints = [np.zeros((0, 14, 3), np.float32), *(joints for joints, _, _ in tracks)]
        firsts = np.cumsum([0, *map(len, joints)])[1:]
        rows_now = [first + frames for first, (_, frames, _) in zip(firsts, tracks, strict=False)]
        self._joints = np.concatenate(joints)
        self._now = np.concatenate([np.zeros(0, np.int64), *rows_now])
        body = generator.body
        rotmat = rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
        template = body.joints(
            betas=body.mean_shape.reshape(1, -1), rotmat=rotmat, order="common14"
        )
        self._template = template.detach().cpu().numpy()  # (1, 14, 3)
        self._like = self._align(self._joints[self._now])  # (N, 42)

    def __len__(self) -> int:
        return len(self._now)

    def nearest(self, joints: Floats, steps: Sequence[int]) -> list[Floats]:
        """Joints (F, 14, 3) m -> for each step, the poses (F, 14, 3) m that many frames from the
        nearest ones.
        """
        nearest_rows = []
        for start in range(0, len(joints), _COMPARED_AT_ONCE):
            like = self._align(joints[start : start + _COMPARED_AT_ONCE])
            nearest_rows.append(
                (np.square(self._like).sum(1) - 2 * like @ self._like.T).argmin(axis=1)
            )
        rows = self._now[np.concatenate([np.zeros(0, np.int64), *nearest_rows])]
        return [self._joints[rows + step] for step in steps]

    def _align(self, joints: Floats) -> NDArray[np.float32]:
        return metrics.procrustes_align(joints, self._template).reshape(-1, 42).astype(np.float32)


def with_known_poses(
    generator: VideoModel, training: Mapping[str, Split]
) -> Callable[..., dict[str, Any]]:
    """`dynamics` of a model, compared with the training splits' poses, for `Protocol.dynamics`."""
    return functools.partial(
        dynamics, generator, known=KnownPoses(training, generator) if training else None
    )


def dynamics(
    generator: VideoModel,
    split: Split,
    *,
    stream: str,
    extra_streams: Mapping[str, Reading] = NOTHING,
    tracks: str = "*",
    known: KnownPoses | None = None,
) -> dict[str, Any]:
    """PA-MPJPE in mm by model and step in frames ("0": now).

    All models are evaluated on the frames with 3D labels now and at every step. Numbers are means
    over tracks of each track's mean. The result is empty for a model without past and future, and
    for a split without such frames.

    known: For the nearest training pose; None: omit this baseline.
    """
    if not generator.steps:
        return {}
    steps = (0, *generator.steps)
    by_track: dict[str, list[list[float]]] = {}
    n_frames = 0
    with evaluating(generator):
        for joints, frames, rows in _labelled_frames(split, steps, tracks, stream, extra_streams):
            truth = [joints[frames + step] for step in steps]
            guesses = {FROM_A_STILL: _from_stills(generator, split, rows, stream, extra_streams)}
            guesses[CONSTANT] = [guesses[FROM_A_STILL][0]] * len(steps)
            if known:
                guesses[NEAREST] = known.nearest(truth[0], steps)
            guesses[STILL] = [truth[0]] * len(steps)
            n_frames += len(frames)
            for model, of_steps in guesses.items():
                errors = [
                    metrics.pa_mpjpe(*pair).mean() for pair in zip(of_steps, truth, strict=True)
                ]
                by_track.setdefault(model, []).append([float(error) for error in errors])
    if not n_frames:
        return {}
    order = sorted(range(len(steps)), key=steps.__getitem__)
    means = {model: np.mean(errors, axis=0) for model, errors in by_track.items()}
    table = {model: {str(steps[i]): float(mean[i]) for i in order} for model, mean in means.items()}
    return {"frames": n_frames, "tracks": len(by_track[FROM_A_STILL]), "pa_mpjpe": table}


def _labelled_frames(
    split: Split,
    steps: Sequence[int],
    tracks: str = "*",
    stream: str | None = None,
    extra_streams: Mapping[str, Reading] = NOTHING,
) -> Iterator[tuple[Floats, Ints, Ints]]:
    """Yield for each track its joints (T, 14, 3) m, its frames (n,) with labels now and at every
    step, and their rows.

    Frames between the steps must exist. With a stream, the frames have features.
    """
    first = min(0, *steps)
    last = max(0, *steps)
    whole = windows_of(split.runs, seqlen=last - first + 1, stride=1)[:, 0] - first
    if stream is not None:
        with_features = windows_of(
            split.runs_with(streams_of(stream, extra_streams)), seqlen=1, stride=1
        )[:, 0]
        whole = np.intersect1d(whole, with_features)
    for track in select_tracks(split, tracks):
        frames = whole[(whole >= track.start) & (whole < track.stop)] - track.start
        if len(frames):
            window = np.array([(track.start, track.stop)], np.int64)
            read = split.read(window, stream=None, fields=("kp_3d", "w_3d", "valid"))
            counted = (read["w_3d"][0] > 0) & (read["valid"][0] > 0)
            frames = frames[np.all([counted[frames + step] for step in (0, *steps)], axis=0)]
        if len(frames):
            joints = read["kp_3d"][0]
            yield (
                joints if joints.shape[1] == len(COMMON14) else joints[:, COMMON14],
                frames,
                frames + track.start,
            )


@torch.no_grad()
def _from_stills(
    generator: VideoModel,
    split: Split,
    rows: Ints,
    stream: str,
    extra_streams: Mapping[str, Reading],
) -> list[Floats]:
    """Joints (n, 14, 3) m predicted from single rows, now and at each of the model's steps."""
    joints = []
    for start in range(0, len(rows), POSED_AT_ONCE):
        windows = rows[start : start + POSED_AT_ONCE, None] + np.array([0, 1])
        read = read_inputs(split, windows, stream, extra_streams)  # (n, 1, F) each
        inputs = {
            name: torch.as_tensor(array, device=generator.device) for name, array in read.items()
        }
        moments = generator.regress_stills(**inputs)
        together = Estimate(
            *(torch.cat(parts, dim=1) for parts in zip(*moments.values(), strict=True))
        )
        joints.append(
            generator.pose(together, eval_joints=True, vertices=False)["kp_3d"]
            .float()
            .cpu()
            .numpy()
        )
    return list(np.concatenate(joints).swapaxes(0, 1))
