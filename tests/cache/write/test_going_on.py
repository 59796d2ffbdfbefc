"""A caller that goes on with its writer after an error of the disk loses no committed row, and
what is committed later is whole.
"""

import contextlib
import errno
import itertools
import os
import shutil

import pytest
from numpy.testing import assert_array_equal

import cache
from cache import CacheError
from cache.storage.local import LocalStore
from tests.cache import toy
from tests.cache.storage.buckets import narrow, write_narrow
from tests.cache.toy import SPLIT
from tests.raising import cache_refuses

COLUMNS = ("frame_index", "bbox")
LENGTHS = {"a": 30, "b": 10, "c": 45, "d": 10, "e": 8}  # shards have 32 rows
FAILED = (CacheError, OSError)
CHANGES = ("put", "put_small", "rename", "replace", "remove")


def boxes(name):
    """A video of one track, with few columns."""
    return narrow(toy.video(name, LENGTHS[name]))


def write_on(root, drop):
    """Commit c and d, then e, and go on whatever fails."""
    with toy.writer(root, "p", columns=COLUMNS) as writer:
        following = writer.begin(drop)
        for name in "cd":
            with contextlib.suppress(*FAILED):
                following.append(*boxes(name))
        for _ in range(2):
            with contextlib.suppress(*FAILED):
                following.commit({})
            with contextlib.suppress(*FAILED):
                following.append(*boxes("e"))
        with contextlib.suppress(*FAILED):
            later = writer.begin()
            later.append(*boxes("e"))
            later.commit({})


def committed(root):
    """Check every committed row. Returns the names of the committed videos."""
    if not (root / SPLIT / "manifest.json").exists():
        return set()
    split = toy.opened(root)
    for track in split.tracks:
        _, (expected,) = boxes(track.video)
        rows = split.rows("bbox", track.start, track.stop)
        assert_array_equal(rows, expected.columns["bbox"])
    return set(split.videos.names)


@contextlib.contextmanager
def full_at(number, *, done):
    """The store's change with this number, from 0, raises ENOSPC, before or after it is done.
    Yields the names of all changes.
    """
    made = []

    def change(name, function):
        def call(self, *args, **options):
            if not args[0]:  # nothing to remove or write
                return
            is_full = len(made) == number
            made.append(name)
            if done or not is_full:
                function(self, *args, **options)
            if is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.root))

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(LocalStore, name, change(name, getattr(LocalStore, name)))
        yield made


@pytest.mark.parametrize(("first", "done"), [("", False), ("ab", True)])
def test_whichever_change_fails_a_writer_that_goes_on_keeps_every_committed_row(
    first, done, tmp_path
):
    if first:
        write_narrow(tmp_path / "first", *(toy.video(name, LENGTHS[name]) for name in first))
    drop = {"b"} & set(first)
    before, after = set(first), set(first) - drop | set("cd")
    root = tmp_path / "cache"
    for number in itertools.count():
        shutil.rmtree(root, ignore_errors=True)
        if first:
            shutil.copytree(tmp_path / "first", root)
        with full_at(number, done=done) as made, contextlib.suppress(*FAILED):
            write_on(root, drop)
        held = committed(root)
        assert held in (before, after, after | {"e"}), (number, made)
        late = [toy.video(name, LENGTHS[name]) for name in sorted(set("cde") - held)]
        write_narrow(root, *late, drop=drop & held)
        assert committed(root) == after | {"e"}, (number, made)
        if number >= len(made):  # nothing has failed
            break
    assert cache.verify(root).ok


def test_what_was_begun_before_the_writer_was_entered_again_is_not_committed(tmp_path):
    writer = toy.writer(tmp_path, "p", columns=COLUMNS)
    with writer:
        early = writer.begin()
        early.append(*boxes("a"))
    write_narrow(tmp_path, toy.video("c", LENGTHS["c"]), plan="other")
    with writer:
        with cache_refuses("entered again since begin"):
            early.commit({})
        following = writer.begin()
        following.append(*boxes("d"))
        following.commit({})
        with cache_refuses("is made"):
            following.keep("c")
    assert committed(tmp_path) == {"c", "d"}


def test_videos_that_a_killed_writer_appended_without_keys_are_not_of_a_commit_by_keys(tmp_path):
    with toy.writer(tmp_path, "p", columns=COLUMNS) as writer:
        early = writer.begin()
        for name in "abc":
            early.append(*boxes(name))
    with toy.writer(tmp_path, "p", columns=COLUMNS) as writer:
        following = writer.begin(keys={"d": "1"})
        assert following.journalled == {}
        following.append(*boxes("d"))
        following.commit({})
    assert committed(tmp_path) == {"d"}
