"""States with a name, while the cache goes on."""

import threading

import pytest

import cache
from cache.write import tags
from tests.cache import toy
from tests.cache.contents import SPLIT, STREAM, assert_same, content, write_day
from tests.raising import cache_refuses

pytestmark = pytest.mark.promise("tags")


def content_at(root, tag=None):
    return content(cache.open(root, tag)[SPLIT])


@pytest.mark.parametrize(("where", "n_days"), [("disk", 5), ("bucket", 2)])
def test_a_tag_reads_as_on_its_day_after_days_and_gc_each_night_and_beside_a_writer(
    where, n_days, request, tmp_path
):
    root = tmp_path / "cache" if where == "disk" else request.getfixturevalue("url")
    write_day(root, 0)
    before = content_at(root)
    cache.tag(root, "day-one")
    n_removed = 0
    for day in range(1, n_days + 1):
        writer = threading.Thread(target=write_day, args=(root, day))
        writer.start()
        while writer.is_alive():
            assert_same(content_at(root, "day-one"), before)
        writer.join()
        found = cache.gc(root, older_than=0)
        assert not found.problems
        n_removed += len(found.removed)
        assert_same(content_at(root, "day-one"), before)
    assert n_removed  # tables, of which the tag has copies
    (left,) = found.skipped
    assert left.endswith(f"files that {root}/.tags/day-one needs")
    assert set(before["names"]) - set(toy.opened(root).tracks.names)
    assert cache.verify(root).ok
    # opposite: without the tag, its files go
    cache.delete_tag(root, "day-one")
    assert not [key for key in cache.store_at(root).file_sizes("") if ".tags" in key]
    assert any("/c/1" in key for key in cache.gc(root, older_than=0).removed)
    with cache_refuses(r"no tag, or not finished; there are: \[\]"):
        cache.open(root, "day-one")


def test_a_commit_while_a_tag_is_made_is_in_it_and_what_was_removed_is_not(
    root, tmp_path, monkeypatch
):
    write = tags.write_pin
    spare = tmp_path / "spare"

    def write_pin_late(pin, commits):
        if not spare.exists():
            toy.add(root, "late", 9)
            (root / SPLIT / f"features/{STREAM}").rename(spare)
        write(pin, commits)

    monkeypatch.setattr(tags, "write_pin", write_pin_late)
    cache.tag(root, "a")
    at = cache.open(root, "a")[SPLIT]
    assert "late" in at.videos.names
    assert at.streams == ()


def test_a_name_is_used_once_and_a_killed_tag_is_none_and_is_made_anew(root, monkeypatch):
    cache.tag(root, "a")
    toy.add(root, "late", 9)
    with cache_refuses(r"tags/a: the tag exists\. Choose .* tag a --delete"):
        cache.tag(root, "a")
    assert "late" not in cache.open(root, "a")[SPLIT].videos.names
    write = tags.write_pin

    def write_and_die(pin, commits):
        write(pin, commits)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tags, "write_pin", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            cache.tag(root, "b")
    toy.add(root, "later", 9)
    for at in ("b", "c", "../.."):
        with cache_refuses(r"no tag, or not finished; there are: \['a', 'b'\]"):
            cache.open(root, at)
        with cache_refuses(r"no tag, or not finished; there are: \['a', 'b'\]"):
            cache.delete_tag(root, at)
    cache.tag(root, "b")
    assert "later" in cache.open(root, "b")[SPLIT].videos.names
    for name in ("", ".", "x/y", "../x"):
        with cache_refuses("is no tag's name: expected letters"):
            cache.tag(root, name)


def test_replacing_a_stream_stops_and_names_the_tag_that_needs_it(root):
    before = content_at(root)
    cache.tag(root, "cvpr")
    toy.write_stream(root, stream="other")
    cache.delete_stream(root, SPLIT, "other")  # no tag has it
    where = rf"tags/cvpr/{SPLIT}/features/{STREAM}.*tag NAME --delete"
    with cache_refuses(where):
        cache.delete_stream(root, SPLIT, STREAM)
    assert_same(content_at(root), before)
    cache.delete_tag(root, "cvpr")
    cache.delete_stream(root, SPLIT, STREAM)
    assert not toy.opened(root).streams
