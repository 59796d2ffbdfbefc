"""Errors of predictions by frame and protocol, and their means.  features -> windows ->
[evaluation]
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MissingAssets
from pipeline.estimates import recorded_estimates
from pipeline.rotations import axis_angle_to_matrix, rotation_6d_to_matrix
from pipeline.skeletons import JOINTS
from vibe_model import metrics
from vibe_model.cameras import project
from vibe_model.evaluation import protocols
from vibe_model.evaluation.protocols import Labels, Protocol
from vibe_model.losses import COMMON14
from vibe_model.networks.video_model import Estimate, VideoModel
from vibe_model.prediction.predict import POSED_AT_ONCE, TrackBodies
from vibe_model.runs import NEUTRAL_BODY

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

Floats = NDArray[np.floating[Any]]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Order = Literal["common14", "spin49", "smpl"]  # of joints
Root = tuple[Order, tuple[int, ...]]  # joints whose middle moves to 0; none: vertices are not moved
ByFrame = Mapping[str, Float64s]  # error -> (F,), nan where a frame has none
Pair = tuple[Floats, Floats]  # predicted and true

_LABELS: Final = ("kp_2d", "kp_3d", "theta", "w_3d", "w_smpl", "valid")
ROUNDED: Final = ("joints", "kp_2d", "theta")  # labels to round
VERTICES: Final = ("vertices", "vertices at rest")
OWN, BASELINE = MODELS = ("own", "baseline")  # the prediction, and the constant mean body


@dataclass(frozen=True, slots=True, eq=False)
class TrackErrors:
    """Errors of F predicted frames of one track, in row order.

    An acceleration belongs to the middle of its three frames; with `successive` "track", to the
    last one.
    """

    counted: Bools  # (F,) frames with counted 3D labels
    keypoints: Float64s  # (F,) numbers of counted 2D keypoints
    # of the prediction ("own") and the constant mean body ("baseline")
    models: Mapping[str, ByFrame]
    by_keypoint: frozenset[str] = frozenset({"pck_2d"})  # errors with a mean over keypoints


@dataclass(slots=True)
class Means:
    """Running means over frames, or over the means of groups (tracks, videos)."""

    predicted: int = 0  # frames
    counted: int = 0  # frames with counted 3D labels
    counted_2d: int = 0  # frames with counted 2D labels
    # By (model, error) and group: weighted sum, sum of weights
    sums: dict[tuple[str, str], dict[str, tuple[float, float]]] = field(default_factory=dict)

    def add(self, errors: TrackErrors, part: slice = slice(None), group: str = "") -> Self:
        """Add frames of a track to a group. All groups have the same weight."""
        keypoints = errors.keypoints[part]
        self.predicted += len(keypoints)
        self.counted += int(errors.counted[part].sum())
        self.counted_2d += int((keypoints > 0).sum())
        for model, by_frame in errors.models.items():
            for name, values in by_frame.items():
                known = ~np.isnan(values[part])
                weight = (
                    keypoints[known] if name in errors.by_keypoint else np.ones(int(known.sum()))
                )
                groups = self.sums.setdefault((model, name), {})
                total, weights = groups.get(group, (0.0, 0.0))
                total += float((weight * values[part][known]).sum())
                groups[group] = (total, weights + float(weight.sum()))
        return self

    def by_error(self, model: str = "own") -> dict[str, float]:
        means = {
            name: [total / weights for total, weights in groups.values() if weights]
            for (of, name), groups in self.sums.items()
            if of == model
        }
        return {name: fmean(of_groups) for name, of_groups in means.items() if of_groups}


class Scorer:
    """Compares tracks of one split with their labels, in row order: accelerations may cross track
    borders.

    protocols: with equal windows. vertices, keypoints: compute metrics of them. smooth: sigma of a
    Gaussian in time, frames; 0: none. Raises MissingAssets if vertices are compared and a gender's
    body is missing.
    """

    @torch.no_grad()
    def __init__(
        self,
        generator: VideoModel,
        split: Split,
        protocols: Sequence[Protocol],
        smooth: float = 0.0,
        *,
        vertices: bool = True,
        keypoints: bool = True,
    ) -> None:
        self._generator = generator
        self._split = split
        self._smooth = smooth
        self._keypoints = keypoints
        kept = {"vertices": vertices, "vertices at rest": vertices, "keypoints": keypoints}
        self._protocols = [
            replace(
                p, metrics={name: m for name, m in p.metrics.items() if kept.get(m.reads, True)}
            )
            for p in protocols
        ]
        self.means = {p.name: Means() for p in protocols}  # over the tracks so far
        self._genders = {
            p.name: p.genders(split)
            for p in self._protocols
            if p.truth == "body" or _reads_vertices(p)
        }
        genders = dict.fromkeys(
            gender for of_protocol in self._genders.values() for gender in of_protocol
        )
        self._label_bodies = _label_bodies(generator, split, genders)
        self._unit_shapes = functools.cache(_unit_shapes)
        # The baseline: the body and camera with which VIBE's regressor starts
        body = generator.body
        rotmat = rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
        betas = body.mean_shape.reshape(1, -1)
        mean = body(betas=betas, rotmat=rotmat)
        self._mean = _Mesh(body, betas, rotmat, mean.verts)
        # (1, 49, 2) in the crop
        self._mean_kp_2d = _numpy(project(mean.joints, body.mean_cam.reshape(1, 3)))
        # Last frames of the previous track, for metrics across tracks
        self._before: dict[tuple[str, str, str], Pair] = {}

    def add(self, raw: TrackBodies) -> tuple[TrackBodies, TrackErrors]:
        """Add the errors of one track. Returns it smoothed, and its errors by the first
        protocol.
        """
        bodies = raw.smooth_time(self._smooth)
        labels = self._labels(bodies)
        truths = [_Truth.from_labels(protocol, labels) for protocol in self._protocols]
        predicted = self._pose(bodies, truths)
        by_protocol = []
        for truth in truths:
            for model in MODELS:
                self._measure(model, truth, predicted, bodies.run)
            keypoints = metrics.hits_2d(truth.kp_2d[..., :2], truth.kp_2d)[1]
            by_keypoint = frozenset(
                name for name, metric in truth.protocol.metrics.items() if metric.by_keypoint
            )
            by_protocol.append(TrackErrors(truth.counted, keypoints, truth.errors, by_keypoint))
            group = {"tracks": raw.track.name, "videos": raw.track.video}.get(
                truth.protocol.mean, ""
            )
            self.means[truth.protocol.name].add(by_protocol[-1], group=group)
        return bodies, by_protocol[0]

    def _labels(self, bodies: TrackBodies) -> Labels:
        track = bodies.track
        fields = [name for name in _LABELS if self._keypoints or name != "kp_2d"]
        whole = self._split.read(
            np.array([(track.start, track.stop)], np.int64), stream=None, fields=fields
        )
        arrays: dict[str, Any] = {
            name: array[0, bodies.rows - track.start] for name, array in whole.items()
        }
        joints = arrays["kp_3d"]
        if joints.shape[-2] != len(COMMON14):  # spin49: not an evaluation split
            joints = joints[:, COMMON14]
        kp_2d = arrays.get("kp_2d", np.zeros((len(joints), 49, 3), np.float32))
        if recorded_estimates(self._split):
            # not valid as ground truth, which `Protocol.lacking` sees to; 2D joints count as before
            arrays["valid"] = np.ones_like(arrays["valid"])
        flags = (arrays[name] > 0 for name in ("w_3d", "w_smpl", "valid"))
        return Labels(joints, kp_2d, arrays["theta"], *flags)

    @torch.no_grad()
    def _pose(self, predicted: TrackBodies, truths: Sequence[_Truth]) -> dict[str, Floats]:
        """Pose the frames that metrics read: "keypoints", and joints by their order; 0 elsewhere.

        Fills metrics of vertices into the truths, since vertices are too large to keep.
        """
        orders: set[Order] = {truth.protocol.joints for truth in truths}
        shapes: dict[str, tuple[int, int]] = {order: (len(JOINTS[order]), 3) for order in orders}
        shapes["keypoints"] = (49, 2)
        out: dict[str, Floats] = {
            name: np.zeros((len(predicted), *s), np.float32) for name, s in shapes.items()
        }
        # truths that need the labels' body, by gender and rounding
        groups: dict[tuple[str, bool], list[_Truth]] = {}
        for truth in truths:
            if genders := self._genders.get(truth.protocol.name):
                of_track = predicted.track.gender
                gender = of_track if of_track in genders else genders[0]
                groups.setdefault((gender, truth.protocol.round_labels), []).append(truth)
        with_mesh = {
            key: any(_reads_vertices(truth.protocol) for truth in of) for key, of in groups.items()
        }
        needed = np.flatnonzero(
            np.any([truth.with_joints | truth.with_keypoints for truth in truths], axis=0)
        )
        for start in range(0, len(needed), POSED_AT_ONCE):
            part = needed[start : start + POSED_AT_ONCE]
            bodies = predicted.on_device(part, self._generator.device)
            rows = {
                key: part[np.any([t.with_body[part] for t in group], axis=0)]
                for key, group in groups.items()
            }
            meshed = any(len(rows[key]) and with_mesh[key] for key in groups)
            posed: dict[str, Tensor] = {}
            if meshed or any(truth.with_keypoints[part].any() for truth in truths):
                posed = self._generator.pose(bodies, vertices=meshed)
                out["keypoints"][part] = _numpy(posed["kp_2d"])
            own = _Mesh(self._generator.body, bodies.shape, bodies.rotmat, posed.get("verts"))
            if any(truth.with_joints[part].any() for truth in truths):
                for order in orders:
                    out[order][part] = _numpy(self._predicted_joints(order, bodies, own))
            for key, group in groups.items():
                if len(labelled := rows[key]):
                    theta = group[0].labels.theta[labelled]
                    label = _Mesh.from_theta(self._label_bodies[key[0]], theta, own.betas)
                    label = label.with_vertices() if with_mesh[key] else label
                    self._compare_bodies(group, own.take(np.isin(part, labelled)), label, labelled)
        return out

    def _predicted_joints(self, order: Order, bodies: Estimate, mesh: _Mesh) -> Tensor:
        """(N, J, 3) m."""
        if order == "common14" and mesh.verts is None:
            return self._generator.pose(bodies, eval_joints=True, vertices=False)["kp_3d"]
        return mesh.joints(order)

    def _compare_bodies(
        self, truths: Sequence[_Truth], own: _Mesh, label: _Mesh, rows: Ints
    ) -> None:
        """Fill in joints of labels' bodies and metrics of vertices for some rows of a track."""
        vertices = functools.cache(self._vertices)
        errors: dict[tuple[str, int, Root], Floats] = {}  # by model, metric, root
        for truth in truths:
            protocol = truth.protocol
            counted = truth.counted[rows]
            if protocol.truth == "body":
                truth.joints[rows] = _numpy(label.joints(protocol.joints))
            centred = protocol.root_vertices or label.body is not own.body
            root: Root = (protocol.joints, tuple(protocol.root_places) if centred else ())
            for name, metric in protocol.metrics.items():
                if metric.reads not in VERTICES or not counted.any():
                    continue
                for model, mesh in zip(MODELS, (own, self._mean), strict=True):
                    if (key := (model, id(metric), root)) not in errors:
                        target = vertices(label, metric.reads, root)
                        pred = np.broadcast_to(vertices(mesh, metric.reads, root), target.shape)
                        errors[key] = protocol.measure(name, pred, target)
                    truth.errors[model][name][rows[counted]] = errors[key][counted]

    def _vertices(self, mesh: _Mesh, reads: str, root: Root) -> Floats:
        """(N, 6890, 3) m for metrics."""
        return _numpy(
            (mesh if reads == "vertices" else mesh.unpose(self._unit_shapes(mesh.body))).vertices(
                root
            )
        )

    def _measure(
        self, model: str, truth: _Truth, predicted: Mapping[str, Floats], run: Ints
    ) -> None:
        """Fill in all errors of a track except those of vertices."""
        protocol = truth.protocol
        pairs = self._pairs(model, truth, predicted)
        for name, metric in protocol.metrics.items():
            if metric.reads in VERTICES:
                continue
            pred, target = pairs[metric.reads]
            rows = np.flatnonzero(
                {"keypoints": truth.with_keypoints, "prediction": truth.with_joints}.get(
                    metric.reads, truth.counted
                )
            )
            out = truth.errors[model][name]
            if metric.span > 1 and protocol.successive == "split":
                before = self._before.get((protocol.name, model, name), (pred[:0], target[:0]))
                pred = np.concatenate([before[0], pred[rows]])
                target = np.concatenate([before[1], target[rows]])
                values = protocol.measure(name, pred, target)
                out[rows[len(rows) - len(values) :]] = values
                self._before[protocol.name, model, name] = (
                    pred[-metric.span + 1 :],
                    target[-metric.span + 1 :],
                )
                continue
            for stretch in _stretches(rows, run, protocol, metric.span):
                values = protocol.measure(name, pred[stretch], target[stretch])
                # With "track", a value belongs to the last of its frames.
                first = (
                    len(stretch) - len(values)
                    if protocol.successive == "track"
                    else metric.span // 2
                )
                out[stretch[first:][: len(values)]] = values

    def _pairs(self, model: str, truth: _Truth, predicted: Mapping[str, Floats]) -> dict[str, Pair]:
        protocol = truth.protocol
        joints = predicted[protocol.joints]
        kp_2d = predicted["keypoints"]
        if model == BASELINE:
            mean = _numpy(self._mean.joints(protocol.joints))
            joints = np.broadcast_to(mean, joints.shape)
            kp_2d = np.broadcast_to(self._mean_kp_2d, kp_2d.shape)
        return {
            "joints": (protocol.rooted(joints), protocol.rooted(truth.joints)),
            "placed joints": (joints, truth.joints),
            "keypoints": (kp_2d, truth.kp_2d),
            "prediction": (joints, joints),
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """Labels of F frames by a protocol, and the errors of predictions."""

    protocol: Protocol
    labels: Labels
    joints: Floats  # (F, J, 3) m; those of labels' bodies are filled in later
    kp_2d: Floats  # (F, 49, 3) in the crop, confidence; 0 for keypoints that do not count
    counted: Bools  # (F,) frames with counted 3D labels
    # (F,) by model and metric, filled in later; nan: none
    errors: Mapping[str, dict[str, Float64s]]

    @property
    def with_keypoints(self) -> Bools:
        """(F,) frames with a counted keypoint."""
        return np.asarray((self.kp_2d[..., 2] > 0).any(axis=1))

    @property
    def with_joints(self) -> Bools:
        """(F,) frames whose predicted joints are read: all, with a metric of the prediction
        alone.
        """
        return self.counted | any(
            metric.reads == "prediction" for metric in self.protocol.metrics.values()
        )

    @property
    def with_body(self) -> Bools:
        """(F,) counted frames with SMPL parameters."""
        return self.counted & self.labels.has_smpl

    @classmethod
    def from_labels(cls, protocol: Protocol, labels: Labels) -> Self:
        """Raises PlugInError if another package's rules fail."""
        if protocol.round_labels:
            rounded = {
                name: getattr(labels, name).astype(np.float16).astype(np.float32)
                for name in ROUNDED
            }
            labels = labels._replace(**rounded)
        with protocols.REGISTRY.calling(protocol.name, "rows, rows_2d"):
            rows, rows_2d = (
                np.asarray(rule(labels), np.bool_) for rule in (protocol.rows, protocol.rows_2d)
            )
            kp_2d = np.where(rows_2d[:, None, None], labels.kp_2d, np.float32(0))
        errors = {
            model: {name: np.full(len(rows), np.nan) for name in protocol.metrics}
            for model in MODELS
        }
        if protocol.truth == "joints":
            return cls(protocol, labels, labels.joints, kp_2d, rows & labels.has_3d, errors)
        joints = np.zeros((len(rows), len(JOINTS[protocol.joints]), 3), np.float32)
        return cls(protocol, labels, joints, kp_2d, rows & labels.has_smpl, errors)


class _Mesh(NamedTuple):
    """N bodies of one gender, on the model's device."""

    body: Body
    betas: Tensor  # (N, 10)
    rotmat: Tensor  # (N, 24, 3, 3) relative to parents
    verts: Tensor | None = None  # (N, 6890, 3) m

    @classmethod
    def from_theta(cls, body: Body, theta: Floats, like: Tensor) -> _Mesh:
        """From labels (N, 85), on the device and in the type of `like`."""
        label = torch.as_tensor(theta).to(like)
        return cls(body, label[:, 75:], axis_angle_to_matrix(label[:, 3:75].reshape(-1, 24, 3)))

    def take(self, rows: Bools) -> _Mesh:
        if rows.all():
            return self
        some = torch.as_tensor(rows)
        verts = None if self.verts is None else self.verts[some]
        return _Mesh(self.body, self.betas[some], self.rotmat[some], verts)

    def with_vertices(self) -> _Mesh:
        return self._replace(verts=self.body(betas=self.betas, rotmat=self.rotmat).verts)

    def unpose(self, units: Tensor) -> _Mesh:
        """Unposed, with vertices. units: `_unit_shapes` of its body."""
        verts = units[10] + torch.einsum("nb,bvc->nvc", self.betas, units[:10] - units[10])
        rest = torch.eye(3, device=verts.device).expand(len(self.betas), 24, 3, 3)
        return _Mesh(self.body, self.betas, rest, verts)

    def joints(self, order: Order) -> Tensor:
        """(N, J, 3) m."""
        if order == "common14" and self.verts is not None:
            return self.body.common14(self.verts)
        return self.body.joints(betas=self.betas, rotmat=self.rotmat, order=order)

    def vertices(self, root: Root) -> Tensor:
        """(N, 6890, 3) m about a root."""
        assert self.verts is not None
        order, places = root
        return (
            self.verts - self.joints(order)[:, places].mean(dim=1, keepdim=True)
            if places
            else self.verts
        )


def _unit_shapes(body: Body) -> Tensor:
    """(11, 6890, 3) m at rest, of the ten unit shapes and of shape 0: vertices are linear in the
    shape.
    """
    device = body.mean_shape.device
    rest = torch.eye(3, device=device).expand(11, 24, 3, 3)
    verts: Tensor = body(betas=torch.eye(11, 10, device=device), rotmat=rest).verts
    return verts


def _label_bodies(generator: VideoModel, split: Split, genders: Iterable[str]) -> dict[str, Body]:
    """Bodies by gender, on the generator's device. Raises MissingAssets if a gender's files are
    missing.
    """
    try:
        of_genders = {
            gender: generator.body.of(gender).to(generator.device)
            for gender in genders
            if gender != NEUTRAL_BODY
        }
    except MissingAssets as error:
        raise MissingAssets(
            f"{split.name}: PVE compares with the gendered bodies of its labels: {error}"
        ) from None
    return {NEUTRAL_BODY: generator.body, **of_genders}


def _reads_vertices(protocol: Protocol) -> bool:
    return any(metric.reads in VERTICES for metric in protocol.metrics.values())


def _stretches(rows: Ints, run: Ints, protocol: Protocol, span: int) -> list[Ints]:
    """Split counted frames into stretches of successive ones with at least `span` frames."""
    if span == 1 or protocol.successive == "track":
        stretches = [rows]
    else:
        stretches = np.split(
            rows, np.flatnonzero((np.diff(rows) != 1) | (np.diff(run[rows]) != 0)) + 1
        )
    return [stretch for stretch in stretches if len(stretch) >= span]


def _numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array
