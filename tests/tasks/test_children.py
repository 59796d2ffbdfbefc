"""A process ends with the one that started it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = (
    "import os, pathlib, sys, time; from tasks.commands.train import end_with_parent; end_with_parent()\n"
    "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, sys.argv[1]])"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_child_ends_with_its_killed_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(note)], stderr=subprocess.DEVNULL)
    while not (note.is_file() and note.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    child = Path(f"/proc/{note.read_text()}/stat")
    parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    until = time.monotonic() + 30
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)
