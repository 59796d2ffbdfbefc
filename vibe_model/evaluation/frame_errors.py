"""Errors of predictions by frame and protocol.  features -> windows -> [evaluation]

`evaluate` adds every predicted track to a `Scorer`, which measures it by several protocols at once:

1. `Truth.from_labels` decides which frames a protocol counts.
2. `Scorer._pose` poses the predicted bodies and those of the labels, a few frames at a time. It
   keeps the joints and the errors of vertices (`_compare_bodies`), since vertices of a whole track
   would be too large.
3. `Scorer._measure` adds the errors of joints and keypoints of the whole track.

Each error is measured for the prediction (OWN) and for the constant mean body (BASELINE).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cache.read.labels import BETAS, FIELDS, POSE
from pipeline.errors import MissingAssets
from pipeline.people.estimates import recorded_estimates
from pipeline.people.rotations import axis_angle_to_matrix, rotation_6d_to_matrix
from pipeline.people.skeletons import JOINTS, Bools, Doubles, Floats, Ints
from vibe_model import metrics
from vibe_model.cameras import project
from vibe_model.evaluation.protocols import NEUTRAL_BODY, SMPLX_JOINTS, Labels, Protocol
from vibe_model.evaluation.track_errors import BASELINE, MODELS, OWN, Means, TrackErrors, Truth
from vibe_model.losses import COMMON14
from vibe_model.networks.video_model import POSED_AT_ONCE, Estimate, VideoModel
from vibe_model.prediction.predict import TrackBodies

if TYPE_CHECKING:
    from cache import Split
    from pipeline.people.body import Body

Order = Literal["common14", "smpl"]  # of joints
Pair = tuple[Floats, Floats]  # predicted and true
ErrorKey = tuple[str, str, str]  # protocol, model, metric

VERTICES: Final = ("vertices", "vertices at rest")  # `Metric.reads` of metrics of vertices


class _Root(NamedTuple):
    """Joints whose middle is the origin for vertices; without indices, vertices stay in place."""

    order: Order
    indices: tuple[int, ...]  # of the joints in this order


class Scorer:
    """Compares the predicted tracks of one split with their labels.

    Tracks must be added in row order: some protocols compute accelerations across their borders.
    protocols: they cut tracks into the same windows. vertices, keypoints: whether to compute
    metrics of them. smooth: sigma in frames of a Gaussian over time; 0: none. Raises MissingAssets
    if vertices are compared and a gender's body is missing.
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
        self._reads_keypoints = keypoints

        unread: set[str] = set()  # `Metric.reads` of metrics that are not computed
        if not vertices:
            unread.update(VERTICES)
        if not keypoints:
            unread.add("keypoints")
        self._protocols = [_drop_metrics(protocol, unread) for protocol in protocols]
        # over the tracks so far
        self.means = {protocol.name: Means(protocol.metrics) for protocol in protocols}

        # protocol -> genders of the labels' bodies that it needs
        self._genders: dict[str, tuple[str, ...]] = {}
        for protocol in self._protocols:
            if protocol.truth == "body" or _vertex_metrics(protocol):
                self._genders[protocol.name] = protocol.genders(split)
        genders = itertools.chain.from_iterable(self._genders.values())
        self._label_bodies = _label_bodies(generator, split, genders)
        self._unit_shapes = functools.cache(_unit_shapes)  # by body

        # The baseline is the body and camera with which VIBE's regressor starts.
        body = generator.body
        rotmat = rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
        betas = body.mean_shape.reshape(1, -1)
        mean = body(betas=betas, rotmat=rotmat)
        self._mean = _Mesh(body, betas, rotmat, mean.verts)  # N = 1
        # (1, 49, 2) in the crop
        self._mean_kp_2d = _numpy(project(mean.joints, body.mean_cam.reshape(1, 3)))
        # Last frames of the previous track by protocol, model and metric, for metrics across tracks
        # (`Protocol.successive` "split")
        self._previous: dict[ErrorKey, Pair] = {}

    def add(self, raw: TrackBodies) -> tuple[TrackBodies, TrackErrors]:
        """Add the errors of one track to the means.

        Returns the smoothed track, and its errors by the first protocol.
        """
        bodies = raw.smooth_time(self._smooth)
        labels = self._read_labels(bodies)
        truths = [Truth.from_labels(protocol, labels) for protocol in self._protocols]
        posed = self._pose(bodies, truths)
        # `Protocol.mean` -> the group of this track; all groups have the same weight in the means
        groups = {"frames": "", "videos": raw.track.video}
        by_protocol = []
        for truth in truths:
            by_model = {model: self._measure(model, truth, posed, bodies.run) for model in MODELS}
            _, n_keypoints = metrics.hits_2d(truth.kp_2d[..., :2], truth.kp_2d)
            errors = TrackErrors(truth.counted, n_keypoints, by_model, truth.protocol.metrics)
            self.means[truth.protocol.name].add(errors, group=groups[truth.protocol.mean])
            by_protocol.append(errors)
        return bodies, by_protocol[0]

    def _read_labels(self, bodies: TrackBodies) -> Labels:
        """Read the labels of the predicted frames."""
        track = bodies.track
        fields = list(FIELDS)
        if not self._reads_keypoints:
            fields.remove("kp_2d")
        if any(protocol.truth == "smplx" for protocol in self._protocols):
            fields.append(SMPLX_JOINTS)
        whole = np.array([(track.start, track.stop)], np.int64)
        arrays: dict[str, Any] = {}
        for name, array in self._split.read(whole, stream=None, fields=fields).items():
            arrays[name] = array[0, bodies.rows - track.start]

        joints = arrays["kp_3d"]
        if joints.shape[-2] != len(COMMON14):  # spin49: not an evaluation split
            joints = joints[:, COMMON14]
        kp_2d = arrays.get("kp_2d", np.zeros((len(joints), 49, 3), np.float32))
        valid = arrays["valid"] > 0
        if recorded_estimates(self._split):
            # Their frames are marked invalid only as 3D ground truth (see `Protocol.lacking`).
            valid = np.ones_like(valid)
        has_3d = arrays["w_3d"] > 0
        smplx_joints = arrays.get(SMPLX_JOINTS, joints)
        has_smpl = arrays["w_smpl"] > 0
        return Labels(joints, kp_2d, arrays["theta"], has_3d, has_smpl, valid, smplx_joints)

    @torch.no_grad()
    def _pose(self, predicted: TrackBodies, truths: Sequence[Truth]) -> _Posed:
        """Pose the frames that metrics read, POSED_AT_ONCE at a time."""
        n_frames = len(predicted)
        kp_2d = np.zeros((n_frames, 49, 2), np.float32)
        joints: dict[Order, Floats] = {
            protocol.joints: np.zeros((n_frames, len(JOINTS[protocol.joints]), 3), np.float32)
            for protocol in self._protocols
        }
        label_joints = {
            protocol.name: np.zeros_like(joints[protocol.joints])
            for protocol in self._protocols
            if protocol.truth == "body"
        }
        vertex_errors: dict[ErrorKey, Doubles] = {}
        for protocol in self._protocols:
            for name, metric in _vertex_metrics(protocol).items():
                for model in MODELS:
                    vertex_errors[protocol.name, model, name] = metric.unknown(n_frames)
        reads_joints = _any_row(truth.reads_joints for truth in truths)
        reads_keypoints = _any_row(truth.reads_keypoints for truth in truths)
        groups = self._group_by_body(truths, predicted.track.gender)

        needed = np.flatnonzero(reads_joints | reads_keypoints)
        for start in range(0, len(needed), POSED_AT_ONCE):
            rows = needed[start : start + POSED_AT_ONCE]
            bodies = predicted.on_device(rows, self._generator.device)
            needs_vertices = any(group.has_vertices and group.rows[rows].any() for group in groups)
            posed: dict[str, Tensor] = {}
            if needs_vertices or reads_keypoints[rows].any():
                posed = self._generator.pose(bodies, vertices=needs_vertices)
                kp_2d[rows] = _numpy(posed["kp_2d"])
            if not reads_joints[rows].any():
                continue

            mesh = _Mesh(self._generator.body, bodies.shape, bodies.rotmat, posed.get("verts"))
            for order, ordered in joints.items():
                ordered[rows] = self._predicted_joints(order, bodies, mesh)
            for group in groups:
                is_labelled = group.rows[rows]
                if not is_labelled.any():
                    continue
                labelled = rows[is_labelled]
                compared = self._compare_bodies(group, mesh.take(is_labelled), labelled)
                for name, of_label in compared.label_joints.items():
                    label_joints[name][labelled] = of_label
                for key, errors in compared.vertex_errors.items():
                    vertex_errors[key][labelled] = errors
        return _Posed(joints, kp_2d, _ComparedBodies(label_joints, vertex_errors))

    def _predicted_joints(self, order: Order, bodies: Estimate, mesh: _Mesh) -> Floats:
        """Joints of N predicted bodies, (N, J, 3) m. mesh: the same bodies.

        common14 comes from the vertices of the mesh, or, without them, from `VideoModel.pose`.
        """
        if order == "common14" and mesh.verts is None:
            posed = self._generator.pose(bodies, eval_joints=True, vertices=False)
            return _numpy(posed["kp_3d"])
        return _numpy(mesh.joints(order))

    def _group_by_body(self, truths: Sequence[Truth], gender: str) -> list[_BodyGroup]:
        """Group the truths that need bodies of labels, by gender and rounding of the labels.

        gender: that of the track's labels.
        """
        groups: dict[tuple[str, bool], list[Truth]] = {}
        for truth in truths:
            genders = self._genders.get(truth.protocol.name)
            if genders:
                compared = gender if gender in genders else genders[0]
                groups.setdefault((compared, truth.protocol.round_labels), []).append(truth)
        return [
            _BodyGroup(self._label_bodies[compared], same) for (compared, _), same in groups.items()
        ]

    def _compare_bodies(self, group: _BodyGroup, predicted: _Mesh, rows: Ints) -> _ComparedBodies:
        """Compare the predicted bodies in N rows of a track with those of their labels."""
        theta = group.truths[0].labels.theta[rows]
        label = _Mesh.from_theta(group.body, theta, predicted.betas)
        if group.has_vertices:
            verts = group.body(betas=label.betas, rotmat=label.rotmat).verts
            label = label._replace(verts=verts)
        meshes = {OWN: predicted, BASELINE: self._mean}
        # Protocols with equal roots share vertices; with the same metric also its errors (N,).
        vertices = functools.cache(self._vertices)
        shared: dict[tuple[str, metrics.Metric, _Root], Doubles] = {}  # by model, metric and root
        compared = _ComparedBodies({}, {})
        for truth in group.truths:
            protocol = truth.protocol
            if protocol.truth == "body":
                compared.label_joints[protocol.name] = _numpy(label.joints(protocol.joints))
            is_counted = truth.counted[rows]
            if not is_counted.any():
                continue
            root = _Root(protocol.joints, ())
            # Bodies of different genders have different origins: compare them about the root.
            if protocol.root_vertices or label.body is not predicted.body:
                root = _Root(protocol.joints, tuple(protocol.root_places))
            for name, metric in _vertex_metrics(protocol).items():
                for model, mesh in meshes.items():
                    key = (model, metric, root)
                    if key not in shared:
                        target = vertices(label, metric.reads, root)
                        pred = np.broadcast_to(vertices(mesh, metric.reads, root), target.shape)
                        shared[key] = protocol.measure(name, pred, target)
                    errors = metric.unknown(len(rows))
                    errors[is_counted] = shared[key][is_counted]
                    compared.vertex_errors[protocol.name, model, name] = errors
        return compared

    def _vertices(self, mesh: _Mesh, reads: str, root: _Root) -> Floats:
        """The vertices that a metric reads, (N, 6890, 3) m, relative to `root`."""
        if reads == "vertices at rest":
            mesh = mesh.unpose(self._unit_shapes(mesh.body))
        return _numpy(mesh.vertices(root))

    def _measure(self, model: str, truth: Truth, posed: _Posed, run: Ints) -> dict[str, Doubles]:
        """All errors (F,) of a track by metric; nan: none. run: as in `TrackBodies`.

        `Protocol.successive` decides which frames a metric over several frames (`Metric.span`)
        gets, and to which of its frames a number belongs:

        - "neighbours": each stretch without a gap; the middle frame
        - "track": all frames that count; the last frame
        - "split": the same, after the last frames of the previous track; the last frame
        """
        protocol = truth.protocol
        pairs = self._pairs(model, truth, posed)
        by_metric = {}
        masks = {"keypoints": truth.reads_keypoints, "prediction": truth.reads_joints}
        for name, metric in protocol.metrics.items():
            if metric.reads in VERTICES:
                by_metric[name] = posed.compared.vertex_errors[protocol.name, model, name]
                continue
            errors = by_metric[name] = metric.unknown(len(run))
            pred, target = pairs[metric.reads]
            rows = np.flatnonzero(masks.get(metric.reads, truth.counted))
            if metric.span > 1 and protocol.successive == "neighbours":
                for stretch in _split_at_gaps(rows, run):
                    values = protocol.measure(name, pred[stretch], target[stretch])
                    first = metric.span // 2
                    middles = stretch[first : first + len(values)]
                    errors[middles] = values
                continue

            pair = (pred[rows], target[rows])
            if metric.span > 1 and protocol.successive == "split":
                pair = self._prepend_previous((protocol.name, model, name), pair, metric.span)
            values = protocol.measure(name, *pair)
            lasts = rows[len(rows) - len(values) :]  # all rows, if the span is 1
            errors[lasts] = values
        return by_metric

    def _prepend_previous(self, key: ErrorKey, pair: Pair, span: int) -> Pair:
        """Put the last frames of the previous track before those of this one.

        Stores the last span - 1 frames for the next track. key: as in `_previous`.
        """
        pred, target = pair
        if key in self._previous:
            previous_pred, previous_target = self._previous[key]
            pred = np.concatenate([previous_pred, pred])
            target = np.concatenate([previous_target, target])
        self._previous[key] = (pred[1 - span :], target[1 - span :])
        return pred, target

    def _pairs(self, model: str, truth: Truth, posed: _Posed) -> dict[str, Pair]:
        """The arrays that metrics read: `Metric.reads` -> (predicted, true)."""
        protocol = truth.protocol
        joints = posed.joints[protocol.joints]
        kp_2d = posed.kp_2d
        target = posed.compared.label_joints.get(protocol.name, truth.labels.joints)
        if model == BASELINE:
            mean = _numpy(self._mean.joints(protocol.joints))
            joints = np.broadcast_to(mean, joints.shape)
            kp_2d = np.broadcast_to(self._mean_kp_2d, kp_2d.shape)
        joints = joints[:, : target.shape[1]]
        return {
            "joints": (protocol.subtract_root(joints), protocol.subtract_root(target)),
            "placed joints": (joints, target),
            "keypoints": (kp_2d, truth.kp_2d),
            "prediction": (joints, joints),
        }


