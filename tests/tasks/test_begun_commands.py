"""Commands that end before they have done all, while the cache changes."""

import os
import shutil
import subprocess
import sys
import time

import pytest

import cache
from cache.format.pins import find_missing
from pipeline.__main__ import main
from tasks.evaluation import Evaluate
from tasks.training import model_config
from tests.tasks.conftest import LUIGI, ROOT
from tests.vibe_model.training.tiny_runs import assert_same_run, curves
from vibe_model import runs
from vibe_model.sections import VIBE


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


@pytest.mark.promise("resumable")
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
    assert "! VIBE, tiny: 3dpw/train: 5 of the videos were added, changed or removed" in ended.words
    assert "The next command trains on the current data" in ended.words
    assert not list(folder.glob("pin-*"))
    assert "train VIBE, tiny" in build(project, "EvaluateVIBE").done
    assert len(project.runs) == 2


@pytest.mark.promise("resumable")
def test_gc_keeps_what_an_unfinished_run_reads_for_thirty_days(project, within, capsys):
    root = project.folder / "cache"
    within(project)
    config = model_config(VIBE)
    split = cache.open(root)["3dpw/train"]
    (run,) = project.runs
    (run / "metrics.json").unlink()
    runs.keep_data(config, runs.open_splits(config), run)
    pin = runs.pin_of(config, run)
    for other in {*run.glob("pin-*")} - {pin}:  # of the same run in the project that was copied
        shutil.rmtree(other)
    columns = cache.COLUMNS.keys() & split.columns  # without the dataset's own
    with cache.SplitWriter(root, split.name, columns=columns, plan="removed") as writer:
        following = writer.begin(drop=split.videos.names, invalidate=[0])
        following.commit({"stand_in": True})

    def gc(days):
        then = time.time() - days * 86400
        os.utime(pin, (then, then))
        capsys.readouterr()
        assert main(["gc"]) == 0
        return " ".join(capsys.readouterr().out.split())

    n_files = len(split.columns)
    for days in (0, 29):
        assert f"{n_files} files that {pin} needs" in gc(days)
        pinned = cache.FeatureCache(root, pin)[split.name]
        assert len(pinned.live("kp_2d")) == pinned.manifest["rows"] > 0
    assert f"{pin} needs" not in gc(31)
    assert len(find_missing(pinned.commit)) == n_files


# Imported by each Python process of a job. Its plan, such as "last.pt 2 USR1", has the endings that
# are still to come: before this file is written for the n-th time, the training split is replaced;
# then the job is told to stop, or its command is killed.
ENDS = """
import os, signal, subprocess, sys
from pathlib import Path

exchange = os.replace
plan = Path(os.environ["PLAN"])


def replace(source, target, **folders):
    name = Path(target).name
    endings = plan.read_text().splitlines()
    if not endings or endings[0].split()[0] != name:
        return exchange(source, target, **folders)
    _, n_left, how = endings.pop(0).split()
    if int(n_left) > 1:
        plan.write_text("\\n".join([f"{name} {int(n_left) - 1} {how}", *endings]))
        return exchange(source, target, **folders)
    plan.write_text("\\n".join(endings))
    subprocess.run([sys.executable, os.environ["CHANGE"]], check=True)
    if how == "USR1":
        os.kill(int(os.environ["JOB"]), signal.SIGUSR1)
    else:  # of two processes that train, the launcher is the command
        os.kill(os.getpid() if name == "results.csv" else os.getppid(), signal.SIGKILL)
    return exchange(source, target, **folders)


os.replace = replace
"""
CHANGE = """
import cache

split = cache.open("cache")["3dpw/train"]
columns = cache.COLUMNS.keys() & split.columns
with cache.SplitWriter("cache", split.name, columns=columns, plan="removed") as writer:
    following = writer.begin(drop=split.videos.names, invalidate=range(len(split.rows_by_shard())))
    recorded = {name: split.manifest[name] for name in ("reader", "stand_in", "accounting")}
    following.commit(recorded)
"""
PLAN = """last.pt 2 USR1
last.pt 2 KILL
results.csv 1 KILL"""


def job_script():
    """job.sh of the page."""
    page = (ROOT / "docs/clusters.md").read_text()
    return page.partition("## SLURM: one node")[2].partition("```bash\n")[2].partition("```")[0]


@pytest.mark.promise("resumable")
@pytest.mark.slow
def test_the_job_of_the_page_ends_with_the_bits_of_a_quiet_one_while_the_cache_is_replaced(
    project, build
):
    """By two processes; told to stop at a checkpoint, killed at one, and before the evaluation."""
    shutil.rmtree(project.folder / "runs")
    several = "[vibe]\nprocesses = 2\ndevice = cpu\ncheckpoint_every = 1"
    project.configure(f"{several}\n[core]\nlocal_scheduler = true")
    quiet = project.copy(project.folder.with_name("quiet"))
    ran = quiet.luigi("EvaluateVIBE")
    assert ran.code == 0, ran.shown

    folder = project.folder
    tools = folder / "tools"
    for name, text in {
        "job.sh": job_script(),
        "plan": PLAN,
        "change.py": CHANGE,
        "tools/sitecustomize.py": ENDS,
        "tools/scontrol": "#!/bin/sh\necho $* >> requeued\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (tools / "scontrol").chmod(0o755)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/luigi").symlink_to(LUIGI)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{tools}",
        "LUIGI_CONFIG_PATH": str(project.cfg),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "7",
        "PLAN": str(folder / "plan"),
        "CHANGE": str(folder / "change.py"),
    }
    in_project = {"cwd": folder, "env": environment, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    shown = []
    for code in (0, 137, 137, 0):
        job = ["bash", "-c", "JOB=$$ exec bash job.sh"]
        ended = subprocess.run(job, **in_project, **pipes)
        shown.append(ended.stdout)
        assert ended.returncode == code, "\n".join(shown)
        assert len(project.runs) == 1, shown[-1]
        gc = [sys.executable, "-m", "pipeline", "gc"]
        swept = subprocess.run(gc, **in_project, **pipes)
        assert swept.returncode == 0, swept.stdout
        has_ended = len(shown) == 4
        assert ("pin-" in swept.stdout) != has_ended, swept.stdout
    assert "of the videos were added, changed or removed since" in shown[1]
    assert "The next command trains on the current data" in shown[-1]
    assert (folder / "requeued").read_text() == "requeue 7\n"
    (run,) = project.runs
    (expected,) = quiet.runs
    assert run.name == expected.name
    assert (run / "results.csv").read_text() == (expected / "results.csv").read_text()
    assert_same_run(run, expected)
    assert curves(run) == curves(expected)
