"""A body of 30 vertices, small networks, splits in memory or on disk: the model's code runs on them
as on real ones.
"""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import torch
from numpy.random import default_rng
from scipy.spatial.transform import Rotation
from torch import nn
from torch.testing import assert_close

import cache
from cache.windows import windows_of
from tests import made_splits
from vibe_model import VIBE

FEATURE_SIZE = 6
SMALL = {"hidden_size": 5, "feature_size": FEATURE_SIZE, "regressor_size": 7}
Track = namedtuple(
    "Track", "name video start stop fps step crop_scale gender", defaults=["neutral"]
)


class TinyBody(nn.Module):
    """Vertex v follows joint v % 24, on the pelvis's rotation: differentiable in all rotations and
    betas.
    """

    def __init__(self, stand_in=True):
        super().__init__()
        self.is_stand_in, self.digest = stand_in, "tiny"
        random = torch.Generator().manual_seed(7)
        normal = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
        identity = torch.tensor([1.0, 0, 0, 1, 0, 0])  # (3, 2) columns x and y
        buffers = {
            "template": normal(30, 3) * 0.3,
            "shapes": normal(30, 3, 10) * 0.02,
            "to_joints": torch.softmax(normal(49, 30), dim=1),
            "to_common14": torch.softmax(3 * normal(14, 30), dim=1),
            "mean_pose": identity.repeat(24) + 0.1 * normal(144),
            "mean_shape": 0.1 * normal(10),
            "mean_cam": torch.tensor([0.9, 0.0, 0.0]),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, *, betas, rotmat):
        shaped = self.template + torch.einsum("vci,bi->bvc", self.shapes, betas)
        turned = torch.einsum("bvij,bvj->bvi", rotmat[:, torch.arange(30) % 24], shaped)
        verts = torch.einsum("bij,bvj->bvi", rotmat[:, 0], turned)
        return SimpleNamespace(verts=verts, joints=self.to_joints @ verts)

    def joints(self, *, betas, rotmat, order="spin49"):
        posed = self(betas=betas, rotmat=rotmat)
        return posed.joints if order == "spin49" else self.common14(posed.verts)

    def common14(self, verts):
        return self.to_common14 @ verts


def small_vibe(seed=0, body=None, **changes):
    torch.manual_seed(seed)
    return VIBE(body or TinyBody(), **(SMALL | changes))


class Tracks(list):
    """As cache.Split's tracks: one a video."""

    @property
    def video(self):
        return np.arange(len(self))


class MemorySplit:
    """As cache.Split. Arrays are by row; `lengths` of tracks, `gaps` rows before which frames are
    missing.
    """

    name, columns = "memory/test", ("kp_2d", "pose", "betas", "has_smpl")

    def __init__(
        self, seed, lengths, *, joints=49, with_3d=True, gaps=(), stand_in=True, lacking=()
    ):
        random = default_rng(seed)
        n = sum(lengths)
        stops = np.cumsum(lengths)
        self.tracks = Tracks(
            Track(f"v{i}/0", f"v{i}", int(stop - length), int(stop), 25.0, 1, 1.3)
            for i, (length, stop) in enumerate(zip(lengths, stops, strict=True))
        )
        self.videos = [SimpleNamespace(width=320, height=240) for _ in lengths]
        self.frame_index = np.arange(n) + sum((np.arange(n) >= gap).astype(int) for gap in gaps)
        self.bbox = np.float32(100 + np.arange(n)[:, None] * [1, 2, 0.5, 0.5])
        self.manifest = {"stand_in": stand_in, "digest": f"split {seed} {lengths}"}
        self.lacking = set(lacking)
        weight = np.full(n, float(with_3d), np.float32)
        self.columns = (*type(self).columns, *["kp_3d"] * with_3d)
        theta = np.concatenate(
            [np.tile([1.0, 0, 0], (n, 1)), random.normal(size=(n, 82)) * 0.3], axis=1
        )
        self.rows = {
            "features": random.normal(size=(n, FEATURE_SIZE)).astype(np.float32),
            "kp_2d": np.concatenate(
                [random.uniform(-1, 1, (n, 49, 2)), np.ones((n, 49, 1))], 2
            ).astype(np.float32),
            "kp_3d": random.normal(size=(n, joints, 3)).astype(np.float32) * weight[:, None, None],
            "theta": theta.astype(np.float32) * weight[:, None],
            "w_3d": weight,
            "w_smpl": weight.copy(),
            "valid": np.ones(n, np.float32),
        }

    def track_of(self, rows):
        return np.searchsorted([track.stop for track in self.tracks], rows, side="right")

    def add_streams(self, **sizes):
        """Further streams of so many numbers; of `homography`, the first row of each track is not
        known: 0.
        """
        random = default_rng(sum(self.bbox.shape))
        for name, size in sizes.items():
            known = np.ones(len(self.bbox), np.float32)
            if name == "homography":
                known[[track.start for track in self.tracks]] = 0
            numbers = np.abs(random.normal(size=(len(known), size))) * known[:, None]
            self.rows |= {name: numbers.astype(np.float32), f"{name}_ok": known}
        return self

    @property
    def runs(self):
        return self.runs_with(())

    def runs_with(self, streams):
        rows = np.arange(len(self.frame_index))
        there = ~(np.isin(rows, list(self.lacking)) & bool(streams))
        starts = np.isin(rows, [track.start for track in self.tracks]) | (
            np.diff(self.frame_index, prepend=0) != 1
        )
        edges = np.flatnonzero(starts | (np.diff(there, prepend=True) != 0))
        runs = zip(edges, [*edges[1:], len(rows)], strict=True)
        return np.array([run for run in runs if there[run[0]]], np.int64).reshape(-1, 2)

    crop = cache.CropPolicy()

    def open_stream(self, stream):
        digest = f"{stream} of {self.manifest['digest']}"
        size = self.rows[stream].shape[1] if stream in self.rows else FEATURE_SIZE
        manifest = {"digest": digest, "stand_in": False}
        form = cache.StreamForm(size, "float32")
        return SimpleNamespace(manifest=manifest, form=form, identity={}, crop=self.crop)

    def windows(self, seqlen, stride, stream=None, tail="drop", streams=None):
        assert tail == "drop"
        return windows_of(
            self.runs_with(streams or [name for name in [stream] if name]),
            seqlen=seqlen,
            stride=stride,
        )

    def read(
        self,
        windows,
        stream="resnet50",
        fields=None,
        dtype="float32",
        out=None,
        streams=(),
        history=None,
    ):
        """`stream` gives "features"; of `streams`, those that are no rows here have its numbers."""
        columns = self.rows | {"frame_index": self.frame_index, "bbox": self.bbox}
        columns |= {name: self.rows["features"] for name in streams if name not in self.rows}
        firsts = np.array([track.start for track in self.tracks])[
            self.track_of(np.asarray(windows)[:, 0])
        ]
        found = {}
        for name in fields or self.rows:
            before = (history or {}).get(name.removesuffix("_ok"), 0)
            rows = np.array([np.arange(start - before, stop) for start, stop in windows])
            if ((name == "features" and stream) or name in streams) and self.lacking & set(
                rows.ravel().tolist()
            ):
                raise ValueError("rows without features")
            known = rows >= firsts[:, None]
            values = columns[name][np.maximum(rows, 0)]
            found[name] = np.where(known.reshape(*known.shape, *[1] * (values.ndim - 2)), values, 0)
        for name, buffer in (out or {}).items():
            buffer[...] = found[name]
        return found | (out or {})


