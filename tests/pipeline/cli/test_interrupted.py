"""Ctrl-C, SIGTERM, SIGHUP and a broken pipe: exit codes, the message, and what is left behind."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cache
from pipeline.cli import command_line
from pipeline.cli.command_line import Terminated, listen

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _not_below_nohup():
    """SIGHUP ends processes, also where `nohup` began the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("command", "interrupted", "kept"),
    [
        ("verify", "verify", "no output is incomplete"),
        ("convert", "SplitWriter", "what is in the cache is kept; the same command begins"),
    ],
)
@pytest.mark.parametrize(
    ("number", "code", "name"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_signals_end_with_how_to_continue(
    number, code, name, command, interrupted, kept, penn, ran, monkeypatch
):
    monkeypatch.setattr(cache, interrupted, lambda *_, **__: signal.raise_signal(number))
    words = [
        command,
        *((penn.name, "--raw", str(penn.raw)) if command == "convert" else ()),
        "--cache",
        str(penn.root),
    ]
    shown = ran(*words, code=code)
    first, second = shown.err.splitlines()
    assert (shown.out, first.startswith(f"error: {name}: {kept}")) == ("", True), shown
    assert shlex.split(second)[1:] == ["-m", "pipeline", *words]


@pytest.mark.parametrize(
    ("words", "interrupted"),
    [
        (
            "bodies DATASET --cache CACHE --out OUT",
            "pipeline.extras.bodies.writing.BodiesJob.write",
        ),
        ("fits 0.tar --raw RAW", "pipeline.extras.exchange.fits.collect"),
        (
            "import 0.npz DATASET --cache CACHE --format arrays --as x",
            "pipeline.extras.exchange.arrays.import_array",
        ),
    ],
)
def test_commands_that_keep_finished_work_say_so(words, interrupted, penn, ran, monkeypatch):
    penn.converted()
    places = {"DATASET": penn.name, "CACHE": penn.root, "RAW": penn.raw, "OUT": penn.root.parent}
    for name, place in places.items():
        words = words.replace(name, str(place))
    monkeypatch.setattr(interrupted, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    said = "what is on the disk is kept; the same command continues"
    if words.startswith(("copy", "import")):  # they look
        said = "what is in the cache is kept; the same command begins the unfinished step again"
    assert ran(*words.split(), code=130).err.startswith(f"error: interrupted: {said}")


def test_a_second_signal_ends_the_command_at_once(monkeypatch, capfd):
    monkeypatch.setattr(command_line, "AT_ONCE", 0.0)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="143"), listen():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err.strip() == "terminated again: ended at once"


def test_a_broken_pipe_ends_the_command_as_sigpipe_does_with_its_exit_code(penn):
    penn.converted()
    script = (
        f"{sys.executable} -m pipeline verify --cache {penn.root} | true; echo ${{PIPESTATUS[0]}}"
    )
    ended = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "141\n"
    _, _, last = ended.stderr.splitlines()
    assert (" exit code 141 " in last, last[:6]) == (True, "error:")


def test_a_full_standard_output_is_not_taken_for_the_disk_of_the_cache(penn):
    penn.converted()
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "pipeline", "verify", "--cache", str(penn.root)]
        ended = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert "\nerror: standard output: no space left" in ended.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_silence_and_the_exit_code_is_the_same(closed, penn):
    penn.converted()
    verify = f"{sys.executable} -m pipeline verify --cache"
    version = f"{sys.executable} -m tasks --version"
    codes = ""
    for command in (f"{verify} {penn.root}", f"{verify} {penn.root}/nowhere", version):
        words = ["bash", "-c", f"{command} {closed}"]
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        codes += str(ended.returncode)
        assert "Traceback" not in ended.stdout + ended.stderr
    assert codes == "020"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "nohup"])
def test_a_signal_that_was_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with listen():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


# A command that waits, in a terminal.
WAITING = """
import fcntl, os, signal, sys, termios
import cache
from pipeline.__main__ import main
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
def verify(*_, **__):
    os.write(1, b"waits")
    signal.pause()
cache.verify = verify
sys.argv = ["pipeline", "verify", "--cache", sys.argv[1]]
sys.exit(main())
"""


def test_a_closed_terminal_ends_a_command_by_hang_up_and_without_a_traceback(penn, tmp_path):
    penn.converted()
    ours, theirs = os.openpty()
    errors = tmp_path / "errors"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING, str(penn.root)],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=log,
            start_new_session=True,
        )
    os.close(theirs)
    shown = b""
    while b"waits" not in shown:
        shown += os.read(ours, 1024)
    os.close(ours)
    assert process.wait() == 129
    assert "\nerror: hung up: no output is incomplete" in errors.read_text()
    assert "Traceback" not in errors.read_text()


def test_sigterm_twice_at_once_cleans_up_as_ctrl_c_does_and_the_handlers_are_restored(
    monkeypatch,
):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(os, "_exit", pytest.fail)
    monkeypatch.setattr(command_line, "AT_ONCE", 600.0)
    cleaned = []
    with pytest.raises(Terminated), listen():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)  # as `timeout` does
            cleaned.append("up")
            raise
    assert cleaned == ["up"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
