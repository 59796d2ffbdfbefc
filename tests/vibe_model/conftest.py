"""A body of 30 vertices and splits in memory: the model's code runs on them as on the real ones, in milliseconds."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

FEATURE_SIZE = 6
Track = namedtuple("Track", "name video start stop fps step crop_scale")


class TinyBody(nn.Module):
    """Vertex v follows joint v % 24, on the pelvis's rotation: differentiable in all rotations and betas."""

    def __init__(self, stand_in: bool = True) -> None:
        super().__init__()
        self.stand_in, self.digest = stand_in, "tiny"
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


class Tracks(list):
    """Speaks like cache.Split's tracks: one a video."""

    @property
    def video(self):
        return np.arange(len(self))


class MemorySplit:
    """Speaks like cache.Split. Arrays are by row; `lengths` of tracks, `gaps` rows before which frames are missing."""

    def __init__(self, seed, lengths, *, joints=49, with_3d=True, gaps=(), stand_in=True, lacking=()):
        random = np.random.default_rng(seed)
        n = sum(lengths)
        stops = np.cumsum(lengths)
        self.tracks = Tracks(
            Track(f"v{i}/0", f"v{i}", int(stop - length), int(stop), 25.0, 1, 1.3)
            for i, (length, stop) in enumerate(zip(lengths, stops, strict=True))
        )
        self.videos = [SimpleNamespace(width=320, height=240) for _ in lengths]
        self.frame_index = np.arange(n) + sum((np.arange(n) >= gap).astype(int) for gap in gaps)
        self.manifest = {"stand_in": stand_in, "digest": f"split {seed} {lengths}"}
        self.lacking = set(lacking)
        weight = np.full(n, float(with_3d), np.float32)
        theta = np.concatenate([np.tile([1.0, 0, 0], (n, 1)), random.normal(size=(n, 82)) * 0.3], axis=1)
        self.rows = {
            "features": random.normal(size=(n, FEATURE_SIZE)).astype(np.float32),
            "kp_2d": np.concatenate([random.uniform(-1, 1, (n, 49, 2)), np.ones((n, 49, 1))], 2).astype(np.float32),
            "kp_3d": random.normal(size=(n, joints, 3)).astype(np.float32) * weight[:, None, None],
            "theta": theta.astype(np.float32) * weight[:, None],
            "w_3d": weight,
            "w_smpl": weight.copy(),
            "valid": np.ones(n, np.float32),
        }

    def track_of(self, rows):
        return np.searchsorted([track.stop for track in self.tracks], rows, side="right")

    def stream_manifest(self, stream):
        return {
            "digest": f"{stream} of {self.manifest['digest']}",
            "dim": FEATURE_SIZE,
            "dtype": "float32",
            "stand_in": False,
        }

    def windows(self, seqlen, stride, stream=None, tail="drop"):
        assert tail == "drop"
        found = []
        for track in self.tracks:
            start = track.start
            while start + seqlen <= track.stop:
                rows = np.arange(start, start + seqlen)
                together = (np.diff(self.frame_index[rows]) == track.step).all()
                if together and not (stream and self.lacking & set(rows.tolist())):
                    found.append((start, start + seqlen))
                start += stride
        return np.array(found, np.int64).reshape(-1, 2)

    def read(self, windows, stream="resnet50", fields=None, dtype="float32", out=None):
        rows = np.array([np.arange(start, stop) for start, stop in windows])
        if stream and self.lacking & set(rows.ravel().tolist()):
            raise ValueError("rows without features")
        columns = {"frame_index": self.frame_index, "bbox": np.full((len(self.frame_index), 4), 100, np.float32)}
        found = {name: (self.rows | columns)[name][rows] for name in fields or self.rows}
        for name, buffer in (out or {}).items():
            buffer[...] = found[name]
        return {**found, **(out or {})}


@pytest.fixture
def body():
    return TinyBody()


@pytest.fixture(scope="session")
def tiny_body():
    return TinyBody


@pytest.fixture(scope="session")
def memory_split():
    return MemorySplit
