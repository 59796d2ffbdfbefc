"""What is in the cache, what became of everything that was found, and example tracks."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import cache
from pipeline.accounting import VideoAccount
from pipeline.files.raw import MARKER
from tasks.report.data import accounting_section, examples_section, open_splits, overview_section
from tasks.report.page import write_page
from tests.html_pages import Page
from tests.tasks.report.conftest import kept, person, write_split, write_stream


def rows(section: Any, key: str = "rows") -> dict[str, tuple[Any, ...]]:
    return {row[0]: row[1:] for row in section.data[key]}


def accounting(root: Path) -> Any:
    return accounting_section(open_splits(root)).data


def test_only_tracks_with_a_rate_count_as_hours(tmp_path: Path) -> None:
    columns = {"frame_index": np.arange(0, 7200, 2)}
    write_split(
        tmp_path, "a/train", {"a/0": columns, "b/0": columns}, fps={"a": 2.0, "b": np.nan}, step=2
    )
    (row,) = overview_section(open_splits(tmp_path)).data["rows"]
    # 3,600 rows of 2 frames at 2 fps
    assert row[5] == "60 min (of 1 track; unknown rate for the others)"


def test_rows_that_a_stream_lacks_are_counted(tmp_path: Path) -> None:
    write_split(tmp_path, "penn_action/train", {"0001/0": person(20)})
    write_stream(tmp_path, "penn_action/train", np.ones((20, 4)))
    write_split(tmp_path, "penn_action/train", {"0002/0": person(15)})
    (row,) = overview_section(open_splits(tmp_path)).data["rows"]
    assert row[6] == "resnet50 (untrained, 15 rows missing)"


def test_weights_are_listed_once_whatever_is_recorded_of_them(tmp_path: Path) -> None:
    made = {"weights": {"kind": "file", "file_sha256": "ab"}, "network": "Net", "sha256": "cd"}
    for part, terms in {
        "train": {},
        "val": {},
        "test": {"licence": "MIT", "source": "a.b"},
    }.items():
        write_split(tmp_path, f"a/{part}", {"0/0": person(20)})
        write_stream(tmp_path, f"a/{part}", np.ones((20, 4)), backbone=made | terms)
    assert overview_section(open_splits(tmp_path)).data["weights"] == [
        ("resnet50", "Net", "MIT", "a.b", "ab"),
        ("resnet50", "Net", "not recorded", "not recorded", "ab"),
    ]


def test_what_training_and_test_share_is_one_line(root: Path, tmp_path: Path) -> None:
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


def test_a_split_of_another_program_has_no_accounting(tmp_path: Path) -> None:
    write_split(tmp_path, "a/train", {})
    assert accounting(tmp_path)["unrecorded"] == ["a/train"]
    assert rows(overview_section(open_splits(tmp_path)))["a/train"][-1] == "not recorded"


def examples(root: Path, raw: Path | None = None, body: Path | None = None) -> Any:
    return examples_section(open_splits(root), raw=raw, body=body).data


def drawn(data: Any, dataset: str) -> list[Any]:
    """The portraits of a dataset."""
    return [portrait for split in data["datasets"][dataset] for portrait in split.portraits]


def test_clips_are_drawn_from_the_recorded_folder_and_need_no_body(
    root: Path, tmp_path: Path
) -> None:
    """Settings name the demo data and the demo body; the cache is of real clips."""
    raw = Path(str(cache.open(root)["penn_action/train"].provenance["raw"]))
    clips = tmp_path / "clips"
    write_split(
        clips, "videos/train", {"0001/0": person(10)}, accounts=kept(1), stand_in=False, raw=raw
    )
    (tmp_path / "demo/videos").mkdir(parents=True)
    (tmp_path / "demo/videos" / MARKER).write_text("{}")
    data = examples(clips, raw=tmp_path / "demo", body=tmp_path / "no-body")
    assert len(drawn(data, "videos")) == 1 and data["problems"] == []
    write_stream(clips, "videos/train", np.ones((10, 4)))
    assert open_splits(clips).mark == "untrained network"
    assert open_splits(root).mark == "demo data"


def test_of_several_splits_two_show_a_track_each_and_training_comes_first(tmp_path: Path) -> None:
    for split in ("test", "train", "val"):
        write_split(tmp_path, f"posetrack/{split}", {f"{split}{i}/0": person(3) for i in range(3)})
    data = examples(tmp_path)
    assert [split.shown.name for split in data["datasets"]["posetrack"]] == [
        "posetrack/train",
        "posetrack/test",
    ]
    assert [portrait.track.record.name for portrait in drawn(data, "posetrack")] == [
        "train0/0",
        "test0/0",
    ]


def test_pictures_are_searched_in_the_raw_folder_that_is_named(root: Path, tmp_path: Path) -> None:
    frames = tmp_path / "penn_action/frames/0001"
    frames.mkdir(parents=True)
    assert cv2.imwrite(str(frames / "000000.jpg"), np.full((240, 320, 3), 200, np.uint8))
    (tmp_path / "penn_action" / MARKER).write_text("{}")
    first, _ = drawn(examples(root, raw=tmp_path), "penn_action")
    assert [card.full is not None for card in first.cards] == [True, False, False]


def test_a_missing_body_or_a_damaged_split_costs_only_what_needs_it(
    root: Path, tmp_path: Path
) -> None:
    data = examples(root, body=tmp_path)
    (problem,) = data["problems"]
    assert str(tmp_path) in problem
    assert drawn(data, "penn_action")[0].cards[0].full is not None
    shutil.copytree(root, tmp_path / "cache")
    for shard in (tmp_path / "cache/penn_action/train/kp_2d/c").rglob("*"):
        if shard.is_file():
            shard.unlink()
    data = examples(tmp_path / "cache")
    (problem,) = data["problems"]
    assert problem.startswith("penn_action/train: ")
    assert list(data["datasets"]) == ["amass"]


def test_all_clips_are_listed_with_their_tracks_and_some_are_drawn(tmp_path: Path) -> None:
    clips = {f"{video:04}/0": person(10 + video) for video in range(1, 9)}
    rejected = VideoAccount("0009", found=5)
    rejected.reject("video_unreadable", "0009: no frame")
    write_split(tmp_path, "videos/train", clips, accounts=[*kept(8), rejected])
    section = examples_section(open_splits(tmp_path), raw=None, body=None)
    (split,) = section.data["datasets"]["videos"]
    assert [tracks for _, tracks in split.clips] == [
        *([(f"{v:04}/0", 0, 9 + v)] for v in range(1, 9)),
        [],
    ]
    write_page(tmp_path / "page.html", [section], title="clips", mark="", facts={})
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert section.unfolded
    titles = [title.text for svg in page.root.of_class("tracks") for title in svg.all("title")]
    assert titles == [f"{v:04}/0: frames 0 to {9 + v}" for v in range(1, 9)]
    assert "5 video_unreadable" in page.main.text
    headings = [heading.text for heading in page.main.all("h4")]
    assert headings == [f"videos/train: {v:04}/0" for v in (1, 2, 4, 5, 7, 8)]  # of eight, six
