"""A server that forks supervised processes.  raw -> [tracks, crops]

Three kinds of processes have a part here, each with a part of this file:

- The *parent*, which reads data: it makes a `Process` for each process that it wants, and asks the
  `_Server` object, its end of the connection, to start or end it.
- The *server* (`serve`): a fresh interpreter with one thread, which imports modules once and then
  forks. It is started with the first process, and ends with the parent, unless an import hangs.
- The *processes* (`_run`), the server's children. They call a function of the parent's.

The connection is a pair of sockets; the server's is its standard input. Messages are small, so that
the parent does not wait for a server that imports, or hangs. The parent sends either

- a `_StartRequest`, with the file descriptors of the process; or
- an `_EndRequest`. The server replies with the exit code of the process, or None.

A process shares memory with the parent: its *pulse* (`processes.Pulse`), by which it shows that it
lives, and after it the `_Call` that it is to make, pickled.

Why not the standard library's fork server (tried on 2026-11-29, Python 3.11)? Its `Process` runs
the caller's script again, fails in `python -`, in forks and in daemonic processes (Dask workers),
waits without limit for a server that hangs, and preloads no body model (67 MiB and 0.7 s for each
process). By its private functions all of this works, with 450 of 1,650 code tokens less, but for
its socket, a file in TMPDIR: pools fail if that path has more than 75 characters, and each killed
command leaves a folder there.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import itertools
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
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Final, NamedTuple

from pipeline import processes
from pipeline.processes import (
    NO_TASK,
    OUT_OF_MEMORY,
    POLL_INTERVAL,
    PR_SET_PDEATHSIG,
    Failed,
    Pulse,
)

END_TIME: Final = 5.0  # s to wait for the end of a killed process
MESSAGE: Final = 1024  # bytes: enough for any message
MAX_FDS: Final = 253  # file descriptors in a message: Linux takes no more
# environment: one thread in each process, because the processes already use all cores
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
# environment: the memory of freed images stays for the next ones, up to 32 MiB. By default glibc
# returns it to the system, and each page of each image is a page fault: a third of the time of
# decoding.
KEEP_FREED: Final = dict.fromkeys(
    ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(32 << 20)
)


class _Call(NamedTuple):
    """What a new process is to run, pickled in its memory."""

    path: list[str]  # `sys.path`
    preload: bytes  # pickled function, or None
    main: bytes  # pickled: (function, arguments)
    folder: str  # working folder
    memory: int | None  # limit in bytes, as of `Process`


class _StartRequest(NamedTuple):
    """Asks the server to start a process. Its file descriptors are those of its memory, of its end
    of `Process.pipe`, and those that the caller of `Process` gave.
    """

    number: int  # the name of the process in later requests


class _EndRequest(NamedTuple):
    """Asks the server to end a process."""

    number: int


class Process:
    """The parent's view of a process that runs `main(pipe, fds, *args)`. It ends when `main`
    returns, by `kill`, or when the parent ends.

    Args:
        main: called with the other end of `pipe`. It, args and preload must be picklable.
        preload: the server calls it once before it forks, to import or load what all processes
            share.
        fds: file descriptors. The process gets them under other numbers.
        memory: limit in bytes beyond what the process starts with.

    Processes are in another group: Ctrl-C is for the parent.
    """

    def __init__(
        self,
        main: Callable[..., None],
        *args: object,
        preload: Callable[[], object] | None = None,
        fds: Sequence[int] = (),
        memory: int | None = None,
    ) -> None:
        call = _Call(
            path=list(sys.path),
            preload=pickle.dumps(preload),
            main=pickle.dumps((main, args)),
            folder=str(Path.cwd()),
            memory=memory,
        )
        self.pipe, remote = Pipe()  # tasks and results; it closes when the process ends
        with remote, os.fdopen(os.memfd_create("process"), "w+b") as shared:
            shared.write(bytes(Pulse.SIZE))
            pickle.dump(call, shared)
            shared.flush()
            self._pulse = Pulse(mmap.mmap(shared.fileno(), Pulse.SIZE))
            self._pulse.set_place(NO_TASK)
            self.reset_silence()
            self._number = next(_numbers)
            self._server = _start(self._number, [shared.fileno(), remote.fileno(), *fds])

    @property
    def place(self) -> int:
        """The last place in its task that the process has shown by `alive`; NO_TASK at first."""
        return self._pulse.place

    @property
    def done(self) -> str:
        """As of `Pulse`, of the task that it works at."""
        return self._pulse.done

    def reset_silence(self) -> None:
        """Let `silence` begin anew, because the parent gives the process a task."""
        self._n_signs = self._pulse.n_signs
        self._silence = 0.0  # s
        self._polled = time.monotonic()

    def silence(self) -> float:
        """Seconds without a sign of life, as far as the parent has watched.

        At most `POLL_INTERVAL` of the time between two calls counts, because the parent may have
        been busy.
        """
        if self._pulse.n_signs != self._n_signs:
            self.reset_silence()
        now = time.monotonic()
        self._silence += min(POLL_INTERVAL, now - self._polled)
        self._polled = now
        return self._silence

    def kill(self) -> Failed:
        """End the process, if it has not ended by itself, and wait. Returns why it had ended."""
        self.pipe.close()
        return _how_it_ended(self._server.end(self._number))


def _how_it_ended(code: int | None) -> Failed:
    """Why a process ended.

    code: its exit code, or minus the number of the signal that ended it; None: unknown.

    >>> _how_it_ended(-11)
    Failed(reason='reader_crashed', message='crashed with SIGSEGV')
    """
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
    """The parent's end of the connection to the server, which it starts."""

    def __init__(self) -> None:
        self.owner = os.getpid()  # the parent; a fork of it inherits this object
        # which keeps messages apart, each with its file descriptors
        self._socket, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ending = threading.Lock()  # for a request and its reply
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

    def start(self, number: int, fds: list[int]) -> None:
        """Request a process, without waiting for it. Raises OSError if the server has ended."""
        socket.send_fds(self._socket, [pickle.dumps(_StartRequest(number))], fds)

    def end(self, number: int) -> int | None:
        """Kill the process of a number. Returns its code as of `_how_it_ended`."""
        with self._ending, contextlib.suppress(OSError, EOFError):
            self._socket.send(pickle.dumps(_EndRequest(number)))
            if wait([self._socket], END_TIME):
                code: int | None = pickle.loads(self._socket.recv(MESSAGE))  # noqa: S301 - its
                return code
        self._process.kill()  # no reply: end the server, and with it all of its processes
        return None

    def close(self) -> None:
        """End the server; in a fork of its owner, only this end of the connection."""
        self._socket.close()
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        else:  # Popen must not warn of a process that runs
            self._process.returncode = 0


