"""Part dynamics for `learning.py`: what it reads beside the features, planted too, and the ablations.

Embeddings are those of the true 2D keypoints with noise, by an untrained network of which only the batch norms'
statistics are fitted: a fixed random function, which neither knows views nor how sure it is. "Homographies" are a fixed
random linear function of the change of all rotations since the frame before, with noise, eight numbers and a 0; none of
a motion's first frame. Both exist once more with the rows of a split in random order, of which nothing can be learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import cache
from pipeline.features.networks.pr_vipe import PrVIPE
from pipeline.skeletons import keypoints_13
from vibe_model.models import variant_of
from vibe_model.part_dynamics.config import PartDynamicsConfig
from vibe_model.pr_vipe.training import STATE
from vibe_model.settings.video_config import VideoConfig

Floats = NDArray[np.floating[Any]]
SUPERVISED: Final = ("kp_2d", "kp_3d", "pose", "shape")  # VIBE's terms, of the frames themselves
NOISE_2D: Final = 5.0  # px, a tenth of a torso
NOISE_MOTION: Final = 0.3  # beside a signal of 1
HIDDEN: Final = 256  # of the embedding
EMBEDDED, MOVED = "planted_pose", "planted_motion"  # the streams
SHUFFLED: Final = "_of_others"
WHOLE: Final = "part dynamics"
SIZES: Final[Mapping[str, Any]] = {
    "width": 64,
    "hidden_size": 128,
    "regressor_size": 128,
    "lr_generator": 2e-3,  # as VIBE here
    "pr_vipe_stream": EMBEDDED,
    "homography_stream": MOVED,
}


def models(facts: Mapping[str, Any]) -> dict[str, VideoConfig]:
    """Part dynamics, what it is without one thing, and with what it reads in random order."""
    whole = PartDynamicsConfig.embedded(**{**facts, **SIZES})
    without = {f"{WHOLE}, {name}": variant_of(whole, name) for name in ("no-u", "no-d", "no-dt", "no-unc", "no-u+no-d")}
    return {
        WHOLE: whole,
        **without,
        f"{WHOLE}, u of other rows": replace(whole, pr_vipe_stream=EMBEDDED + SHUFFLED),
        f"{WHOLE}, d of other rows": replace(whole, homography_stream=MOVED + SHUFFLED),
        f"{WHOLE}, one region": variant_of(whole, "one-region"),
        f"{WHOLE}, recombine-none": variant_of(whole, "recombine-none"),
    }


def plant_beside(root: Path, train: str, others: tuple[str, ...], n_frames: int) -> Path:
    """Add what is missing of the streams to splits of motions of `n_frames` rows. Returns the embedding's file."""
    torch.set_num_threads(1)
    file, splits, rng = root / "embedding.pt", cache.open(root), np.random.default_rng(2)
    directions = rng.normal(size=(216, 8))
    torch.manual_seed(0)
    embedding, scale = PrVIPE(hidden=HIDDEN, dropout=0.0), np.ones(8)
    for name in (train, *others):
        n = len(splits[name].tracks) * n_frames
        kp_2d, pose = (splits[name].rows(column, 0, n) for column in ("kp_2d", "pose"))
        kp_2d = keypoints_13(kp_2d)
        kp_2d[..., :2] += rng.normal(0, NOISE_2D, kp_2d[..., :2].shape)
        normalised, known = PrVIPE.normalise(torch.from_numpy(kp_2d))
        rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, n_frames, 216)
        signal = np.zeros((*rotmat.shape[:2], 9))
        signal[:, 1:, :8] = np.diff(rotmat, axis=1) @ directions
        moved = np.ones(rotmat.shape[:2], bool)
        moved[:, 0] = False
        if name == train:
            scale = signal[moved].std(axis=0)[:8]
            fit_norms(embedding, normalised)
        signal[:, 1:, :8] = signal[:, 1:, :8] / scale + rng.normal(0, NOISE_MOTION, signal[:, 1:, :8].shape)
        with torch.no_grad():
            embedded = torch.cat(embedding.eval()(normalised), dim=1).numpy()
        order = rng.permutation(n)
        found = {EMBEDDED: (embedded, known.numpy()), MOVED: (signal.reshape(n, 9), moved.ravel())}
        found |= {stream + SHUFFLED: (values[order], flags[order]) for stream, (values, flags) in found.items()}
        for stream in found.keys() - set(splits[name].streams):
            write(root, name, stream, *found[stream])
    if not file.exists():
        torch.save({STATE: embedding.state_dict(), "stand_in": True}, file)
    return file


def fit_norms(embedding: PrVIPE, normalised: torch.Tensor) -> None:
    """Set the batch norms' statistics to those of some poses."""
    for module in embedding.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = None  # the mean over all that is seen
    with torch.no_grad():
        embedding.train()(normalised)


def write(
    root: Path, split: str, stream: str, values: Floats, flags: NDArray[np.bool_], dtype: str = "float32"
) -> None:
    """Rows (N, F), and which of them are known, as a stream."""
    with cache.StreamWriter(root, split, stream, dim=values.shape[1], dtype=dtype, plan="planted") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.write(shard, values[rows].astype(dtype), flags[rows], keys)
        writer.commit({"stand_in": True})
