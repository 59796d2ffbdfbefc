"""Predict the bodies of tracks, smooth them in time, write them as npz files.  windows ->
[prediction] -> evaluation

`predict_tracks` cuts tracks into windows, predicts every window once, in batches over several
tracks (`_regress`), and assembles each track's frames from its windows (`TrackBodies`). Evaluation
measures them; `tasks predict` smooths them (`TrackBodies.smooth_time`) and writes them with
`TrackBodies.save`.

Models may also predict past and future bodies, some steps before and after each frame, such as -5
and 5 frames (`VideoModel.steps`). They have the frame's shape and camera, and their own rotations.
"""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from cache.read.labels import POSE
from pipeline.errors import ConfigError, DataError
from pipeline.files.places import file_name
from pipeline.people.rotations import nearest_rotations
from pipeline.people.skeletons import Array, Float32s, Floats, Ints
from vibe_model import models
from vibe_model.cameras import camera_in_picture, crop_to_image
from vibe_model.files import replace_file
from vibe_model.networks import evaluating
from vibe_model.networks.video_model import Estimate, VideoModel, step_name
from vibe_model.prediction.windows import (
    EvalWindow,
    ModelStreams,
    Present,
    WindowInput,
)

if TYPE_CHECKING:
    from cache import Split, TrackRecord


REACH: Final = 4  # sigmas; beyond, a Gaussian is below 1 / 2000 of its peak


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackBodies:
    """The bodies in F frames of one track, in row order, and where they are in the images."""

    track: TrackRecord
    rows: Ints  # (F,) of the split
    run: Ints  # (F,) frames with equal numbers are neighbours, one step apart
    frame_index: Ints  # (F,) of the source, counted from 0
    bbox: Float32s  # (F, 4) cxcywh px of the source's frames
    # width, height px of the source's frames, if the cache has them
    picture: tuple[int, int] | None = None
    rotmat: Float32s  # (F, 24, 3, 3) relative to parents, the first one in camera axes
    shape: Float32s  # (F, 10) betas
    camera: Float32s  # (F, 3) scale, tx, ty: weak perspective in the crop
    # rotmat (F, 24, 3, 3) of the bodies some frames before (-5) or after (5), by `VideoModel.steps`
    step_rotmats: Mapping[int, Float32s] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def on_device(self, part: Ints, device: torch.device) -> Estimate:
        """The estimate of some frames, as tensors."""
        arrays = (self.rotmat[part], self.shape[part], self.camera[part])
        return Estimate(*(torch.as_tensor(array, device=device) for array in arrays))

    def smooth_time(self, sigma: float) -> TrackBodies:
        """Smooth by a Gaussian of `sigma` frames; 0: no change. Raises as `_smooth` does."""
        step_rotmats = {
            step: _smooth_rotations(rotmat, self.run, sigma)
            for step, rotmat in self.step_rotmats.items()
        }
        return replace(
            self,
            rotmat=_smooth_rotations(self.rotmat, self.run, sigma),
            shape=_smooth(self.shape, self.run, sigma),
            camera=_smooth(self.camera, self.run, sigma),
            step_rotmats=step_rotmats,
        )

    def save(
        self, folder: Path, generator: VideoModel, *, about: Mapping[str, Any] | None = None
    ) -> Path:
        """Write one npz: arrays of F frames, and `about`, a JSON text.

            theta (F, 85)           camera 3, pose 72 (axis times angle, rad), betas 10
            pose (F, 72), betas (F, 10), rotmat (F, 24, 3, 3)
                                    the same, and as rotations relative to parents, the first one in
                                    the camera's axes
            camera (F, 3)           scale, tx, ty of the weak perspective; [-1, 1] is the crop, the
                                    box times crop_scale
            camera_in_picture (F, 4)
                                    sx, sy, tx, ty of the weak perspective; [-1, 1] is the whole
                                    image; missing if its size is unknown
            bbox (F, 4)             cxcywh px of the source's picture, without crop_scale
            joints_3d (F, 49, 3)    spin49, m, camera axes, without the camera's translation
            joints_2d (F, 49, 2)    spin49, px of the source's picture
            frame_index (F,)        int64, the source's own frames, counted from 0
            run (F,)                int64, frames of equal number are neighbours, one step apart

        Others are float32. Past and future bodies, which have the frame's betas and camera, are in
        `theta_minus5` and so on (`_step_arrays`).

        about: facts beside name and whether it is demo data, such as the run's fingerprint. Returns
        the path `folder` / `file_name`.
        """
        arrays = _current_arrays(generator, self)
        for step, rotmat in self.step_rotmats.items():
            for name, array in _step_arrays(generator, self, rotmat).items():
                arrays[f"{name}_{step_name(step)}"] = array
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
        arrays |= {"frame_index": self.frame_index, "run": self.run}
        recorded = {
            "track": self.track.name,
            "stand_in": bool(generator.body.is_stand_in),
            "crop_scale": float(self.track.crop_scale),
            "picture": None if self.picture is None else list(self.picture),
            **(about or {}),
        }
        text = np.array(json.dumps(recorded, sort_keys=True, allow_nan=False))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file_name(self.track.name, ".npz")
        replace_file(path, lambda stream: np.savez(stream, about=text, **arrays))  # type: ignore[arg-type]
        return path


