"""Ctrl-C, and SIGTERM as a cluster sends it: both end the work in the same orderly way."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

NAMES: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever tidies up at Ctrl-C does so here, too."""


def exit_code(error: KeyboardInterrupt) -> int:
    """130 of Ctrl-C, 143 of SIGTERM: as a shell names the signal."""
    return 128 + signal_of(error)


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal that it stands for."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


def listen() -> None:
    """Raise KeyboardInterrupt at the first SIGINT, Terminated at the first SIGTERM; end at once at the next of them.

    A process that was started to ignore one of them goes on ignoring it. In a process forked from this one, which
    somebody waits for, either signal ends it at once and without a word; the same is left to the system for SIGTERM in
    a process of torch's launcher, which may be waiting for the others in C. Only the main thread hears signals:
    elsewhere this does nothing.
    """
    owner, heard = os.getpid(), False

    def hear(number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        if heard or os.getpid() != owner:
            _end_at_once(number, say=os.getpid() == owner)
        heard = True
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, hear)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "RANK" not in os.environ:
        signal.signal(signal.SIGTERM, hear)


@contextmanager
def listening() -> Iterator[None]:
    """`listen` for a while."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in NAMES}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once(number: int, *, say: bool) -> None:
    """As kill -9 would, which harms nothing either. Our other processes see that they are alone, and end."""
    if say:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a bar hides it
        os.write(2, f"{show_cursor}\n{NAMES[signal.Signals(number)]} again: ended at once\n".encode())
    os._exit(128 + number)
