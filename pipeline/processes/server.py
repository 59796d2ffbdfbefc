"""What runs in the server of `pipeline.processes`, and in what it forks.  raw -> [tracks, crops] -> features

The server is a fresh interpreter with one thread. The parent sends it requests through its standard input: a number
and what to start, or the number of a process to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import pickle
import resource
import signal
import socket
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from pipeline import processes
from pipeline.processes import END_TIME, LOOK, OUT_OF_MEMORY, PR_SET_PDEATHSIG

SERVER_IDLE: Final = 60.0  # s that the server waits to be asked for another process: the next split often comes at once


def serve() -> None:
    """The server: start and end processes as the parent asks, until that has ended or asks for nothing any more."""
    control = socket.socket(fileno=os.dup(0))
    pipe: Connection[Any, Any] = Connection(os.dup(0))
    with Path(os.devnull).open() as null:
        os.dup2(null.fileno(), 0)
    parent, idle = int(sys.argv[1]), 0.0
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
        sys.path[:] = path  # the parent's may have grown since the server began
        with contextlib.suppress(Exception):  # the process meets it again, and reports it
            if preload not in preloaded and (function := pickle.loads(preload)):  # noqa: S301 - the parent's
                preloaded.add(preload)
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


def _run(call: bytes, fds: list[int], server: int, folder: str, env: dict[str, str], memory: int | None) -> None:
    """What is done in a forked process, to its end."""
    code, pipe = 1, Connection(fds[0])  # open to the very end: once it is closed, the parent kills
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            return
        processes.beat = memoryview(mmap.mmap(fds[1], 16)).cast("q")
        os.chdir(folder)
        os.environ.update(env)
        main, args = pickle.loads(call)  # noqa: S301 - the parent's
        if memory is not None:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            now = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
            most = now + memory if hard == resource.RLIM_INFINITY else min(now + memory, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        main(pipe, *args, **({"fds": fds[2:]} if fds[2:] else {}))
        code = 0
    except MemoryError:
        code = OUT_OF_MEMORY
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end(child: int) -> int | None:
    """Kill a process that has not ended. None where it cannot be ended now, as in a read that hangs."""
    os.kill(child, signal.SIGKILL)  # never another process: its number is free only when it has been waited for
    latest = time.monotonic() + END_TIME / 2
    while time.monotonic() < latest:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None