class _Predicted(NamedTuple):
    """Predictions of T frames, or of B windows of T frames: (T, ...) or (B, T, ...)."""

    rotmat: Float32s
    shape: Float32s
    camera: Float32s
    step_rotmats: Mapping[int, Float32s]  # of past and future bodies, if requested

    def take(self, index: int | slice) -> Self:
        """Select windows or frames along the first axis."""
        step_rotmats = {step: rotmat[index] for step, rotmat in self.step_rotmats.items()}
        return type(self)(self.rotmat[index], self.shape[index], self.camera[index], step_rotmats)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Put predictions of frames one after the other."""
        nothing = np.zeros((0, 24 * 9), np.float32)  # of a track without windows
        steps: tuple[int, ...] = ()
        if parts:
            steps = tuple(parts[0].step_rotmats)
        step_rotmats = {}
        for step in steps:
            step_rotmats[step] = np.concatenate([part.step_rotmats[step] for part in parts])
        return cls(
            np.concatenate([nothing.reshape(0, 24, 3, 3), *(part.rotmat for part in parts)]),
            np.concatenate([nothing[:, :10], *(part.shape for part in parts)]),
            np.concatenate([nothing[:, :3], *(part.camera for part in parts)]),
            step_rotmats,
        )

    @property
    def is_finite(self) -> bool:
        arrays = (self.rotmat, self.shape, self.camera, *self.step_rotmats.values())
        return all(np.isfinite(array).all() for array in arrays)


class _TrackPlan(NamedTuple):
    """A track, and its windows for each way of cutting it."""

    track: TrackRecord
    cuts: list[list[EvalWindow]]


def predict_tracks(
    generator: VideoModel,
    split: Split,
    tracks: Iterable[TrackRecord],
    *,
    streams: ModelStreams,
    seqlen: int = 16,
    batch_size: int = 16,
    drop_last: Sequence[bool] = (False,),
    around: bool = False,
    stills: bool = False,
) -> Iterator[tuple[TrackBodies, ...]]:
    """Predict each track once for each way of cutting it into windows (`Present.windows`).

    tracks: those of `select_tracks`; seqlen: frames per window; batch_size: windows per batch;
    around: also past and future bodies; stills: treat frames without neighbours as still images.
    Frames without features are skipped. The generator is in evaluation mode while it predicts.
    Raises DataError for non-finite predictions.
    """
    present = Present.from_split(split, streams)
    read = functools.partial(streams.read, split)

    def plan_tracks() -> Iterator[_TrackPlan]:
        for track in tracks:
            cuts = [
                present.windows(
                    track,
                    seqlen=seqlen,
                    drop_last=drop,
                    margin=generator.margin,
                    repeat_ends=generator.repeats_ends,
                )
                for drop in drop_last
            ]
            yield _TrackPlan(track, cuts)

    for group in _groups(plan_tracks(), batch_size):
        needed = set[WindowInput]()
        for plan in group:
            for windows in plan.cuts:
                needed.update(window.input for window in windows)
        # Ends before each yield: the caller may train between tracks.
        with evaluating(generator):
            estimates = _regress(
                generator, read, sorted(needed), batch_size, around=around, stills=stills
            )
        for track, cuts in group:
            yield tuple(
                _assemble_track(split, track, windows, estimates, present, streams)
                for windows in cuts
            )


def _smooth(values: Floats, run: Ints, sigma: float) -> Floats:
    """Weighted means in time: (F, ...) and (F,) run numbers -> (F, ...) of the same dtype.

    Only adjacent frames with equal run numbers mix. sigma: in frames; 0: no change. Raises
    ConfigError for a negative or non-finite sigma.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(
            f"smooth: expected a standard deviation in frames, 0 or more, found {sigma}"
        )
    if sigma == 0 or not len(values):
        return values.copy()
    out = np.empty_like(values)
    for start, stop in _segments(run):
        n = stop - start
        reach = min(math.ceil(REACH * sigma), n - 1)
        offsets = np.arange(-reach, reach + 1)
        kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
        flat = values[start:stop].reshape(n, -1).astype(np.float64)
        # Frames beyond the ends have weight 0 in both.
        sums = correlate1d(flat, kernel, axis=0, mode="constant")
        weights = correlate1d(np.ones((n, 1)), kernel, axis=0, mode="constant")
        means = sums / weights
        out[start:stop] = means.reshape(n, *values.shape[1:])
    return out


