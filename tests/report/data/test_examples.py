"""Example tracks: drawn as `show` draws them, a few of each dataset."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from report.data.examples import examples_section
from report.data.opened import open_splits


def drawn(section: Any, dataset: str) -> list[Any]:
    """The portraits of a dataset."""
    return [portrait for split in section.data["datasets"][dataset] for portrait in split.portraits]


def test_two_tracks_of_three_frames_each_are_drawn_on_their_pictures(root: Path) -> None:
    first, second = drawn(examples_section(open_splits(root), raw=None, body=None), "penn_action")
    assert [card.number for card in first.cards] == [0, 14, 29]
    assert [card.number for card in second.cards] == [0, 4, 9]
    for card in (*first.cards, *second.cards):
        assert card.problem == ""
        assert card.full is not None
        assert card.crop is not None
    assert (first.cards[0].n_visible, second.cards[0].n_visible) == (49, 25)


def test_of_several_splits_two_show_a_track_each_and_training_comes_first(tmp_path: Path, make: Any) -> None:
    for split in ("test", "train", "val"):
        tracks = {f"{split}{i}/0": make.person(3) for i in range(3)}
        make.write_split(tmp_path, f"posetrack/{split}", tracks)
    section = examples_section(open_splits(tmp_path), raw=None, body=None)
    assert [split.split for split in section.data["datasets"]["posetrack"]] == ["posetrack/train", "posetrack/test"]
    assert [portrait.track.record.name for portrait in drawn(section, "posetrack")] == ["train0/0", "test0/0"]


def test_without_the_raw_folder_it_is_said_and_tracks_have_no_picture(root: Path, tmp_path: Path) -> None:
    section = examples_section(open_splits(root), raw=tmp_path, body=None)
    (split,) = section.data["datasets"]["penn_action"]
    (warning,) = split.warnings
    assert f"{tmp_path / 'penn_action'} is not there" in warning
    (card, *_) = next(split.portraits).cards
    assert card.full is None
    assert card.problem


def test_a_raw_folder_that_has_moved_is_looked_into(root: Path, tmp_path: Path) -> None:
    frames = tmp_path / "penn_action/frames/0001"
    frames.mkdir(parents=True)
    assert cv2.imwrite(str(frames / "000000.jpg"), np.full((240, 320, 3), 200, np.uint8))
    first, _ = drawn(examples_section(open_splits(root), raw=tmp_path, body=None), "penn_action")
    assert [card.full is not None for card in first.cards] == [True, False, False]


def test_motion_alone_needs_no_picture_and_says_what_would_draw_it(root: Path) -> None:
    (portrait,) = drawn(examples_section(open_splits(root), raw=None, body=None), "amass")
    assert portrait.track.source is None
    assert "name a body model" in portrait.what_3d


def test_a_body_that_is_not_there_costs_only_what_needs_it(root: Path, tmp_path: Path) -> None:
    section = examples_section(open_splits(root), raw=None, body=tmp_path)
    (problem,) = section.data["problems"]
    assert str(tmp_path) in problem
    assert drawn(section, "penn_action")[0].cards[0].full is not None


def test_a_damaged_split_is_told_and_the_others_are_drawn(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "cache")
    for shard in (tmp_path / "cache/penn_action/train/kp_2d/c").rglob("*"):
        if shard.is_file():
            shard.unlink()
    section = examples_section(open_splits(tmp_path / "cache"), raw=None, body=None)
    (problem,) = section.data["problems"]
    assert problem.startswith("penn_action/train: ")
    assert list(section.data["datasets"]) == ["amass"]
