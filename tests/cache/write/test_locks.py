"""Of many writers of a split or a stream, one writes; one that has lost its lock changes
nothing.
"""

import errno
import fcntl
import multiprocessing
import os
import shutil
import stat
import tempfile
import time
import warnings
from pathlib import Path

import pytest

import cache
from cache import CacheError
from cache.storage.writer_lock import WriterLock
from tests.cache import toy
from tests.cache.users import as_another_user
from tests.raising import cache_refuses

SPLIT = "toy/train"


def write_in_turn(root, answers):
    """In a process of its own: until it is this one's turn."""
    while True:
        try:
            toy.write(Path(root), toy.videos())
        except Exception as error:
            answers.put(str(error))
            if "no other writer" not in str(error):
                break
            time.sleep(0.01)
        else:
            break
    answers.put(None)


def test_of_many_writers_at_once_one_writes_and_the_others_are_refused(made_tracks, tmp_path):
    fresh = multiprocessing.get_context("forkserver")
    queue = fresh.SimpleQueue()
    processes = [fresh.Process(target=write_in_turn, args=(str(tmp_path), queue)) for _ in range(4)]
    for process in processes:
        process.start()
    answers = []
    while answers.count(None) < len(processes):
        answers.append(queue.get())
    for process in processes:
        process.join(60)
    assert [
        text for text in answers if text and not ("no other writer" in text and "process" in text)
    ] == []
    assert toy.tree(tmp_path) == toy.tree(made_tracks)


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_writer_that_lost_its_lock_changes_nothing_of_what_the_next_one_wrote(
    how, seed, tmp_path
):
    lock, videos = tmp_path / SPLIT / ".writing/lock", toy.videos()
    with cache_refuses("lock"), toy.writer(tmp_path, "plan") as writer:
        following = writer.begin()
        for video in videos[:2]:
            following.append(*video)
        lock.unlink()
        if how == "replaced":
            lock.write_text("1\n")
        toy.write(tmp_path, toy.videos(seed), plan="second")
        files = toy.tree(tmp_path)
        for video in videos[2:]:
            following.append(*video)
        following.commit({})
    assert toy.tree(tmp_path) == files
    assert cache.verify(tmp_path).ok


def test_a_stream_writer_that_lost_its_lock_changes_nothing(tracks):
    with (
        cache_refuses("lock"),
        toy.stream_writer(tracks) as writer,
    ):
        (tracks / SPLIT / "features/resnet50/.writing/lock").unlink()
        toy.write_stream(tracks)
        files = toy.tree(tracks)
        shard, features, ok, keys = toy.given(writer.shards, 0)
        writer.write(shard, features + 1, ok, keys)
    assert toy.tree(tracks) == files


def test_a_second_writer_gets_the_first_ones_process_and_other_streams_have_their_own(tracks):
    refused = cache_refuses(f"process {os.getpid()} writing")
    with toy.writer(tracks, "p"), refused, toy.writer(tracks, "p"):
        pass
    toy.add(tracks, "z", 3)  # and the first has let go
    with (
        toy.stream_writer(tracks, plan="p"),
        toy.stream_writer(tracks, "x", dim=2, plan="p"),
    ):
        with (
            cache_refuses("process"),
            toy.stream_writer(tracks, "x", dim=2, plan="p"),
        ):
            pass
        (tracks / SPLIT / "features/resnet50/.writing/lock").write_text(f"{ENDED}\n")
        with cache_refuses(f"process {ENDED} writing, on another machine or in"):
            cache.delete_stream(tracks, SPLIT, "resnet50")


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path):
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


def _until_told(pipe):
    pipe.send("begun")
    pipe.recv()


@pytest.fixture
def shared():
    """A folder that every user may write, outside of pytest's own ones."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def open_to_all(root):
    """As `umask 002` and a common group do for folders; files stay those of their owner."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o777)


def leave_lock(lock, process, mode):
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(f"{process}\n")
    lock.chmod(mode)


ENDED = 2**22 + 1  # no process has this number


@pytest.mark.promise("users")
@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_the_lock_of_another_user_s_killed_run_stops_nobody(mode, shared):
    root = shared / "cache"
    toy.write(root, toy.videos())
    toy.write_stream(root)
    locks = [root / SPLIT / place / "lock" for place in (".writing", "features/resnet50/.writing")]
    for lock in locks:
        leave_lock(lock, ENDED, mode)
    open_to_all(root)

    def convert_and_extract():
        toy.write(root, [*toy.videos(), toy.video("z", 40)], plan="next")
        toy.write_stream(root)

    assert as_another_user(convert_and_extract) == ""
    assert not any(lock.exists() for lock in locks)
    assert "z" in toy.opened(root).videos.names
    assert cache.verify(root).ok


def test_a_lock_leaves_no_folder_but_those_that_were_there(tmp_path):
    prepared = tmp_path / "prepared"  # such as by an operator, with permissions for a group
    prepared.mkdir()
    WriterLock(prepared / "split/.writing/lock").release()
    assert list(tmp_path.iterdir()) == [prepared]
    assert list(prepared.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644)])
def test_a_lock_has_the_permissions_that_the_user_s_umask_gives(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        with WriterLock(tmp_path / "lock"):
            assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_folder_that_may_not_be_written_ends_each_command_at_once(shared):
    root = shared / "cache"
    toy.write(root, toy.videos())
    toy.write_stream(root)
    open_to_all(root)
    commands = {
        ".writing": lambda: toy.add(root, "z", 40, plan="next"),
        "features/resnet50/.writing": lambda: cache.delete_stream(root, SPLIT, "resnet50"),
    }
    for place, command in commands.items():
        writing = root / SPLIT / place
        writing.mkdir()
        writing.chmod(0o755 if os.geteuid() == 0 else 0o555)
        refused = as_another_user(command)
        assert refused.startswith(f"AccessDenied: {writing / 'lock'}: permission denied"), refused


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, 524])
def test_a_file_system_without_locks_is_named_with_what_to_do(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(CacheError) as refused:
        toy.write(tmp_path / "cache", toy.videos())
    message = str(refused.value)
    assert message.startswith(
        f"{tmp_path / 'cache' / SPLIT / '.writing/lock'}: expected a file system with locks"
    )
    assert os.strerror(number) in message
    assert "Mount it with locks" in message
