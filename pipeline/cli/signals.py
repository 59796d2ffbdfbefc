"""Ctrl-C and SIGTERM, which both end the work in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

NAMES: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGPIPE: "broken pipe"}

AT_ONCE: Final = 1.0  # s within which several signals are one: `timeout` sends two, to a process and to its group


class Terminated(KeyboardInterrupt):
    """SIGTERM, cleaned up after like Ctrl-C."""


class BrokenPipe(KeyboardInterrupt):
    """The program that read the output has ended: stop like Ctrl-C, without a message."""


def exit_code(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, 141 for a broken pipe."""
    return 128 + signal_of(error)


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal of an interruption."""
    if isinstance(error, BrokenPipe):
        return signal.SIGPIPE
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


def listen() -> dict[int, Any]:
    """Raise KeyboardInterrupt at the first SIGINT, Terminated at the first SIGTERM; exit at once at a later one.

    Ignored signals stay ignored. A fork of this process exits at once at either signal, without a message, since its
    parent waits for it. A process of torch's launcher keeps the system's action for SIGTERM, since it may be waiting
    for the others in C. Does nothing outside the main thread. Returns the replaced handlers.
    """
    owner, received = os.getpid(), 0.0

    def receive(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        if os.getpid() != owner:
            os._exit(128 + number)
        if received and time.monotonic() - received < AT_ONCE:
            return
        if received:  # exit like kill -9: our other processes notice that their parent is gone, and exit
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a bar hides it
            os.write(2, f"{show_cursor}\n{NAMES[signal.Signals(number)]} again: ended at once\n".encode())
            os._exit(128 + number)
        received = time.monotonic()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, receive)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "RANK" not in os.environ:
            before[signal.SIGTERM] = signal.signal(signal.SIGTERM, receive)
    return before


@contextmanager
def listening() -> Iterator[None]:
    """`listen` within a block."""
    before = listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