def write_split(
    root, split, lengths, *, seed=0, stream="tiny", dtype="float16", undecodable=(), **sizes
):
    """A split on disk of random labels around a standing person; `undecodable` rows have no
    features.
    """
    made = MemorySplit([seed, len(split)], lengths)
    rows, known = made.rows, np.ones(sum(lengths), np.uint8)
    px = np.float32([40, 40, 1]) * rows["kp_2d"] + np.float32([100, 100, 0])
    every = {"frame_index": made.frame_index, "bbox": made.bbox, "kp_2d": px}
    every |= {"kp_3d": np.insert(rows["kp_3d"], 3, 1, axis=2), "has_3d": known, "valid": known}
    every |= {"pose": rows["theta"][:, 3:75], "betas": rows["theta"][:, 75:], "has_smpl": known}
    videos = []
    for track in made.tracks:
        columns = {name: values[track.start : track.stop] for name, values in every.items()}
        columns["frame_index"] = columns["frame_index"] - track.start
        videos.append(
            (cache.VideoEntry(name=track.video), [made_splits.track_of(track.name, columns)])
        )
    made_splits.write_split(root, split, videos, **sizes)
    values = default_rng(seed).normal(size=(len(known), FEATURE_SIZE))
    computed = lambda rows: ~np.isin(rows, undecodable)  # noqa: E731
    form = {"dim": FEATURE_SIZE, "dtype": dtype}
    made_splits.write_stream(root, split, stream, values.__getitem__, computed, **form)


def rotations_of(pose):
    """SciPy's rotation matrices (..., J, 3, 3) of axis-angle vectors (..., 3 J), in rad."""
    matrices = Rotation.from_rotvec(np.asarray(pose).reshape(-1, 3)).as_matrix()
    return matrices.reshape(*pose.shape[:-1], -1, 3, 3)


def assert_agrees(prediction, body, project, atol=1e-5):
    """Rotations, joints and points (B, T, ...) are those of the prediction's theta."""
    flat = {name: value.flatten(0, 1) for name, value in prediction.items() if name != "deltas"}
    camera, pose, betas = flat["theta"].split((3, 72, 10), dim=1)
    rotmat = torch.tensor(rotations_of(pose), dtype=pose.dtype)
    joints = body(betas=betas, rotmat=rotmat).joints
    for name, expected in (
        ("rotmat", rotmat),
        ("kp_3d", joints),
        ("kp_2d", project(joints, camera)),
    ):
        assert_close(flat[name], expected, atol=atol, rtol=0)


def everything_matters(module, seed=0):
    """Every parameter and statistic random, in evaluation mode, float64."""
    random = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=random, dtype=torch.float64)
            value.copy_(0.5 + drawn if "var" in name or name == "sigma" else drawn - 0.5)
    return module
