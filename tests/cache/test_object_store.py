"""A cache in an object store: the same bytes and answers as in a folder, and of two writers one is refused."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.storage

import cache
from cache import CacheChanged, CacheError, SplitWriter, StreamWriter
from cache.manifest import Place
from cache.zarr_rows import ZarrRows

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install -e '.[dev]'")

from cache import bucket  # noqa: E402  not without obstore

SPLIT, STREAM = "toy/train", "resnet50"
LEFT = (".writing", "provenance.json")  # of a writer: outside the promise of equal bytes


Video = tuple[cache.VideoEntry, list[cache.TrackRows]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every URL leads to a store of obstore's in this process, which does in seconds what takes a server minutes."""
    stores: dict[str, Any] = {}
    monkeypatch.setattr(obstore.store, "from_url", lambda url, **_: stores.setdefault(url, obstore.store.MemoryStore()))


def name_and_prefix(url: str) -> tuple[str, str]:
    name, _, prefix = url.removeprefix("s3://").partition("/")
    return name, f"{prefix}/"


def objects(server: Any, url: str, *, every: bool = False) -> dict[str, bytes]:
    """Every object below the cache, those that are of writers only with `every`; read by another client than ours."""
    name, prefix = name_and_prefix(url)
    found = {}
    for page in server.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix):
        for entry in page.get("Contents", ()):
            key = entry["Key"].removeprefix(prefix)
            if every or not any(part in LEFT for part in key.split("/")):
                found[key] = server.get_object(Bucket=name, Key=entry["Key"])["Body"].read()
    return found


