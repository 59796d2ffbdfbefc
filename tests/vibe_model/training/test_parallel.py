"""Processes that train as one: two threads that exchange as processes do; and torch's own launcher,
with gloo.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.tiny_runs import in_memory, vibe_config, vibe_splits
from vibe_model import TrainConfig, training
from vibe_model.checkpoints import device_of
from vibe_model.networks import cpu_kernels
from vibe_model.training import trainer as processes
from vibe_model.training.data import TrainingBatches, on_device
from vibe_model.training.trainer import ProcessGroup
from vibe_model.vibe.training import VIBETrainer

CPU = torch.device("cpu")
NETWORKS = ("gen_state_dict", "disc_motion_state_dict")


@pytest.fixture
def without_dropout(monkeypatch):
    """The draws of dropout differ between ranks: without dropout the processes together do what one
    does.
    """
    monkeypatch.setattr(cpu_kernels.Dropout, "forward", lambda self, values: values)


class Exchange:
    """In place of torch.distributed: the threads of a pool are the processes, each called by its
    rank.
    """

    def __init__(self, size):
        self.barrier, self.values, self.rank = (
            threading.Barrier(size, timeout=60),
            [None] * size,
            threading.local(),
        )

    def gathered(self, tensor):
        self.values[self.rank.number] = tensor.clone()
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found

    def all_reduce(self, tensor):
        tensor.copy_(sum(self.gathered(tensor)))

    def broadcast(self, tensor, src):
        tensor.copy_(self.gathered(tensor)[src])


def test_two_ranks_have_the_losses_and_the_weights_of_one_process(
    tmp_path, monkeypatch, without_dropout
):
    # Five windows of two kinds: no share is as large as another, and ranks differ in their labels.
    few = {"batch_size": 5, "lr_generator": 1e-3, "lr_discriminator": 1e-4}
    config, splits = replace(vibe_config(tmp_path), **few), vibe_splits()
    exchange = Exchange(2)
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(processes.distributed, name, getattr(exchange, name))

    def train(rank, size):
        exchange.rank.number = rank
        trainer = trainers[rank, size]
        batches = TrainingBatches(config, splits, rank=rank, world_size=size)
        steps = [trainer.train_step(on_device(batches[step], CPU)) for step in range(4)]
        return steps, trainer.group.from_first(rank + 3.5)

    ranks = [(0, 1), (0, 2), (1, 2)]
    trainers = {
        which: VIBETrainer(config, TinyBody(), ProcessGroup(*which)) for which in ranks
    }  # seeds are the process's
    alone, first = train(0, 1)
    assert first == 3.5
    with ThreadPoolExecutor(2) as pool:
        for steps, first in pool.map(train, (0, 1), (2, 2)):
            assert first == 3.5
            for found, expected in zip(steps, alone, strict=True):
                assert found.terms == pytest.approx(expected.terms, rel=1e-4)
                assert found.norms == pytest.approx(expected.norms, rel=1e-3)
                assert all(
                    expected.terms[name] > 0
                    for name in ("kp_2d", "kp_3d", "pose", "shape", "adversarial")
                )
    whole, *shares = (
        TrainingBatches(config, splits, rank=r, world_size=n)[3].labels for r, n in ranks
    )
    assert sorted(len(share["features"]) for share in shares) == [2, 3]
    for name in ("features", "kp_2d", "theta", "w_3d"):
        together = np.concatenate([share[name] for share in shares])
        assert sorted(row.tobytes() for row in together) == sorted(
            row.tobytes() for row in whole[name]
        )
    one, *others = (trainers[which].state_dict() for which in ranks)
    assert_close(others[0], one)
    for network in NETWORKS:
        assert all(
            torch.equal(others[0][network][name], value)
            for name, value in others[1][network].items()
        )


def assert_close(found, expected):
    for network in NETWORKS:
        for name, value in expected[network].items():
            error = torch.linalg.norm(found[network][name] - value)
            assert error <= 1e-5 * torch.linalg.norm(value) + 1e-6, name


WITHOUT_DROPOUT = """
import json, sys, torch
torch.set_num_threads(1)
from vibe_model import TrainConfig, training
from vibe_model.networks import cpu_kernels
cpu_kernels.Dropout.forward = lambda self, values: values
folder = training.run(TrainConfig.from_dict(json.loads(sys.argv[1])))
sys.stdout.write(f"FOLDER {folder}\\n")  # in one piece: processes share the output
"""
# Saving is slow, and every loss is nan.
GIVES_UP = """
import json, sys, time, torch
torch.set_num_threads(1)
from vibe_model import TrainConfig
from vibe_model.training import loop, video
from vibe_model.vibe import training
save, step_gradients = loop.save, training.step_gradients
loop.save = lambda path, state: (time.sleep(3), save(path, state))
nan = lambda terms: {name: value * float("nan") for name, value in terms.items()}
training.step_gradients = lambda *args, **kwargs: nan(step_gradients(*args, **kwargs))
video.run(TrainConfig.from_dict(json.loads(sys.argv[1])))
"""


def launch(code, config, folder):
    script = folder / "train.py"
    script.write_text(code)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, json.dumps(config.as_dict())], capture_output=True, text=True, env=environment
    )


@pytest.fixture
def few(mixed, of_windows, tmp_path):
    places = {"cache": of_windows, "runs": tmp_path / "runs", "device": "cpu", "processes": 0}
    return replace(mixed, iterations=3, epochs=2, lr_generator=1e-3, **places)


def state(folder):
    return torch.load(folder / "last.pt", weights_only=True)


@pytest.mark.slow
def test_two_launched_processes_train_as_one_and_do_not_train_again(few, tmp_path, without_dropout):
    earlier = set()
    for _ in range(2):
        answer = launch(WITHOUT_DROPOUT, few, tmp_path)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        (both,) = few.runs.iterdir()
        assert {line for line in answer.stdout.splitlines() if line.startswith("FOLDER")} == {
            f"FOLDER {both}"
        }
        written = {path: path.stat().st_mtime_ns for path in both.rglob("*")}
        assert len({frozenset(written.items()), *earlier}) == 1
        earlier = {frozenset(written.items())}
    alone = state(training.run(replace(few, runs=tmp_path / "alone")))
    assert_close(state(both), alone)
    for found, expected in zip(
        state(both)["training"]["history"], alone["training"]["history"], strict=True
    ):
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    # The first of them writes.
    assert json.loads((both / "metrics.json").read_text())["processes"] == 2
    assert len(list(both.glob("events.*"))) == 1


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