class _ComparedBodies(NamedTuple):
    """Predicted and labelled bodies of N frames."""

    label_joints: dict[str, Floats]  # (N, J, 3) m by protocol, of those with `truth` "body"
    # (N,), or (N, parts) by `Metric.parts`; nan in frames that do not count
    vertex_errors: dict[ErrorKey, Doubles]


class _Posed(NamedTuple):
    """Joints of F predicted frames; 0 in frames that no metric reads."""

    joints: Mapping[Order, Floats]  # (F, J, 3) m
    kp_2d: Floats  # (F, 49, 2) in the crop
    compared: _ComparedBodies  # of all frames


class _BodyGroup:
    """Truths of a track that compare with the same bodies of labels."""

    def __init__(self, body: Body, truths: list[Truth]) -> None:
        self.body = body  # of the gender with which they compare
        self.truths = truths
        self.has_vertices = any(_vertex_metrics(truth.protocol) for truth in truths)
        # mask (F,) of the frames with SMPL parameters that a truth counts
        self.rows = truths[0].labels.has_smpl & _any_row(truth.counted for truth in truths)


class _Mesh(NamedTuple):
    """N bodies of one gender, on the model's device."""

    body: Body
    betas: Tensor  # (N, 10)
    rotmat: Tensor  # (N, 24, 3, 3) relative to parents
    verts: Tensor | None = None  # (N, 6890, 3) m

    @classmethod
    def from_theta(cls, body: Body, theta: Floats, like: Tensor) -> _Mesh:
        """Make bodies from labels (N, 85), on the device and in the type of `like`."""
        label = torch.as_tensor(theta).to(like)
        pose = label[:, POSE].reshape(-1, 24, 3)
        return cls(body, label[:, BETAS], axis_angle_to_matrix(pose))

    def take(self, rows: Bools) -> _Mesh:
        """Select bodies by a mask (N,)."""
        mask = torch.as_tensor(rows)
        mesh = self._replace(betas=self.betas[mask], rotmat=self.rotmat[mask])
        if self.verts is not None:
            mesh = mesh._replace(verts=self.verts[mask])
        return mesh

    def unpose(self, units: Tensor) -> _Mesh:
        """The bodies in the rest pose, with vertices. units: `_unit_shapes` of their body model."""
        zero_shape = units[-1]
        directions = units[:-1] - zero_shape  # (10, 6890, 3)
        verts = zero_shape + torch.einsum("nb,bvc->nvc", self.betas, directions)
        identity = torch.eye(3, device=verts.device).expand(len(self.betas), 24, 3, 3)
        return self._replace(rotmat=identity, verts=verts)

    def joints(self, order: Order) -> Tensor:
        """Joints in an order of `Body.joints`, (N, J, 3) m."""
        if order == "common14" and self.verts is not None:
            return self.body.common14(self.verts)
        return self.body.joints(betas=self.betas, rotmat=self.rotmat, order=order)

    def vertices(self, root: _Root) -> Tensor:
        """Vertices (N, 6890, 3) m, relative to the middle of the joints of `root`."""
        assert self.verts is not None
        if not root.indices:
            return self.verts
        joints = self.joints(root.order)[:, root.indices]
        return self.verts - joints.mean(dim=1, keepdim=True)


