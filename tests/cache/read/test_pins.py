"""Splits as of a pin, while the cache goes on."""

import pickle
import shutil

import pytest

import cache
from cache.format.pins import find_missing, pinned_commits, write_pin
from cache.storage import store_at
from tests.cache.contents import SPLIT, STREAM, assert_same, content


def pin_of(root, folder):
    """Pin the split and its stream as they are."""
    split = cache.open(root)[SPLIT]
    write_pin(store_at(folder), [split.commit, split.open_stream(STREAM).commit])
    return folder


def opened(root, pin):
    return cache.FeatureCache(root, pin)[SPLIT]


def missing(root, pin):
    """The keys of the shards of a pin that the cache has no longer."""
    commits = pinned_commits(store_at(root), store_at(pin))
    return {file.key for commit in commits for file in find_missing(commit)}


def day_one(root, toy):
    toy.write(root, [toy.video("a", [40]), toy.video("b", [20]), toy.video("c", [8])])
    toy.write_stream(root)
    return content(cache.open(root)[SPLIT])


def five_days(root, toy):
    """Videos are added, changed and removed, and shards without live tracks go."""
    removed = {2: ["a", "c"], 4: ["new1"]}
    for day in range(1, 6):
        videos = [toy.video("b", [20 + day], seed=day), toy.video(f"new{day}", [9])]
        drop = ["b", *removed.get(day, [])]
        toy.write(root, videos, drop=drop, invalidate=[1] if day == 2 else [])
        toy.write_stream(root)
        yield day


@pytest.mark.promise("never mixed")
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_after_five_days_of_changes_and_gc_each_night_a_pin_reads_as_on_its_day(
    where, request, tmp_path, toy
):
    root = tmp_path / "cache" if where == "disk" else request.getfixturevalue(where)
    pin = tmp_path / "pin" if where == "disk" else f"{root}/.pins/first"
    before = day_one(root, toy)
    pin_of(root, pin)
    still_open = opened(root, pin)
    n_removed = 0
    for _ in five_days(root, toy):
        found = cache.gc(root, older_than=0, pins=lambda: [pin])
        n_removed += len(found.removed)
        assert not found.problems
        packed = pickle.dumps(opened(root, pin))
        for split in (still_open, opened(root, pin), pickle.loads(packed)):
            assert_same(content(split), before)
    assert any(str(pin) in text for text in found.skipped)
    assert n_removed  # tables, of which the pin has copies
    assert not missing(root, pin)
    assert opened(root, pin).has_later_commit()
    assert cache.FeatureCache(root, pin).splits == (SPLIT,)
    assert opened(root, pin).streams == (STREAM,)
    assert cache.open(root)[SPLIT].tracks.names != list(before["names"])
    # opposite: nothing is left for a pin that gc is not told of
    removed = {key for key in cache.gc(root, older_than=0).removed if "/c/" in key}
    assert {key.partition("/c/")[0] for key in removed} == {
        f"{SPLIT}/{column}" for column in toy.columns
    }
    assert {key.partition("/c/")[2].split("/")[0] for key in removed} == {"1"}
    gone = missing(root, pin)
    assert {key.partition("/c/")[2].split("/")[0] for key in gone} == {"1"}
    assert len(gone) == len(removed)
    with pytest.raises(cache.CacheChanged, match=r"`gc` removes it.*open it again"):
        content(opened(root, pin))
    assert len(opened(root, pin).read([[0, 4]])["kp_2d"])


def test_shards_that_were_computed_again_are_missing_and_are_not_read(root, tmp_path, toy):
    pin = pin_of(root, tmp_path / "pin")
    cache.invalidate(root, SPLIT, STREAM, [1])
    toy.write_stream(root, bad_rows=[40])
    array = f"{SPLIT}/features/{STREAM}"
    assert missing(root, pin) == {f"{array}/c/1/0", f"{array}_ok/c/1", f"{array}_key/c/1/0"} - {
        f"{array}_key/c/1/0"  # the same bytes as before
    }
    with pytest.raises(cache.CacheChanged):
        opened(root, pin).read([[32, 36]])
    cache.delete_stream(root, SPLIT, STREAM)
    assert {key.partition("/c/")[0] for key in missing(root, pin)} == {
        f"{array}{part}" for part in ("", "_ok", "_key")
    }


def test_a_split_that_was_made_anew_has_none_of_a_pins_shards(root, tmp_path, toy):
    pin = pin_of(root, tmp_path / "pin")
    shutil.rmtree(root / SPLIT)
    toy.write(root, [toy.video("other", [40])])
    columns = {key.partition("/c/")[0] for key in missing(root, pin)}
    assert {f"{SPLIT}/{column}" for column in ("kp_2d", "bbox", "pose")} <= columns
    with pytest.raises(cache.CacheChanged):
        opened(root, pin).read([[0, 4]], None)


def test_a_commit_while_a_pin_is_written_is_told_and_the_next_pin_is_whole(root, tmp_path, toy):
    stale = cache.open(root)[SPLIT]
    commits = [stale.commit, stale.open_stream(STREAM).commit]
    toy.write(root, [toy.video("late", [9])])
    pin = store_at(tmp_path / "pin")
    with pytest.raises(cache.CacheChanged):
        write_pin(pin, commits)
    toy.write_stream(root)
    pin_of(root, tmp_path / "pin")
    assert_same(content(opened(root, pin)), content(cache.open(root)[SPLIT]))
    assert not opened(root, pin).has_later_commit()


@pytest.mark.parametrize("name", ["manifest.json", "tables-*.npz"])
def test_a_damaged_pin_is_named_and_gc_removes_nothing_for_it(name, root, tmp_path, toy):
    pin = pin_of(root, tmp_path / "pin")
    toy.write(root, [toy.video("d", [9], seed=1)], drop=["d"], invalidate=[2])
    (file,) = (pin / SPLIT).glob(name)
    toy.spoil(file)
    with pytest.raises(cache.CacheError, match=rf"{file}.*move {pin}"):
        opened(root, pin).read([[0, 4]], None)
    found = cache.gc(root, pins=lambda: [pin])
    assert not any("/c/" in key for key in found.removed)
    if name == "manifest.json":
        (problem,) = found.problems
        assert str(file) in problem
