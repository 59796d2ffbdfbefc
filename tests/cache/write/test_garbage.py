"""`gc` removes what the cache has written and no manifest names, and nothing else."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

import cache
from cache import StreamForm, StreamWriter
from cache.storage.local import LocalStore
from tests.cache import toy

HOME = Path("toy/train")
DAY = 86400


def test_what_no_manifest_names_goes_and_the_rest_stays(root):
    expected = toy.tree(root)
    left = {
        HOME / "bbox/c/9/0": b"shard",
        HOME / "trans/c/0/0": b"a column that the split does not have",
        HOME / "trans/zarr.json": b"{}",
        HOME / ".bbox.tmp": b"t",
        HOME / "tables-0123456789abcdef.npz": b"of an earlier commit",
        HOME / "features/resnet50/c/77/0": b"shard",
        HOME / "features/other/c/0/0": b"a stream that was never committed",
        HOME / "features/other_ok/c/0": b"its flags",
        HOME / "features/gone_key/c/0/0": b"keys of a stream that was removed",
        HOME / ".writing/.0-bbox": b"half",
    }
    for name, data in left.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / HOME / "bbox/c/11").mkdir()  # of a write that ended before its first byte
    dry = cache.gc(root, dry_run=True)
    assert all((root / name).exists() for name in left)
    found = cache.gc(root)
    assert found.removed == dry.removed
    assert found.bytes == dry.bytes == sum(map(len, left.values()))
    assert toy.tree(root) == expected
    folders = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_dir()}
    assert folders == {"toy"}
    assert not (root / HOME / "trans").exists()
    assert not (root / HOME / "features/other").exists()
    assert cache.verify(root).notes == []


@pytest.mark.promise("outputs")
def test_the_users_own_files_stay_and_one_beside_the_streams_is_no_stream(root):
    own = ["README.txt", "toy/notes.md", ".git/config"]
    own += [f"{HOME}/{name}" for name in ("mine/file", "bbox/plot.png", "features/seen.csv")]
    own += [f"{HOME}/{name}" for name in ("scripts/c/main.c", "tables-mine.npz", "bbox/c/9/why")]
    own += [f"{HOME}/features/{name}" for name in ("mine/c/readme", "gone_ok/c/x", "v1.json/plot")]
    own += [f"{HOME}/{name}" for name in ("track_notes/c/today", "letters/c", "features/notes_ok")]
    for name in own:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    assert cache.gc(root, unfinished=True).removed == []
    report = cache.verify(root)
    assert report.ok
    assert not [note for note in report.notes if "`gc`" in note]  # the same rule
    assert cache.open(root)[HOME.as_posix()].streams == ("resnet50",)
    toy.write_stream(root, stream="v1.json")  # an odd name, and a stream's all the same
    (root / HOME / "features/v1.json/c/9").mkdir()
    (root / HOME / "features/v1.json/c/9/0").write_bytes(b"shard")
    assert cache.gc(root).removed == [f"{HOME}/features/v1.json/c/9"]
    toy.write(root, [*toy.videos(), toy.video("new", 9)])
    cache.delete_stream(root, HOME.as_posix(), "v1.json")
    assert cache.open(root)[HOME.as_posix()].streams == ("resnet50",)
    assert all((root / name).read_text() == "mine" for name in own)


def begin_stream(root):
    """The first shard of a stream `late`."""
    with StreamWriter(root, HOME.as_posix(), "late", StreamForm(4), plan="w") as writer:
        writer.write(*toy.given(writer.shards, 0))


@pytest.mark.parametrize("part", ["", "_ok", "_key"])
def test_unfinished_work_is_kept_and_reported_unless_it_is_given_up(part, root):
    expected = toy.tree(root)
    toy.unfinished(root, [toy.video("z", 40)])
    begin_stream(root)
    # as if it had ended before this array's first shard
    shutil.rmtree(root / HOME / f"features/late{part}/c")
    found = cache.gc(root)
    assert found.removed == []
    assert sum("unfinished work" in text for text in found.skipped) == 2
    assert cache.gc(root, unfinished=True).removed
    assert toy.tree(root) == expected
    assert [path.name for path in (root / HOME / "features").glob("late*")] == []
    assert cache.gc(root, unfinished=True).removed == []


def test_a_writer_that_begins_while_gc_ends_loses_nothing(root, monkeypatch):
    late, writers, removals = root / HOME / "features/late", list[StreamWriter](), list[Path]()
    begin_stream(root)
    list_folder, remove_folder = os.listdir, os.rmdir

    def begin():
        if not writers:
            writers.append(
                StreamWriter(root, HOME.as_posix(), "late", StreamForm(4), plan="w").__enter__()
            )
            writers[0].write(*toy.given(writers[0].shards, 0))

    def listdir(path):
        if Path(path) == late and not late.exists():
            begin()
            return []
        return list_folder(path)

    def rmdir(path, **options):
        removals.append(Path(path))
        if removals.count(late) == 2:  # the first time, the lock's end removes it
            begin()
        remove_folder(path, **options)

    with monkeypatch.context() as system:
        system.setattr(os, "listdir", listdir)
        system.setattr(os, "rmdir", rmdir)
        cache.gc(root, unfinished=True)
    (writer,) = writers
    for shard in writer.shards.pending:
        writer.write(*toy.given(writer.shards, shard))
    writer.commit({})
    writer.__exit__()
    assert cache.verify(root).ok
    assert cache.open(root)[HOME.as_posix()].streams == ("late", "resnet50")


def test_a_writer_whose_empty_folder_another_one_removed_makes_it_again(root, monkeypatch):
    removed, replace = list[Path](), os.replace

    def replace_late(file, to):
        folder = Path(to).parent
        if folder not in removed and not any(folder.iterdir()):
            folder.rmdir()
            removed.append(folder)
        replace(file, to)

    with monkeypatch.context() as system:
        system.setattr(os, "replace", replace_late)
        toy.write_stream(root, stream="late")
    assert removed
    assert cache.verify(root).ok


def test_an_error_of_the_disk_is_a_problem_of_its_split(root, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "its file")

    monkeypatch.setattr(LocalStore, "remove", fail)
    stray = root / HOME / "bbox/c/9/0"
    stray.parent.mkdir()
    stray.write_bytes(b"shard")
    assert {*cache.gc(root).problems} == {f"its file: {os.strerror(errno.EIO)}"}


def test_a_split_with_a_writer_is_skipped(root):
    with toy.writer(root, "running") as writer:
        following = writer.begin()
        following.append(*toy.video("z", 40))
        shard = root / HOME / "bbox/c/5/0"
        assert shard.exists()
        found = cache.gc(root, unfinished=True)
        (said,) = found.skipped
        assert "no other writer" in said
        assert found.problems == []
        assert shard.exists()
        following.commit({})
    assert cache.verify(root).ok


def tables_in(store):
    names = store.list_names(HOME.as_posix())
    return {f"{HOME}/{name}" for name in names if name.startswith("tables-")}


@pytest.fixture(params=["disk", "bucket"])
def anywhere(request):
    """Tracks and features on a disk or in an object store."""
    if request.param == "disk":
        return request.getfixturevalue("root")
    url = request.getfixturevalue("bucket")
    toy.write(url, toy.videos())
    toy.write_stream(url)
    return url


def test_what_every_call_has_found_unused_for_so_long_goes(anywhere):
    root, start = anywhere, time.time()

    def collect(day, **options):
        at = start + day * DAY
        return cache.gc(root, older_than=0, unused_for=7 * DAY, now=at, **options)

    store = cache.store_at(root)
    notes = [f"{HOME}/unused.json", f"{HOME}/features/resnet50/unused.json"]
    store.put_small({f"{HOME}/features/resnet50/c/77/0": b"shard"}, HOME.as_posix())
    (first,) = tables_in(store)
    toy.add(root, "new", 9)
    (second,) = tables_in(store) - {first}
    assert collect(0, dry_run=True).removed == []
    assert not any(map(store.exists, notes))
    found = collect(1)
    assert found.removed == []
    assert (found.waiting, found.skipped) == (2, [])
    assert all(map(store.exists, notes))
    toy.write(root, [], drop=["new"])  # its tables are the first ones again
    assert collect(3).removed == []
    toy.add(root, "other", 9)
    shard = f"{HOME}/features/resnet50/c/77"
    assert collect(8.1, dry_run=True).removed == collect(8.1).removed == [shard]
    assert [store.exists(note) for note in notes] == [True, False]
    assert second not in collect(9.9).removed
    assert second in collect(10.1).removed
    assert first not in collect(14.9).removed
    late = start + 15.1 * DAY
    assert cache.gc(root, older_than=30 * DAY, unused_for=7 * DAY, now=late).removed == []
    assert first in collect(15.2).removed
    assert len(tables_in(store)) == 1
    assert cache.verify(root).ok


@pytest.mark.parametrize(
    ("days", "removed_on"),
    [
        ((0, 3, 365, 4, 10.9, 11.1), 11.1),  # the clock of one night is a year ahead
        ((0, 365, 366, 372.1), 372.1),  # it was wrong before, and is right now
        ((0, 31), 31),  # once a month
    ],
)
def test_a_clock_that_is_far_ahead_makes_nothing_unused_for_long(days, removed_on, root):
    (first,) = tables_in(cache.store_at(root))
    toy.add(root, "new", 9)
    start = time.time()
    for day in days:
        removed = cache.gc(root, unused_for=7 * DAY, now=start + day * DAY).removed
        assert removed == ([first] if day == removed_on else []), day


def test_what_was_named_and_unnamed_again_between_two_calls_is_unused_from_then_on(anywhere):
    root, store = anywhere, cache.store_at(anywhere)
    (first,) = tables_in(store)
    toy.add(root, "new", 9)
    cache.gc(root, older_than=0, unused_for=7 * DAY, now=time.time() - 30 * DAY)
    toy.write(root, [], drop=["new"])
    toy.add(root, "other", 9)
    assert first not in cache.gc(root, older_than=0, unused_for=7 * DAY).removed
    cache.gc(root, older_than=0, unused_for=7 * DAY, now=time.time() + 8 * DAY)
    assert not store.exists(first)


def test_what_is_younger_than_asked_for_stays(root):
    stray = root / HOME / "bbox/c/9/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    found = cache.gc(root, older_than=3600)
    assert found.removed == []
    assert "younger" in found.skipped[0]
    assert stray.exists()
