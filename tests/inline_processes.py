"""Processes of the pool that are none: their tasks run in this process.

A pool's process imports SciPy, h5py and PyAV again, which most tests need not pay for. Tasks, works
and results are pickled as for real processes, so that what cannot be sent still fails.
"""

import contextlib
import mmap
import os
import pickle
import time
from collections import deque
from unittest import mock

from pipeline.processes import NO_TASK, Failed, pool, server

REAL_PROCESS = server.Process
REAL_WAIT = pool.wait


class InlineProcess:
    """Stands for a `server.Process`, and for its pipe: a task is run when it is sent."""

    place = NO_TASK
    done = ""

    def __init__(
        self,
        main,
        work,
        *,
        fds=(),
        preload=None,
        memory=None,
    ):
        self.pipe = self
        self._work = pickle.loads(pickle.dumps(work))
        self._results = deque[tuple[float, bytes]]()
        pickle.dumps(preload)
        if fds:
            self._work.share(*(mmap.mmap(fd, os.fstat(fd).st_size) for fd in fds))

    def send_bytes(self, message):
        arguments = pickle.loads(message)
        began = time.perf_counter()
        try:
            outcome = pickle.dumps(pool._Outcome(self._work(*arguments)))
        except Exception as error:
            outcome = pickle.dumps(pool._Outcome(error=pool._sendable(error)))
        self._results.append((time.perf_counter() - began, outcome))

    def recv(self):
        return self._results[0][0]

    def recv_bytes(self):
        return self._results.popleft()[1]

    def poll(self):
        return bool(self._results)

    def close(self):
        self._results.clear()

    def reset_silence(self):
        pass

    def silence(self):
        return 0.0

    def kill(self):
        return Failed("reader_crashed", "was closed")


def _wait(pipes, patience):
    ready = [pipe for pipe in pipes if pipe.poll()]
    if not ready:
        time.sleep(min(patience, 0.001))
    return ready


@contextlib.contextmanager
def inline_processes():
    with mock.patch.object(pool, "Process", InlineProcess), mock.patch.object(pool, "wait", _wait):
        yield


@contextlib.contextmanager
def real_processes():
    with (
        mock.patch.object(pool, "Process", REAL_PROCESS),
        mock.patch.object(pool, "wait", REAL_WAIT),
    ):
        yield
