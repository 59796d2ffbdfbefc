"""Tags: a name for a committed state, which reads the same whatever is committed, replaced or removed afterwards.

tests/cache/test_histories.py kills and cuts what makes, uses and deletes them.
"""

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError
from tests.cache import made_up
from tests.cache.made_up import SPLIT, State, Video, differences
from tests.cache.toy import flipped, spoil

FIRST: dict[str, Video] = {"a": ("a", (20,), 0, 0), "b": ("b", (9, 3), 1, 0)}
SECOND: dict[str, Video] = {**FIRST, "a": ("a", (25,), 2, 0), "c": ("c", (4,), 0, 0)}


def commit(root: Any, videos: dict[str, Video], before: State | None = None) -> State:
    """The split with these videos and both streams."""
    made_up.convert(root, videos)
    state = (before or State()).converted(videos)
    for stream in made_up.FORMS:
        made_up.extract(root, stream, at_most=99, staged=False, written=[])
        state = state.extracted(stream, state.live)
    return state


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def tagged(tmp_path: Path) -> tuple[Path, State]:
    """A cache whose first state is tagged v1, and that state."""
    root = tmp_path / "cache"
    state = commit(root, FIRST)
    cache.tag(root, "v1")
    return root, state


def test_a_tag_is_what_was_committed_whatever_follows(tagged: tuple[Path, State], tmp_path: Path) -> None:
    root, first = tagged
    assert [tag.name for tag in cache.tags(root)] == ["v1"]
    opened = cache.open(root, "v1")
    assert (opened.splits, SPLIT in opened, "toy/test" in opened) == ((SPLIT,), True, False)
    assert (opened[SPLIT].tag, cache.open(root)[SPLIT].tag) == ("v1", None)
    with pytest.raises(cache.MissingSplit, match="v1"):
        opened["toy/test"]

    second = commit(root, SECOND, first)
    assert differences(root, first, "v1") == [] == differences(root, second)
    held = pickle.loads(pickle.dumps(cache.open(root, "v1")[SPLIT]))
    assert made_up.differences_of(held, first) == []
    features = held.rows("features/resnet50", 0, 20)
    assert held.column("features/resnet50")[:20].tobytes() == features.tobytes()
    assert held.stream_provenance("resnet50")["finished"] <= cache.tags(root)[0].created

    cache.delete_stream(root, SPLIT, "resnet50")  # as --replace does
    made_up.extract(root, "resnet50", at_most=1, staged=False, written=[])
    made_up.convert(root, {})  # no video is left
    made_up.convert(root, {"z": ("z", (8,), 0, 0)}, without=range(3))  # and a repair removes their shards
    cache.gc(root, unfinished=True)
    assert differences(root, first, "v1") == []
    assert cache.verify(root).problems == ()

    cache.copy_split(root, SPLIT, tmp_path / "copy", tag="v1")
    copied = cache.open(tmp_path / "copy")[SPLIT]
    assert (len(copied.tracks), copied.streams) == (3, ("crops", "resnet50"))
    assert copied.rows("features/resnet50", 0, 20).tobytes() == features.tobytes()


def test_deleting_a_tag_frees_what_only_it_held(tagged: tuple[Path, State]) -> None:
    root, first = tagged
    before = files_of(root)
    assert cache.tags(root)[0].held == 0
    size = sum((root / key).stat().st_size for key in before if "features/resnet50" in key and "/c/" in key)
    cache.delete_stream(root, SPLIT, "resnet50")
    (tag,) = cache.tags(root)
    assert tag.held == size == cache.gc(root).held["v1"]
    assert differences(root, first, "v1") == []
    cache.delete_tag(root, "v1")
    expected = {key for key in before if ".tags" not in key and "features/resnet50" not in key}
    assert files_of(root).keys() == expected
    with pytest.raises(CacheError, match="no tag 'v1'"):
        cache.open(root, "v1")
    with pytest.raises(CacheError, match="no tag 'v1'"):
        cache.delete_tag(root, "v1")


def test_a_name_stands_for_one_state(tagged: tuple[Path, State]) -> None:
    root, first = tagged
    before = files_of(root)
    cache.tag(root, "v1")
    assert files_of(root) == before
    commit(root, SECOND, first)
    with pytest.raises(CacheError, match="another"):
        cache.tag(root, "v1")
    assert differences(root, first, "v1") == []
    for name in ("", "../v2", "a/b", ".hidden"):
        with pytest.raises(CacheError, match="no valid tag name"):
            cache.tag(root, name)
    with pytest.raises(cache.MissingSplit):
        cache.tag(root, "v2", ["toy/none"])
    assert [tag.name for tag in cache.tags(root)] == ["v1"]


def test_shards_of_a_split_whose_manifest_is_lost_stay_in_the_tag(tagged: tuple[Path, State]) -> None:
    root, first = tagged
    for stream in made_up.FORMS:
        cache.delete_stream(root, SPLIT, stream)
    (root / SPLIT / "manifest.json").unlink()
    second = commit(root, SECOND)  # from row 0 on, in files of the same names
    assert differences(root, second) == [] == differences(root, first, "v1")


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"[" * 99)], ids=["lost", "damaged"])
def test_a_tag_is_read_while_the_manifest_of_its_split_is_lost_or_damaged(tagged, damage) -> None:
    root, first = tagged
    for manifest in [root / SPLIT / "manifest.json", *(root / SPLIT).glob("features/*/manifest.json")]:
        damage(manifest)
    assert differences(root, first, "v1") == []
    assert not cache.verify(root).ok
    cache.gc(root)
    assert differences(root, first, "v1") == []


