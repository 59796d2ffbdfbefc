"""Long clips and crowds: memory is that of blocks of rows, calls grow with the people."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import cache
from pipeline.clips.tracks.switches import find_switches
from pipeline.steps.contents import csv_table
from tests.made_splits import track_of, write_split
from tests.pipeline.growth import RNG, crowd, require_linear

N_ROWS = 30_000
N_BYTES = 4 * 49 * 3  # of a row of kp_2d


def long_clip(root, n_rows):
    """A split of one track of people who stand."""
    kp_2d = RNG.normal(100, 5, (n_rows, 49, 3)).astype(np.float32)
    bbox = np.full((n_rows, 4), 100, np.float32)
    columns = {"frame_index": np.arange(n_rows), "bbox": bbox, "kp_2d": kp_2d}
    return write_split(root, "long/all", [(cache.VideoEntry(name="a"), [track_of("a/0", columns)])])


@pytest.mark.slow
def test_a_table_of_grades_takes_less_than_half_of_the_joints_of_a_long_clip(tmp_path):
    peaks = []
    for n_rows in (N_ROWS, 2 * N_ROWS):
        split = long_clip(tmp_path / str(n_rows), n_rows)
        problems = []
        tracemalloc.start()
        table = "".join(csv_table([split], problems, by_track=False))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert problems == []
        assert "good" in table or "doubtful" in table or "bad" in table
    assert peaks[1] - peaks[0] < N_ROWS * N_BYTES / 2


def resident():
    """Bytes of files, also of those in memory, that this process has mapped."""
    status = Path("/proc/self/status").read_text()
    return sum(1024 * int(n) for n in re.findall(r"Rss(?:File|Shmem):\s+(\d+)", status))


def test_a_pass_over_a_long_clip_leaves_its_rows_unmapped(tmp_path):
    split = long_clip(tmp_path, N_ROWS)
    before = resident()
    for first in range(0, N_ROWS, 1000):
        split.rows("kp_2d", first, first + 1000)
    assert resident() - before < N_ROWS * N_BYTES / 2


@pytest.mark.slow
def test_switches_are_looked_for_among_the_people_nearby():
    """Of people apart, who all jump aside."""

    def work(n):
        frames = [joints for _ in range(5) for joints, _ in crowd(n, missed=0)]
        tracks = []
        for person in range(n):
            joints = np.stack([keypoints[person] for keypoints in frames])
            joints[len(frames) // 2 :, :, 0] += 40
            tracks.append((np.arange(len(frames)), joints))
        return lambda: find_switches(tracks, {})

    require_linear(work(40), work(160), 4)