_server: _Server | None = None  # the server that was started last, unless it has been closed
_starting = threading.Lock()
_numbers: Final = itertools.count()  # names of processes


def _start(number: int, fds: list[int]) -> _Server:
    """Start a process, and a server if this process has none. Returns the server."""
    global _server
    with _starting:
        if _server is not None and _server.owner == os.getpid():
            with contextlib.suppress(OSError):  # it was ended
                _server.start(number, fds)
                return _server
        _close()  # it has ended, or this process is a fork of its owner
        _server = _Server()
        _server.start(number, fds)
        return _server


@atexit.register
def _close() -> None:
    """Close the server, if there is one."""
    global _server
    server = _server
    _server = None
    if server is not None:
        server.close()


# ---------------------------------------------------------- in the server and its processes


def serve() -> None:
    """Start and end processes as the parent asks: the server's main function. Returns when the
    parent has ended.
    """
    control = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open() as null:  # the processes read no input
        os.dup2(null.fileno(), 0)
    parent = int(sys.argv[1])
    children: dict[int, int] = {}  # number -> process id
    while os.getppid() == parent:
        if not wait([control], POLL_INTERVAL):
            continue
        try:
            message, fds, _, _ = socket.recv_fds(control, MESSAGE, MAX_FDS)
            request = pickle.loads(message)  # noqa: S301 - the parent's
            if isinstance(request, _EndRequest):
                child = children.pop(request.number, None)
                control.send(pickle.dumps(None if child is None else _end(child)))
                continue
        except (EOFError, OSError):
            return
        with os.fdopen(fds[0], "rb", closefd=False) as shared:
            shared.seek(Pulse.SIZE)
            call = pickle.load(shared)  # noqa: S301 - the parent's
        _preload_modules(call)
        gc.freeze()
        server = os.getpid()
        child = os.fork()
        if child == 0:  # in the new process, which does not return from `_run`
            control.close()
            _run(call, fds, server)
        children[request.number] = child
        for fd in fds:
            os.close(fd)


def _preload_modules(call: _Call) -> None:
    """Import the modules of a process in the server, so that only the first process waits for
    that.
    """
    sys.path[:] = call.path  # it may have grown since the server started
    with contextlib.suppress(Exception):  # the process meets and reports it again
        for decoder in ("av", "cv2"):  # functions import them when they are called
            importlib.import_module(decoder)
        _preload(call.preload)
        pickle.loads(call.main)  # noqa: S301 - it imports what is called


@functools.cache
def _preload(pickled: bytes) -> None:
    """Call a `preload`, once."""
    function = pickle.loads(pickled)  # noqa: S301 - the parent's
    if function is not None:
        function()


def _run(call: _Call, fds: list[int], server: int) -> None:
    """Make a call, and exit: a process's main function.

    fds: those of its request. server: the id of its parent.
    """
    code = 1
    pipe = Connection(fds[1])  # open to the very end: once it is closed, the parent kills
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # it had ended before
            return
        processes.pulse = Pulse(mmap.mmap(fds[0], Pulse.SIZE))
        os.chdir(call.folder)
        main, args = pickle.loads(call.main)  # noqa: S301 - the parent's
        if call.memory is not None:
            _limit_memory(call.memory)
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
    """Limit this process's private writable memory to `beyond` bytes more than it has now."""
    # the sixth number: pages of data and stack
    n_pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
    limit = n_pages * resource.getpagesize() + beyond
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _end(child: int) -> int | None:
    """Kill a process, and return its code as of `_how_it_ended`: None if it does not end in time,
    for example in a read that hangs.
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
