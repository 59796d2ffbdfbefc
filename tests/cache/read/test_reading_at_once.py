"""Many readers at once, and little to read with: threads, forked and spawned children, few files,
little memory.
"""

import gc
import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import cache
from tests.cache.toy import SPLIT, split_of
from tests.environments import run
from tests.made_splits import write_stream

ROOT = Path(__file__).parents[3]
N_ROWS, T = 1040, 6  # 130 shards of 8 rows


def features_of(rows):
    """(..., 3) float16: the row's number in two halves, which are exact, and their sum."""
    high, low = rows // 64, rows % 64
    return np.stack([high, low, high + low], axis=-1).astype(np.float16)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One track in 130 tiny shards a column, with a stream. Every number says of which row it
    is.
    """
    folder = tmp_path_factory.mktemp("tiny shards")
    rows = np.arange(N_ROWS)
    bbox = np.repeat(rows[:, None], 4, axis=1).astype(np.float32)
    columns = {"frame_index": rows, "bbox": bbox, "valid": rows % 5 != 0}
    split_of(folder, columns, rows_per_shard=8, rows_per_chunk=4)
    write_stream(folder, SPLIT, "resnet50", features_of, dim=3)
    return folder


def is_right(split, windows):
    """Whether a batch holds exactly the rows that were asked for."""
    batch = split.read(
        windows, fields=["features", "bbox", "valid", "frame_index"], dtype="float16"
    )
    rows = windows[:, :1] + np.arange(T)
    return bool(
        (batch["features"] == features_of(rows)).all()
        and (batch["frame_index"] == rows).all()
        and (batch["bbox"] == rows[..., None]).all()
        and (batch["valid"] == (rows % 5 != 0)).all()
    )


def random_windows(seed, count=8):
    starts = np.random.default_rng(seed).integers(0, N_ROWS - T, count)
    return np.stack([starts, starts + T], axis=1)


@pytest.mark.parametrize("limit", [3, 16])
def test_threads_that_share_a_split_read_what_they_asked_for_with_few_open_shards(
    limit, root, monkeypatch
):
    """With three, nearly every window has to close a shard that another thread has just opened."""
    monkeypatch.setattr("cache.read.rows._ShardPool.limit", lambda pool: limit)
    gc.collect()  # splits of other tests
    assert open_files(root) == 0
    # nothing is open yet: the threads open shards at the same time
    split = cache.open(root)["toy/train"]
    with ThreadPoolExecutor(8) as threads:
        assert all(
            threads.map(lambda seed, split=split: is_right(split, random_windows(seed)), range(8))
        )
    # each thread may have looked for room before the others took it
    assert 1 <= open_files(root) <= limit + 8
    del split
    gc.collect()
    assert open_files(root) == 0


def open_files(folder):
    """Number of this process's open files below a folder: others come and go meanwhile."""
    places = [os.path.realpath(place) for place in Path("/proc/self/fd").iterdir()]
    return sum(place.startswith(f"{folder}/") for place in places)


def in_child(function):
    """Run a function in a forked child, which must come to an end."""
    child = multiprocessing.get_context("fork").Process(
        target=lambda: os._exit(0 if function() else 1)
    )
    child.start()
    child.join(60)
    ended = child.exitcode == 0
    child.kill()
    return ended


def test_forked_children_and_threads_read_at_the_same_time(root):
    split = cache.open(root)["toy/train"]
    assert is_right(split, random_windows(0))  # maps and checked chunks that a child takes over
    stop = time.monotonic() + 0.2

    def parent_reads(seed):
        results = [is_right(split, random_windows(seed))]
        while time.monotonic() < stop:
            results.append(is_right(split, random_windows(seed + len(results))))
        return all(results)

    with ThreadPoolExecutor(2) as threads:
        reading = threads.map(parent_reads, (100, 200))
        assert all(
            in_child(lambda seed=seed: is_right(split, random_windows(seed))) for seed in range(3)
        )
        assert all(reading)


READ_ALL = """
import os, resource, sys
import numpy as np
import cache

split = cache.open(sys.argv[1])["toy/train"]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
others = [open(os.devnull) for _ in range(240)]
for starts in np.array_split(np.random.default_rng(0).permutation(np.arange(0, 1035, 8)), 4):  # every shard
    windows = np.stack([starts, starts + 6], axis=1)
    batch = split.read(windows, fields=["features", "bbox", "valid", "frame_index"], dtype="float16")
    assert (batch["frame_index"] == windows[:, :1] + np.arange(6)).all()
    assert (batch["bbox"][..., 0] == batch["frame_index"]).all()
    assert (batch["features"][..., 0] == batch["frame_index"] // 64).all()
"""


def test_a_cache_of_many_shards_is_read_with_16_open_files(root):
    ended = run([sys.executable, "-c", READ_ALL, root], ROOT)
    assert ended.returncode == 0, ended.stderr


READ_IN_LITTLE_MEMORY = """
import resource, sys
import numpy as np
import cache

root, allowed_mib = sys.argv[1], int(sys.argv[2])
split = cache.open(root)["toy/train"]
out = {"features": np.zeros((8, 16, 1024), np.float16)}

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

def read(seed):
    starts = np.random.default_rng(seed).integers(0, 30720 - 16, 8)
    windows = np.stack([starts, starts + 16], axis=1)
    batch = split.read(windows, fields=["features", "frame_index"], dtype="float16", out=out)
    assert (batch["features"][..., 0].view(np.uint16) == batch["frame_index"]).all()

read(0)
before = status("RssAnon")
limit = (status("VmData") + allowed_mib * 1024) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones((allowed_mib + 1) * 2**20, np.uint8)  # the limit is one
except MemoryError:
    pass
else:
    raise SystemExit("the limit does not hold")
for seed in range(600):
    read(seed)
print(status("RssAnon") - before)
"""


@pytest.mark.promise("problems of All datasets")
@pytest.mark.promise("flat memory")
def test_private_memory_stays_flat_over_a_cache_twenty_times_as_large_as_what_may_be_allocated(
    tmp_path,
):
    n_rows, dim, allowed_mib = 30_720, 1024, 3  # 60 MiB of float16
    split_of(tmp_path, {"frame_index": np.arange(n_rows)}, rows_per_shard=1024, rows_per_chunk=64)

    def features(rows):
        return np.repeat(rows.astype(np.uint16).view(np.float16)[:, None], dim, axis=1)

    write_stream(tmp_path, SPLIT, "resnet50", features, dim=dim)
    ended = run([sys.executable, "-c", READ_IN_LITTLE_MEMORY, tmp_path, allowed_mib], ROOT)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < allowed_mib * 1024  # KiB
