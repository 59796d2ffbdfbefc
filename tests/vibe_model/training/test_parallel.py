"""Processes that train as one, started by torch's own launcher, with gloo."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import distributed

from pipeline.errors import ConfigError
from tests.results import read_file
from tests.trees import everything
from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.tiny_runs import in_memory, prior_config, vibe_config, vibe_splits
from vibe_model import TrainConfig, runs, training
from vibe_model.devices import device_of
from vibe_model.training.data import TrainingBatches
from vibe_model.training.process_group import ProcessGroup
from vibe_model.vibe.mposer_training import _MPoserTrainer
from vibe_model.vibe.training import VIBETrainer

CPU = torch.device("cpu")
NETWORKS = ("gen_state_dict", "disc_motion_state_dict")


def assert_close(found, expected):
    for network in NETWORKS:
        for name, value in expected[network].items():
            error = torch.linalg.norm(found[network][name] - value)
            assert error <= 1e-5 * torch.linalg.norm(value) + 1e-6, name


# Saving is slow, and every loss is nan.
GIVES_UP = """
import json, sys, time, torch
torch.set_num_threads(1)
from vibe_model import TrainConfig
from vibe_model.training import loop, video
from vibe_model.vibe.training import VIBETrainer
save, losses = loop._save, VIBETrainer.losses
loop._save = lambda path, state: (time.sleep(3), save(path, state))
nan = lambda terms: {name: value * float("nan") for name, value in terms.items()}
VIBETrainer.losses = lambda trainer, batch: nan(losses(trainer, batch))
video.run(TrainConfig.from_dict(json.loads(sys.argv[1])))
"""


# Each process notes, by step, which windows it trains on; all are killed at step 3.
KILLED = """
import json, os, signal, sys, torch
torch.set_num_threads(1)
from vibe_model import TrainConfig, training
from vibe_model.training.trainer import Trainer
torch.nn.Dropout.forward = lambda self, values: values
train_step = Trainer.train_step
def step(trainer, batch):
    if "KILLED" in os.environ and trainer.state.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    for kind, windows in (("video", batch.labels["features"]), ("motion", batch.real_theta)):
        for window in windows.tolist():
            line = json.dumps([trainer.state.step, kind, window])
            with open(os.environ["NOTES"], "a") as file:
                file.write(line + "\\n")
    return train_step(trainer, batch)
