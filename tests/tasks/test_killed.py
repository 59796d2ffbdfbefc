"""A training run that is killed, and started again."""

from __future__ import annotations

import json
import shutil
import signal
import time

import torch


def signalled_after_the_first_checkpoint(project, number: signal.Signals) -> tuple[int, str]:
    process = project.start("EvaluateVIBE", "--local-scheduler")
    while process.poll() is None and not list(project.folder.glob("runs/*/last.pt")):
        time.sleep(0.01)
    process.send_signal(number)
    shown, _ = process.communicate()
    return process.returncode, shown


def test_an_interrupted_training_says_how_to_go_on(project) -> None:
    shutil.rmtree(project.folder / "runs")
    project.configure({"train": {"checkpoint_every": "1"}})
    code, shown = signalled_after_the_first_checkpoint(project, signal.SIGINT)
    assert code == -signal.SIGINT, shown
    assert "Traceback" not in shown
    assert shown.splitlines()[-1] == "interrupted: what is finished is kept; the same command goes on from there"
    assert not (project.runs[0] / "metrics.json").exists()


def test_a_killed_training_ends_with_the_same_numbers_as_an_undisturbed_one(made, project) -> None:
    shutil.rmtree(project.folder / "runs")
    project.configure({"train": {"checkpoint_every": "1"}})
    code, shown = signalled_after_the_first_checkpoint(project, signal.SIGKILL)
    assert code == -signal.SIGKILL, shown
    folder = project.runs[0]
    assert (folder / "last.pt").is_file()
    assert not (folder / "metrics.json").exists()

    again = project.luigi("EvaluateVIBE")
    assert again.code == 0, again.shown
    assert again.done == ["train VIBE, tiny"]
    undisturbed = made.project.runs[0]
    assert project.runs == [folder], "how often it is saved does not make it another run"
    assert folder.name == undisturbed.name
    assert json.loads((folder / "metrics.json").read_text()) == json.loads((undisturbed / "metrics.json").read_text())
    assert (folder / "results.csv").read_text() == (undisturbed / "results.csv").read_text()
    one, other = (torch.load(f / "best.pt", weights_only=True)["gen_state_dict"] for f in (folder, undisturbed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
