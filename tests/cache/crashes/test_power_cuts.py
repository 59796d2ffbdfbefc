"""After a power cut at any moment: an old or a new state, nothing committed lost, and a run that goes on to the end."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cache
from benchmarks.crash_runs import RUNS, seen, tree, watched
from tests.cache.crashes.conftest import Stage
from tests.cache.crashes.power_cut import Disk, Model, Recorder, on_disk, put_back

# So many moments of every run, besides those about its commit. `EVERY_MOMENT=1 pytest ...` takes all, and an hour.
MOMENTS = 2
GO_ON_EVERY = 8  # of so many disks that were left, one is gone on from
ALL = bool(os.environ.get("EVERY_MOMENT"))
QUICK = ("first conversion", "extraction of changes", "extraction of bytes")  # the other runs with `-m slow`


def kept(root: Path) -> dict[str, bytes]:
    """All of a cache but what a writer removes without waiting for the disk: its lock, a shard that was not whole."""
    scratch = (".writing/", ".writing/lock", ".writing/shard.tmp")
    return {name: data for name, data in tree(root).items() if not name.endswith(scratch)}


def model_before(stages: dict[str, Stage], stage: Stage) -> Model:
    """The disk on which a stage began."""
    model = Model()
    for earlier in itertools.takewhile(lambda earlier: earlier is not stage, stages.values()):
        for call in earlier.calls:
            model.do(*call)
    return model


def moments(stage: Stage, n: int, rng: random.Random) -> list[int]:
    """Numbers of calls after which the power goes."""
    end = len(stage.calls)
    if ALL:
        return list(range(1, end + 1))
    spread = {1 + int((number + rng.random()) * end / n) for number in range(n)}
    commits = {at for at, call in enumerate(stage.calls, start=1) if is_commit(call)}
    return sorted({*spread, *commits, *(at + 1 for at in commits), end} & set(range(1, end + 1)))


def after_kills(stage: Stage) -> list[int]:
    """Numbers of calls after which the process is killed: in the middle, and right before and after the commit."""
    found = moments(stage, 2, random.Random(1))
    return found if ALL else found[:3]


def is_commit(call: tuple[Any, ...]) -> bool:
    return call[0] == "rename" and call[2].endswith("/manifest.json") and "/." not in call[2]


def disks_of(stages: dict[str, Stage], stage: Stage, rng: random.Random) -> Iterator[tuple[int, Disk]]:
    """(calls that were made, what a cut left) for the moments of one stage: the harshest, and some of the others."""
    known, model, chosen = set(), model_before(stages, stage), set(moments(stage, MOMENTS, rng))
    for made, call in enumerate(stage.calls, start=1):
        model.do(*call)
        if made not in chosen:
            continue
        for disk in (model.lost(), *model.others(rng, None if ALL else 1)):
            mark = hashlib.sha256(repr(sorted(disk.items())).encode()).digest()
            if mark not in known:
                known.add(mark)
                yield made, disk


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_a_power_cut_leaves_an_old_or_a_new_state(name: str, stages: dict[str, Stage], tmp_path: Path) -> None:
    stage = stages[name]
    found = set()
    left, again = tmp_path / "left", tmp_path / "again"
    left.mkdir()
    again.mkdir()
    for number, (made, disk) in enumerate(disks_of(stages, stage, random.Random(0))):
        where = f"cut after {made} of {len(stage.calls)} calls: {stage.calls[made - 1][:2]}"
        put_back(disk, left)
        found.add(seen(left / "cache"))
        assert found <= {stage.old, stage.new}, where
        assert not (left / "cache/zarr.json").exists() or cache.verify(left / "cache").problems == (), where
        if number % GO_ON_EVERY == 0:
            put_back(disk, again)
            RUNS[name](again / "cache")
            assert kept(again / "cache") == stage.expected, where
    assert found == {stage.old, stage.new}
    put_back(made_whole(stages, stage).lost(), left)
    assert seen(left / "cache") == stage.new, "a commit that had returned was lost"


def made_whole(stages: dict[str, Stage], stage: Stage) -> Model:
    """The disk on which a stage ended."""
    model = model_before(stages, stage)
    for call in stage.calls:
        model.do(*call)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_what_went_on_after_a_kill_survives_a_power_cut_too(
    name: str, stages: dict[str, Stage], tmp_path: Path
) -> None:
    stage = stages[name]
    for made in after_kills(stage):
        top = tmp_path / str(made)
        top.mkdir()
        model = model_before(stages, stage)
        for call in stage.calls[:made]:
            model.do(*call)
        put_back(model.live(), top)  # killed here: the system still has everything
        recorder = Recorder(top)
        with watched(recorder):
            RUNS[name](top / "cache")
        for call in recorder.calls:
            model.do(*call)
        assert model.live() == on_disk(top)
        put_back(model.lost(), top)
        assert seen(top / "cache") == stage.new, f"killed after {made} calls: {stage.calls[made - 1][:2]}"
        shutil.rmtree(top)
