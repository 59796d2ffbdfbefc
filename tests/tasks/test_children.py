"""A process ends with the one that started it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import LIMIT, await_that

CHILD = (
    "import os, pathlib, sys, time; from tasks.commands.train import _end_with_parent; "
    "_end_with_parent()\npathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}, sys.argv[1]])"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_child_ends_with_its_killed_parent(tmp_path):
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(note)], stderr=subprocess.DEVNULL)
    await_that(lambda: note.is_file() and note.read_text())
    child = Path(f"/proc/{note.read_text()}/stat")
    parent.send_signal(signal.SIGKILL)
    parent.wait(LIMIT)
    await_that(lambda: not child.exists() or child.read_text().split()[2] == "Z")
