"""A server that forks supervised processes.  raw -> [tracks, crops]

The server is a fresh interpreter with one thread. On its standard input, the parent requests to run
a function in a new process, or to end a process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import mmap
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Final

from pipeline import processes
from pipeline.processes import IDLE, LOOK, OUT_OF_MEMORY, PR_SET_PDEATHSIG, Failed

SERVER_IDLE: Final = 60.0  # s without a request after which the server ends
END_TIME: Final = 5.0  # s to wait for the end of a killed process
# One thread per process: processes already use all cores.
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
# Freed images stay for the next ones, up to 32 MiB. By default glibc returns them to the system,
# and each page of each image is a page fault: a third of the time of decoding.
KEEP_FREED: Final = dict.fromkeys(
    ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(32 << 20)
)


class Process:
    """A process that runs `main(pipe, fds, *args)`, and ends with it, by `kill`, or with the
    parent.

    Args:
        main, args, preload: must be picklable. The server calls `preload` once before it forks, to
            import or load what all processes share.
        fds: file descriptors, passed on under other numbers.
        env: environment variables.
        memory: limit in bytes beyond what the process starts with.

    Processes are in another group: Ctrl-C is for the parent.
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
        self.pipe, remote = Pipe()
        pulse = os.memfd_create("pulse")
        os.ftruncate(pulse, 16)
        self._pulse = memoryview(mmap.mmap(pulse, 16)).cast("q")
        self._pulse[1] = IDLE
        self.reset_silence()
        options = str(Path.cwd()), dict(env or {}), memory
        request = list(sys.path), pickle.dumps(preload), pickle.dumps((main, args)), options
        self._server, self._number = _start(request, [remote.fileno(), pulse, *fds])
        remote.close()
        os.close(pulse)

    @property
    def has_begun(self) -> bool:
        return self._pulse[0] > 0

    @property
    def place(self) -> int:
        """Its last place (`alive`); IDLE at first."""
        return self._pulse[1]

    def reset_silence(self) -> None:
        """Count `silence` from now on."""
        self._seen = self._pulse[0]
        self._polled = time.monotonic()
        self._silence = 0.0

    def silence(self) -> float:
        """Seconds without a sign of life; between two calls at most `LOOK`, since the parent may
        have been busy.
        """
        if self._pulse[0] != self._seen:
            self.reset_silence()
        now = time.monotonic()
        self._silence += min(LOOK, now - self._polled)
        self._polled = now
        return self._silence

    def kill(self, *, timeout: float | None = None) -> Failed:
        """End the process and wait. Returns why it ended; timeout: the limit in s that it
        exceeded.
        """
        self.pipe.close()
        return _how_it_ended(self._server.end(self._number), timeout)


def _how_it_ended(code: int | None, timeout: float | None = None) -> Failed:
    """Why a process ended, from its exit code or minus its signal; None: unknown.

    >>> _how_it_ended(-11)
    Failed(reason='reader_crashed', message='crashed with SIGSEGV')
    """
    if timeout is not None:
        return Failed("reader_timeout", f"made no progress for {timeout:g} s")
    if code == OUT_OF_MEMORY:
        return Failed("reader_memory", "needed more memory than a process may take")
    if code == -signal.SIGKILL:
        return Failed(
            "machine_memory",
            "was killed by SIGKILL, most likely because the machine's memory ran out",
        )
    if code is not None and code < 0:
        return Failed("reader_crashed", f"crashed with {signal.Signals(-code).name}")
    return Failed("reader_crashed", f"ended with exit code {code}")


