"""Within one look, the disk is asked once; after it, again."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.pixels.frames import Pictures
from pipeline.raw.digests import folder_digest, names_in
from pipeline.raw.one_look import known, once, one_look


@pytest.fixture
def asked() -> list[int]:
    return []


@pytest.fixture
def double(asked: list[int]) -> Any:
    @once
    def double(number: int) -> int:
        asked.append(number)
        if number < 0:
            raise ValueError(number)
        return 2 * number

    return double


def test_within_a_look_the_same_question_is_asked_once(double: Any, asked: list[int]) -> None:
    with one_look():
        assert [double(1), double(2), double(1)] == [2, 4, 2]
    assert asked == [1, 2]


def test_between_looks_everything_is_forgotten(double: Any, asked: list[int]) -> None:
    for _ in range(2):
        with one_look():
            double(1)
    double(1)
    double(1)
    assert asked == [1, 1, 1, 1]


def test_what_failed_is_asked_again(double: Any, asked: list[int]) -> None:
    with one_look():
        for _ in range(2):
            with pytest.raises(ValueError, match="-1"):
                double(-1)
    assert asked == [-1, -1]


def test_what_was_not_asked_is_not_known(double: Any) -> None:
    with one_look():
        assert known(double, 1) is None
        double(1)
        assert known(double, 1) == 2
    assert known(double, 1) is None


def test_a_folder_that_changes_is_seen_as_it_was_at_the_first_look(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, "{:02d}.jpg")
    (tmp_path / "00.jpg").write_bytes(b"")
    with one_look():
        before = folder_digest(tmp_path)
        (tmp_path / "01.jpg").write_bytes(b"")
        assert (names_in(tmp_path), folder_digest(tmp_path)) == (["00.jpg"], before)
        assert pictures.indices().tolist() == [0]
    assert pictures.indices().tolist() == [0, 1]
    assert folder_digest(tmp_path) != before


def test_a_conversion_lists_the_pictures_of_a_video_once(
    embedded: Any, into: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: Counter[str] = Counter()

    def spied(original: Any) -> Any:
        def spy(folder: Any) -> Any:
            place = Path(f"/proc/self/fd/{folder}").resolve() if isinstance(folder, int) else Path(folder)
            listed[os.path.relpath(place, embedded.raw("penn_action"))] += 1
            return original(folder)

        return spy

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    into.convert(tmp_path / "cache", embedded.raw("penn_action"))
    assert listed["frames/0001"] == 2  # once for the plan: how many are there
