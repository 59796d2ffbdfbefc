"""The job script that `init --slurm` writes, run by bash with stand-ins of SLURM and Luigi."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.__main__ import main

LUIGI = """#!/bin/bash
echo "luigi $*" >> calls
case "$WHAT" in
long) trap 'echo "ended" >> calls; exit 143' TERM; echo begun; sleep 60 &> /dev/null & wait $! ;;
fails) seq 3000; echo the reason; exit 30 ;;
esac
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> calls
if [ "$1" = show ]; then printf "node1\\nnode2\\n"; fi
"""


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A working folder, with a space in its name, whose script calls stand-ins."""
    folder = tmp_path / "my work"
    assert main(["init", str(folder), "--slurm"]) == 0
    assert "sbatch" in capsys.readouterr().out
    script = folder / "job.sh"
    for name, program in (("luigi", LUIGI), ("scontrol", SCONTROL), ("srun", '#!/bin/bash\necho "srun $*" >> calls')):
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    text, n = re.subn(r"^luigi=.*$", "luigi=luigi", script.read_text(), flags=re.MULTILINE)
    assert n == 1
    script.write_text(text)
    return folder


def run(folder: Path, what: str = "", end_by: signal.Signals | None = None, **environment: str) -> tuple[int, str]:
    """Exit code of the job, and its log. end_by: a signal that it gets when `luigi` has begun."""
    of_slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "2", **environment}
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "WHAT": what, **of_slurm}
    with subprocess.Popen(
        ["bash", folder / "job.sh"], cwd="/", env=environment, stdout=subprocess.PIPE, text=True
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


def test_the_data_come_before_training_and_a_failure_ends_the_job_with_its_code_and_last_lines(folder) -> None:
    assert run(folder) == (0, "")
    assert calls(folder) == ["luigi --module tasks Data", "luigi --module tasks Evaluate --model vibe"]
    code, shown = run(folder, "fails")
    lines = [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", line) for line in shown.splitlines()]
    assert (code, len(lines)) == (30, 3002)
    assert lines[-2:] == ["the reason", "exit code 30: luigi --module tasks Data"]


@pytest.mark.parametrize(
    ("end_by", "restarts", "code", "last"),
    [
        (signal.SIGUSR1, "19", 0, ["scontrol requeue 7"]),
        (signal.SIGUSR1, "20", 1, []),
        (signal.SIGTERM, "0", 143, []),
    ],
)
def test_what_runs_is_ended_and_at_the_time_limit_the_job_is_queued_again(folder, end_by, restarts, code, last) -> None:
    found, shown = run(folder, "long", end_by, SLURM_RESTART_COUNT=restarts)
    assert (found, calls(folder)) == (code, ["luigi --module tasks Data", "ended", *last])
    assert ("after 20 restarts" in shown) == (code == 1)


def test_a_job_that_slurm_refuses_to_queue_again_fails(folder) -> None:
    (folder / "scontrol").write_text("#!/bin/bash\nexit 1\n")
    code, shown = run(folder, "long", signal.SIGUSR1)
    assert code == 1
    assert shown.endswith(" sbatch this script once more, it continues\n")


def test_several_nodes_join_at_the_first(folder) -> None:
    assert run(folder, SLURM_NNODES="2", SLURM_GPUS_ON_NODE="4")[0] == 0
    _, shown, launched, last = calls(folder)
    assert shown == "scontrol show hostnames node[1-2]"
    assert "--nnodes 2 --nproc-per-node 4 " in launched
    assert launched.endswith("--rdzv-endpoint node1:20007 -m tasks train --model vibe")
    assert last == "luigi --module tasks Evaluate --model vibe"


def test_a_settings_file_that_is_there_stays_and_so_does_a_script(tmp_path, capsys) -> None:
    assert main(["init", str(tmp_path)]) == 0
    (tmp_path / "luigi.cfg").write_text("# mine\n")
    assert main(["init", str(tmp_path), "--slurm"]) == 0
    assert (tmp_path / "luigi.cfg").read_text() == "# mine\n"
    assert main(["init", str(tmp_path), "--slurm"]) == 2
    assert "job.sh exists already" in capsys.readouterr().err
    assert shutil.which("bash") is not None and subprocess.run(["bash", "-n", tmp_path / "job.sh"]).returncode == 0
