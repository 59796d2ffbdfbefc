"""Supervised processes, in which untrusted files are read and decoded.  raw -> [tracks, crops] -> features

The function of a `Process` answers tasks through a pipe and shows progress by `alive`; `answer` gives what it sent, or
`Failed` when it has ended or hangs.

Processes are forked by a server: a fresh interpreter with one thread, which has imported what they need. So the first
takes as long as those imports, the others some milliseconds, and no thread of the parent is forked. The server ends
with its parent, however that ended (its socket is closed, or it has another parent), and the kernel ends the processes
with the server (PR_SET_PDEATHSIG), also those that hang in C.

Memory is limited by RLIMIT_DATA, beyond what the libraries take: private writable memory. An allocation that exceeds
it fails at once. Mapped files do not count, nor does what a library reserves without the right to write; in RLIMIT_AS
both do.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.errors import PipelineError

TIMEOUT: Final = 600.0  # s that an item may take without progress, by default
MEMORY: Final = 4 << 30  # bytes that a process may take, by default
START: Final = 300.0  # s that a process may take to start
LOOK: Final = 1.0  # s between two looks at whether all is well, and the most that counts as silence between two
END_TIME: Final = 5.0  # s that a killed process is waited for
PR_SET_PDEATHSIG: Final = 1  # of Linux
OUT_OF_MEMORY: Final = 86  # exit code of a process at its memory limit
# The processes are the parallelism: threads of their libraries would only be in each other's way.
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)

beat = memoryview(bytearray(16)).cast("q")  # of this process: signs of life so far, and what it is at


def alive(at: int | None = None) -> None:
    """Show that this process makes progress, and what it is at. Anywhere but in a `Process` it has no effect."""
    beat[0] += 1
    if at is not None:
        beat[1] = at


class Failed(NamedTuple):
    """Why a process ended."""

    reason: str  # reader_crashed, reader_timeout, reader_memory (its own limit) or machine_memory
    message: str  # what it did: "crashed with SIGSEGV"


def how_it_ended(code: int | None, *, timeout: float | None = None) -> Failed:
    """Why, from its exit code or minus a signal; `timeout`: the limit in s, where it was killed for its silence.

    >>> how_it_ended(-11)
    Failed(reason='reader_crashed', message='crashed with SIGSEGV')
    """
    if timeout is not None:
        return Failed("reader_timeout", f"made no progress for {timeout:g} s")
    if code == OUT_OF_MEMORY:
        return Failed("reader_memory", "needed more memory than a process may take")
    if code == -signal.SIGKILL:
        return Failed("machine_memory", "was killed by SIGKILL, most likely because the machine's memory ran out")
    if code is not None and code < 0:
        return Failed("reader_crashed", f"crashed with {signal.Signals(-code).name}")
    return Failed("reader_crashed", f"ended with exit code {code}")


def sendable(error: Exception, where: str) -> Exception:
    """The error with its traceback as a note, or that alone where the error cannot be sent."""
    text = "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled in the same line
    except Exception:
        return PipelineError(text)
    error.add_note(f"{where}:\n{text}")
    return error


class Process:
    """`main(pipe, *args)` in a process of its own. It ends when that returns, when it is killed, or with its parent.

    `main`, `args` and `preload` must be picklable. The server calls `preload` before it forks, once: to import, or to
    load what all processes share. File descriptors `fds` are handed over: the process has them as `fds=[...]`. `env`
    is set in the process; `memory` limits it, in bytes beyond what it starts with. Ctrl-C is for the parent: processes
    are in another group.
    """

    def __init__(
        self,
        main: Callable[..., None],
        *args: object,
        preload: Callable[[], object] | None = None,
        fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        memory: int | None = None,
    ) -> None:
        self.pipe, theirs = Pipe()
        pulse = os.memfd_create("pulse")
        os.ftruncate(pulse, 16)
        self._pulse = memoryview(mmap.mmap(pulse, 16)).cast("q")
        self._pulse[1] = -1
        self.given: deque[Any] = deque()  # tasks that it has not answered, in order. Who takes an answer removes them
        self._heard()
        options = str(Path.cwd()), dict(env or {}), memory
        request = list(sys.path), pickle.dumps(preload), pickle.dumps((main, args)), options
        self._server, self._number = _start(request, [theirs.fileno(), pulse, *fds])
        theirs.close()
        os.close(pulse)

    @property
    def pulse(self) -> int:
        """How often it has called `alive`."""
        return self._pulse[0]

    @property
    def at(self) -> int:
        """What it was at when it called `alive` last; -1 at first."""
        return self._pulse[1]

    def give(self, tasks: Sequence[object], message: bytes) -> None:
        """Send a message that hands over tasks."""
        if not self.given:
            self._heard()
        self.given.extend(tasks)
        with contextlib.suppress(ConnectionError):  # it has ended, which `answer` finds
            self.pipe.send_bytes(message)

    def answer(self, ready: Sequence[object], timeout: float) -> Any:
        """What it has sent, None for nothing yet; `Failed` when it has ended, or was silent for `timeout` s and killed.

        `ready`: pipes with something to read. While it starts (`at` < 0) it may be silent for longer.
        """
        patience = timeout if self.at >= 0 else max(timeout, START)
        if self.pipe not in ready:
            hangs = self.given and self.silence() > patience
            return how_it_ended(self.kill(), timeout=patience) if hangs else None
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):  # also in the midst of an answer
            return how_it_ended(self.kill())
        self._heard()
        return answer

    def _heard(self) -> None:
        self._seen, self._looked, self._silence = self.pulse, time.monotonic(), 0.0

    def silence(self) -> float:
        """Seconds without a sign of life. At most `LOOK` counts between two calls: the parent may have been busy."""
        now, pulse = time.monotonic(), self.pulse
        self._silence = 0.0 if pulse != self._seen else self._silence + min(LOOK, now - self._looked)
        self._seen, self._looked = pulse, now
        return self._silence

    def kill(self) -> int | None:
        """End it, where it has not ended, and wait for that. Its exit code or minus a signal; None: not known."""
        self.pipe.close()
        return self._server.end(self._number)


def end(processes: Sequence[Process]) -> None:
    """End all of them at the same time."""
    for process in processes:
        process.pipe.close()
    for process in processes:
        process.kill()


class _Server:
    """The server as the parent sees it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._socket, theirs = socket.socketpair()
        self._pipe: Connection[Any, Any] = Connection(os.dup(self._socket.fileno()))
        self._lock, self._n = threading.Lock(), 0
        self._process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-c", "from pipeline.processes import server; server.serve()", str(self.owner)],
            process_group=0,
            stdin=theirs.fileno(),
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()

    def start(self, request: tuple[object, ...], fds: list[int]) -> int:
        """The number of a process that will be there soon. Raises OSError when the server has ended."""
        with self._lock:
            self._n += 1
            self._pipe.send((self._n, len(fds), request))
            socket.send_fds(self._socket, [b"."], fds)
            return self._n

    def end(self, number: int) -> int | None:
        code: int | None = None
        with self._lock, contextlib.suppress(OSError, EOFError):
            self._pipe.send(number)
            if self._pipe.poll(END_TIME):
                code = self._pipe.recv()
            else:  # it does not answer: it is ended, and with it all of its processes
                self._process.kill()
        return code

    def close(self) -> None:
        self._pipe.close()
        self._socket.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        else:  # this process was forked from the one that owns the server
            self._process.returncode = 0


_servers: list[_Server] = []  # one at most
_starting = threading.Lock()


def _start(request: tuple[object, ...], fds: list[int]) -> tuple[_Server, int]:
    with _starting:
        for server in _servers:
            with contextlib.suppress(OSError):
                if server.owner == os.getpid():
                    return server, server.start(request, fds)
        _close()  # it was idle for so long that it has ended, or is another process's
        _servers.append(_Server())
        return _servers[0], _servers[0].start(request, fds)


@atexit.register
def _close() -> None:
    while _servers:
        _servers.pop().close()
