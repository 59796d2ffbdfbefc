"""What one user of a cache may not read is a problem of its own; the rest is shown, read and
checked.
"""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import cache

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY, SPLIT = 65534, "penn_action/train"


@contextmanager
def another_user():
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def root(penn, network):
    """A cache with two splits, which all may read; other tests change the permissions above their
    own folders.
    """
    penn.converted("fast")
    with tempfile.TemporaryDirectory() as top:
        root = Path(shutil.copytree(penn.root, Path(top) / "cache"))
        cache.copy_split(penn.root, SPLIT, Path(top) / "copy")
        (Path(top) / "copy/penn_action").rename(root / "other")
        for path in (Path(top), root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (root.parent / "to").mkdir()
        (root.parent / "to").chmod(0o777)
        yield root


@pytest.mark.parametrize(
    "hidden",
    [
        "penn_action",
        SPLIT,
        f"{SPLIT}/manifest.json",
        f"{SPLIT}/features/resnet50/manifest.json",
        f"{SPLIT}/bbox/c/0/0",
    ],
)
def test_what_may_not_be_read_is_a_problem_of_its_own_and_the_others_are_shown(hidden, root, ran):
    name, place, at = (
        (hidden if hidden == "penn_action" else SPLIT),
        root / hidden,
        ("--cache", root),
    )
    mode = place.stat().st_mode
    place.chmod(0o700 if place.is_dir() else 0o600)
    # without which nothing of the split is shown
    of_split = "features" not in hidden and "bbox" not in hidden
    with another_user():
        shown = {row["split"]: row for row in json.loads(ran("status", *at, "--json", code=1).out)}
        assert {*shown} == {"other/train", name}
        if of_split:
            assert shown[name].keys() == {"split", "problems"}
        if "bbox" not in hidden:
            assert any(
                f"{place}" in text and "Ask its owner" in text for text in shown[name]["problems"]
            ), shown[name]
            assert "other/train" in ran("status", *at, code=1).out
        assert len(cache.open(root)["other/train"].windows(4, 4, "resnet50")) > 0
        for fast in ((), ("--fast",)) if "bbox" not in hidden else ((),):
            found = json.loads(ran("verify", *at, *fast, "--json", code=1).out)
            assert [damage["split"] for damage in found["damaged"]] == [name] and found[
                "splits"
            ] >= 1
            assert str(place) in found["damaged"][0]["what"]
        collected = json.loads(
            ran("gc", *at, "--json", "--dry-run", code=int("bbox" not in hidden)).out
        )
        if of_split:
            assert [str(place) in text for text in collected["problems"]] == [True]
            assert "other/train: copied" in ran("copy", *at, "--to", root.parent / "to", code=1).out
    place.chmod(mode)
    ran("verify", *at)


def test_the_lock_that_another_user_s_killed_run_has_left_stops_no_command(root, ran):
    for home in (SPLIT, f"{SPLIT}/features/resnet50"):
        lock = root / home / ".writing/lock"
        lock.parent.mkdir()
        lock.write_text(f"{2**22 + 1}\n")  # no process has this number
        lock.chmod(0o644)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o777)  # as of a shared cache: gc lists the split that was moved here
    (root / "zarr.json").chmod(0o666)
    with another_user():
        assert "left" not in ran("gc", "--cache", root, "--unfinished").out
    assert list(root.rglob("lock")) == []


def test_a_cache_is_not_created_once_by_whom_cannot_change_the_file_afterwards(
    penn, ran, monkeypatch
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(penn.raw, folder / "raw/penn_action")
        settings = (
            "[paths]\nraw = raw\nbody = body\ncache = own/cache\nruns = runs\nnew_cache = once\n"
        )
        (folder / "luigi.cfg").write_text(f"{settings}[data]\ndatasets = penn_action\n")
        (folder / "own").mkdir()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (folder / "own").chmod(0o777)
        monkeypatch.chdir(folder)
        words = (
            "convert",
            SPLIT,
            "--raw",
            "raw/penn_action",
            "--cache",
            "own/cache",
            "--workers",
            1,
        )
        with another_user():
            refused = ran(*words, code=2).err
        assert (
            "new_cache = once: own/cache has no cache, and luigi.cfg cannot be changed to"
            in refused
        )
        assert not (folder / "own/cache").exists()
        ran(*words)
        assert "new_cache = no" in (folder / "luigi.cfg").read_text()
