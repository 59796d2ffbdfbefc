"""Of many writers of a split or a stream, one writes; one that has lost its lock changes nothing."""

import multiprocessing
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import cache
from cache import CacheError, StreamWriter
from cache.storage.local import WriterLock
from tests.cache import toy as builders

SPLIT = "toy/train"


def write_in_turn(root: str, answers: Any) -> None:
    """In a process of its own: until it is this one's turn."""
    while True:
        try:
            builders.write(Path(root), builders.videos())
        except Exception as error:
            answers.put(str(error))
            if "no other writer" not in str(error):
                break
            time.sleep(0.01)
        else:
            break
    answers.put(None)


def test_of_many_writers_at_once_one_writes_and_the_others_are_refused(made_tracks, tmp_path, toy):
    fresh = multiprocessing.get_context("forkserver")
    queue: Any = fresh.SimpleQueue()
    processes = [fresh.Process(target=write_in_turn, args=(str(tmp_path), queue)) for _ in range(4)]
    for process in processes:
        process.start()
    answers: list[str | None] = []
    while answers.count(None) < len(processes):
        answers.append(queue.get())
    for process in processes:
        process.join(60)
    assert [text for text in answers if text and not ("no other writer" in text and "process" in text)] == []
    assert toy.tree(tmp_path) == toy.tree(made_tracks)


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_writer_that_lost_its_lock_changes_nothing_of_what_the_next_one_wrote(how, seed, tmp_path, toy):
    lock, videos = tmp_path / SPLIT / ".writing/lock", toy.videos()
    with pytest.raises(CacheError, match="lock"), toy.writer(tmp_path, "plan") as writer:
        writer.begin()
        for video in videos[:2]:
            writer.append(*video)
        lock.unlink()
        if how == "replaced":
            lock.write_text("1\n")
        toy.write(tmp_path, toy.videos(seed), plan="second")
        files = toy.tree(tmp_path)
        for video in videos[2:]:
            writer.append(*video)
        writer.commit({})
    assert toy.tree(tmp_path) == files
    assert cache.verify(tmp_path).ok


def test_a_stream_writer_that_lost_its_lock_changes_nothing(tracks: Path, toy: Any) -> None:
    with (
        pytest.raises(CacheError, match="lock"),
        StreamWriter(tracks, SPLIT, "resnet50", dim=4, plan="weights") as writer,
    ):
        (tracks / SPLIT / "features/resnet50/.writing/lock").unlink()
        toy.write_stream(tracks)
        files = toy.tree(tracks)
        shard, features, ok, keys = toy.given(writer, 0)
        writer.write(shard, features + 1, ok, keys)
    assert toy.tree(tracks) == files


def test_a_second_writer_gets_the_first_ones_process_and_other_streams_have_their_own(tracks: Path, toy: Any) -> None:
    refused = pytest.raises(CacheError, match=f"process {os.getpid()} writing")
    with toy.writer(tracks, "p"), refused, toy.writer(tracks, "p"):
        pass
    toy.write(tracks, [toy.video("z", [3])])  # and the first has let go
    with StreamWriter(tracks, SPLIT, "resnet50", dim=4, plan="p"), StreamWriter(tracks, SPLIT, "x", dim=2, plan="p"):
        with pytest.raises(CacheError, match="process"), StreamWriter(tracks, SPLIT, "x", dim=2, plan="p"):
            pass
        with pytest.raises(CacheError, match="process"):
            cache.delete_stream(tracks, SPLIT, "resnet50")


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    lock = WriterLock(tmp_path / "lock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads
        child = fork.Process(target=_until_told, args=(there,))
        child.start()
    there.close()
    assert here.recv() == "begun"
    lock.close()  # as a kill does: the file stays
    WriterLock(tmp_path / "lock").release()
    here.send("end")
    child.join(60)


def _until_told(pipe: Any) -> None:
    pipe.send("begun")
    pipe.recv()