def _unit_shapes(body: Body) -> Tensor:
    """Vertices in the rest pose of the ten unit shapes, then of shape 0, (11, 6890, 3) m.

    Vertices are linear in the shape, so those of any shape follow from these.
    """
    device = body.mean_shape.device
    betas = torch.eye(11, 10, device=device)  # the last row is 0
    identity = torch.eye(3, device=device).expand(11, 24, 3, 3)
    verts: Tensor = body(betas=betas, rotmat=identity).verts
    return verts


def _label_bodies(generator: VideoModel, split: Split, genders: Iterable[str]) -> dict[str, Body]:
    """Bodies by gender, on the generator's device. Raises MissingAssets if a gender's files are
    missing.
    """
    bodies = {NEUTRAL_BODY: generator.body}
    try:
        for gender in genders:
            if gender not in bodies:
                bodies[gender] = generator.body.of(gender).to(generator.device)
    except MissingAssets as error:
        raise MissingAssets(
            f"{split.name}: PVE compares with the gendered bodies of its labels: {error}"
        ) from None
    return bodies


def _split_at_gaps(rows: Ints, run: Ints) -> list[Ints]:
    """Split rows (N,) into stretches of neighbouring frames. run: (F,) as in `TrackBodies`."""
    is_gap = (np.diff(rows) != 1) | (np.diff(run[rows]) != 0)
    return np.split(rows, np.flatnonzero(is_gap) + 1)


def _drop_metrics(protocol: Protocol, unread: set[str]) -> Protocol:
    """The protocol without the metrics that read anything of `unread` (`Metric.reads`)."""
    computed = {
        name: metric for name, metric in protocol.metrics.items() if metric.reads not in unread
    }
    return replace(protocol, metrics=computed)


def _vertex_metrics(protocol: Protocol) -> dict[str, metrics.Metric]:
    """Name -> metric that reads vertices."""
    return {name: metric for name, metric in protocol.metrics.items() if metric.reads in VERTICES}


def _any_row(masks: Iterable[Bools]) -> Bools:
    """The union of masks, (F,)."""
    return np.asarray(np.any(list(masks), axis=0))


def _numpy(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().float().cpu())
