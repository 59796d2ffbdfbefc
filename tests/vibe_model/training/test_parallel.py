"""Two processes train as one: torch's own launcher, two CPU processes, gloo."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.vibe_model.builders import small_config, write_splits
from vibe_model import training
from vibe_model.errors import CheckpointError, ConfigError
from vibe_model.networks import cpu_kernels
from vibe_model.prediction.trained import device_of
from vibe_model.training.parallel import Group, joined

# The draws of dropout differ between ranks: without dropout the processes together do what one does.
WITHOUT_DROPOUT = """
import json, sys, torch
torch.set_num_threads(1)
from vibe_model import TrainConfig, training
from vibe_model.networks import cpu_kernels
from vibe_model.prediction.trained import device_of
cpu_kernels.Dropout.forward = lambda self, values: values
folder = training.run(TrainConfig.from_dict(json.loads(sys.argv[1])))
sys.stdout.write(f"FOLDER {folder}\\n")  # in one piece: processes share the output
"""
# Saving is slow, and every loss is nan.
GIVES_UP = """
import json, sys, time, torch
torch.set_num_threads(1)
from vibe_model import TrainConfig
from vibe_model.training import loop, vibe
save, step_gradients = loop.save, vibe.step_gradients
loop.save = lambda path, state: (time.sleep(3), save(path, state))
nan = lambda terms: {name: value * float("nan") for name, value in terms.items()}
vibe.step_gradients = lambda *args, **kwargs: nan(step_gradients(*args, **kwargs))
vibe.run(TrainConfig.from_dict(json.loads(sys.argv[1])))
"""


def launch(code, config, folder):
    script = folder / "train.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, json.dumps(config.as_dict())], capture_output=True, text=True, env=environment)


def launched(config, folder):
    """The folder of a run of two processes."""
    answer = launch(WITHOUT_DROPOUT, config, folder)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    (found,) = {line.removeprefix("FOLDER ") for line in answer.stdout.splitlines() if line.startswith("FOLDER")}
    return config.runs / found


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    write_splits(root)
    return root


def config_of(root, folder, **changes):
    # Five windows of two kinds: no share is as large as another, and ranks differ in their labels.
    few = {"batch_size": 5, "iterations": 3, "epochs": 2, "lr_generator": 1e-3, "processes": 0}
    return replace(small_config(root, folder / "runs"), **few, **changes)


@pytest.fixture(scope="module")
def both(root, tmp_path_factory):
    """A finished run of two processes. Only to be read."""
    folder = tmp_path_factory.mktemp("both")
    return launched(config_of(root, folder), folder)


def states(folder):
    state = torch.load(folder / "last.pt", weights_only=True)
    return state, [entry["losses"] for entry in state["course"]["history"]]


def test_two_processes_have_the_losses_and_the_weights_of_one(root, both, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_kernels.Dropout, "forward", lambda self, values: values)
    config = config_of(root, tmp_path)
    alone, alone_losses = states(config.runs / training.run(config))
    state, both_losses = states(both)
    assert len(both_losses) == 2
    for found, expected in zip(both_losses, alone_losses, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
        assert all(expected[name] > 0 for name in ("kp_2d", "kp_3d", "pose", "shape", "adversarial"))
    for network in ("gen_state_dict", "disc_motion_state_dict"):
        for name, expected in alone[network].items():
            found = state[network][name]
            assert torch.linalg.norm(found - expected) <= 1e-5 * torch.linalg.norm(expected) + 1e-7, name
    # The first of them writes.
    assert json.loads((both / "metrics.json").read_text())["processes"] == 2
    assert len(list(both.glob("events.*"))) == 1


@pytest.mark.slow
def test_a_finished_run_of_two_processes_is_not_run_again(root, both, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in both.rglob("*")}
    assert launched(config_of(root, both.parents[2]), tmp_path) == both
    assert {path: path.stat().st_mtime_ns for path in both.rglob("*")} == before


@pytest.mark.slow
def test_the_last_good_state_is_saved_before_any_process_gives_up(root, tmp_path):
    config = config_of(root, tmp_path, max_non_finite=2)
    answer = launch(GIVES_UP, config, tmp_path)
    assert answer.returncode != 0
    assert "losses were not finite in 2 steps in a row" in answer.stderr
    (last,) = config.runs.glob("*/last.pt")
    course = torch.load(last, weights_only=True)["course"]
    assert (course["step"], course["skipped"]) == (2, 2)


def test_another_number_of_processes_is_refused(root, both, tmp_path):
    config = config_of(root, tmp_path)
    with pytest.raises(ConfigError, match=r"expected 2, found 1\. .*torchrun --standalone --nproc-per-node 2"):
        training.run(replace(config, processes=2))
    started = shutil.copytree(both, config.runs / both.name)
    (started / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected processes 1, found 2"):
        training.run(config)


def test_a_process_alone_is_a_group_of_one():
    group = Group()
    assert group.leads
    assert group.from_first(3.5) == 3.5
    assert group.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    with joined("cpu", 0) as found:
        assert found == group


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto", 3) == torch.device("cuda", 3)
    assert device_of("cpu", 3) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"each of several processes has a GPU of its own"):
        device_of("cuda:1", 0)
