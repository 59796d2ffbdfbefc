"""What holds for every training, of VIBE and of the motion prior: one at a time, and none twice."""

import os
from types import SimpleNamespace

import pytest
import torch

from cache import CacheError
from cache.storage.atomic import WriterLock
from tests.vibe_model.tiny_runs import prior_config, prior_splits, vibe_config, vibe_splits
from vibe_model import runs
from vibe_model.training import mposer
from vibe_model.training import vibe as training


@pytest.fixture(params=["vibe", "prior"])
def of(request, tmp_path, monkeypatch, memory_split, body):
    """One of the trainings: its configuration, its functions, and what it needs only where there is something to do."""
    if request.param == "vibe":
        splits = vibe_splits(memory_split)
        monkeypatch.setattr(runs, "open_splits", lambda config: splits)
        monkeypatch.setattr(training, "load_body", lambda folder: body)
        return SimpleNamespace(
            config=vibe_config(tmp_path), run=training.run, folder=runs.run_folder, needs=(training, "VIBETrainer")
        )
    splits = prior_splits(memory_split)
    monkeypatch.setattr(runs, "open_splits", lambda config: splits)
    return SimpleNamespace(
        config=prior_config(tmp_path),
        run=mposer.run,
        folder=runs.run_folder,
        needs=(mposer, "MPoserTrainer"),
    )


def test_a_finished_run_is_not_touched_again(of, monkeypatch):
    folder = of.run(of.config)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    monkeypatch.setattr(*of.needs, lambda *_: pytest.fail("there is nothing to do"))
    assert of.run(of.config) == folder == of.folder(of.config)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_two_processes_do_not_train_in_one_folder(of):
    folder = of.folder(of.config)
    lock = WriterLock(folder / ".writing" / "lock")  # as another process would hold it
    with pytest.raises(CacheError, match=f"found process {os.getpid()} writing"):
        of.run(of.config)
    lock.release()
    assert of.run(of.config) == folder


def test_the_callers_random_state_and_threads_are_left_alone(of):
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    of.run(of.config)
    torch.testing.assert_close(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
