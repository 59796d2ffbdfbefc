"""A cache on disk with random labels, for runs with nothing replaced."""

import numpy as np

import cache
from vibe_model import TrainConfig

FEATURE_SIZE = 6


def write_split(root, split, lengths, *, with_3d=True, evaluation=False, stream=True, undecodable=()):
    """A split of random labels around a standing person; `undecodable` rows have no features."""
    random = np.random.default_rng(len(split))
    names = ["frame_index", "bbox", "kp_2d", "pose", "betas", "has_smpl", "valid"]
    names += ["kp_3d_eval"] if evaluation else ["kp_3d", "has_3d"]
    with cache.SplitWriter(root, split, columns=names, plan="test") as writer:
        writer.begin()
        for number, n in enumerate(lengths):
            columns = {
                "frame_index": np.arange(n),
                "bbox": np.tile(np.float32([100, 100, 80, 80]), (n, 1)),
                "kp_2d": np.float32(random.uniform(60, 140, (n, 49, 3)) * [1, 1, 0.005]),
                "pose": np.float32(random.normal(size=(n, 72)) * 0.2),
                "betas": np.float32(random.normal(size=(n, 10)) * 0.2),
                "has_smpl": np.full(n, with_3d),
                "valid": np.ones(n, np.uint8),
                "kp_3d": np.concatenate([random.normal(size=(n, 49, 3)), np.ones((n, 49, 1))], 2).astype(np.float32),
                "has_3d": np.full(n, with_3d),
                "kp_3d_eval": np.float32(random.normal(size=(n, 14, 3)) * 0.3),
            }
            track = cache.TrackRows(
                name=f"v{number}/0",
                video=f"v{number}",
                step=1,
                fps=25.0,
                crop_scale=1.3,
                columns={name: columns[name] for name in names},
            )
            writer.append(cache.VideoEntry(name=f"v{number}"), [track])
        writer.commit({"stand_in": True})
    if stream:
        with cache.StreamWriter(root, split, "tiny", dim=FEATURE_SIZE, plan="test") as features:
            for shard in features.pending:
                n = len(features.rows(shard))
                ok = ~np.isin(np.arange(n), undecodable)
                features.write(shard, random.normal(size=(n, FEATURE_SIZE)), ok, np.zeros((n, 2), np.uint64))
            features.commit({"stand_in": True})


def write_splits(root):
    write_split(root, "penn_action/train", [9, 7], with_3d=False)
    write_split(root, "3dpw/train", [8, 6])
    write_split(root, "amass/train", [12], stream=False)
    write_split(root, "3dpw/validation", [6, 3], evaluation=True)
    write_split(root, "3dpw/test", [9], evaluation=True, undecodable=[5])


def small_config(root, run_folder):
    return TrainConfig.embedded(
        cache=root,
        runs=run_folder,
        stream="tiny",
        datasets_2d=("penn_action/train",),
        datasets_3d=("3dpw/train",),
        seqlen=4,
        stride=2,
        strides={},
        batch_size=4,
        iterations=2,
        epochs=1,
        feature_size=FEATURE_SIZE,
        hidden_size=5,
        regressor_size=7,
        disc_size=4,
    )
