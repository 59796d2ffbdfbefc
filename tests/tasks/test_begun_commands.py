"""Commands that end before they have done all, while the cache changes."""

import os
import shutil
import time

import pytest

import cache
from cache.format.pins import find_missing, write_pin
from cache.storage import store_at
from pipeline.__main__ import main
from tasks.evaluation import Evaluate


@pytest.fixture
def killed_before_evaluation(project, build, monkeypatch):
    """A project whose training has ended, and whose command was killed before the evaluation."""
    (folder,) = project.runs
    shutil.rmtree(folder)

    def kill(task):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Evaluate, "work", kill)
        ran = build(project, "EvaluateVIBE")
    assert ran.done == ["train VIBE, tiny"]
    return project


def grow(project):
    """A video more in a training split."""
    for labels in (project.folder / "spare").iterdir():
        labels.rename(project.folder / "raw/3dpw/sequenceFiles/train" / labels.name)


def test_a_command_killed_between_training_and_evaluation_evaluates_that_run(
    killed_before_evaluation, build
):
    project = killed_before_evaluation
    (folder,) = project.runs
    grow(project)
    evaluated = build(project, "EvaluateVIBE")
    assert evaluated.code == 0, evaluated.shown
    assert "train VIBE, tiny up to date" in evaluated.words
    assert project.runs == [folder]
    assert (folder / "results.csv").is_file()
    # the whole command has ended: the next one trains on the current data
    ended = project.luigi("EvaluateVIBE")
    assert (ended.code, ended.done) == (0, []), ended.shown
    assert "! VIBE, tiny: 3dpw/train: 5 videos were added, changed or removed" in ended.words
    assert "The next command trains on the current data" in ended.words
    assert not list(folder.glob("pin-*"))
    assert "train VIBE, tiny" in build(project, "EvaluateVIBE").done
    assert len(project.runs) == 2


def test_gc_keeps_what_unfinished_runs_read_for_thirty_days(project, within, capsys):
    root = project.folder / "cache"
    name = "3dpw/train"
    split = cache.open(root)[name]
    (run,) = project.runs
    for made in run.glob("pin-*"):  # of a command that has not ended as commands do
        shutil.rmtree(made)
    pin = run / "pin-of-this-test"
    write_pin(store_at(pin), [split.commit])
    columns = cache.COLUMNS.keys() & split.columns  # without the dataset's own
    with cache.SplitWriter(root, name, columns=columns, plan="removed") as writer:
        following = writer.begin(drop=split.videos.names, invalidate=[0])
        following.commit({"stand_in": True})
    within(project)

    def gc():
        capsys.readouterr()
        assert main(["gc"]) == 0
        return capsys.readouterr().out

    n_files = len(split.columns)
    for days in (0, 29):
        then = time.time() - days * 86400
        os.utime(pin, (then, then))
        assert f"{n_files} files that {pin} needs" in " ".join(gc().split())
        split = cache.FeatureCache(root, pin)[name]
        assert len(split.live("kp_2d")) == split.manifest["rows"] > 0
    then = time.time() - 31 * 86400
    os.utime(pin, (then, then))
    assert f"{pin} needs" not in gc()
    assert len(find_missing(cache.FeatureCache(root, pin)[name].commit)) == n_files
