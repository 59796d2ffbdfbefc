"""Of two writers in an object store one is refused, and the other one's commit stands."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError, SplitWriter
from tests.cache.storage.buckets import NARROW, SPLIT, narrow

pytestmark = pytest.mark.slow  # test_object_store.py has a quick test of each promise

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install -e '.[dev]'")


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
    with pytest.raises(CacheError, match="of another writer, or of one that was killed") as refused:
        begun(url, [toy.video("b", [40])], "b", toy)
    assert f"{url}/{SPLIT}/" in str(refused.value)
    assert f"--cache {url}" in str(refused.value)
    first.commit({})
    assert cache.verify(url).ok
    assert cache.open(url)[SPLIT].videos.names == ["a"]


def test_of_two_writers_with_the_same_rows_one_commits_and_the_other_is_refused(
    url: str, server: Any, toy: Any
) -> None:
    first, second = (begun(url, [toy.video("a", [40])], plan, toy) for plan in "ab")
    first.commit({"by": "the first"})
    with pytest.raises(CacheError, match=r"manifest.json: .* another writer has committed meanwhile"):
        second.commit({"by": "the second"})
    assert cache.open(url)[SPLIT].manifest["by"] == "the first"
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
