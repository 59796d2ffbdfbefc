"""A cache of format 1, made by commit 19a16d33, is read and continued: nothing is computed again."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import StreamWriter
from cache.write.parts import find_other_work
from tests.cache.toy import SPLIT

COMMIT = "19a16d33"
PROJECT = Path(__file__).parents[3]
BEGIN = """
import sys
from pathlib import Path
from tests.cache import toy
root = Path(sys.argv[1])
toy.write(root, toy.videos()[:4])
toy.write_stream(root)
"""
CUT_OFF = """
from cache.storage.local import LocalStore
put_small = LocalStore.put_small
def cut_off(store, files, home, **options):
    if any(key.endswith("track_start/c/0") and ".commit" not in key for key in files):
        sys.exit()
    put_small(store, files, home, **options)
LocalStore.put_small = cut_off
toy.write(root, toy.videos()[:5], drop=["b"], plan="second")
"""
UNFINISHED = """
toy.unfinished(root, [toy.video("z", [40]), toy.video("y", [40])], "next")
from cache import StreamWriter
with StreamWriter(root, toy.SPLIT, "late", dim=4, plan="w") as writer:
    writer.write(*toy.given(writer, 0))
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of that commit."""
    folder = tmp_path_factory.mktemp("code")
    words = ["git", "archive", COMMIT, "cache", "tests/cache/toy.py", "tests/trees.py"]
    archive = subprocess.run(words, cwd=PROJECT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"needs a clone with commit {COMMIT}")
    subprocess.run(["tar", "x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def run(code: Path, script: str, root: Path) -> Path:
    words = [sys.executable, "-c", script, str(root)]
    subprocess.run(words, cwd=code, env={"PYTHONPATH": str(code)}, check=True, timeout=120)
    return root


@pytest.fixture
def root(code: Path, tmp_path: Path) -> Path:
    return run(code, BEGIN, tmp_path / "cache")


@pytest.fixture
def alike(tmp_path: Path, toy: Any) -> Path:
    """The same, made by this version."""
    toy.write(tmp_path / "alike", toy.videos()[:4])
    toy.write_stream(tmp_path / "alike")
    return tmp_path / "alike"


def require_equal(root: Path, alike: Path) -> None:
    """What readers get of both."""
    ours = cache.open(root)[SPLIT]
    theirs = cache.open(alike)[SPLIT]
    assert list(ours.tracks) == list(theirs.tracks)
    assert list(ours.videos) == list(theirs.videos)
    windows = theirs.windows(5, 2, "resnet50")
    np.testing.assert_array_equal(ours.windows(5, 2, "resnet50"), windows)
    expected = theirs.read(windows)
    for name, values in ours.read(windows).items():
        np.testing.assert_array_equal(values, expected[name])
    for name in (*ours.columns, "features/resnet50", "features/resnet50_key"):
        np.testing.assert_array_equal(ours.column(name)[:], theirs.column(name)[:])


def test_it_is_read_and_verified_and_left_as_it_is(root: Path, alike: Path, toy: Any) -> None:
    # gc adds the list of splits
    before = {**toy.tree(root), "zarr.json": toy.tree(alike)["zarr.json"]}
    require_equal(root, alike)
    assert (cache.verify(root).problems, cache.verify(root).notes) == ((), ())
    found = cache.gc(root, unfinished=True)
    assert (found.removed, found.skipped) == ([], [])
    assert not cache.open(root)[SPLIT].has_unfinished_commit()
    assert toy.tree(root) == before


def test_the_next_commits_write_this_format_and_compute_nothing_again(
    root: Path, alike: Path, toy: Any
) -> None:
    cache.copy_split(root, SPLIT, root.with_name("copy"))
    cache.copy_split(alike, SPLIT, alike.with_name("copied"))
    copies = (toy.tree(alike.with_name(name)) for name in ("copy", "copied"))
    ours, theirs = copies
    assert ours == theirs
    for place in (root, alike):
        toy.write(place, toy.videos(), drop=["b"], plan="second")
        with StreamWriter(place, SPLIT, "resnet50", dim=4, plan="weights") as writer:
            assert writer.pending == [4, 5]  # of what was appended
        toy.write_stream(place)
    assert toy.tree(root) == toy.tree(alike)
    assert (cache.verify(root).problems, cache.verify(root).notes) == ((), ())


def test_a_commit_that_was_cut_off_is_read_and_finished(
    root: Path, alike: Path, code: Path, toy: Any
) -> None:
    run(code, BEGIN + CUT_OFF, root)
    toy.write(alike, toy.videos()[:5], drop=["b"], plan="second")
    assert (root / SPLIT / ".commit").is_dir()
    require_equal(root, alike)
    assert cache.verify(root).ok
    assert cache.open(root)[SPLIT].has_unfinished_commit()
    toy.write(root, toy.videos()[:5], plan="second")
    for place in (root, alike):
        toy.write_stream(place)
    assert toy.tree(root) == toy.tree(alike)


def test_a_damaged_table_is_named(root: Path, toy: Any) -> None:
    toy.spoil(root / SPLIT / "track_start/c/0")
    assert [damage.key for damage in cache.verify(root).damaged] == [f"{SPLIT}/track_start/c/0"]
    with pytest.raises(cache.CacheError, match=r"track_start/c/0: expected the file that"):
        cache.open(root)[SPLIT]


def test_unfinished_work_is_begun_again_and_said(root: Path, code: Path, toy: Any) -> None:
    run(code, BEGIN + UNFINISHED, root)
    other = find_other_work(root, SPLIT, None, "next")
    assert other is not None and other.host == "", "of an earlier version"
    with toy.writer(root, "next") as writer:
        writer.begin()
        assert not writer.journalled
    toy.write(root, [toy.video("z", [40])], plan="next")
    toy.write_stream(root, stream="late")
    cache.gc(root, unfinished=True)
    assert not list(root.rglob(".writing"))
    assert (cache.verify(root).problems, cache.verify(root).notes) == ((), ())
