"""Errors of predictions frame by frame, by each protocol, and their means.  features -> windows -> [evaluation]

The second stage of evaluation: estimates -> bodies -> joints and vertices -> errors, a track at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import MissingAssets
from pipeline.skeletons import JOINTS
from vibe_model import metrics
from vibe_model.cameras import project
from vibe_model.losses import COMMON14
from vibe_model.metrics import HIPS, METRICS
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import POSED_AT_ONCE, TrackBodies, device_of
from vibe_model.rotations import axis_angle_to_matrix, rotation_6d_to_matrix
from vibe_model.runs import NEUTRAL_BODY

if TYPE_CHECKING:
    from cache import Split, TrackRecord
    from pipeline.body import Body

Floats = NDArray[np.floating[Any]]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
ByFrame = Mapping[str, Float64s]  # error -> (F,), nan where a frame has none

_LABELS: Final = ("kp_2d", "kp_3d", "theta", "w_3d", "w_smpl", "valid")
_ROUNDED: Final = ("kp_2d", "kp_3d", "theta")  # by the published protocol
_MM: Final = 1000.0
HMMR: Final = "hmmr"  # the protocol
N_BODY_25: Final = len(JOINTS["body_25"])  # the first of spin49
# OpenPose's joints in the place of common14's, -1 for the top of the head, which it has not.
_OPENPOSE_14: Final = np.array(
    [JOINTS["spin49"].index(f"OP {name[:2].upper()}{name[2:]}") for name in JOINTS["common14"][:12]]
    + [JOINTS["spin49"].index("OP Neck"), -1]
)


@dataclass(frozen=True, slots=True, eq=False)
class TrackErrors:
    """F predicted frames of one track, in row order.

    An acceleration belongs to the middle one of its three frames; by the published protocol, to the last one.
    """

    counted: Bools  # (F,) frames with 3D labels that count
    keypoints: Float64s  # (F,) labelled 2D keypoints that count
    models: Mapping[str, ByFrame]  # of the prediction ("own") and of the constant mean body ("baseline")


@dataclass(slots=True)
class Means:
    """Running means over frames, over any number of tracks."""

    by_track: bool = False  # each track weighs the same, however many frames it has
    predicted: int = 0  # frames
    counted: int = 0  # of them, with 3D labels that count
    counted_2d: int = 0  # with 2D labels that count
    sums: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)  # (weighted sum, sum of weights)

    def add(self, errors: TrackErrors, part: slice = slice(None)) -> Self:
        """Add the frames of a track, or a part of them."""
        keypoints = errors.keypoints[part]
        self.predicted += len(keypoints)
        self.counted += int(errors.counted[part].sum())
        self.counted_2d += int((keypoints > 0).sum())
        for model, by_frame in errors.models.items():
            for name, values in by_frame.items():
                known = ~np.isnan(values[part])
                # Every keypoint weighs the same; everything else is a mean over frames.
                weight = keypoints[known] if name == "pck_2d" else np.ones(int(known.sum()))
                weight = weight / max(weight.sum(), 1.0) if self.by_track else weight
                total, weights = self.sums.get((model, name), (0.0, 0.0))
                total += float((weight * values[part][known]).sum())
                self.sums[model, name] = (total, weights + float(weight.sum()))
        return self

    def of(self, model: str = "own") -> dict[str, float]:
        """Mean by error; one that no frame has a label for is absent."""
        sums = {name: self.sums.get((model, name), (0.0, 0.0)) for name in METRICS}
        return {name: total / weights for name, (total, weights) in sums.items() if weights}


class Scorer:
    """Compares tracks of one split with their labels, in row order: the published accelerations cross track borders.

    protocols: "published" alone, or of the others, which compare the same bodies. vertices: measure PVE, which costs a
    second body; keypoints: measure the 2D PCK. smooth: sigma of a Gaussian over the predictions in time, frames; 0:
    none. Raises MissingAssets where vertices are measured and a gender of the split's labels has no body.
    """

    @torch.no_grad()
    def __init__(
        self,
        generator: VideoModel,
        split: Split,
        *,
        protocols: Sequence[str],
        vertices: bool = True,
        keypoints: bool = True,
        smooth: float = 0.0,
    ) -> None:
        self._generator, self._split, self._smooth = generator, split, smooth
        self._published, self._vertices, self._keypoints = "published" in protocols, vertices, keypoints
        self.means = {protocol: Means(by_track=protocol == HMMR) for protocol in protocols}  # over the tracks so far
        # The baseline of every model: the body and camera that VIBE's regressor starts from.
        body = generator.body
        self._genders = label_genders(split)
        self._label_bodies = _label_bodies(generator, split, self._genders) if vertices else {}
        rotmat = rotation_6d_to_matrix(body.mean_pose.reshape(1, 24, 6))
        mean = body(betas=body.mean_shape.reshape(1, -1), rotmat=rotmat)
        self._mean_verts = mean.verts  # (1, V, 3) m
        self._mean_joints = _numpy(body.common14(mean.verts))  # (1, 14, 3) m
        self._mean_kp_2d = _numpy(project(mean.joints, body.mean_cam.reshape(1, 3)))  # (1, 49, 2) in the crop
        # The published protocol's last two frames before the next track, predicted and true.
        self._before: dict[str, tuple[Floats, Floats]] = {}

    def add(self, raw: TrackBodies) -> tuple[TrackBodies, TrackErrors]:
        """Count the errors of one track. Returns it as smoothed, and its errors by the first protocol.

        Reads its labels, poses its bodies.
        """
        bodies = raw.smoothed(self._smooth)
        truth = _Truth.read(self._split, bodies, published=self._published, keypoints=self._keypoints)
        posed = self._pose(bodies, truth)
        n = len(bodies)
        mean = _Posed(
            joints=np.broadcast_to(self._mean_joints, (n, 14, 3)),
            body_25=np.zeros((n, N_BODY_25, 3)),  # wherever it stands, it does not move
            kp_2d=np.broadcast_to(self._mean_kp_2d, (n, 49, 2)),
            of_vertices=posed.of_mean,
            of_mean=posed.of_mean,
        )
        bodies_of = {"own": posed, "baseline": mean}
        models = {name: self._errors(name, of, truth, bodies.run) for name, of in bodies_of.items()}
        by_protocol = {}
        for protocol, means in self.means.items():
            if protocol == HMMR:
                seen = truth.seen()
                of_seen = {name: _of_seen(models[name], of, seen, bodies.run) for name, of in bodies_of.items()}
                n_visible = (seen.kp_2d[..., 2] > 0).sum(-1).astype(np.float64)
                by_protocol[protocol] = TrackErrors(seen.counted, n_visible, of_seen)
            else:
                keypoints = metrics.hits_2d(posed.kp_2d, truth.kp_2d)[1]
                by_protocol[protocol] = TrackErrors(truth.counted, keypoints, models)
            means.add(by_protocol[protocol])
        return bodies, next(iter(by_protocol.values()))

    @torch.no_grad()
    def _pose(self, predicted: TrackBodies, truth: _Truth) -> _Posed:
        """What is compared of the bodies; frames without a label are not posed."""
        generator, out = self._generator, _Posed.empty(len(predicted))
        labelled = np.flatnonzero(truth.counted | truth.with_keypoints)
        for start in range(0, len(labelled), POSED_AT_ONCE):
            part = labelled[start : start + POSED_AT_ONCE]
            bodies = predicted.on_device(part, device_of(generator))
            with_mesh = truth.counted[part] & truth.known_smpl[part]
            if self._vertices and with_mesh.any():
                posed = generator.pose(bodies)
                out.joints[part] = _numpy(generator.body.common14(posed["verts"]))
                out.see(part, posed)
                rows = part[with_mesh]
                verts, shape = posed["verts"][torch.as_tensor(with_mesh)], predicted.shape[rows]
                of_label = self._label_bodies[label_gender(predicted.track, self._genders)]
                out.of_vertices[:, rows], out.of_mean[:, rows] = self._vertex_errors(
                    verts, shape, truth.theta[rows], of_label
                )
                continue
            if truth.counted[part].any():
                out.joints[part] = _numpy(generator.pose(bodies, eval_joints=True, vertices=False)["kp_3d"])
            if truth.with_keypoints[part].any():
                out.see(part, generator.pose(bodies, vertices=False))
        return out

    def _vertex_errors(self, verts: Tensor, shape: Floats, theta: Floats, of_label: Body) -> tuple[Float64s, Float64s]:
        """PVE, posed and unposed, of predicted vertices (N, V, 3) and of the mean body, against theta (N, 85).

        shape: (N, 10), the prediction's; of_label: the body that theta is of -> (2, N) mm each. The origins of two
        genders' bodies are apart: those are compared about the midpoint of the hips, as joints are.
        """
        label, body = torch.as_tensor(theta, device=verts.device), self._generator.body
        rotmat = axis_angle_to_matrix(label[:, 3:75].reshape(-1, 24, 3))  # (N, 24, 3, 3)
        target = of_label(betas=label[:, 75:], rotmat=rotmat).verts  # (N, V, 3) m
        pairs = {"own": [(verts, target)], "mean": [(self._mean_verts, target)]}
        if HMMR in self.means:
            at_rest = _unposed(of_label, label[:, 75:])
            pairs["own"].append((_unposed(body, torch.as_tensor(shape).to(label)), at_rest))
            pairs["mean"].append((_unposed(body, body.mean_shape.reshape(1, -1)), at_rest))
        centred = of_label is not body
        errors_of_prediction, mean = (
            [(_about_hips(body, a) - _about_hips(of_label, b)) if centred else a - b for a, b in both]
            for both in pairs.values()
        )
        errors = [
            np.stack([(_MM * one.norm(dim=-1).double().mean(-1)).cpu().numpy() for one in differences])
            for differences in (errors_of_prediction, mean)
        ]
        return errors[0], errors[1]

    def _errors(self, model: str, bodies: _Posed, truth: _Truth, run: Ints) -> ByFrame:
        counted = truth.counted
        pred, target = bodies.joints[counted], truth.joints[counted]
        values = {
            "pa_mpjpe": metrics.pa_mpjpe(pred, target),
            "mpjpe": metrics.mpjpe(pred, target),
            "pck": metrics.pck_by_frame(pred, target),
            "auc": metrics.auc_by_frame(pred, target),
        }
        hits, keypoints = metrics.hits_2d(bodies.kp_2d, truth.kp_2d)
        share = np.divide(100 * hits, keypoints, out=np.full(len(hits), np.nan), where=keypoints > 0)
        by_frame = {name: _at(np.flatnonzero(counted), value, len(counted)) for name, value in values.items()}
        accelerations = (
            self._accelerations_across(model, bodies, truth) if self._published else _accelerations(bodies, truth, run)
        )
        return {**by_frame, "pve": bodies.of_vertices[0], "pck_2d": share, **accelerations}

    def _accelerations_across(self, model: str, bodies: _Posed, truth: _Truth) -> ByFrame:
        """The published protocol's: all frames that count follow each other, across gaps and tracks."""
        counted = np.flatnonzero(truth.counted)
        nothing = np.zeros((0, 14, 3))
        before = self._before.get(model, (nothing, nothing))
        current = (bodies.joints[counted], truth.joints[counted])
        pred, target = (np.concatenate(parts) for parts in zip(before, current, strict=True))
        self._before[model] = (pred[-2:], target[-2:])
        last = counted[len(counted) - max(len(pred) - 2, 0) :]
        values = {"accel": metrics.accel(pred), "accel_error": metrics.accel_error(pred, target)}
        return {name: _at(last, value, len(truth.counted)) for name, value in values.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """Labels of F frames, as a protocol has them."""

    joints: Floats  # (F, 14, 3) m
    kp_2d: Floats  # (F, 49, 3) in the crop, confidence; 0 where a keypoint does not count
    theta: Floats  # (F, 85)
    counted: Bools  # (F,) with 3D labels that count
    known_smpl: Bools  # (F,)

    @property
    def with_keypoints(self) -> Bools:
        """(F,) frames of which a keypoint counts."""
        return np.asarray((self.kp_2d[..., 2] > 0).any(axis=1))

    @classmethod
    def read(cls, split: Split, bodies: TrackBodies, *, published: bool, keypoints: bool) -> Self:
        track, fields = bodies.track, [name for name in _LABELS if keypoints or name != "kp_2d"]
        whole = split.read(np.array([(track.start, track.stop)], np.int64), stream=None, fields=fields)
        arrays: dict[str, Any] = {name: array[0, bodies.rows - track.start] for name, array in whole.items()}
        if published:
            arrays |= {n: arrays[n].astype(np.float16).astype(np.float32) for n in _ROUNDED if n in arrays}
        counts = (arrays["valid"] > 0) | published
        joints = arrays["kp_3d"]
        if joints.shape[-2] != len(COMMON14):  # a split that is not for evaluation has spin49
            joints = joints[:, COMMON14]
        kp_2d = arrays.get("kp_2d", np.zeros((len(counts), 49, 3), np.float32)).copy()
        kp_2d[~counts] = 0
        return cls(joints, kp_2d, arrays["theta"], (arrays["w_3d"] > 0) & counts, arrays["w_smpl"] > 0)

    def seen(self) -> _Truth:
        """As HMMR's protocol has them: 3D of frames where more than 6 of 14 joints can be seen, 2D of 6 keypoints.

        A track without any 2D label counts as seen.
        """
        visible = self.kp_2d[..., 2] > 0  # (F, 49)
        kp_2d = self.kp_2d.copy()
        kp_2d[visible.sum(-1) < metrics.FEWEST_VISIBLE] = 0
        limbs = (visible[:, COMMON14] | (visible[:, _OPENPOSE_14] & (_OPENPOSE_14 >= 0))).sum(-1)
        counted = self.counted & ((limbs > metrics.FEWEST_VISIBLE) | (not visible.any()))
        return replace(self, kp_2d=kp_2d, counted=counted)


@dataclass(frozen=True, slots=True, eq=False)
class _Posed:
    """What is compared of F bodies."""

    joints: Floats  # (F, 14, 3) m
    body_25: Floats  # (F, 25, 3) m, OpenPose's
    kp_2d: Floats  # (F, 49, 2) in the crop
    of_vertices: Float64s  # (2, F) mm, posed and unposed; nan without SMPL labels
    of_mean: Float64s  # (2, F) mm, of the mean body against the same labels

    @classmethod
    def empty(cls, n: int) -> Self:
        """Before they are posed: zeros, and nan for vertices."""
        joints, body_25, kp_2d = (np.zeros((n, *rest), np.float32) for rest in ((14, 3), (N_BODY_25, 3), (49, 2)))
        return cls(joints, body_25, kp_2d, *np.full((2, 2, n), np.nan))

    def see(self, part: Ints, posed: Mapping[str, Tensor]) -> None:
        """Fill in the keypoints of some bodies, from spin49."""
        self.kp_2d[part] = _numpy(posed["kp_2d"])
        self.body_25[part] = _numpy(posed["kp_3d"][:, :N_BODY_25])


def label_genders(split: Split) -> tuple[str, ...]:
    """Genders of the bodies that a split's 3D labels were derived through, as its reader declares them."""
    return tuple(split.manifest.get("reader", {}).get("genders", (NEUTRAL_BODY,)))


def label_gender(track: TrackRecord, genders: Sequence[str]) -> str:
    """Of `label_genders`, the one whose body a track's labels are of: its own, or the first."""
    return track.gender if track.gender in genders else genders[0]


def _label_bodies(generator: VideoModel, split: Split, genders: Sequence[str]) -> dict[str, Body]:
    """By gender, on the generator's device. Raises MissingAssets, which names the split, without a gender's files."""
    try:
        of_genders = {
            gender: generator.body.of(gender).to(device_of(generator)) for gender in genders if gender != NEUTRAL_BODY
        }
    except MissingAssets as error:
        raise MissingAssets(f"{split.name}: PVE compares with the gendered bodies of its labels: {error}") from None
    return {NEUTRAL_BODY: generator.body, **of_genders}


def _unposed(body: Body, betas: Tensor) -> Tensor:
    """Betas (N, 10) -> vertices at rest (N, V, 3) m: linear in the shape, so that 11 bodies give all."""
    at_rest = torch.eye(3, device=betas.device).expand(11, 24, 3, 3)
    units: Tensor = body(
        betas=torch.eye(11, 10, device=betas.device), rotmat=at_rest
    ).verts  # (11, V, 3), the last of 0
    return units[10] + torch.einsum("nb,bvc->nvc", betas, units[:10] - units[10])


def _about_hips(body: Body, verts: Tensor) -> Tensor:
    """(N, V, 3) m, the midpoint of the hips at 0."""
    return verts - body.common14(verts)[:, HIPS].mean(dim=1, keepdim=True)


def _of_seen(every: ByFrame, bodies: _Posed, seen: _Truth, run: Ints) -> ByFrame:
    """Errors by HMMR's protocol, from the default one's."""
    visible, with_2d = seen.kp_2d[..., 2] > 0, seen.with_keypoints
    label_xy = seen.kp_2d[..., :2]
    within = metrics.PCK_ALIGNED_SHARE, metrics.diagonals(label_xy, visible)
    three = {name: _neighbours(frames, run) for name, frames in (("accel_error", seen.counted), ("accel", with_2d))}
    in_place = _at(1 + np.arange(max(len(run) - 2, 0)), metrics.accel_in_place(bodies.body_25), len(run))
    return {
        **{name: np.where(seen.counted, every[name], np.nan) for name in ("pa_mpjpe", "mpjpe", "pve")},
        "pve_unposed": np.where(seen.counted, bodies.of_vertices[1], np.nan),
        "pck_aligned": metrics.pck_aligned_by_frame(bodies.kp_2d, label_xy, visible, *within),
        "accel_error": np.where(three["accel_error"], every["accel_error"], np.nan),
        "accel": np.where(three["accel"], in_place, np.nan),
    }


def _accelerations(bodies: _Posed, truth: _Truth, run: Ints) -> ByFrame:
    """The default protocol's: an acceleration belongs to three neighbours of one segment, all of which count."""
    middle = np.flatnonzero(_neighbours(truth.counted, run))
    values = {"accel": metrics.accel(bodies.joints), "accel_error": metrics.accel_error(bodies.joints, truth.joints)}
    return {name: _at(middle, value[middle - 1], len(run)) for name, value in values.items()}


def _neighbours(counted: Bools, run: Ints) -> Bools:
    """(F,) frames that are the middle one of three neighbours of one segment, all of which count."""
    three = np.zeros_like(counted)
    three[1:-1] = counted[2:] & counted[1:-1] & counted[:-2] & (run[2:] == run[:-2])
    return three


def _numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array


def _at(places: Ints, values: Floats, n: int) -> Float64s:
    """(N,) values at their places among n frames, nan elsewhere."""
    out = np.full(n, np.nan)
    out[places] = values
    return out
