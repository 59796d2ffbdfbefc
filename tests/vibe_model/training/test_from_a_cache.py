"""The whole way with nothing replaced: a cache on disk, the procedural body with its 6890 vertices, a training run."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

import cache
from tests.vibe_model.on_disk import small_config, write_split, write_splits
from vibe_model import runs
from vibe_model.errors import DataError
from vibe_model.training import vibe as training


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    write_splits(root)
    return root


@pytest.fixture
def config(root, tmp_path):
    return small_config(root, tmp_path / "runs")


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
