"""Readers of an object store, while others write, in other processes, and after a fork."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheChanged, CacheError, StreamWriter
from tests.cache.storage.buckets import SPLIT, STREAM

pytestmark = pytest.mark.slow  # test_object_store.py has a quick test of each promise

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install -e '.[dev]'")


@pytest.mark.slow
def test_a_reader_of_a_replaced_stream_notices(url: str, toy: Any) -> None:
    toy.write(url, toy.videos())
    toy.write_stream(url)
    held = cache.open(url)[SPLIT]
    windows = held.windows(8, 8, STREAM)
    held.read(windows)
    cache.delete_stream(url, SPLIT, STREAM)
    with pytest.raises(CacheChanged, match=rf"{url}/{SPLIT}/features/{STREAM}: has been replaced"):
        held.read(windows)
    with StreamWriter(url, SPLIT, STREAM, dim=4, plan="others") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, -toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    with pytest.raises(CacheChanged):
        held.read(windows)


def test_a_pickled_split_is_read_in_another_process(url: str, toy: Any) -> None:
    toy.write(url, toy.videos())
    split = cache.open(url)[SPLIT]
    windows = split.windows(8, 8)
    code = (
        "import pickle, sys\n"
        "split, windows = pickle.loads(sys.stdin.buffer.read())\n"
        "sys.stdout.buffer.write(split.read(windows, stream=None)['kp_2d'].tobytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((split, windows)), capture_output=True, check=True
    )
    assert done.stdout == split.read(windows, stream=None)["kp_2d"].tobytes()


@pytest.mark.parametrize("what", ["held", "opened there"])
def test_a_forked_worker_gets_an_error_and_does_not_wait_for_ever(url: str, toy: Any, what: str) -> None:
    toy.write(url, toy.videos())
    split = cache.open(url)[SPLIT]
    windows = split.windows(8, 8)
    split.read(windows, stream=None)
    ends = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            (split if what == "held" else cache.open(url)[SPLIT]).read(windows, stream=None)
            said = "nothing"
        except CacheError as error:
            said = str(error)
        finally:
            os.write(ends[1], said.encode())
            os._exit(0)
    os.close(ends[1])
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits")
    with os.fdopen(ends[0]) as pipe:
        said = pipe.read()
    assert said.startswith(f"{url}: this process was forked")
    assert "spawn" in said
    split.read(windows, stream=None)  # and the parent goes on