Trainer.train_step = step
training.run(TrainConfig.from_dict(json.loads(sys.argv[1])))
"""


def launch(code, config, folder, processes=2, **variables):
    script = folder / "train.py"
    script.write_text(code)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        str(script),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [*command, json.dumps(config.as_dict())], capture_output=True, text=True, env=environment
    )


@pytest.fixture
def few(mixed, of_windows, tmp_path):
    places = {"cache": of_windows, "runs": tmp_path / "runs", "device": "cpu", "processes": 0}
    return replace(mixed, iterations=3, epochs=2, lr_generator=1e-3, **places)


def state(folder):
    return read_file(folder / "last.pt")


@pytest.mark.slow
def test_a_run_killed_with_four_processes_resumes_with_one_and_two_at_the_same_windows(
    few, tmp_path, without_dropout
):
    config = replace(few, batch_size=8, iterations=4, checkpoint_every=2)
    answer = launch(KILLED, config, tmp_path, 4, KILLED="", NOTES=str(tmp_path / "four"))
    assert answer.returncode != 0
    splits = runs.open_splits(config)
    assert state(runs.run_folder(config, splits))["training"]["step"] == 2
    batches = TrainingBatches(config, splits)
    expected = []
    for step in range(len(batches)):
        for kind, windows in (
            ("video", batches[step].labels["features"]),
            ("motion", batches[step].real_theta),
        ):
            expected += [[step, kind, window] for window in windows.tolist()]
    undisturbed = training.run(replace(config, runs=tmp_path / "undisturbed"))
    first = 2 * (len(expected) // len(batches))
    for processes, begin in ((4, 0), (1, first), (2, first)):
        notes = tmp_path / {4: "four", 1: "one", 2: "two"}[processes]
        if processes != 4:
            resumed = replace(config, runs=tmp_path / f"runs {processes}")
            shutil.copytree(config.runs, resumed.runs)
            answer = launch(KILLED, resumed, tmp_path, processes, NOTES=str(notes))
            assert answer.returncode == 0, answer.stderr
            folder = runs.run_folder(resumed)
            assert_close(state(folder), state(undisturbed))
            assert "Warning" not in answer.stderr
            assert read_file(folder / "metrics.json").get("processes", 1) == processes
            before = everything(folder)  # it is finished, and is not trained again
            assert launch(KILLED, resumed, tmp_path, processes, NOTES="/dev/null").returncode == 0
            assert everything(folder) == before
        noted = sorted(json.loads(line) for line in notes.read_text().splitlines())
        last = begin + len(noted)
        assert noted == sorted(expected[begin:last])
        assert last == (len(expected) if processes != 4 else 3 * first // 2)


@pytest.mark.slow
def test_the_last_good_state_is_saved_before_any_process_gives_up(few, tmp_path):
    answer = launch(GIVES_UP, replace(few, max_non_finite=2), tmp_path)
    assert answer.returncode != 0
    assert "losses were not finite in 2 steps in a row" in answer.stderr
    (last,) = few.runs.glob("*/last.pt")
    assert (state(last.parent)["training"]["step"], state(last.parent)["training"]["skipped"]) == (
        2,
        2,
    )


def test_another_number_of_processes_is_refused(tmp_path, monkeypatch):
    in_memory(monkeypatch, "vibe")
    with pytest.raises(
        ConfigError, match=r"expected 2, found 1\. .*torchrun --standalone --nproc-per-node 2"
    ):
        training.run(replace(vibe_config(tmp_path), processes=2))


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of("auto", 3) == torch.device("cuda", 3)
    assert device_of("cpu", 3) == CPU
    with pytest.raises(ConfigError, match=r"each of several processes has a GPU of its own"):
        device_of("cuda:1", 0)
    for device, n in (("auto", 4), ("cuda", 4), ("cuda:1", 1), ("cpu", 1)):
        assert ProcessGroup.planned_size(TrainConfig(device=device, processes=0)) == n
    with pytest.raises(ConfigError, match=r"'auto' needs cuda:4, but torch finds 4 GPUs"):
        device_of("auto", 4)
    with pytest.raises(ConfigError, match=r"expected auto, cpu, cuda or cuda:1, found 'mps'"):
        device_of("mps")


def test_shares_of_a_batch_weighted_by_their_counts_have_the_losses_of_the_whole(
    tmp_path, without_dropout
):
    weights = {f"{term}_weight": 1.0 for term in TrainConfig.TERMS}  # also of those that are off
    config = replace(vibe_config(tmp_path), batch_size=5, **weights)
    splits = vibe_splits()
    trainer = VIBETrainer(config, TinyBody())

    def terms_and_counts(rank, size):
        batches = TrainingBatches(config, splits, rank=rank, world_size=size)
        batch = batches[0].on_device(CPU)
        counts = trainer.counts(batch)
        n_windows = len(batch.labels["kp_2d"])
        terms = trainer.losses(batch)
        return {name: (term.item(), counts.get(name, n_windows)) for name, term in terms.items()}

    whole = terms_and_counts(0, 1)
    shares = [terms_and_counts(rank, 2) for rank in range(2)]
    for name, (expected, n_items) in whole.items():
        assert expected > 0, f"{name} is not tested"
        assert sum(share[name][1] for share in shares) == n_items
        mean = sum(term * n for term, n in (share[name] for share in shares)) / n_items
        assert float(mean) == pytest.approx(expected, rel=1e-4)


def test_a_missing_score_is_missing_in_every_process(monkeypatch):
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda values, src, device: None)
    group = ProcessGroup(rank=0, size=2)
    assert group.from_first(None) is None
    assert group.from_first(0) == 0
    assert math.isnan(group.from_first(math.nan))


def test_a_training_that_cannot_run_in_several_processes_refuses_them(tmp_path):
    with pytest.raises(ConfigError, match="trains in one process, found 2"):
        _MPoserTrainer(prior_config(tmp_path), ProcessGroup(size=2))