def _smooth_rotations(rotmat: Floats, run: Ints, sigma: float) -> Floats:
    """Weighted means of rotations: (F, ..., 3, 3) -> the same shape and dtype. Raises as `_smooth`.

    The chordal mean: the mean matrix projected onto rotations (Moakher, SIAM J. Matrix Anal. Appl.
    2002, prop. 3.3).
    """
    means = _smooth(rotmat.astype(np.float64), run, sigma)
    if sigma == 0:
        return rotmat.copy()
    return nearest_rotations(means).astype(rotmat.dtype)


def _segments(run: Ints) -> Iterator[tuple[int, int]]:
    """[start, stop) of adjacent frames with equal run numbers: (F,) -> pairs in order.

    >>> list(_segments(np.array([4, 4, 7])))
    [(0, 2), (2, 3)]
    """
    if len(run):
        changes = np.flatnonzero(np.diff(run)) + 1
        yield from pairwise([0, *changes.tolist(), len(run)])


def _current_arrays(generator: VideoModel, bodies: TrackBodies) -> dict[str, Array]:
    """The arrays of `TrackBodies.save` about the bodies of the frames themselves."""
    theta, joints_3d, kp_2d = generator.pose_arrays(
        (bodies.rotmat, bodies.shape, bodies.camera), "theta", "kp_3d", "kp_2d"
    )
    scale = float(bodies.track.crop_scale)
    arrays: dict[str, Array] = {
        "theta": theta,
        "rotmat": bodies.rotmat,
        "pose": theta[:, POSE],
        "betas": bodies.shape,
        "camera": bodies.camera,
        "bbox": bodies.bbox,
        "joints_3d": joints_3d,
        "joints_2d": crop_to_image(kp_2d, bodies.bbox, crop_scale=scale),
    }
    if bodies.picture is not None:
        arrays["camera_in_picture"] = camera_in_picture(
            bodies.camera, bodies.bbox, bodies.picture, crop_scale=scale
        )
    return arrays


def _step_arrays(generator: VideoModel, bodies: TrackBodies, rotmat: Float32s) -> dict[str, Array]:
    """The arrays of `TrackBodies.save` about the past or future bodies with these rotations."""
    theta, joints_3d = generator.pose_arrays(
        (rotmat, bodies.shape, bodies.camera), "theta", "kp_3d"
    )
    return {"theta": theta, "pose": theta[:, POSE], "joints_3d": joints_3d}


def _groups(plans: Iterator[_TrackPlan], batch_size: int) -> Iterator[list[_TrackPlan]]:
    """Yield groups of tracks whose windows fill a batch; many tracks alone would not."""
    group: list[_TrackPlan] = []
    n_windows = 0
    for plan in plans:
        group.append(plan)
        n_windows += max(map(len, plan.cuts), default=0)
        if n_windows >= batch_size:
            yield group
            group = []
            n_windows = 0
    if group:
        yield group


