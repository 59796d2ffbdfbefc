"""Example tracks: drawn as `show` draws them, a few of each dataset."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from report.data.examples import examples_section
from report.data.splits import open_splits
from tests.report.conftest import person, write_split


def examples(root: Path, raw: Path | None = None, body: Path | None = None) -> Any:
    return examples_section(open_splits(root), raw=raw, body=body).data


def drawn(data: Any, dataset: str) -> list[Any]:
    """The portraits of a dataset."""
    return [portrait for split in data["datasets"][dataset] for portrait in split.portraits]


def test_two_tracks_of_three_frames_each_are_drawn_on_their_pictures(root: Path) -> None:
    data = examples(root)
    first, second = drawn(data, "penn_action")
    assert [card.number for card in first.cards] == [0, 14, 29]
    assert [card.number for card in second.cards] == [0, 4, 9]
    for card in (*first.cards, *second.cards):
        assert card.problem == ""
        assert card.full is not None
        assert card.crop is not None
    assert (first.cards[0].n_visible, second.cards[0].n_visible) == (49, 25)
    (motion,) = drawn(data, "amass")  # motion alone needs no picture
    assert motion.track.source is None
    assert "name a body model" in motion.what_3d


def test_of_several_splits_two_show_a_track_each_and_training_comes_first(tmp_path: Path) -> None:
    for split in ("test", "train", "val"):
        write_split(tmp_path, f"posetrack/{split}", {f"{split}{i}/0": person(3) for i in range(3)})
    data = examples(tmp_path)
    assert [split.split for split in data["datasets"]["posetrack"]] == ["posetrack/train", "posetrack/test"]
    assert [portrait.track.record.name for portrait in drawn(data, "posetrack")] == ["train0/0", "test0/0"]


def test_pictures_are_searched_in_the_raw_folder_that_is_named(root: Path, tmp_path: Path) -> None:
    (split,) = examples(root, raw=tmp_path)["datasets"]["penn_action"]
    assert f"{tmp_path / 'penn_action'} is not there" in split.warnings[0]
    (card, *_) = next(split.portraits).cards
    assert card.full is None
    assert card.problem
    frames = tmp_path / "penn_action/frames/0001"
    frames.mkdir(parents=True)
    assert cv2.imwrite(str(frames / "000000.jpg"), np.full((240, 320, 3), 200, np.uint8))
    first, _ = drawn(examples(root, raw=tmp_path), "penn_action")
    assert [card.full is not None for card in first.cards] == [True, False, False]


def test_a_missing_body_or_a_damaged_split_costs_only_what_needs_it(root: Path, tmp_path: Path) -> None:
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