class _Server:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._socket, remote = socket.socketpair()
        self._pipe: Connection[Any, Any] = Connection(os.dup(self._socket.fileno()))
        self._lock = threading.Lock()
        self._n = 0
        self._process = subprocess.Popen(  # noqa: S603 - this very Python
            [
                sys.executable,
                "-P",
                "-c",
                "from pipeline.processes import server; server.serve()",
                str(self.owner),
            ],
            process_group=0,
            stdin=remote.fileno(),
            env={**os.environ, **ONE_THREAD, **KEEP_FREED, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        remote.close()

    def start(self, request: tuple[object, ...], fds: list[int]) -> int:
        """Request a process and return its number without waiting. Raises OSError if the server has
        ended.
        """
        with self._lock:
            self._n += 1
            self._pipe.send((self._n, len(fds), request))
            socket.send_fds(self._socket, [b"."], fds)
            return self._n

    def end(self, number: int) -> int | None:
        """Kill a process. Returns its exit code or minus its signal; None: unknown."""
        code: int | None = None
        with self._lock, contextlib.suppress(OSError, EOFError):
            self._pipe.send(number)
            if self._pipe.poll(END_TIME):
                code = self._pipe.recv()
            else:  # no reply: end the server, and with it all of its processes
                self._process.kill()
        return code

    def close(self) -> None:
        self._pipe.close()
        self._socket.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        else:  # in a fork of the owner
            self._process.returncode = 0


_servers: list[_Server] = []  # one at most
_starting = threading.Lock()


def _start(request: tuple[object, ...], fds: list[int]) -> tuple[_Server, int]:
    with _starting:
        for server in _servers:
            with contextlib.suppress(OSError):
                if server.owner == os.getpid():
                    return server, server.start(request, fds)
        _close()  # it ended when idle, or belongs to the parent of this fork
        _servers.append(_Server())
        return _servers[0], _servers[0].start(request, fds)


@atexit.register
def _close() -> None:
    while _servers:
        _servers.pop().close()


# ------------------------------------------------------------------------------------- in the
# server and its processes


def serve() -> None:
    """Start and end processes by the parent's requests. Returns when the parent has ended, or is
    idle.
    """
    control = socket.socket(fileno=os.dup(0))
    pipe: Connection[Any, Any] = Connection(os.dup(0))
    with Path(os.devnull).open() as null:
        os.dup2(null.fileno(), 0)
    parent = int(sys.argv[1])
    idle = 0.0
    preloaded: set[bytes] = set()
    children: dict[int, int] = {}  # number -> process
    while os.getppid() == parent and (children or idle < SERVER_IDLE):
        if not pipe.poll(LOOK):
            idle += LOOK
            continue
        idle = 0.0
        try:
            message = pipe.recv()
            if isinstance(message, int):
                pipe.send(_end(children.pop(message)) if message in children else None)
                continue
            number, n_fds, (path, preload, call, options) = message
            fds = socket.recv_fds(control, 1, n_fds)[1]
        except (EOFError, OSError):
            return
        sys.path[:] = path  # it may have grown since the server started
        with contextlib.suppress(Exception):  # the process meets and reports it again
            if preload not in preloaded:
                preloaded.add(preload)
                function = pickle.loads(preload)  # noqa: S301 - the parent's
                if function is not None:
                    function()
            pickle.loads(call)  # noqa: S301 - it imports what is called
        gc.freeze()
        server = os.getpid()
        children[number] = os.fork()
        if not children[number]:
            control.close()
            pipe.close()
            _run(call, fds, server, *options)
        for fd in fds:
            os.close(fd)


def _run(
    call: bytes, fds: list[int], server: int, folder: str, env: dict[str, str], memory: int | None
) -> None:
    code = 1
    pipe = Connection(fds[0])  # open to the very end: once it is closed, the parent kills
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            return
        processes.pulse = memoryview(mmap.mmap(fds[1], 16)).cast("q")
        os.chdir(folder)
        os.environ.update(env)
        main, args = pickle.loads(call)  # noqa: S301 - the parent's
        if memory is not None:
            _limit_memory(memory)
        main(pipe, fds[2:], *args)
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit_memory(beyond: int) -> None:
    """Limit this process's data to `beyond` bytes more than it has now."""
    n_pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
    most = n_pages * resource.getpagesize() + beyond
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _end(child: int) -> int | None:
    """Kill a process and return its exit code; None if it does not end, for example in a read that
    hangs.
    """
    # never another process: its number is in use until it has been waited for
    os.kill(child, signal.SIGKILL)
    latest = time.monotonic() + END_TIME / 2
    while time.monotonic() < latest:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None
