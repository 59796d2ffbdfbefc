"""In a folder that others may write: no command acts behind a link, and none waits for a pipe."""

import contextlib
import faulthandler
import os
import shutil
import sys
from pathlib import Path

import pytest

import cache
from cache import AccessDenied, CacheError
from tests.cache import toy
from tests.raising import all_raise
from tests.trees import contents

SPLIT = toy.SPLIT
FEATURES = f"{SPLIT}/features"


@pytest.fixture
def home(tmp_path):
    """Files of the user who runs the commands, outside the cache; some have names as in a cache."""
    home = tmp_path / "home"
    for name in (
        ".ssh/id",
        "c/99/0",
        "c/99",
        "99/0",
        "zarr.json",
        "lock",
        "manifest.json",
        ".x.tmp",
        "train/bbox/c/99/0",
    ):
        if not (home / name).exists():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text("mine")
    for name in ("staged", ".0-bbox"):
        (home / name).write_text("mine")
    return home


def append(root):
    toy.write(root, [*toy.videos(), toy.video("z", 40)], plan="next")


def convert_again(root):
    toy.write(root, toy.videos(seed=7), drop=[entry.name for entry, _ in toy.videos()], plan="next")


def extract(root):
    append(root)
    toy.write_stream(root)


def extract_another(root):
    toy.write_stream(root, stream="other")


def replace(root):
    cache.delete_stream(root, SPLIT, "resnet50")


def invalidate(root):
    cache.invalidate(root, SPLIT, "resnet50", [0])


def collect(root):
    """`gc` reports what it did not touch, and goes on with other splits."""
    found = cache.gc(root, unfinished=True)
    if found.problems:
        raise AccessDenied("\n".join(found.problems))


COMMANDS = (append, convert_again, extract, extract_another, replace, invalidate, collect)
PLACES = {  # in place of which there is a link -> commands that would write or delete behind it
    "toy": COMMANDS,
    SPLIT: COMMANDS,
    f"{SPLIT}/.writing": (append, convert_again, extract, collect),
    f"{SPLIT}/.writing/staged": (append, collect),
    f"{SPLIT}/bbox": (append, convert_again, collect),
    f"{SPLIT}/bbox/c": (append, convert_again, collect),
    f"{SPLIT}/trans": (collect,),
    FEATURES: (extract, extract_another, replace, invalidate, collect),
    f"{FEATURES}/resnet50": (extract, replace, invalidate, collect),
    f"{FEATURES}/resnet50/.writing": (extract, replace, invalidate, collect),
    f"{FEATURES}/resnet50_ok": (extract, replace, invalidate, collect),
    f"{FEATURES}/resnet50_key/c": (extract, replace, invalidate, collect),
}


