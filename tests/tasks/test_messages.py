"""Mistakes of the user: one readable line, an exit code, and everything else continues."""

import errno
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from luigi import configuration, lock
from luigi.rpc import RPCError
from luigi.task_register import TaskClassException

from pipeline.cli.command_line import SET
from tasks import Convert, luigi_command
from tests.environments import run
from tests.packages import BROKEN, install
from tests.tasks.conftest import LUIGI, ROOT

SCHEDULING = 35
FAILED = 30


@pytest.mark.parametrize(
    ("task", "section", "key", "value"),
    [
        ("EvaluateVIBE", "convert", "wrokers", "2"),
        ("TrainVIBE", "vibe", "epochs", "0"),
        ("Data", "features", "device", "gpu"),
        ("Report", "amass", "resampling", "x"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line_before_anything_runs(
    bare, build, task, section, key, value
):
    bare.configure(f"[{section}]\n{key} = {value}")
    ran = build(bare, task)
    assert f"[{section}] {key}" in ran.lines[0]
    assert ran.lines == [ran.only_failure(SCHEDULING)]
    assert not (bare.folder / "raw").exists()


@pytest.fixture
def prepared(bare, within, monkeypatch, capsys):
    """What `luigi WORDS` does before it begins; the message with which it ends instead, between
    the first and the last line of a log.
    """

    def prepare(*words, code=2):
        within(bare)
        config = configuration.LuigiConfigParser()
        config.read(bare.cfg)
        monkeypatch.setattr(configuration, "get_config", lambda: config)
        monkeypatch.setenv(SET, "")
        monkeypatch.setattr(luigi_command, "_take_over_from_luigi", lambda: None)
        monkeypatch.setattr("sys.argv", [str(LUIGI), "--module", "tasks", *words])
        try:
            luigi_command.prepare()
        except SystemExit as ended:
            assert ended.code == code
        header, *message = capsys.readouterr().err.splitlines(keepends=True)
        assert " --module tasks " in header
        if message:
            assert f" exit code {code} after " in message.pop()
        return "".join(message)

    return prepare


def test_what_set_sets_on_luigis_command_line_is_checked_as_the_file_is(bare, prepared):
    assert prepared("TrainVIBE", "--local-scheduler", "--set", "vibe.epochs=3") == ""
    for wrong, message in (
        ("vibe.epochs=0", "--set [vibe] epochs = 0: expected more than 0"),
        ("epochs=5", "--set epochs=5: expected SECTION.KEY=VALUE, such as vibe.epochs=5"),
        ("vibe.epoch=3", "--set [vibe] epoch: unknown key; did you mean 'epochs'?"),
        (
            "retcode.task_failed=failed",
            "--set [retcode] task_failed = failed: expected a whole number",
        ),
        ("core.local_scheduler=maybe", "Not a boolean: maybe"),
    ):
        assert prepared("TrainVIBE", "--set", wrong) == f"error: {message}\n"
    assert "File exists. Delete it" in prepared("Data", f"--lock-pid-dir={bare.cfg}")
    bare.cfg.write_text("")
    assert prepared("Data") == f"error: {bare.cfg} [paths]: 'raw' is missing (docs/settings.md)\n"
    bare.cfg.unlink()
    assert prepared("Data").startswith(
        f"error: {bare.cfg}: file not found. Run from the project's folder"
    )


def test_without_a_luigid_the_message_is_there_at_once(prepared):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    # Luigi itself asks for 60 s, and ends with a traceback
    shown = prepared("Data", f"--scheduler-url={url}")
    assert shown.startswith(
        f"error: [core] local_scheduler is false, and no luigid answers at {url} ("
    )


def test_the_same_command_that_runs_already_is_named_with_its_process_and_folder(
    prepared, monkeypatch
):
    words = ("Data", "--local-scheduler")
    monkeypatch.setattr(
        lock, "getpcmd", lambda pid: "luigi Data" if pid == os.getpid() else running
    )
    running = "luigi TrainVIBE"
    assert prepared(*words) == ""
    _, _, file = lock.get_info(configuration.get_config().get("core", "lock_pid_dir"))
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(f"{os.getppid()}\n")
    try:
        assert prepared(*words) == ""
        running = "luigi Data"
        shown = prepared(*words, code=10)
        command = "luigi --module tasks Data --local-scheduler"
        assert f"another `{command}` runs here already (process {os.getppid()})" in shown
        assert prepared(*words, "--no-lock") == ""
    finally:
        shutil.rmtree(Path(file).parent)


@pytest.mark.slow
def test_a_pipe_that_ends_ends_luigi_without_a_traceback_and_a_full_output_with_a_line(
    project,
):
    words = [LUIGI, "--module", "tasks", "Data", "--local-scheduler"]
    script = f"{shlex.join(map(str, words))} | true"
    of_project = {"LUIGI_CONFIG_PATH": str(project.cfg), "PYTHONPATH": str(ROOT)}
    ended = run(["bash", "-c", script], project.folder, **of_project)
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    closed = f"{shlex.join(map(str, words))} >&-"
    ended = run(["bash", "-c", closed], project.folder, **of_project)
    header, last = ended.stderr.splitlines()
    assert " --module tasks Data --local-scheduler, in " in header
    assert (ended.returncode, " success after " in last) == (0, True)
    with Path("/dev/full").open("w") as full:
        pipes = {"stdout": full, "stderr": subprocess.PIPE, "text": True}
        environment = os.environ | of_project
        ended = subprocess.run(words, cwd=project.folder, env=environment, **pipes)
    assert ended.returncode == 2
    _, message, last = ended.stderr.splitlines()
    assert message.startswith("error: standard output: no space left")
    assert " exit code 2 after " in last


def test_a_broken_package_fails_its_own_dataset_and_the_others_continue(project, build, site):
    install(site, "dances", BROKEN, dances_reader="def videos(:\n")
    shutil.rmtree(project.folder / "cache/amass")
    project.configure("[data]\ndatasets = dances 3dpw amass\n[dances]\nfps = 25")
    ran = build(project, "Data")
    message = ran.only_failure(FAILED)
    assert message.startswith("error: convert    dances/*")
    assert "dataset 'dances' of package dances cannot be loaded: SyntaxError" in message
    assert ran.done == ["convert amass/train"]


def test_one_cause_of_several_failures_is_told_once(project, build):
    (project.folder / "body").unlink()
    project.configure("[embedded]\nenabled = false")
    first, *others = build(project, "Data").failures
    assert "SMPL_NEUTRAL" in first
    assert [line.endswith("the same error") for line in others] == [True, True]


def test_an_unknown_task_is_one_line_and_ctrl_c_shows_the_command_that_continues(
    monkeypatch, capsys
):
    with pytest.raises(SystemExit, match="1"):
        sys.excepthook(TaskClassException, TaskClassException("No task Dat"), None)
    monkeypatch.setenv("TYPED_COMMAND", "make train")
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("error: No task Dat", "  make train")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "cache/amass"),
            "error: convert amass/train cache/amass: no space left on its disk. Make room, then run "
            "the same command",
        ),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_a_system_s_error_is_one_line_and_a_bug_has_its_traceback(
    project, build, monkeypatch, caplog, error, expected
):
    def broken(*args, **kwargs):
        raise error

    shutil.rmtree(project.folder / "cache/amass")
    monkeypatch.setattr("pipeline.steps.conversion.convert.convert", broken)
    ran = build(project, "Data")
    assert ran.code == FAILED
    # Luigi's log is on the terminal, or pytest's, by which of them came first
    shown = ran.shown + caplog.text
    assert expected in " ".join(shown.split())
    assert ("Traceback" in shown) == isinstance(error, ZeroDivisionError)


def test_a_task_whose_process_is_killed_is_named_with_the_likely_reason(
    project, build, monkeypatch
):
    shutil.rmtree(project.folder / "cache/amass")
    test = os.getpid()

    def killed(*args, **kwargs):
        assert os.getpid() != test
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("pipeline.steps.conversion.convert.convert", killed)
    ran = build(project, "Data", workers=2)
    message = " ".join(ran.only_failure(FAILED).split())
    assert message.startswith(
        "error: convert amass/train its process was killed by SIGKILL, most likely because memory"
    )


def test_each_project_and_each_user_has_locks_of_their_own(tmp_path, monkeypatch):
    def locks(name):
        return luigi_command._luigi_defaults(tmp_path / name / "luigi.cfg")["core", "lock_pid_dir"]

    own = locks("one")
    assert own == locks("x/../one") != locks("other")
    monkeypatch.setattr(os, "getuid", lambda: 60001)
    assert locks("one") != own


def test_luigis_page_gets_the_first_and_the_last_step_and_no_step_of_a_thousand():
    task = Convert(dataset="amass", split="test")
    percent = []
    task.set_progress_percentage, task.set_status_message = percent.append, Mock()
    with task.progress() as progress:
        for step in range(1000):
            progress(step + 1, 1000, "clip")
    assert (percent[0], percent[-1]) == (0, 100)
    assert len(percent) < 100
    task.set_status_message.assert_called_with("1000 of 1000  clip")
    task.set_progress_percentage = Mock(side_effect=RPCError("refused"))
    with task.progress() as progress:
        for step in range(3):
            progress(step, 3, "")
    task.set_progress_percentage.assert_called_once()  # work continues without Luigi's scheduler
