"""How good a model is on a split, and by which protocol.  features -> windows -> training -> [evaluation]

Protocol "default" predicts every frame that has features once, counts the frames that are valid and labelled, and takes
accelerations over neighbouring frames of one track. Protocol "published" does what the published figures were made
with, its four defects included: windows drop each track's last frames, accelerations are taken across track borders,
`valid` is ignored, and labels are rounded to float16. PVE compares neutral bodies in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vibe_model import metrics
from vibe_model.errors import ConfigError
from vibe_model.eval_windows import EvalWindow, plan_windows, select_tracks
from vibe_model.generator import VIBE
from vibe_model.losses import COMMON14
from vibe_model.rotations import axis_angle_to_matrix, rotation_6d_to_matrix
from vibe_model.runs import check_stand_in

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]
Metrics = dict[str, Any]

PROTOCOLS: Final = ("default", "published")
_LABELS: Final = ("kp_3d", "theta", "w_3d", "w_smpl", "valid")


@dataclass(frozen=True, slots=True, eq=False)
class _Frames:
    """Predictions and labels of F frames, in row order."""

    joints: Floats  # (F, 14, 3) m, predicted
    target: Floats  # (F, 14, 3) m
    pve: Floats  # (F,) mm; nan without SMPL labels
    mean_body_pve: Floats  # (F,) mm, of the mean body; nan likewise
    labelled: Bools  # (F,)
    valid: Bools  # (F,)
    run: NDArray[np.int64]  # (F,) frames of equal number are neighbours in one track

    @classmethod
    def joined(cls, parts: Sequence[Mapping[str, NDArray[Any]]]) -> Self:
        return cls(**{item.name: np.concatenate([part[item.name] for part in parts]) for item in fields(cls)})

    def only_labelled_as_one_run(self) -> _Frames:
        """What is left for a protocol that knows neither tracks nor `valid`."""
        kept = {item.name: getattr(self, item.name)[self.labelled] for item in fields(self)}
        return _Frames(**kept | {"valid": kept["labelled"], "run": np.zeros_like(kept["run"])})


def evaluate(
    generator: VIBE,
    splits: Mapping[str, Split],
    *,
    stream: str,
    seqlen: int = 16,
    protocol: str = "default",
    tracks: Mapping[str, str] | None = None,
    batch_size: int = 16,
) -> dict[str, Metrics]:
    """`evaluate_split` of every split, by name. `tracks`: patterns of track names, where only a part of a split counts.

    Raises StandInMixed when splits and body are partly stand-ins, ConfigError for an unknown protocol.
    """
    stand_in = check_stand_in(generator.body.stand_in, splits)
    results: dict[str, Metrics] = {}
    for name, split in splits.items():
        results[name] = evaluate_split(
            generator,
            split,
            stream=stream,
            seqlen=seqlen,
            protocol=protocol,
            tracks=(tracks or {}).get(name, "*"),
            batch_size=batch_size,
        )
        results[name]["stand_in"] = stand_in
    return results


def evaluate_split(
    generator: VIBE,
    split: Split,
    *,
    stream: str,
    seqlen: int = 16,
    protocol: str = "default",
    tracks: str = "*",
    batch_size: int = 16,
    vertices: bool = True,
) -> Metrics:
    """Metrics of one split, the same for the constant mean body ("baseline"), and how many frames they stand for.

    mpjpe, pa_mpjpe, pve in mm, accel, accel_error in mm per frame^2, pck, auc in %: means over the counted frames. A
    metric for which no frame has a label is absent. frames: counted; frames_total: of the selected tracks;
    frames_not_predicted: without features, or in no window; frames_not_counted: predicted, but unlabelled or not valid.
    `vertices`: take PVE too, which costs a second body.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {protocol!r}")
    published = protocol == "published"
    chosen = select_tracks(split, tracks)
    windows = plan_windows(split, chosen, stream=stream, seqlen=seqlen, drop_last=published)
    total = sum(track.stop - track.start for track in chosen)
    predicted = sum(window.stop - window.keep for window in windows)
    result: Metrics = {"protocol": protocol, "frames_total": total, "frames_not_predicted": total - predicted}
    if not windows:
        return result | {"frames": 0, "frames_not_counted": 0, "baseline": {}}
    labels = _LabelReader(split, stream, half=published)
    frames = _Frames.joined(list(_predict(generator, labels, windows, batch_size, vertices)))
    if published:
        frames = frames.only_labelled_as_one_run()
    counted = frames.labelled & frames.valid
    n_counted = int(counted.sum())
    mean_body = np.broadcast_to(_mean_joints(generator.body), frames.joints.shape)
    return (
        result
        | {"frames": n_counted, "frames_not_counted": predicted - n_counted}
        | _summarise(frames.joints, frames.pve, frames, counted)
        | {"baseline": _summarise(mean_body, frames.mean_body_pve, frames, counted)}
    )


