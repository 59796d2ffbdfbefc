"""The whole way with nothing replaced: a cache on disk, the procedural body with its 6890 vertices, a training run."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import cache
from vibe_model import TrainConfig, runs, training
from vibe_model.errors import DataError

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


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    write_split(root, "penn_action/train", [9, 7], with_3d=False)
    write_split(root, "3dpw/train", [8, 6])
    write_split(root, "amass/train", [12], stream=False)
    write_split(root, "3dpw/validation", [6, 3], evaluation=True)
    write_split(root, "3dpw/test", [9], evaluation=True, undecodable=[5])
    return root


@pytest.fixture
def config(root, tmp_path):
    return TrainConfig.embedded(
        cache=root,
        runs=tmp_path / "runs",
        stream="tiny",
        datasets_2d=("penn_action/train",),
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
        attention_size=4,
    )


def test_a_run_from_a_cache_on_disk_with_the_stand_in_body(config):
    assert not runs.is_complete(config)
    folder = training.run(config)
    assert runs.is_complete(config)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["stand_in"] is True
    result = metrics["3dpw/test"]
    assert (result["frames"], result["frames_total"], result["frames_not_predicted"]) == (8, 9, 1)
    assert result["baseline"]["pve"] > 0
    assert result["published"]["frames"] == 4  # the window that needs row 5 is out, and so is the last frame
    assert all(b"smpl" not in file.read_bytes() for file in folder.glob("*.pt"))
    # Neither do the vertices fit in under another name.
    assert (folder / "best.pt").stat().st_size < 6890 * 3 * 4


def test_a_new_commit_of_a_split_is_a_new_run(config):
    write_split(config.cache, "h36m/train", [8])
    config = replace(config, datasets_3d=("h36m/train",))
    before = runs.run_folder(config)
    write_split(config.cache, "posetrack/val", [5])  # which the run does not read
    assert runs.run_folder(config) == before
    with cache.SplitWriter(
        config.cache, "h36m/train", columns=cache.open(config.cache)["h36m/train"].columns, plan="new"
    ) as writer:
        writer.begin(drop=["v0"])
        writer.commit({"stand_in": True})
    assert runs.run_folder(config) != before


def test_what_is_missing_is_named(config):
    lacking = replace(config, evaluation=("h36m/val",), motion=("3dpw/train",), datasets_3d=("amass/train",))
    assert runs.missing(lacking) == ["h36m/val", "amass/train/features/tiny"]
    assert not runs.is_complete(lacking)
    with pytest.raises(DataError, match=r"h36m/val, amass/train/features/tiny"):
        training.run(lacking)


def test_asking_whether_a_run_is_complete_imports_no_torch():
    ask = "from vibe_model import TrainConfig, runs; runs.is_complete(TrainConfig())"
    code = f"import sys; {ask}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
