"""The loop of the page about own trainings, in real processes that are killed and go on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cache
from tests.docs.markdown import blocks, document
from tests.vibe_model.builders import SMALL, write_split
from tests.waiting import LIMIT, await_that
from vibe_model import TrainConfig
from vibe_model.training.data import TrainingBatches

SPLITS = ("3dpw/train", "mpi_inf_3dhp/train")
SAVED, KILLED, ENDED = 100, 130, 40  # steps
# Each process notes its batches in a file of its rank; after the last one of all, each is killed.
NOTING = """
import multiprocessing, os, signal, sys, time, torch
from pathlib import Path
import train
folder, last = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
batches, loss_of = [], train.loss_of

def noting(network, batch):
    batches.append(batch["datasets_3d"]["resnet50"])
    if len(batches) == last:
        file = folder / f"{os.environ['RANK']}.pt"
        workers = [worker.pid for worker in multiprocessing.active_children()]
        torch.save((batches, workers), f"{file}.part")
        os.replace(f"{file}.part", file)
        while len([*folder.glob("*.pt")]) < int(os.environ["WORLD_SIZE"]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return loss_of(network, batch)

train.loss_of = noting
if __name__ == "__main__":
    train.main()
"""


@pytest.fixture
def folder(tmp_path):
    """The page's loop beside a demo cache of two splits."""
    (page,) = [
        code for code in blocks("python", document("own-training-loop.md")) if "main" in code
    ]
    assert len([line for line in page.splitlines() if line]) <= 50
    (tmp_path / "train.py").write_text(page)
    (tmp_path / "noting.py").write_text(NOTING)
    for seed, split in enumerate(SPLITS):
        lengths = [70 + 30 * seed, 16, 200]
        write_split(tmp_path / "demo/cache", split, lengths, seed=seed, stream="resnet50")
    return tmp_path


def train(folder, n_processes, last):
    """Run the loop until each process has had `last` batches, and kill it: batches by rank."""
    noted = folder / f"by {n_processes}"
    noted.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={n_processes}", "noting.py", noted, str(last)]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [*command],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        running.wait(LIMIT)
    finally:
        running.terminate()  # it ends its processes, too
        running.wait()
    files = [noted / f"{rank}.pt" for rank in range(n_processes)]
    assert all(file.exists() for file in files), (folder / "log").read_text()
    noted = [torch.load(file) for file in files]
    workers = [Path(f"/proc/{pid}/cmdline") for _, pids in noted for pid in pids]
    assert len(workers) == n_processes
    await_that(lambda: not any(file.exists() and file.read_bytes() for file in workers))
    return [batches for batches, _ in noted]


@pytest.mark.slow  # eight processes import torch
def test_two_killed_processes_and_one_that_goes_on_have_the_windows_of_a_training(folder):
    config = TrainConfig(
        datasets_2d=(),
        datasets_3d=SPLITS,
        window_weights={"mpi_inf_3dhp/train": 0.5},
        motion=(),
        prior="none",
        validation=("3dpw/train:no track",),
        evaluation=(),
        batch_size=16,
        stride=8,
        strides={},
        seed=1,
        epochs=3,
        iterations=60,  # killed in the middle of the third epoch
        **SMALL,
    )
    opened = cache.open(folder / "demo/cache")
    batches = TrainingBatches(config, {name: opened[name] for name in SPLITS})
    expected = [batch.labels["features"] for batch in batches.stream(0, device=torch.device("cpu"))]

    ranks = train(folder, 2, KILLED)
    for step, shares in enumerate(zip(*ranks, strict=True)):
        assert [len(share) for share in shares] == [8, 8]
        assert sorted(torch.cat(shares).tolist()) == sorted(expected[step].tolist())
    state = torch.load(folder / "state.pt")["loader"]
    assert state["step"] == SAVED  # of the loop, which has read ahead
    assert json.loads(json.dumps(state)) == state
    (alone,) = train(folder, 1, ENDED)
    for batch, later in zip(alone, expected[SAVED : SAVED + ENDED], strict=True):
        np.testing.assert_array_equal(batch, later)
    seen = {str(window) for batch in expected for window in batch.tolist()}
    n_windows = sum(batches.mixture.counts["datasets_3d"].values())
    assert len(seen) == n_windows > 50  # windows differ, so that equal ones are the same
