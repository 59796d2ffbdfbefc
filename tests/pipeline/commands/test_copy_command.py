"""`python -m pipeline copy`: what is live goes into another cache, where everything is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def test_splits_and_streams_are_named(penn: Any, into: Any, ran: Any, to: Path, embedded: Any, network: Any) -> None:
    penn.converted("fast")
    penn.convert("test")
    into.convert(penn.root, embedded.raw("amass"), "amass")
    assert "copied" in ran("copy", "penn_action", "--cache", penn.root, "--to", to, "--streams", "").out
    assert cache.open(to).splits == ("penn_action/test", "penn_action/train")
    assert cache.open(to)["penn_action/train"].streams == ()
    for words, message in ((["amass/test"], "no split"), (["--streams", "resnet"], "none of these splits has it")):
        assert message in ran("copy", *words, "--cache", penn.root, "--to", to, code=2).err
    shown = ran("copy", "--cache", penn.root, "--to", to).out
    assert "penn_action/train: copied resnet50" in shown
    assert "amass/train: copied" in shown
    np.testing.assert_equal(into.rows(to, penn.name, "features/resnet50"), penn.rows("features/resnet50"))
    # A stream that lags behind is named, with what to do.
    penn.add("0007")
    penn.convert()
    shown = ran("copy", penn.name, "--cache", penn.root, "--to", to.with_name("lagging")).out
    assert "resnet50 has not all rows" in shown
    assert "8 rows missing" in shown
    # Another state of a split is not overwritten.
    assert "another state of it" in ran("copy", penn.name, "--cache", penn.root, "--to", to, code=2).err
