"""Every run of `benchmarks.crash_runs` as it goes undisturbed: what the tests of crashes compare with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.crash_runs import RUNS, seen, tree, watched
from tests.cache.crashes.power_cut import Model, Recorder, on_disk


@dataclass(frozen=True)
class Stage:
    """One run: the cache before it, its calls, how many change something; what readers saw; the files after it."""

    name: str
    before: Path
    calls: list[tuple[Any, ...]]
    changes: int
    old: str | None
    new: str | None
    expected: dict[str, bytes]


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """All runs, one after the other, on one cache."""
    top, copies = tmp_path_factory.mktemp("recorded"), tmp_path_factory.mktemp("before")
    root, model, found = top / "cache", Model(), {}
    for number, (name, run) in enumerate(RUNS.items()):
        before, old, recorder = copies / str(number), seen(root), Recorder(top)
        if root.exists():
            shutil.copytree(root, before)
        with watched(recorder):
            run(root)
        for call in recorder.calls:
            model.do(*call)
        assert model.live() == on_disk(top), "something was written past the recorder"
        found[name] = Stage(name, before, recorder.calls, recorder.changes, old, seen(root), tree(root))
    return found