@pytest.mark.promise("outputs")
@pytest.mark.parametrize(
    ("place", "run"),
    [(place, run) for place, commands in PLACES.items() for run in commands],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_nothing_is_written_or_deleted_behind_a_link(place, run, root, home):
    link = root / place
    if link.is_dir():  # as a user would who moved it to another disk
        shutil.copytree(link, home, dirs_exist_ok=True)
        shutil.rmtree(link)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(home)
    before = contents(home)
    try:
        run(root)
    except AccessDenied as error:
        assert f"{link}: expected a folder, found a link to {home}" in str(error)
        assert "Replace it by the folder itself" in str(error)
    else:
        assert not link.is_symlink()  # only the link itself has gone
    assert contents(home) == before


SMALL = (
    *("zarr.json", "toy/zarr.json", f"{SPLIT}/zarr.json", f"{SPLIT}/manifest.json"),
    *(f"{SPLIT}/{name}" for name in ("bbox/zarr.json", "TABLES", "provenance.json")),
    *(f"{FEATURES}/{name}/zarr.json" for name in ("", "resnet50", "resnet50_ok")),
    f"{FEATURES}/resnet50/manifest.json",
)


@pytest.mark.parametrize(
    "place", [*sorted(PLACES), f"{SPLIT}/bbox/c/0", f"{SPLIT}/bbox/c/0/0", *SMALL]
)
def test_verify_names_a_link_once_and_counts_nothing_behind_it_and_repair_says_what_to_do(
    place, root, home, tmp_path
):
    place = place.replace("TABLES", toy.tables_file(root).name).replace("//", "/")
    link = root / place
    if link.exists():
        shutil.move(link, tmp_path / "disk")
        home = tmp_path / "disk"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(home)
    (root / SPLIT / "scripts").symlink_to(tmp_path)  # the user's own link is of no interest
    report = cache.verify(root)
    assert [f"{link}: expected" in problem for problem in report.problems] == [True]
    assert f"found a link to {home}" in report.problems[0]
    assert not report.notes
    before = contents(home) if home.is_dir() else home.read_bytes()
    refused = cache.repair(root, report).refused
    assert refused == [*report.problems]
    assert before == (contents(home) if home.is_dir() else home.read_bytes())


def test_a_link_to_the_cache_and_links_above_it_are_followed(root, tmp_path):
    (tmp_path / "disk").symlink_to(root.parent)
    (tmp_path / "linked").symlink_to(tmp_path / "disk/cache")
    append(tmp_path / "linked")
    toy.write_stream(tmp_path / "linked")
    assert cache.verify(root).ok
    assert "z" in toy.opened(root).videos.names


def test_what_is_linked_is_still_read(root, tmp_path):
    expected = toy.opened(root).read([[0, 4]])
    shutil.move(root / SPLIT, tmp_path / "disk")
    (root / SPLIT).symlink_to(tmp_path / "disk")
    read = toy.opened(root).read([[0, 4]])
    assert {name: array.tolist() for name, array in read.items()} == {
        n: a.tolist() for n, a in expected.items()
    }
    cache.copy_split(root, SPLIT, tmp_path / "copy")
    append(tmp_path / "copy")
    assert cache.verify(tmp_path / "copy").ok


@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_lock_that_is_a_link_is_not_written_through(target, root, tmp_path):
    (tmp_path / "file").write_text("mine")
    (root / SPLIT / ".writing").mkdir()
    (root / SPLIT / ".writing/lock").symlink_to(tmp_path / target)
    found = "a link" if target == "file" else "a link to nothing"
    with pytest.raises(AccessDenied, match=f"lock: expected a regular file, found {found}\\."):
        append(root)
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def make_pipe(file):
    file.unlink()
    os.mkfifo(file)


def make_folder(file):
    file.unlink()
    file.mkdir()


def link_to_nothing(file):
    file.unlink()
    file.symlink_to("nowhere")


def link_to_endless(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def huge(file):
    os.truncate(file, 20 << 30)  # sparse


KINDS = (make_pipe, make_folder, link_to_nothing, link_to_endless)


@contextlib.contextmanager
def within_a_minute():
    """Ends this process with a traceback when something waits for a pipe."""
    faulthandler.dump_traceback_later(60, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("make", [*KINDS, huge], ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", [f"{SPLIT}/manifest.json", f"{FEATURES}/resnet50/manifest.json"])
def test_a_manifest_that_is_no_file_is_a_problem_of_every_command(make, place, root):
    make(root / place)
    expected = "at most 1,073,741,824 bytes" if make is huge else "a regular file"
    with within_a_minute():
        for found in (
            cache.verify(root).problems,
            cache.verify(root, fast=True).problems,
            [*cache.gc(root).skipped, *cache.gc(root).problems],
        ):
            assert any(f"{Path(place).name}: expected {expected}" in text for text in found)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "place", ["bbox/c/0/0", "bbox/zarr.json", "tables-", "features/resnet50/c/0/0"]
)
def test_data_that_is_no_file_counts_as_damaged_and_is_never_read_as_data(make, place, root):
    make(toy.tables_file(root) if place == "tables-" else root / SPLIT / place)
    with within_a_minute():
        for fast in (False, True):
            assert place in "".join(cache.verify(root, fast=fast).problems)
        if place.endswith("/c/0/0"):
            split, column = toy.opened(root), place.removesuffix("/c/0/0")
            all_raise(
                CacheError,
                "expected",
                lambda: split.rows(column, 0, 32),
                lambda: split.column(column)[:],
                lambda: split.read([[0, 4]]),
            )
