"""What is in the cache, and what became of everything that was found."""

import numpy as np

from tasks.report.data import accounting_section, open_splits, overview_section
from tests.tasks.report.conftest import person, write_split, write_stream


def rows(section, key="rows"):
    return {row[0]: row[1:] for row in section.data[key]}


def accounting(root):
    return accounting_section(open_splits(root)).data


def test_only_tracks_with_a_rate_count_as_hours(tmp_path):
    columns = {"frame_index": np.arange(0, 7200, 2)}
    write_split(
        tmp_path, "a/train", {"a/0": columns, "b/0": columns}, fps={"a": 2.0, "b": np.nan}, step=2
    )
    (row,) = overview_section(open_splits(tmp_path)).data["rows"]
    # 3,600 rows of 2 frames at 2 fps
    assert row[5] == "60 min (of 1 track; unknown rate for the others)"


def test_rows_that_a_stream_lacks_are_counted(tmp_path):
    write_split(tmp_path, "penn_action/train", {"0001/0": person(20)})
    write_stream(tmp_path, "penn_action/train", np.ones((20, 4)))
    write_split(tmp_path, "penn_action/train", {"0002/0": person(15)})
    (row,) = overview_section(open_splits(tmp_path)).data["rows"]
    assert row[6] == "resnet50 (untrained, 15 rows missing)"


def test_what_training_and_test_share_is_one_line(root, tmp_path):
    assert overview_section(open_splits(root)).data["shared"] == "", "there is no test split"
    for split, video in (
        ("train", "outdoors_freestyle_00"),
        ("validation", "outdoors_freestyle_01"),
        ("test", "a_00"),
    ):
        write_split(tmp_path, f"3dpw/{split}", {f"{video}/0": person(3)})
    data = overview_section(open_splits(tmp_path)).data
    share = (
        "3dpw/train and 3dpw/validation share 1 sequence (2 of 4 comparisons by name are "
        "impossible)"
    )
    assert (data["shared"], data["leaks"]) == (share, True)


def test_a_split_of_another_program_has_no_accounting(tmp_path):
    write_split(tmp_path, "a/train", {})
    assert accounting(tmp_path)["unrecorded"] == ["a/train"]
    assert rows(overview_section(open_splits(tmp_path)))["a/train"][-1] == "not recorded"