def in_force(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the copies of earlier commits, which stay in an object store until `gc`."""
    manifests = [text for key, text in files.items() if key.endswith("/manifest.json") and ".copy/" not in key]
    digests = [json.loads(text)["digest"][:16] for text in manifests]
    return {key: data for key, data in files.items() if ".copy/" not in key or any(cut in key for cut in digests)}


def put(server: Any, url: str, key: str, data: bytes) -> None:
    name, prefix = name_and_prefix(url)
    server.put_object(Bucket=name, Key=prefix + key, Body=data)


def delete(server: Any, url: str, key: str) -> None:
    name, prefix = name_and_prefix(url)
    server.delete_object(Bucket=name, Key=prefix + key)


def three_runs(root: Any, toy: Any) -> None:
    """A split and its stream; a second commit with dropped, replaced and new videos, whose stream carries rows over."""
    toy.write(root, toy.videos())
    toy.write_stream(root, bad_rows=[3, 40])
    again = [toy.video("b", [7, 20], seed=1), toy.video("g", [40])]
    toy.write(root, again, drop=["b", "a"], plan="second")
    with StreamWriter(root, SPLIT, STREAM, dim=4, plan="weights") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            earlier = np.where(rows < 192, rows - 160 + 10, rows)  # what comes anew has the keys of rows 10 to 42
            keys = toy.keys(earlier)
            mask, features, ok = writer.carried(keys)
            assert mask.any() == (shard == 5)
            own = toy.features(earlier, 4)
            np.testing.assert_array_equal(features[mask & (ok == 1)], own[mask & (ok == 1)])
            writer.write(shard, np.where(mask[:, None], features, own), np.where(mask, ok, 1), keys)
        writer.commit({"weights": "known"})


@pytest.fixture(scope="module")
def both(server: Any, tmp_path_factory: pytest.TempPathFactory, toy: Any) -> tuple[str, Path]:
    """The same cache as objects and as files. Only to be read."""
    folder = tmp_path_factory.mktemp("both") / "cache"
    server.create_bucket(Bucket="both")
    three_runs("s3://both/some/where", toy)
    three_runs(folder, toy)
    return "s3://both/some/where", folder


NARROW: Any = {"columns": ("bbox",), "rows_per_shard": 32, "rows_per_chunk": 8}


def narrow(video: Video) -> Video:
    """The same video with two columns: a commit takes some 60 requests instead of 150."""
    entry, tracks = video
    columns = ("frame_index", "bbox")
    return entry, [replace(track, columns={name: track.columns[name] for name in columns}) for track in tracks]


def two_commits(root: str, toy: Any) -> None:
    """A split and its stream, from wherever a killed run has left them."""
    with SplitWriter(root, SPLIT, plan="p", **NARROW) as writer:
        writer.begin()
        if not {*writer.committed_videos, *writer.journalled}:
            writer.append(*narrow(toy.video("a", [20, 30])))
        writer.commit({"n": 1})
    toy.write_stream(root)


# ------------------------------------------------------------------------------------------------ the same as a folder


def test_the_objects_are_the_files_that_the_same_run_writes_into_a_folder(
    both: tuple[str, Path], server: Any, toy: Any
) -> None:
    url, folder = both
    assert in_force(objects(server, url)) == toy.tree(folder)
    assert cache.verify(url).ok


def test_everything_that_is_read_is_the_same(both: tuple[str, Path]) -> None:
    there, here = (cache.open(root) for root in both)
    assert there.splits == here.splits == (SPLIT,)
    ours, theirs = there[SPLIT], here[SPLIT]
    assert ours.manifest == theirs.manifest
    assert list(ours.tracks) == list(theirs.tracks)
    assert list(ours.videos) == list(theirs.videos)
    assert ours.streams == theirs.streams == (STREAM,)
    assert ours.undecodable(STREAM) == theirs.undecodable(STREAM) > 0
    for stream, seqlen, tail in itertools.product((None, STREAM), (1, 5, 16), ("drop", "cover")):
        kind: Any = tail
        expected = theirs.windows(seqlen, 3, stream, kind)
        np.testing.assert_array_equal(ours.windows(seqlen, 3, stream, kind), expected)
        assert len(expected)
    windows = theirs.windows(16, 5, STREAM)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    for fields in (None, (*theirs.columns,)):
        batch, wanted = ours.read(windows, fields=fields), theirs.read(windows, fields=fields)
        assert batch.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_array_equal(batch[name], values, err_msg=name)
            assert batch[name].dtype == values.dtype
    for name in (*theirs.columns, *(f"features/{STREAM}{end}" for end in ("", "_ok", "_key"))):
        np.testing.assert_array_equal(np.asarray(ours.column(name)[:]), np.asarray(theirs.column(name)[:]))
    np.testing.assert_array_equal(ours.rows("kp_2d", 5, 70), theirs.rows("kp_2d", 5, 70))


def test_a_batch_of_many_shards_fills_the_buffers_that_are_given(both: tuple[str, Path]) -> None:
    there, here = (cache.open(root)[SPLIT] for root in both)
    windows = here.windows(2, 1, STREAM)
    wanted = here.read(windows, fields=("features", "kp_2d"), dtype="float16")
    buffers = {"features": np.empty((len(windows), 4, 2, 4), np.float16)[:, 0]}  # not contiguous
    batch = there.read(windows, fields=("features", "kp_2d"), dtype="float16", out=buffers)
    assert batch["features"] is buffers["features"]
    np.testing.assert_array_equal(batch["features"], wanted["features"])
    np.testing.assert_array_equal(batch["kp_2d"], wanted["kp_2d"])


def test_plain_zarr_reads_every_column(both: tuple[str, Path]) -> None:
    from obstore.store import from_url

    url, folder = both
    theirs = zarr.open_group(zarr.storage.ObjectStore(from_url(url), read_only=True), mode="r")
    ours = zarr.open_group(folder, mode="r")
    names = [*cache.open(folder)[SPLIT].columns, "track_start", "video_name", f"features/{STREAM}"]
    for name in names:
        found, wanted = theirs[f"{SPLIT}/{name}"], ours[f"{SPLIT}/{name}"]
        assert isinstance(found, zarr.Array) and isinstance(wanted, zarr.Array)
        np.testing.assert_array_equal(np.asarray(found[:]), np.asarray(wanted[:]))


def test_zarr_and_our_ranges_read_the_same_rows(both: tuple[str, Path]) -> None:
    split = cache.open(both[0])[SPLIT]
    windows = split.windows(16, 7)
    place = Place.of_split(split.store, SPLIT)
    metadata = json.loads(split.store.read(place.array("kp_2d") + "/zarr.json"))
    by_zarr = np.empty((len(windows), 16, 49, 3), np.float32)
    ZarrRows(split.store, place.array("kp_2d"), metadata).read(windows[:, 0], 16, by_zarr)
    ours = np.stack([split.rows("kp_2d", start, stop) for start, stop in windows.tolist()])
    np.testing.assert_array_equal(ours, by_zarr)


def test_a_run_with_nothing_to_do_writes_nothing(url: str, server: Any, toy: Any) -> None:
    two_commits(url, toy)
    before = objects(server, url, every=True)
    two_commits(url, toy)
    assert objects(server, url, every=True) == before


def test_a_discarded_stream_is_gone_and_can_be_made_again(url: str, server: Any, toy: Any) -> None:
    two_commits(url, toy)
    first = objects(server, url)
    cache.discard(url, SPLIT, STREAM)
    gone = {key for key in first if key.startswith(f"{SPLIT}/features/{STREAM}")}
    assert objects(server, url).keys() == first.keys() - gone
    two_commits(url, toy)
    assert objects(server, url) == first


# ----------------------------------------------------------------------------------------------------- what is damaged


def test_verify_finds_every_kind_of_damaged_and_of_missing_object(url: str, server: Any, toy: Any) -> None:
    two_commits(url, toy)
    rng = np.random.default_rng(0)
    whole = objects(server, url)
    assert cache.verify(url).problems == ()
    kinds = ("bbox/c/1/0", "frame_index/zarr.json", "track_start/c/0", "manifest.json", f"features/{STREAM}_ok/c/0")
    for key in (f"{SPLIT}/{kind}" for kind in kinds):
        data = bytearray(whole[key])
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        put(server, url, key, bytes(data))
        assert any(f"{url}/{key}" in problem for problem in cache.verify(url).problems), key
        delete(server, url, key)
        assert any(f"{url}/{key}" in problem for problem in cache.verify(url).problems), key
        put(server, url, key, whole[key])
    assert cache.verify(url).problems == ()


def test_a_missing_shard_raises_and_is_read_once_it_is_back(url: str, server: Any, toy: Any) -> None:
    toy.write(url, toy.videos())
    for opened_before in (False, True):
        split = cache.open(url)[SPLIT]
        windows = split.windows(16, 16)
        if opened_before:
            split.read(windows, stream=None)
        key = f"{SPLIT}/kp_2d/c/2/0/0"
        data = objects(server, url)[key]
        delete(server, url, key)
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected a shard.* found no object"):
            split.read(windows, stream=None)
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected a shard"):
            ZarrRows(split.store, f"{SPLIT}/kp_2d", _metadata(split, "kp_2d")).read(
                np.array([70]), 4, np.empty((1, 4, 49, 3))
            )
        put(server, url, key, data)
        np.testing.assert_array_equal(
            split.read(windows, stream=None)["kp_2d"], cache.open(url)[SPLIT].read(windows, stream=None)["kp_2d"]
        )


def _metadata(split: cache.Split, column: str) -> Any:
    return json.loads(split.store.read(f"{SPLIT}/{column}/zarr.json"))


def test_a_damaged_chunk_or_index_raises(url: str, server: Any, toy: Any) -> None:
    toy.write(url, toy.videos())
    key = f"{SPLIT}/bbox/c/1/0"
    whole = objects(server, url)[key]
    windows = cache.open(url)[SPLIT].windows(4, 4)
    for at in (5, len(whole) - 10, len(whole) // 3):
        data = bytearray(whole)
        data[at] ^= 4
        put(server, url, key, bytes(data))
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected"):
            cache.open(url)[SPLIT].read(windows, stream=None, fields=["bbox"])
    for short in (whole[:-1], whole[:100], b""):
        put(server, url, key, short)
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected a shard of {len(whole)} bytes, found"):
            cache.open(url)[SPLIT].read(windows, stream=None, fields=["bbox"])


# ---------------------------------------------------------------------------------------------------- killed and again


class Deaths:
    """Ends the run at its n-th request that changes something, before or after the server has carried it out."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left, self.after = -1, False
        self.seen = 0
        for name in ("put", "copy", "delete"):  # a run that dies while it reads is as if it had died at the one before
            patch.setattr(obstore, name, self._counted(getattr(obstore, name)))

    def _counted(self, request: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.seen += 1
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Killed
            answer = request(*args, **options)
            if self.left == 0:
                raise Killed
            return answer

        return counted

    def after_requests(self, number: int, *, carried_out: bool) -> None:
        self.left, self.after = number, carried_out

    def never(self) -> None:
        self.left = -1


def killed_and_run_again(root: str, toy: Any, deaths: Deaths, number: int, *, carried_out: bool) -> None:
    deaths.after_requests(number, carried_out=carried_out)
    with pytest.raises(Killed):
        two_commits(root, toy)
    deaths.never()
    if SPLIT in cache.FeatureCache(root):  # whatever was committed is whole
        assert cache.verify(root).problems == (), number
        cache.open(root)[SPLIT].read([[0, 8]], stream=None, fields=["bbox"])
    two_commits(root, toy)
    assert cache.verify(root).ok, number


@pytest.mark.parametrize("carried_out", [False, True], ids=["before it", "after it"])
def test_a_writer_killed_at_any_request_and_run_again_ends_with_the_same_objects(
    carried_out: bool, memory: None, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request of the run, which would take minutes of a server."""
    monkeypatch.setattr(bucket, "_AT_ONCE", 1)  # one request after the other: dead means dead

    def held(root: str) -> dict[str, bytes]:
        store = cache.store_at(root)
        return {key: store.read(key) for key in store.files("") if not any(part in LEFT for part in key.split("/"))}

    deaths = Deaths(monkeypatch)
    two_commits("s3://memory/calm", toy)
    n_requests, wanted = deaths.seen, held("s3://memory/calm")
    assert n_requests > 60
    for number in range(1, n_requests + 1):
        root = f"s3://memory/{number}"
        killed_and_run_again(root, toy, deaths, number, carried_out=carried_out)
        assert held(root) == wanted, number


def test_so_it_does_on_a_server(server: Any, url: str, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_AT_ONCE", 1)
    deaths = Deaths(monkeypatch)
    two_commits(f"{url}/calm", toy)
    n_requests, wanted = deaths.seen, objects(server, f"{url}/calm")
    for number in np.linspace(8, n_requests - 8, 3).astype(int).tolist():
        root = f"{url}/{number}"
        killed_and_run_again(root, toy, deaths, number, carried_out=bool(number % 2))
        assert objects(server, root) == wanted, number


# -------------------------------------------------------------------------------------------------- two writers at once


def begun(root: str, videos: Any, plan: str, toy: Any) -> SplitWriter:
    """A writer that has everything appended."""
    writer = SplitWriter(root, SPLIT, plan=plan, **NARROW)
    writer.__enter__()
    writer.begin()
    for video in videos:
        writer.append(*narrow(video))
    return writer


def test_of_two_writers_the_second_one_is_refused_at_its_first_shard(url: str, server: Any, toy: Any) -> None:
    first = begun(url, [toy.video("a", [40])], "a", toy)
    with pytest.raises(CacheError, match="another writer is at work, or one that was killed has left it") as refused:
        begun(url, [toy.video("b", [40])], "b", toy)
    assert f"{url}/{SPLIT}/" in str(refused.value)
    assert f"--cache {url}" in str(refused.value)
    first.commit({})
    assert cache.verify(url).ok
    assert cache.open(url)[SPLIT].videos.names == ["a"]


def test_of_two_writers_with_the_same_rows_one_commits_and_the_other_is_told(url: str, server: Any, toy: Any) -> None:
    first, second = (begun(url, [toy.video("a", [40])], plan, toy) for plan in "ab")
    first.commit({"by": "the first"})
    with pytest.raises(CacheError, match=r"manifest.json: .* another writer has committed meanwhile"):
        second.commit({"by": "the second"})
    assert cache.open(url)[SPLIT].manifest["by"] == "the first"
    assert cache.verify(url).problems == ()


def test_two_writers_with_the_very_same_commit_both_succeed(url: str, server: Any, toy: Any) -> None:
    first, second = (begun(url, [toy.video("a", [40])], plan, toy) for plan in "ab")
    first.commit({"by": "both"})
    second.commit({"by": "both"})
    assert cache.open(url)[SPLIT].manifest["by"] == "both"
    assert cache.verify(url).problems == ()


def race(root: str, number: int, barrier: threading.Barrier, answers: dict[int, str], toy: Any, moment: str) -> None:
    """One of two writers, in a thread; they meet at the barrier at the moment that is named."""

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):
            barrier.wait(timeout=20)

    store = cache.store_at(root)
    put, replace_ = store.put, store.replace
    met = threading.Event()

    def meeting_put(key: str, data: bytes, **options: Any) -> None:
        if moment == "first shard" and not met.is_set():
            met.set()
            meet()
        put(key, data, **options)

    def meeting_replace(key: str, data: bytes, *, expected: Any) -> Any:
        if moment == "manifest":
            meet()
        return replace_(key, data, expected=expected)

    store.put, store.replace = meeting_put, meeting_replace  # type: ignore[method-assign]
    seed = 0 if moment == "manifest" else number  # of other rows, the second one's shards are refused
    root_: Any = store
    try:
        with SplitWriter(root_, SPLIT, plan=f"plan-{number}", **NARROW) as writer:
            if moment == "opening":
                meet()
            writer.begin()
            writer.append(*narrow(toy.video("a", [20, 25 + seed], seed=seed)))
            writer.commit({"by": number})
        answers[number] = "committed"
    except CacheError as error:
        answers[number] = str(error)
    finally:
        barrier.abort()


def one_race(root: str, toy: Any, moment: str) -> None:
    barrier, answers = threading.Barrier(2), dict[int, str]()
    threads = [threading.Thread(target=race, args=(root, n, barrier, answers, toy, moment)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(text == "committed" for text in answers.values()) == [False, True], answers
    (winner,) = (number for number, text in answers.items() if text == "committed")
    assert "another writer" in answers[1 - winner]
    split = cache.open(root)[SPLIT]
    assert split.manifest["by"] == winner
    assert cache.verify(root).problems == ()
    race(f"{root}-alone", winner, threading.Barrier(1), {}, toy, moment)
    np.testing.assert_array_equal(
        split.rows("bbox", 0, split.tracks[-1].stop),
        cache.open(f"{root}-alone")[SPLIT].rows("bbox", 0, split.tracks[-1].stop),
    )


MOMENTS = ["opening", "first shard", "manifest"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_of_two_writers_that_race_exactly_one_commits(moment: str, memory: None, toy: Any) -> None:
    for attempt in range(25):
        one_race(f"s3://memory/{attempt}", toy, moment)


@pytest.mark.parametrize("moment", MOMENTS)
def test_so_it_is_on_a_server(moment: str, url: str, toy: Any) -> None:
    one_race(url, toy, moment)


def test_a_commit_made_between_anothers_staging_and_its_put_stands_and_its_files_stay(
    url: str, server: Any, toy: Any
) -> None:
    toy.write(url, toy.videos())
    slow = cache.store_at(url)
    before = slow.replace

    def later(key: str, data: bytes, *, expected: Any) -> Any:  # everything of the slow one is staged
        toy.write(url, [toy.video("x", [9])], plan="quick")
        return before(key, data, expected=expected)

    slow.replace = later  # type: ignore[method-assign]
    with (
        pytest.raises(CacheError, match="another writer has committed meanwhile"),
        SplitWriter(slow, SPLIT, columns=toy.columns, plan="slow") as writer,  # type: ignore[arg-type]
    ):
        writer.begin(drop=["a"])
        writer.commit({"by": "the slow one"})
    assert "x" in cache.open(url)[SPLIT].videos.names
    assert cache.verify(url).problems == ()


def test_what_another_writer_has_staged_stays_while_this_one_finishes_its_commit(
    url: str, server: Any, toy: Any
) -> None:
    """The first has replaced the manifest; before it puts its files into place, a second one opens and stages."""
    toy.write(url, toy.videos())
    slow, quick = cache.store_at(url), cache.store_at(url)
    replace, quick_replace = slow.replace, quick.replace
    go_on, staged = threading.Event(), threading.Event()

    def quick_one() -> None:
        with SplitWriter(quick, SPLIT, columns=toy.columns, plan="quick") as writer:  # type: ignore[arg-type]
            writer.begin(drop=["e"])
            writer.commit({"by": "the quick one"})

    def pausing(key: str, data: bytes, *, expected: Any) -> Any:
        staged.set()
        assert go_on.wait(30)
        return quick_replace(key, data, expected=expected)

    quick.replace = pausing  # type: ignore[method-assign]
    thread = threading.Thread(target=quick_one)

    def starting(key: str, data: bytes, *, expected: Any) -> Any:
        tag = replace(key, data, expected=expected)
        thread.start()
        assert staged.wait(30)
        return tag  # now the slow one rolls its own commit forward

    slow.replace = starting  # type: ignore[method-assign]
    with SplitWriter(slow, SPLIT, columns=toy.columns, plan="slow") as writer:  # type: ignore[arg-type]
        writer.begin(drop=["a"])
        writer.commit({"by": "the slow one"})
    assert cache.open(url)[SPLIT].manifest["by"] == "the slow one"
    go_on.set()
    thread.join(30)
    split = cache.open(url)[SPLIT]
    assert split.manifest["by"] == "the quick one"
    assert not {"a", "e"} & {track.video for track in split.tracks}
    assert cache.verify(url).problems == ()


def test_a_writer_that_puts_its_files_into_place_too_late_costs_the_newer_commit_nothing(
    url: str, server: Any, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write(url, toy.videos())
    seen = []
    slow = cache.store_at(url)
    put_small = slow.put_small

    def late(files: Any, home: str) -> None:
        if f"{SPLIT}/track_start/c/0" in files and not seen:  # into place
            seen.append(True)
            toy.write(url, [], drop=["e"], plan="quick")
            put_small(files, home)
            split = cache.open(url)[SPLIT]  # the slow one's tables lie in place of the newer ones
            assert not {"a", "e"} & {track.video for track in split.tracks}
            assert split.manifest["plan"] == "quick"
            return
        put_small(files, home)

    slow.put_small = late  # type: ignore[method-assign]
    with SplitWriter(slow, SPLIT, columns=toy.columns, plan="slow") as writer:  # type: ignore[arg-type]
        writer.begin(drop=["a"])
        writer.commit({"by": "the slow one"})
    assert seen
    split = cache.open(url)[SPLIT]
    assert split.manifest["plan"] == "quick"
    assert not {"a", "e"} & {track.video for track in split.tracks}
    assert cache.verify(url).problems == ()


def test_a_put_whose_answer_was_lost_counts(url: str, server: Any, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = obstore.put

    def twice(store: Any, key: str, data: bytes, **options: Any) -> Any:
        if options.get("mode") is not None:
            real(store, key, data, **options)
        return real(store, key, data, **options)

    monkeypatch.setattr(obstore, "put", twice)
    toy.write(url, toy.videos())
    toy.write(url, [], drop=["a"], plan="second")
    assert cache.verify(url).ok
    assert "a" not in {track.video for track in cache.open(url)[SPLIT].tracks}


# ------------------------------------------------------------------------------------------------------------- readers


def test_a_reader_keeps_the_state_that_it_opened_while_another_commit_is_made(url: str, toy: Any) -> None:
    toy.write(url, toy.videos())
    held = cache.open(url)[SPLIT]
    windows = held.windows(8, 8)
    before = held.read(windows, stream=None)
    toy.write(url, [toy.video("z", [50])], drop=["d"], plan="second")
    assert "d" in held.videos.names
    for name, values in held.read(windows, stream=None).items():
        np.testing.assert_array_equal(values, before[name])
    assert "d" not in cache.open(url)[SPLIT].videos.names


def test_a_reader_of_a_stream_that_was_made_anew_is_told(url: str, toy: Any) -> None:
    toy.write(url, toy.videos())
    toy.write_stream(url)
    held = cache.open(url)[SPLIT]
    windows = held.windows(8, 8, STREAM)
    held.read(windows)
    cache.discard(url, SPLIT, STREAM)
    with pytest.raises(CacheChanged, match=rf"{url}/{SPLIT}/features/{STREAM}: has been replaced"):
        held.read(windows)
    with StreamWriter(url, SPLIT, STREAM, dim=4, plan="others") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, -toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    with pytest.raises(CacheChanged):
        held.read(windows)


def test_a_pickled_split_is_read_in_another_process(url: str, toy: Any) -> None:
    toy.write(url, toy.videos())
    split = cache.open(url)[SPLIT]
    windows = split.windows(8, 8)
    code = (
        "import pickle, sys\n"
        "split, windows = pickle.loads(sys.stdin.buffer.read())\n"
        "sys.stdout.buffer.write(split.read(windows, stream=None)['kp_2d'].tobytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((split, windows)), capture_output=True, check=True
    )
    assert done.stdout == split.read(windows, stream=None)["kp_2d"].tobytes()


def test_a_pickled_split_says_that_there_was_a_commit_meanwhile(url: str, toy: Any) -> None:
    toy.write(url, toy.videos())
    pickled = pickle.dumps(cache.open(url)[SPLIT])
    assert url in str(pickle.loads(pickled).root)
    toy.write(url, [], drop=["a"], plan="second")
    with pytest.raises(CacheChanged, match=url):
        pickle.loads(pickled)


@pytest.mark.parametrize("what", ["held", "opened there"])
def test_a_forked_worker_is_told_and_does_not_wait_for_ever(url: str, toy: Any, what: str) -> None:
    toy.write(url, toy.videos())
    split = cache.open(url)[SPLIT]
    windows = split.windows(8, 8)
    split.read(windows, stream=None)
    ends = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            (split if what == "held" else cache.open(url)[SPLIT]).read(windows, stream=None)
            said = "nothing"
        except CacheError as error:
            said = str(error)
        finally:
            os.write(ends[1], said.encode())
            os._exit(0)
    os.close(ends[1])
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child waits")
    with os.fdopen(ends[0]) as pipe:
        said = pipe.read()
    assert said.startswith(f"{url}: this process was forked")
    assert "spawn" in said
    split.read(windows, stream=None)  # and the parent goes on


# ------------------------------------------------------------------------------------------------------ in plain words


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 0.2)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_wrong_credentials_are_told(url: str, toy: Any, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write(url, [toy.video("a", [4])])
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    for act in (lambda: cache.open(url), lambda: toy.write(url, [toy.video("b", [4])]), lambda: cache.verify(url)):
        with pytest.raises(CacheError, match="AWS_ACCESS_KEY_ID") as refused:
            act()
        assert url in one_line(refused.value)
    with pytest.raises(CacheError, match=r"InvalidAccessKeyId: .* does not exist in our records"):
        cache.store_at(url).read("zarr.json")


def test_no_credentials_are_told(url: str, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CacheError, match="Missing AccessKeyId") as refused:
        cache.open(url)
    assert url in one_line(refused.value)


def test_a_bucket_that_is_not_there_is_told(server: Any, toy: Any, soon: None) -> None:
    for act in (cache.open, lambda root: toy.write(root, toy.videos()), cache.verify):
        with pytest.raises(CacheError, match="NoSuchBucket: The specified bucket does not exist") as refused:
            act("s3://no-such-bucket/cache")
        assert one_line(refused.value).startswith("s3://no-such-bucket/cache")
    with pytest.raises(CacheError, match="NoSuchBucket"):
        cache.store_at("s3://no-such-bucket/cache").put_small({"a": b""}, "")
    with pytest.raises(CacheError, match="NoSuchBucket"):
        cache.store_at("s3://no-such-bucket/cache").put("a", b"", by_way_of="b")


def test_a_bucket_without_a_cache_is_told(url: str) -> None:
    with pytest.raises(CacheError, match=rf"{url}: expected a feature cache, found no zarr\.json"):
        cache.open(url)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_a_server_that_is_not_there_is_told(
    endpoint: str, url: str, toy: Any, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for act in (lambda: cache.open(url), lambda: toy.write(url, toy.videos())):
        with pytest.raises(CacheError, match="AWS_ENDPOINT_URL") as refused:
            act()
        assert endpoint in one_line(refused.value)


def test_a_server_that_stops_in_mid_run_is_told_and_the_run_goes_on_later(
    url: str, server: Any, toy: Any, soon: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, count = obstore.put, itertools.count()

    def failing(store: Any, key: str, data: bytes, **options: Any) -> Any:
        if next(count) == 40:
            raise obstore.exceptions.GenericError("Generic S3 error: connection reset")
        return real(store, key, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", failing)
        with pytest.raises(CacheError, match=r"connection reset.* What is finished is kept"):
            toy.write(url, toy.videos())
    assert cache.FeatureCache(url).splits == ()
    toy.write(url, toy.videos())
    toy.write(tmp_path / "calm", toy.videos())
    assert objects(server, url) == toy.tree(tmp_path / "calm")


@pytest.mark.parametrize("root", ["ftp://host/cache", "http://host/cache", "S4://bucket"])
def test_another_scheme_is_refused(root: str, toy: Any) -> None:
    for act in (cache.open, lambda root: toy.write(root, toy.videos())):
        with pytest.raises(CacheError, match="expected a folder, or a URL that starts with one of s3, ") as refused:
            act(root)
        assert root in one_line(refused.value)


@pytest.mark.parametrize("root", ["s3://", "s3:///prefix"])
def test_a_url_without_a_bucket_is_refused(root: str) -> None:
    with pytest.raises(CacheError, match="Unable to recognise URL") as refused:
        cache.open(root)
    one_line(refused.value)


def test_without_obstore_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(CacheError, match=r"s3://bucket/x: a cache in an object store needs obstore: pip install"):
        cache.open("s3://bucket/x")


def test_a_batch_takes_few_requests(url: str, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write(url, toy.videos())
    split = cache.open(url)[SPLIT]
    windows = split.windows(8, 2)
    split.read(windows, stream=None)
    requests: list[str] = []

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def request(store: Any, key: str, **options: Any) -> Any:
            requests.append(key)
            return real(store, key, **options)

        return request

    for name in ("get", "head", "get_ranges", "list"):
        monkeypatch.setattr(obstore, name, counted(getattr(obstore, name)))
    split.read(windows, stream=None, fields=["kp_2d"])
    shards = {row // toy.rows_per_shard for start, stop in windows.tolist() for row in range(start, stop)}
    columns = {name.split("/")[2] for name in requests if "/c/" in name}
    assert columns == {"kp_2d", "bbox"}
    # Of each column: a request a shard, whatever the number of windows, and a look at the manifest.
    assert len(requests) == len(columns) * (len(shards) + 1)
    assert len(windows) > 2 * len(requests)
