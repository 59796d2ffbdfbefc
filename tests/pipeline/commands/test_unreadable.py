"""What one user of a cache may not read is a problem of its own; the rest is shown, read and
checked.
"""

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
def test_what_may_not_be_read_is_a_problem_of_its_own_and_the_others_are_shown(
    hidden, root, types, types_json
):
    name = hidden if hidden == "penn_action" else SPLIT
    place = root / hidden
    mode = place.stat().st_mode
    place.chmod(0o700 if place.is_dir() else 0o600)
    # without which nothing of the split is shown
    of_split = "features" not in hidden and "bbox" not in hidden
    with another_user():
        shown = {row["split"]: row for row in types_json(f"status --cache {root}", code=1)}
        assert {*shown} == {"other/train", name}
        if of_split:
            assert shown[name].keys() == {"split", "problems", "runs"}
        if "bbox" not in hidden:
            told = [text for text in shown[name]["problems"] if "Ask its owner" in text]
            assert str(place) in str(told), shown[name]
            types(f"status --cache {root}", "other/train", code=1)
        assert len(cache.open(root)["other/train"].windows(4, 4, "resnet50")) > 0
        ways = [""]
        if "bbox" not in hidden:
            ways.append("--fast")
        for fast in ways:
            found = types_json(f"verify --cache {root} {fast}", code=1)
            assert [damage["split"] for damage in found["damaged"]] == [name]
            assert found["splits"] >= 1
            assert str(place) in found["damaged"][0]["what"]
        collected = types_json(f"gc --cache {root} --dry-run", code=int("bbox" not in hidden))
        if of_split:
            assert [str(place) in text for text in collected["problems"]] == [True]
            types(f"copy --cache {root} --to {root.parent}/to", "other/train: copied", code=1)
    place.chmod(mode)
    types(f"verify --cache {root}")


def test_the_lock_that_another_user_s_killed_run_has_left_stops_no_command(root, types):
    for home in (SPLIT, f"{SPLIT}/features/resnet50"):
        lock = root / home / ".writing/lock"
        lock.parent.mkdir()
        lock.write_text(f"{2**22 + 1}\n")  # no process has this number
        lock.chmod(0o644)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o777)  # as of a shared cache: gc lists the split that was moved here
    (root / "zarr.json").chmod(0o666)
    with another_user():
        assert "left" not in types(f"gc --cache {root} --unfinished")
    assert list(root.rglob("lock")) == []


def test_a_cache_is_not_created_once_by_whom_cannot_change_the_file_afterwards(
    penn, types, monkeypatch
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
        convert = f"convert {SPLIT} --raw raw/penn_action --cache own/cache --workers 1"
        refused = "new_cache = once: own/cache has no cache, and luigi.cfg cannot be changed to"
        with another_user():
            types(convert, refused, code=2)
        assert not (folder / "own/cache").exists()
        types(convert)
        assert "new_cache = no" in (folder / "luigi.cfg").read_text()
