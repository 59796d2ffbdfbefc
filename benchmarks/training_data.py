"""Data of benchmarks/training.py: a cache of three splits with made-up labels, of the form that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import SplitWriter, StreamWriter, TrackRows, VideoEntry
from pipeline.skeletons import convert

FEATURE_SIZE: Final = 2048
STREAM: Final = "resnet50"
TRACK: Final = 128  # frames
SKELETON: Final = "body_25"  # of the 2D labels in the files that the usual way reads
SPLITS: Final = {"2d": "flat/train", "3d": "body/train", "motion": "mocap/train"}
_COLUMNS: Final = {
    "2d": ("frame_index", "bbox", "kp_2d"),
    "3d": ("frame_index", "bbox", "kp_2d", "kp_3d", "has_3d", "pose", "betas", "has_smpl", "valid"),
    "motion": ("frame_index", "pose", "betas", "has_smpl"),
}


def make(root: Path, n_tracks: int) -> None:
    """Write the cache. Random numbers of a sensible size: what is measured does not depend on them."""
    for seed, (kind, split) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        with SplitWriter(root, split, columns=_COLUMNS[kind], plan="random") as writer:
            writer.begin()
            for number in range(n_tracks):
                labels = _labels(rng)
                rows = {name: labels[name] for name in _COLUMNS[kind]}
                video = f"{number:06d}"
                track = TrackRows(name=f"{video}/0", video=video, step=1, fps=25.0, crop_scale=1.3, columns=rows)
                writer.append(VideoEntry(name=video), [track])
            writer.commit({"stand_in": True})
        if kind != "motion":
            _write_features(root, split, rng)


def _labels(rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """One track: a person of 300 px that moves a little from frame to frame."""
    still, moving = rng.standard_normal((1, 82)) * 0.2, rng.standard_normal((TRACK, 82)).cumsum(0) * 0.01
    keypoints = np.concatenate([rng.uniform(100, 400, (TRACK, 25, 2)), rng.random((TRACK, 25, 1))], axis=-1)
    kp_3d = np.ones((TRACK, 49, 4), np.float32)
    kp_3d[..., :3] = rng.standard_normal((TRACK, 49, 3)) * 0.3
    theta = (still + moving).astype(np.float32)
    return {
        "frame_index": np.arange(TRACK),
        "bbox": np.tile(np.array([250, 250, 300, 300], np.float32), (TRACK, 1)),
        "kp_2d": convert(keypoints.astype(np.float32), source=SKELETON, target="spin49"),
        "kp_3d": kp_3d,
        "pose": theta[:, :72],
        "betas": theta[:, 72:],
        "has_3d": np.ones(TRACK, bool),
        "has_smpl": np.ones(TRACK, bool),
        "valid": np.ones(TRACK, bool),
    }


def _write_features(root: Path, split: str, rng: np.random.Generator) -> None:
    """As of a ResNet after its ReLU and its pool: not negative, 0.4 in the mean."""
    with StreamWriter(root, split, STREAM, dim=FEATURE_SIZE, plan="random") as writer:
        for shard in writer.pending:
            numbers = np.asarray(writer.rows(shard))
            features = np.abs(rng.standard_normal((len(numbers), FEATURE_SIZE), np.float32)) * np.float32(0.5)
            keys = np.stack([numbers, numbers], axis=1).astype(np.uint64)
            writer.write(shard, features.astype(np.float16), np.ones(len(numbers), bool), keys)
        writer.commit({"stand_in": True})
