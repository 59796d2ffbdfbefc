"""The job script that `python -m tasks slurm` prints, run by bash with stand-ins of SLURM and Luigi."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

LUIGI = """#!/bin/bash
echo "luigi $*" >> calls
echo "$PIPELINE_SET" > set
case "$WHAT" in
long) trap 'echo "ended" >> calls; exit 143' TERM; echo begun; sleep 60 &> /dev/null & wait $! ;;
fails) exit 30 ;;
esac
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> calls
if [ "$1" = show ]; then printf "node1\\nnode2\\n"; fi
"""


@pytest.fixture
def job(bare, tasks_command: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    """The script of these options, with stand-ins for what it calls."""

    def make(*options: str) -> Path:
        monkeypatch.chdir(bare.folder)
        code, text = tasks_command(bare, "slurm", *options)
        assert code == 0
        srun = '#!/bin/bash\necho "srun $*" >> calls'
        for name, program in (("luigi", LUIGI), ("scontrol", SCONTROL), ("srun", srun)):
            (bare.folder / name).write_text(program)
            (bare.folder / name).chmod(0o755)
        (bare.folder / "job.sh").write_text(re.sub(r"^luigi=.*$", "luigi=(luigi)", text, flags=re.MULTILINE))
        return bare.folder

    return make


def run(folder: Path, what: str = "", end_by: signal.Signals | None = None, **environment: str) -> tuple[int, str]:
    """Exit code of the job, and its log. end_by: a signal that it gets when `luigi` has begun."""
    path = f"{folder}:{os.environ['PATH']}"
    of_slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", **environment}
    with subprocess.Popen(
        ["bash", "job.sh"],
        cwd=folder,
        env={**os.environ, "PATH": path, "WHAT": what, **of_slurm},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        if end_by is not None:
            assert process.stdout.readline().endswith(" begun\n")
            time.sleep(0.2)
            process.send_signal(end_by)
        shown, _ = process.communicate(timeout=60)
    return process.returncode, shown


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_the_data_come_before_training_and_a_failure_ends_the_job_with_its_code(job) -> None:
    folder = job("--gpus", "4", "--time", "1-00:00:00", "--set", "features.device=auto")
    assert "#SBATCH --gpus-per-node=4\n" in (folder / "job.sh").read_text()
    assert run(folder) == (0, "")
    assert calls(folder) == [
        "luigi --module tasks Data",
        "luigi --module tasks Evaluate --model vibe --set train.processes=4",
    ]
    # Extraction takes all GPUs.
    assert (folder / "set").read_text() == "features.device=auto\nfeatures.devices=0,1,2,3\n"
    code, shown = run(folder, "fails")
    assert code == 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d exit code 30: luigi --module tasks Data\n", shown)


def test_what_is_set_on_the_command_line_holds_in_the_job(job) -> None:
    folder = job("--set", "train.name=the big one", "--set", "features.device=cuda", "--gpus", "2")
    assert run(folder)[0] == 0
    assert (folder / "set").read_text() == "train.name=the big one\nfeatures.device=cuda\n"


@pytest.mark.parametrize(
    ("end_by", "code", "last"), [(signal.SIGUSR1, 0, ["scontrol requeue 7"]), (signal.SIGTERM, 143, [])]
)
def test_what_runs_is_ended_and_at_the_time_limit_the_job_is_queued_again(job, end_by, code: int, last) -> None:
    folder = job()
    assert run(folder, "long", end_by)[0] == code
    assert calls(folder) == ["luigi --module tasks Data", "ended", *last]


def test_a_job_that_slurm_refuses_to_queue_again_fails(job) -> None:
    folder = job()
    (folder / "scontrol").write_text("#!/bin/bash\nexit 1\n")
    code, shown = run(folder, "long", signal.SIGUSR1)
    assert code == 1
    assert shown.endswith(" sbatch this script once more, it continues\n")


def test_a_job_is_queued_again_so_many_times_and_no_more(job) -> None:
    folder = job("--restarts", "3")
    for restarts, expected in (("2", 0), ("3", 1)):
        code, shown = run(folder, "long", signal.SIGUSR1, SLURM_RESTART_COUNT=restarts)
        assert (code, "after 3 restarts" in shown) == (expected, expected == 1)
    assert calls(folder).count("scontrol requeue 7") == 1


def test_the_log_has_the_last_lines_of_what_failed(job) -> None:
    folder = job()
    (folder / "luigi").write_text("#!/bin/bash\nseq 3000\necho the reason\nexit 30\n")
    code, shown = run(folder)
    assert code == 30
    assert len(lines := shown.splitlines()) == 3002
    assert lines[-2].endswith(" the reason")


def test_only_data_or_only_training_and_the_memory_can_be_asked_for(job) -> None:
    for only, task in (("data", "Data"), ("train", "Evaluate --model vibe")):
        folder = job("--only", only, "--mem", "128G")
        (folder / "calls").unlink(missing_ok=True)
        assert "#SBATCH --mem=128G\n" in (folder / "job.sh").read_text()
        assert run(folder)[0] == 0
        assert calls(folder) == [f"luigi --module tasks {task}"]


def test_conversion_alone_asks_for_no_gpu(job) -> None:
    folder = job("--only", "convert", "--set", "data.datasets=penn_action amass")
    assert "gpus" not in (folder / "job.sh").read_text()
    assert run(folder)[0] == 0
    splits = (("penn_action", "train"), ("penn_action", "test"), ("amass", "train"))
    assert calls(folder)[:3] == [
        f"luigi --module tasks Convert --dataset {name} --split {split}" for name, split in splits
    ]


def test_several_nodes_join_at_the_first(job) -> None:
    folder = job("--nodes", "2", "--gpus", "4")
    assert run(folder)[0] == 0
    _, shown, launched, last = calls(folder)
    assert shown == "scontrol show hostnames node[1-2]"
    assert "--nnodes 2 --nproc-per-node 4 " in launched
    assert launched.endswith("--rdzv-endpoint node1:20007 -m tasks train --model vibe")
    assert last == "luigi --module tasks Evaluate --model vibe"


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        ("--only data --nodes 2", 2, "uses one node"),
        ("--only convert --gpus 4", 2, "conversion uses none"),
        ("--only train --gpus 4 --model part_dynamics", 2, "trains in one process"),
        ("--nodes 2 --model hmmr", 2, "trains in one process"),
        ("--gpus 2 --model part_dynamics", 0, "--module tasks Evaluate --model part_dynamics\n"),
    ],
)
def test_nodes_and_gpus_that_would_do_nothing_are_refused(bare, tasks_command, words, code: int, part: str) -> None:
    found, text = tasks_command(bare, "slurm", *words.split())
    assert found == code
    assert part in text


def test_less_time_than_ending_takes_is_refused(bare, tasks_command) -> None:
    with pytest.raises(SystemExit):
        tasks_command(bare, "slurm", "--time", "0:05:00")
