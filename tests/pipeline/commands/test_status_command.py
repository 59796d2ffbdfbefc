"""`python -m pipeline status`: whatever can be read is shown, by split and by clip; what cannot is no success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def two(penn: Any) -> Path:
    """A cache with Penn Action's train and test split."""
    penn.converted("fast")
    penn.convert("test")
    return Path(penn.root)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["penn_action/test"], ["test"]),
        (["penn_action", "train"], ["train"]),
        (["penn_action"], ["test", "train"]),
        (["penn_action/train", "penn_action/test"], ["test", "train"]),
    ],
)
def test_splits_may_be_named(two: Path, ran: Any, words: list[str], names: list[str]) -> None:
    rows = json.loads(ran("status", *words, "--cache", two, "--json").out)
    assert [row["split"] for row in rows] == [f"penn_action/{name}" for name in names]


def test_a_name_that_no_split_has_is_refused(two: Path, ran: Any) -> None:
    assert "no split 'penn_action/val'" in ran("status", "penn_action/val", "--cache", two, code=2).err
