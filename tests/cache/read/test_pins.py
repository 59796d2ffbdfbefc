"""Splits as of a pin, while the cache goes on."""

import pickle
import shutil

import pytest

import cache
from cache.format.pins import find_missing, pinned_commits, write_pin
from cache.storage import store_at
from tests.cache import toy
from tests.cache.contents import SPLIT, STREAM, assert_same, content, write_day
from tests.raising import all_raise, cache_refuses


def pin_of(root, folder):
    """Pin the split and its stream as they are."""
    split = toy.opened(root)
    write_pin(store_at(folder), [split.commit, split.open_stream(STREAM).commit])
    return folder


def opened(root, pin):
    return cache.FeatureCache(root, pin)[SPLIT]


def missing(root, pin):
    """The keys of the shards of a pin that the cache has no longer."""
    commits = pinned_commits(store_at(root), store_at(pin))
    return {file.key for commit in commits for file in find_missing(commit)}


@pytest.mark.promise("never mixed")
@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_after_five_days_of_changes_and_gc_each_night_a_pin_reads_as_on_its_day(
    where, request, tmp_path
):
    root = tmp_path / "cache" if where == "disk" else request.getfixturevalue(where)
    pin = tmp_path / "pin" if where == "disk" else f"{root}/.pins/first"
    write_day(root, 0)
    before = content(toy.opened(root))
    pin_of(root, pin)
    still_open = opened(root, pin)
    n_removed = 0
    for day in range(1, 6):
        write_day(root, day)
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
    assert toy.opened(root).tracks.names != list(before["names"])
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


def test_shards_that_were_written_again_are_missing(root, tmp_path):
    pin = pin_of(root, tmp_path / "pin")
    compute_again(root)
    array = f"{SPLIT}/features/{STREAM}"
    # its keys have the same bytes as before
    assert missing(root, pin) == {f"{array}/c/1/0", f"{array}_ok/c/1"}
    cache.delete_stream(root, SPLIT, STREAM)
    assert {key.partition("/c/")[0] for key in missing(root, pin)} == {
        f"{array}{part}" for part in ("", "_ok", "_key")
    }
    shutil.rmtree(root / SPLIT)
    toy.add(root, "other", 40)
    columns = {key.partition("/c/")[0] for key in missing(root, pin)}
    assert {f"{SPLIT}/{column}" for column in ("kp_2d", "bbox", "pose")} <= columns


def as_open(root, _):
    split = toy.opened(root)
    split.open_stream(STREAM)
    return lambda: split


def as_pickled(root, _):
    packed = pickle.dumps(as_open(root, _)())
    return lambda: pickle.loads(packed)


def as_pin(root, folder):
    pin_of(root, folder)
    return lambda: opened(root, folder)


def as_tag(root, _):
    cache.tag(root, "cvpr")
    return lambda: cache.open(root, "cvpr")[SPLIT]


def compute_again(root):
    cache.invalidate(root, SPLIT, STREAM, [1])
    toy.write_stream(root, bad_rows=[40])


def extract_again(root):
    shutil.rmtree(root / SPLIT / "features")
    toy.write_stream(root, bad_rows=[40])


def convert_again(root):
    shutil.rmtree(root / SPLIT)
    toy.write(root, toy.videos(seed=1))
    toy.write_stream(root)


REPLACED = r"features/resnet50: .*since 20..-.*stream 'resnet50'.*"


@pytest.mark.promise("tags")
@pytest.mark.parametrize("change", [compute_again, extract_again, convert_again])
@pytest.mark.parametrize(
    ("hold", "told"),
    [
        (as_open, "open it again"),
        (as_pickled, "open it again"),
        (as_pin, "open it again"),
        (as_tag, "a tag has lost it"),
    ],
)
def test_of_what_was_made_anew_under_its_own_name_an_earlier_state_reads_nothing(
    hold, told, change, root, tmp_path
):
    """But its labels, where they are the same."""
    labels = toy.opened(root).read([[32, 36]], None)
    held = hold(root, tmp_path / "pin")
    change(root)
    is_split = change is convert_again
    with pytest.raises(cache.CacheChanged, match=told if is_split else REPLACED + told):
        held().read([[32, 36]])
    assert content(toy.opened(root))
    if not is_split:
        assert_same(held().read([[32, 36]], None), labels)
        return
    all_raise(
        cache.CacheChanged,
        told,
        lambda: held().read([[32, 36]], None),
        lambda: held().column("bbox")[:4],
        lambda: held().rows("bbox", 0, 4),
    )


def test_a_split_knows_of_a_later_commit_of_the_streams_that_it_has_opened(root):
    labels_only, opened = toy.opened(root), as_open(root, None)()
    compute_again(root)
    assert (opened.has_later_commit(), labels_only.has_later_commit()) == (True, False)


def test_a_commit_while_a_pin_is_written_is_told_and_the_next_pin_is_whole(root, tmp_path):
    stale = toy.opened(root)
    commits = [stale.commit, stale.open_stream(STREAM).commit]
    toy.add(root, "late", 9)
    pin = store_at(tmp_path / "pin")
    with pytest.raises(cache.CacheChanged):
        write_pin(pin, commits)
    toy.write_stream(root)
    pin_of(root, tmp_path / "pin")
    assert_same(content(opened(root, pin)), content(toy.opened(root)))
    assert not opened(root, pin).has_later_commit()


@pytest.mark.parametrize("name", ["manifest.json", "tables-*.npz"])
def test_a_damaged_pin_is_named_and_gc_removes_nothing_for_it(name, root, tmp_path):
    pin = pin_of(root, tmp_path / "pin")
    toy.add(root, "d", 9, seed=1, drop=["d"], invalidate=[2])
    (file,) = (pin / SPLIT).glob(name)
    toy.spoil(file)
    with cache_refuses(rf"{file}.*move {pin}"):
        opened(root, pin).read([[0, 4]], None)
    found = cache.gc(root, pins=lambda: [pin])
    assert not any("/c/" in key for key in found.removed)
    if name == "manifest.json":
        (problem,) = found.problems
        assert str(file) in problem
