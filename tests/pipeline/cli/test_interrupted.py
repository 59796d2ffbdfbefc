"""Ctrl-C, SIGTERM and a broken pipe: exit codes, the message, and what is left behind."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cache
from pipeline.cli.signals import Terminated, listening

ROOT = Path(__file__).parents[3]
PENN = ("penn_action", "train")
HALF = "no output is incomplete"

# The command line itself, in a process whose work stands still at a step, so that a signal always comes in its midst.
DRIVER = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from pipeline.cli import progress

note, step, *arguments = sys.argv[1:]

@contextmanager
def bar(*_, **__):
    calls = 0

    def report(done, total, message=""):
        nonlocal calls
        calls += 1
        if calls == int(step):
            try:
                Path(note).write_text("here")  # from here on, the signal may come
                time.sleep(60)
            finally:
                if "slow end" in note:
                    time.sleep(1.1)  # signals within a second are one
                    Path(note).write_text("ending")
                    time.sleep(60)

    yield report

progress.bar = bar
sys.argv[1:] = arguments
from pipeline.__main__ import main

sys.exit(main())
"""

Ended = subprocess.CompletedProcess[str]
Start = Callable[..., Ended]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run a command, send it signals at its n-th step, one after the other, and wait for its end."""
    started: list[subprocess.Popen[str]] = []
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)

    def run(*arguments: object, step: int, signals: dict[signal.Signals, str], note: str = "note") -> Ended:
        file = tmp_path / note
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), str(file), str(step), *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        for number, seen in signals.items():
            end = time.monotonic() + 60
            while not (file.is_file() and file.read_text() == seen) and time.monotonic() < end:
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)
            os.killpg(process.pid, number)  # as a terminal and SLURM do
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    yield run
    for process in started:
        process.kill()
        process.wait()


def check_message(ended: Ended, start: str, *arguments: object) -> None:
    """Two lines: what is kept, and the same command."""
    assert ended.stdout == ""
    first, second = ended.stderr.splitlines()
    assert first.startswith(start), ended.stderr
    assert shlex.split(second)[1:] == ["-m", "pipeline", *map(str, arguments)]


def test_an_interrupted_conversion_prints_how_to_continue_and_continues(penn, into, tmp_path, start, run):
    words = ("convert", *PENN, "--raw", penn.raw, "--cache", penn.root, "--workers", 2)
    ended = start(*words, step=2, signals={signal.SIGINT: "here"})
    assert ended.returncode == 130, ended.stderr
    kept = "finished shards (8,192 rows each) are kept; the same command continues from there:"
    check_message(ended, f"interrupted: {kept}", *words)
    assert not (penn.root / penn.name / "manifest.json").exists()
    assert run(*words) == 0
    killed = into.tree(penn.root.rename(tmp_path / "killed"))
    penn.converted()
    assert killed == into.tree(penn.root)


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_sigterm_ends_as_ctrl_c_does(number, code, name, penn, run, monkeypatch, capsys):
    monkeypatch.setattr(cache, "verify", lambda *_, **__: signal.raise_signal(number))
    words = ("verify", "--cache", penn.root)
    assert run(*words) == code
    check_message(Ended(words, code, *capsys.readouterr()), f"{name}: {HALF}", *words)


def test_a_second_signal_ends_the_command_at_once(penn: Any, start: Start) -> None:
    penn.converted()
    twice = {signal.SIGINT: "here", signal.SIGTERM: "ending"}
    ended = start("verify", "--cache", penn.root, step=2, signals=twice, note="slow end")
    assert (ended.returncode, ended.stderr.strip()) == (143, "terminated again: ended at once")


def test_a_broken_pipe_ends_the_command_as_sigpipe_does_without_a_message(penn: Any) -> None:
    penn.converted()
    script = f"{sys.executable} -m pipeline verify --cache {penn.root} | true; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("141\n", "")


def test_a_full_standard_output_is_not_taken_for_the_disk_of_the_cache(penn: Any) -> None:
    penn.converted()
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "pipeline", "verify", "--cache", str(penn.root)]
        ended = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: standard output: no space left")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_sigterm_twice_at_once_cleans_up_as_ctrl_c_does_and_the_handlers_are_restored(monkeypatch: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(os, "_exit", pytest.fail)
    cleaned = []
    with pytest.raises(Terminated), listening():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)  # as `timeout` does
            cleaned.append("up")
            raise
    assert cleaned == ["up"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