def _summarise(joints: Floats, pve: Floats, frames: _Frames, counted: Bools) -> dict[str, float]:
    """Means over the counted frames of `frames`, of one prediction or another."""
    pred, target = joints[counted], frames.target[counted]
    # An acceleration belongs to three neighbours, all of which count.
    three = counted[2:] & counted[1:-1] & counted[:-2] & (frames.run[2:] == frames.run[:-2])
    known_pve = pve[counted & np.isfinite(pve)]
    values = {
        "mpjpe": metrics.mpjpe(pred, target),
        "pa_mpjpe": metrics.pa_mpjpe(pred, target),
        "pve": known_pve,
        "accel": metrics.accel(joints)[three],
        "accel_error": metrics.accel_error(joints, frames.target)[three],
    }
    means = {name: float(value.mean()) for name, value in values.items() if len(value)}
    if len(pred):
        means |= {"pck": metrics.pck(pred, target), "auc": metrics.auc(pred, target)}
    return means


@dataclass(frozen=True, slots=True)
class _LabelReader:
    """Reads features and labels of evaluation windows."""

    split: Split
    stream: str
    half: bool  # labels rounded to float16, as the published figures have them

    def read(self, windows: Sequence[EvalWindow]) -> Arrays:
        ranges = np.array([(window.start, window.stop) for window in windows], np.int64)
        arrays: Arrays = self.split.read(ranges, stream=self.stream, fields=("features", *_LABELS))
        if arrays["kp_3d"].shape[-2] != 14:  # a split that is not for evaluation has spin49
            arrays["kp_3d"] = arrays["kp_3d"][..., COMMON14, :]
        if self.half:
            arrays |= {name: arrays[name].astype(np.float16).astype(np.float32) for name in ("kp_3d", "theta")}
        return arrays


def _predict(
    generator: VIBE, labels: _LabelReader, windows: Sequence[EvalWindow], batch_size: int, vertices: bool
) -> Iterator[Arrays]:
    """`_Frames`' arrays, batch by batch, in row order."""
    device = next(generator.parameters()).device
    mode = generator.training
    generator.eval()
    try:
        for batch in _equal_lengths(windows, batch_size):
            arrays = labels.read(batch)
            with torch.no_grad():
                pred = generator(torch.as_tensor(arrays["features"], device=device), eval_joints=True)
                errors = _vertex_errors(generator.body, pred["verts"], arrays, vertices)
            frames = {
                "joints": pred["kp_3d"].cpu().numpy(),
                "target": arrays["kp_3d"],
                "pve": errors[0],
                "mean_body_pve": errors[1],
                "labelled": arrays["w_3d"] > 0,
                "valid": arrays["valid"] > 0,
                "run": np.repeat([[window.run] for window in batch], arrays["valid"].shape[1], axis=1),
            }
            keep = np.array([np.arange(window.start, window.stop) >= window.keep for window in batch])
            yield {name: array[keep] for name, array in frames.items()}
    finally:
        generator.train(mode)


def _equal_lengths(windows: Sequence[EvalWindow], batch_size: int) -> Iterator[list[EvalWindow]]:
    """Batches of windows of one length, without changing their order."""
    for _, group in groupby(windows, key=lambda window: window.stop - window.start):
        same = list(group)
        for first in range(0, len(same), batch_size):
            yield same[first : first + batch_size]


def _vertex_errors(body: Body, verts: Tensor, arrays: Arrays, wanted: bool) -> tuple[Floats, Floats]:
    """PVE of a prediction and of the mean body, (B, T) mm each; nan where there are no SMPL labels."""
    known = arrays["w_smpl"] > 0
    own, mean = np.full(known.shape, np.nan), np.full(known.shape, np.nan)
    if wanted and known.any():
        theta = torch.as_tensor(arrays["theta"][known], device=verts.device)  # (K, 85)
        rotmat = axis_angle_to_matrix(theta[:, 3:75].reshape(-1, 24, 3))  # (K, 24, 3, 3)
        target = body(betas=theta[:, 75:], rotmat=rotmat).verts.cpu().numpy()  # (K, V, 3) m
        own[known] = metrics.pve(verts.cpu().numpy()[known], target)
        mean[known] = metrics.pve(_mean_vertices(body).cpu().numpy(), target)
    return own, mean


def _mean_vertices(body: Body) -> Tensor:
    """The body of the mean parameters that the regressor starts from: (1, V, 3) m."""
    rotmat = rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
    verts: Tensor = body(betas=body.mean_shape.reshape(1, -1), rotmat=rotmat).verts
    return verts


def _mean_joints(body: Body) -> Floats:
    """The mean body's (1, 14, 3) joints, m."""
    with torch.no_grad():
        joints: Floats = body.common14(_mean_vertices(body)).cpu().numpy()
    return joints
