"""Processes that are started here, and end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from pipeline.cli.signals import listening

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


def end_with_parent() -> None:
    """Have the kernel tell this process to end when its parent does, even by SIGKILL. On Linux; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run(command: Sequence[str]) -> int:
    """The exit status of a command, which ends where this process does or is told to."""
    parent = os.getpid()

    def begin() -> None:
        end_with_parent()
        if os.getppid() != parent:  # it ended before it could be watched
            os._exit(1)

    with listening(), subprocess.Popen(command, preexec_fn=begin) as process:  # noqa: S603  our own command
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise
