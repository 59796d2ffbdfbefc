"""What is in the cache, and what became of everything that was found."""

import numpy as np

from pipeline.steps.grading import store_grades
from tasks.report.data import OpenedCache
from tests.tasks.report.conftest import person, write_split, write_stream


def row(root):
    """The only split's, without its name."""
    ((_, *cells),) = OpenedCache.read(root).sections()[0].data["rows"]
    return cells


def test_a_split_has_its_sizes_and_says_which_rows_a_stream_lacks(tmp_path):
    motion, frames = tmp_path / "motion", tmp_path / "frames"
    columns = {"frame_index": np.arange(0, 7200, 2)}
    tracks = {"a/0": columns, "b/0": columns}
    write_split(motion, "a/train", tracks, step=2)
    assert row(motion) == ["demo", "none", "grades not stored yet", 2, 2, 7200]
    store_grades(motion, "a/train")
    assert row(motion)[2] == "2 tracks: 2 unknown"
    write_split(frames, "penn_action/train", {"0001/0": person(20)})
    write_stream(frames, "penn_action/train", np.ones((20, 4)))
    write_split(frames, "penn_action/train", {"0002/0": person(15)})
    assert row(frames)[1] == "resnet50 (untrained, 15 rows missing)"


def test_what_training_and_validation_share_is_said(tmp_path):
    for split, video in (("train", "a_00"), ("validation", "a_01")):
        write_split(tmp_path, f"3dpw/{split}", {f"{video}/0": person(3)})
    shared = OpenedCache.read(tmp_path).sections()[0].data["shared"]
    assert "3dpw/train and 3dpw/validation share 1 sequence" in shared