@torch.no_grad()
def _regress(
    generator: VideoModel,
    read: Callable[[Ints], dict[str, Array]],
    windows: Sequence[WindowInput],
    batch_size: int,
    *,
    around: bool,
    stills: bool,
) -> dict[WindowInput, _Predicted]:
    """Predict each window once, in batches. Returns the predictions of its rows [start, stop).

    read: `ModelStreams.read` of the split. around: also the rotmat of each step. stills: single
    frames are still images.
    """
    # (rows, before, after) -> windows that fit into one batch: of equal length and equal padding
    by_length: dict[tuple[int, int, int], list[WindowInput]] = defaultdict(list)
    for window in windows:
        by_length[window.stop - window.start, window.before, window.after].append(window)

    estimates: dict[WindowInput, _Predicted] = {}
    for (length, before, after), alike in sorted(by_length.items()):
        method = "regress"
        if around:
            method = "regress_around"
            if stills and length == 1:
                method = "regress_stills"
                before = 0
                after = 0
        padding = ((0, 0), (before, after), (0, 0))  # (B, T, numbers)
        frames = slice(before, before + length)  # of the window, without the padding
        for first in range(0, len(alike), batch_size):
            batch = alike[first : first + batch_size]
            rows = np.array([(window.start, window.stop) for window in batch], np.int64)
            inputs = {}
            for name, array in read(rows).items():
                padded = np.pad(array, padding, mode="edge")
                inputs[name] = torch.as_tensor(padded, device=generator.device)
            predicted = _call_model(generator, method, inputs, frames)
            for i, window in enumerate(batch):
                estimates[window] = predicted.take(i)
    return estimates


def _call_model(
    generator: VideoModel, method: str, inputs: Mapping[str, Tensor], frames: slice
) -> _Predicted:
    """Call a method of the model, such as "regress_around", for B windows.

    Returns arrays (B, T, ...). frames: the T frames of the inputs that are not padding.
    """
    with models.calling(generator.model_name, method):
        by_step = getattr(generator, method)(**inputs)
        steps = generator.steps
        if method == "regress":
            by_step = {0: by_step}
            steps = ()

        def numbers(tensor: Tensor) -> Float32s:
            return np.asarray(tensor[:, frames].float().cpu())

        rotmat, shape, camera = map(numbers, by_step[0])
        step_rotmats = {step: numbers(by_step[step].rotmat) for step in steps}
        return _Predicted(rotmat, shape, camera, step_rotmats)


def _assemble_track(
    split: Split,
    track: TrackRecord,
    windows: Sequence[EvalWindow],
    estimates: Mapping[WindowInput, _Predicted],
    present: Present,
    streams: ModelStreams,
) -> TrackBodies:
    """One track's bodies: predictions of its windows, with boxes and frame numbers of the split.

    estimates: of `_regress`. Raises DataError for non-finite predictions.
    """
    row_parts = [np.zeros(0, np.int64)]
    parts = []
    for window in windows:
        row_parts.append(np.arange(window.used_start, window.used_stop))
        used = slice(window.used_start - window.input.start, window.used_stop - window.input.start)
        parts.append(estimates[window.input].take(used))
    rows = np.concatenate(row_parts)
    predicted = _Predicted.join(parts)
    if not predicted.is_finite:
        raise DataError(
            f"{track.name}: expected finite predictions, found NaN or infinity. The checkpoint "
            "or the features are "
            "damaged, or training diverged: take an earlier checkpoint, and verify the cache."
        )

    whole = np.array([(track.start, track.stop)], np.int64)
    read = split.read(whole, stream=None, fields=("frame_index", "bbox"))
    # the network's crop, without the crop scale
    read["bbox"][..., 2:] *= split.open_stream(streams.features).crop.scale
    in_track = rows - track.start

    track_number = int(split.track_of(whole[0, :1])[0])
    video = split.videos[int(split.tracks.video[track_number])]
    picture = None
    if video.width > 0 and video.height > 0:
        picture = (video.width, video.height)
    return TrackBodies(
        track=track,
        rows=rows,
        run=present.runs(rows),
        frame_index=read["frame_index"][0, in_track].astype(np.int64),
        bbox=read["bbox"][0, in_track].astype(np.float32),
        picture=picture,
        **predicted._asdict(),
    )
