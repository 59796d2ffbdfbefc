"""A training run that is killed, and started again."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time

import pytest
import torch


def signalled_after_the_first_checkpoint(project, number: signal.Signals) -> tuple[int, str]:
    process = project.start("EvaluateVIBE", "--local-scheduler")
    while process.poll() is None and not list(project.folder.glob("runs/*/last.pt")):
        time.sleep(0.01)
    process.send_signal(number)
    shown, _ = process.communicate()
    return process.returncode, shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, -signal.SIGINT, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupted_training_says_how_to_go_on(project, number, code, word) -> None:
    shutil.rmtree(project.folder / "runs")
    project.configure({"train": {"checkpoint_every": "1"}})
    ended, shown = signalled_after_the_first_checkpoint(project, number)
    assert ended == code, shown
    assert "Traceback" not in shown
    said, again = shown.splitlines()[-2:]
    step = r"of VIBE, tiny, step \d of 6 \(runs/tiny-\w+/last\.pt\)"
    kept = rf"what is finished is kept; {step}; the same command goes on from there:"
    assert re.fullmatch(f"{word}: {kept}", said), said
    assert again.endswith("luigi --module tasks EvaluateVIBE --local-scheduler")
    assert not (project.runs[0] / "metrics.json").exists()


@pytest.mark.slow
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