def test_an_open_tag_never_reads_what_has_replaced_its_shards(tagged, monkeypatch):
    root, first = tagged
    held = cache.open(root, "v1")[SPLIT]
    assert held.stream_shards("resnet50")  # it is open, and none of its shards
    cache.delete_stream(root, SPLIT, "resnet50")
    numbers = made_up.numbers_of
    monkeypatch.setattr(made_up, "numbers_of", lambda keys: numbers(keys) + 1)
    made_up.extract(root, "resnet50", at_most=99, staged=False, written=[])
    monkeypatch.undo()
    with pytest.raises(cache.CacheChanged, match="open it again"):
        held.rows("features/resnet50", 0, 4)
    assert differences(root, first, "v1") == []
    assert differences(root, first) != []
    assert [tag.held > 0 for tag in cache.tags(root)] == [True]


def test_a_tag_may_be_made_while_a_writer_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the writer's look for tags and its commit: it looks again before it removes. After that: none is made."""
    root = tmp_path / "cache"
    first, publish = commit(root, FIRST), cache.write.base.manifest.publish  # type: ignore[attr-defined]

    def tag_before(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        cache.tag(root, "before")
        return publish(*args, **options)

    monkeypatch.setattr("cache.write.base.manifest.publish", tag_before)
    cache.invalidate(root, SPLIT, "resnet50", [1])
    assert differences(root, first, "before") == []

    put_small = cache.storage.local.LocalStore.put_small  # type: ignore[attr-defined]

    def removed_meanwhile(store: Any, files: Any, home: str) -> None:
        put_small(store, files, home)
        if any(key.endswith("crops/manifest.json") for key in files) and home.startswith(".tags"):
            monkeypatch.undo()
            with monkeypatch.context() as no_tag:
                no_tag.setattr("cache.write.base.keep_for_tags", lambda *_: None)  # it has looked already
                cache.delete_stream(root, SPLIT, "crops")

    monkeypatch.setattr("cache.storage.local.LocalStore.put_small", removed_meanwhile)
    with pytest.raises(CacheError, match="meanwhile"):
        cache.tag(root, "after")
    assert [tag.name for tag in cache.tags(root)] == ["before"]
    assert not [*root.glob(".tags/after")]


@pytest.mark.parametrize("of", ["v1/manifest.json", "kp_2d/zarr.json", "track_name/c/0/0", "train/manifest.json"])
def test_damage_of_a_tag_is_found_and_not_taken_for_the_caches(tagged: tuple[Path, State], of: str) -> None:
    root, first = tagged
    (file,) = [path for path in root.glob(".tags/**/*") if path.as_posix().endswith(of)]
    spoil(file)
    report = cache.verify(root)
    assert len(report.damaged) == 1
    assert "--delete" in report.problems[0]
    repaired = cache.repair(root, report)
    assert len(repaired.refused) == 1
    with pytest.raises(CacheError):
        differences(root, first, "v1")
    assert differences(root, first) == []
    cache.delete_tag(root, "v1")
    assert cache.verify(root).ok


def test_what_a_killed_process_has_left_of_a_tag_goes_with_gc(tagged: tuple[Path, State]) -> None:
    root, first = tagged
    (root / ".tags/half/0123456789abcdef/toy/train").mkdir(parents=True)
    (root / ".tags/half/0123456789abcdef/toy/train/manifest.json").write_text("{}")
    assert [tag.name for tag in cache.tags(root)] == ["v1"]
    assert cache.verify(root).ok
    left = cache.gc(root)
    assert left.removed == [] and "half" in left.skipped[0], "it may be one that has lost its manifest"
    assert cache.gc(root, unfinished=True).removed == [".tags/half/0123456789abcdef"]
    assert [path.name for path in (root / ".tags").iterdir()] == ["v1"]
    assert differences(root, first, "v1") == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EXDEV], ids=["no hard links", "another disk"])
def test_without_links_a_tag_gets_copies(code, tagged, monkeypatch) -> None:
    root, first = tagged

    def link(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    cache.delete_stream(root, SPLIT, "crops")
    assert differences(root, first, "v1") == []
    assert np.array_equal(cache.open(root, "v1")[SPLIT].stream_shards("crops"), sorted(first.live))


def test_a_shard_is_damaged_in_the_tag_until_an_intact_one_takes_its_place(tagged: tuple[Path, State]) -> None:
    root, first = tagged
    shard = root / SPLIT / "features/resnet50/c/0/0"
    shard.write_bytes(flipped(shard.read_bytes(), 0))
    cache.repair(root, cache.verify(root))  # the tag keeps the damaged one: there is no other
    (damage,) = cache.verify(root).damaged
    assert damage.key.startswith(".tags/v1/")
    with pytest.raises(CacheError, match="checksum"):
        differences(root, first, "v1")
    made_up.extract(root, "resnet50", at_most=99, staged=False, written=[])
    assert differences(root, first, "v1") == []
    cache.delete_stream(root, SPLIT, "resnet50")
    assert differences(root, first, "v1") == []
    assert cache.verify(root).ok
