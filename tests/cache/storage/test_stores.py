"""What every store promises. A new class is one entry in `STORES`."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import cache
from cache.storage import SCHEMES
from cache.storage.base import Store
from tests.raising import cache_refuses

ROOT = Path(__file__).parents[3]
STORES = {"LocalStore": "{folder}/cache", "ObjectStore": "s3://memory/stores-{number}"}
_numbers = itertools.count()


@pytest.fixture(params=sorted(STORES))
def store(request, memory, tmp_path):
    """An empty one."""
    place = STORES[request.param].format(folder=tmp_path, number=next(_numbers))
    made = cache.store_at(place)
    assert type(made).__name__ == request.param
    return made


def put(store, key, data):
    store.put(key, data, temporary=f"{key}.part")


def test_every_class_is_tested_here_and_every_scheme_is_on_the_page():
    assert {kind.__name__ for kind in Store.__subclasses__()} == {*STORES}
    page = (ROOT / "docs/object-stores.md").read_text(encoding="utf-8")
    assert [scheme for scheme in SCHEMES if f"`{scheme}://" not in page] == []


def test_a_file_is_read_whole_or_in_part(store):
    put(store, "a/b/c", b"0123456789")
    assert store.read("a/b/c") == b"0123456789"
    assert store.size("a/b/c") == 10
    assert store.read_ranges("a/b/c", [2, 5], 3) == [b"234", b"567"]
    part = np.empty(3, np.uint8)
    store.read_into("a/b/c", 7, part)
    assert part.tobytes() == b"789"
    assert store.age("a/b/c") < 3600
    files = store.read_many(["a/b/c", "a/none"])
    assert {key: data.tobytes() for key, data in files.items()} == {"a/b/c": b"0123456789"}


@pytest.mark.parametrize("key", ["none", "a/b", "a/b/c/d"])
def test_what_is_no_file_is_missing(store, key):
    put(store, "a/b/c", b"x")
    assert store.size(key) is None
    assert not store.exists(key)
    with pytest.raises(FileNotFoundError):
        store.read("none")


def test_folders_are_listed(store):
    for key in ("a/b/c", "a/b/d", "a/e", "ab/f"):
        put(store, key, key.encode())
    assert store.list_names("a") == ["b", "e"]
    assert store.list_names("") == ["a", "ab"]
    assert store.list_names("none") == []
    assert store.file_sizes("a") == {"a/b/c": 5, "a/b/d": 5, "a/e": 3}
    assert len(store.file_sizes("")) == 4


def test_files_and_folders_are_removed(store):
    for key in ("a/b/c/0/0", "a/b/zarr.json", "a/b/.writing/x", "a/d/c/mine.c", "a/e", "ab/f"):
        put(store, key, b"x")
    store.remove(["a/b", "a/d", "ab/f", "none"])
    assert sorted(store.file_sizes("")) == ["a/d/c/mine.c", "a/e"]


def test_a_renamed_file_has_its_new_name_alone(store):
    put(store, "a/b", b"x")
    put(store, "a/c", b"y")
    store.rename("a/b", "d/e")
    assert store.file_sizes("") == {"a/c": 1, "d/e": 1}
    with pytest.raises(FileNotFoundError):
        store.rename("a/b", "d/f")


def _put(store, key):
    put(store, key, b"second")


def _rename(store, key):
    put(store, "other", b"second")
    store.rename("other", key)


@pytest.mark.parametrize("write", [_put, _rename])
def test_without_a_lock_no_file_takes_the_place_of_another(store, write):
    put(store, "a", b"first")
    if store.exclusive:
        write(store, "a")
        assert store.read("a") == b"second"
        return

    with cache_refuses(r"a: expected no object yet, found other content"):
        write(store, "a")
    assert store.read("a") == b"first"


def test_a_file_is_replaced_only_if_it_is_the_one_that_was_read(store):
    store.replace("manifest", b"1", expected=None)
    data, etag = store.read_with_etag("manifest")
    assert data == b"1"
    assert store.etag("manifest") == etag
    store.replace("manifest", b"22", expected=etag)
    for stale in (etag, None):
        with cache_refuses("another writer has saved its work meanwhile"):
            store.replace("manifest", b"333", expected=stale)
    assert store.read("manifest") == b"22"


def test_small_files_replace_others(store):
    store.put_small({"a/b": b"1", "a/c/d": b"2"}, "a")
    store.put_small({"a/b": b"3"}, "a")
    assert {key: store.read(key) for key in store.file_sizes("")} == {"a/b": b"3", "a/c/d": b"2"}


def test_a_lock_is_released(store):
    for _ in range(2):
        with store.lock("a/.writing") as lock:
            lock.require()


def test_zarr_python_reads_it(store):
    import zarr

    metadata = b'{"zarr_format": 3, "node_type": "group", "attributes": {"n": 3}}'
    store.put_small({"a/zarr.json": metadata}, "a")
    assert dict(zarr.open_group(store.zarr(""), path="a", mode="r").attrs) == {"n": 3}
