"""Trainings and evaluations of a state that has a name."""

import json
import shutil

import pytest
from luigi.task import flatten

from pipeline.__main__ import main
from tasks import Ablation, EvaluateHMMR, EvaluatePartDynamics, TrainVIBE
from tests.results import read_file

pytestmark = pytest.mark.promise("tags")


def numbers(folder):
    """What a training measured, without when and how fast."""
    metrics = read_file(folder / "metrics.json")
    return metrics["best"], {name: metrics[name] for name in metrics if "/" in name}


def test_a_tag_is_trained_on_and_evaluated_after_a_change_without_its_raw_folders(
    project, build, tasks_command
):
    (run,) = project.runs
    trained = numbers(run)
    cached = ("--cache", str(project.folder / "cache"))
    assert main(["tag", "cvpr", *cached]) == 0
    added = min((project.folder / "spare").iterdir())
    shutil.copy2(added, project.folder / "raw/3dpw/sequenceFiles/train" / added.name)
    assert "convert 3dpw/train" in build(project, "Data").done
    assert main(["gc", *cached]) == 0
    (project.folder / "raw").rename(project.folder / "away")
    project.configure("[data]\nat = cvpr")
    ran = build(project, "EvaluateVIBE")  # the run on the same content
    assert (ran.code, ran.done) == (0, []), ran.shown
    shutil.rmtree(run)
    ran = build(project, "EvaluateVIBE")
    assert (ran.code, ran.done) == (0, ["train VIBE, tiny"]), ran.shown
    assert " since " not in ran.shown  # what has changed does not matter
    assert numbers(run) == trained
    assert read_file(run / "config.json")["config"]["at"] == "cvpr"
    checkpoint = ("--checkpoint", str(run / "best.pt"), "--split", "3dpw/test", "--json")
    code, shown = tasks_command(project, "evaluate", *checkpoint)
    assert code == 0, shown
    assert json.loads(shown[shown.index("{") :])["3dpw/test"] == trained[1]["3dpw/test"]
    # opposites: a tag that was deleted, and the current state
    assert main(["tag", "cvpr", "--delete", *cached]) == 0
    assert "cvpr: no tag" in build(project, "TrainVIBE").only_failure(30)
    (project.folder / "away").rename(project.folder / "raw")
    project.configure("[data]\nat")
    assert "train VIBE, tiny" in build(project, "TrainVIBE").done
    assert len(project.runs) == 2


@pytest.mark.parametrize("at", ["", "at = cvpr"])
def test_tasks_that_train_on_a_tag_require_none_about_data(at, bare, within):
    bare.configure(f"[data]\ndatasets = demo\n{at}\n[vibe]\nprior = mposer")
    (bare.folder / "raw").mkdir()
    within(bare)
    required = set()
    left = [Ablation(), EvaluatePartDynamics(), EvaluateHMMR(), TrainVIBE()]
    while left:
        task = left.pop()
        required.add(task.task_family)
        left += flatten(task.requires())
    about_data = {"Synthesize", "Convert", "Data", "Extract", "ExtractBeside"}
    assert {"Train", "TrainMPoser", "TrainPrVIPE"} <= required
    assert required & about_data == (set() if at else about_data)
