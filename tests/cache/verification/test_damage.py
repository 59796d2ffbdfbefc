"""Damage: verification finds and names it, and nothing else counts as damage.

tests/cache/test_histories.py damages any file, and reads.
"""

import contextlib
import errno
import json
import multiprocessing
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import cache
from cache import CacheError
from cache.format import shard as shards
from tests.cache import toy
from tests.cache.made_up import SPLIT
from tests.cache.toy import flipped, spoil
from tests.raising import cache_refuses
from tests.trees import everything

STREAM = "resnet50"


@contextlib.contextmanager
def damaged(file, data):
    """Other bytes in a file, or no file, for a while."""
    whole = file.read_bytes()
    file.unlink() if data is None else file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(whole)


def found(root, file, **options):
    """Whether verification names exactly this file."""
    report = cache.verify(root, **options)
    assert [damage.what for damage in report.damaged] == list(report.problems)
    return [damage.key for damage in report.damaged] == [file.relative_to(root).as_posix()]


def test_every_bit_of_a_small_shard_counts(tmp_path):
    toy.split_of(tmp_path, {"valid": np.ones(3, bool)}, rows_per_shard=4, rows_per_chunk=2)
    shard = tmp_path / SPLIT / "valid/c/0"
    whole = shard.read_bytes()
    assert len(whole) == 48  # as docs/cache-format.md has it, byte by byte
    split = toy.opened(tmp_path)
    for bit in range(8 * len(whole)):
        with damaged(shard, flipped(whole, bit)):
            with cache_refuses(r"valid/c/0"):
                split.rows("valid", 0, 3)
            assert bit % 48 or found(tmp_path, shard), bit  # of every sixth byte


def test_intact_chunks_in_the_wrong_place_are_found(root):
    boxes, features = (root / SPLIT / name for name in ("bbox/c/0/0", f"features/{STREAM}/c/0/0"))
    # of a chunk: 8 rows of 4 float32, and the checksum
    data, size = boxes.read_bytes(), 8 * 4 * 4 + 4
    first, *others = np.frombuffer(data[-68:-4], "<u8").reshape(4, 2)
    indexes = [
        np.array(index, "<u8").tobytes()
        for index in (
            [*others, first],
            [first, *others[:2], [2**64 - 1] * 2],
            [first, first, *others[1:]],
        )
    ]  # exchanged, absent, overlapping
    for file, wrong in (
        (boxes, (root / SPLIT / "bbox/c/1/0").read_bytes()),  # of other rows
        (features, (root / SPLIT / f"features/{STREAM}/c/1/0").read_bytes()),
        (boxes, data[size : 2 * size] + data[:size] + data[2 * size :]),
        *((boxes, data[:-68] + index + shards.crc32c(index)) for index in indexes),
    ):
        assert file.stat().st_size == len(wrong)
        with damaged(file, wrong):
            assert found(root, file), file


def test_a_report_has_counts_progress_and_every_damage_by_split_stream_array_and_shard(root):
    calls = []
    report = cache.verify(root, progress=lambda done, total, place: calls.append((done, total)))
    shards = [data for key, data in toy.tree(root).items() if "/c/" in key]
    assert (report.ok, report.notes, report.splits, report.shards) == (True, [], 1, len(shards))
    assert report.bytes == sum(map(len, shards))
    assert calls == [(number + 1, len(shards)) for number in range(len(shards))]
    names = (
        "kp_2d/c/2/0/0",
        f"features/{STREAM}_ok/c/3",
        f"features/{STREAM}/manifest.json",
        toy.tables_file(root).name,
    )
    for file in [root / "toy/zarr.json", *(root / SPLIT / name for name in names)]:
        spoil(file)
    assert [(d.split, d.stream, d.array, d.shard, d.key) for d in cache.verify(root).damaged] == [
        ("", None, None, None, "toy/zarr.json"),
        (SPLIT, None, None, None, f"{SPLIT}/{names[3]}"),
        (SPLIT, None, "kp_2d", 2, f"{SPLIT}/kp_2d/c/2/0/0"),
        (SPLIT, STREAM, None, None, f"{SPLIT}/features/{STREAM}/manifest.json"),
    ]  # what the damaged manifest of the stream names is not known


def test_fast_finds_what_sizes_and_indexes_show_and_reads_no_chunk(root):
    shard = root / SPLIT / "kp_2d/c/0/0/0"
    whole = shard.read_bytes()
    with damaged(shard, flipped(whole, 80)):  # in a chunk
        report = cache.verify(root, fast=True)
        assert report.ok
        assert report.fast
    with damaged(shard, flipped(whole, 8 * (len(whole) - 30))):  # in the index
        assert found(root, shard, fast=True)


@pytest.mark.parametrize("shard", ["kp_2d/c/1/0/0", f"features/{STREAM}/c/1/0"])
@pytest.mark.parametrize("name", ["cache", "a b"])
def test_a_lost_shard_is_named_with_the_command_that_repairs_this_cache(shard, name, root):
    root = root.rename(root.with_name(name))
    (root / SPLIT / shard).unlink()
    split = toy.opened(root)
    column = shard.partition("/c/")[0]
    repair = f"python -m pipeline verify --repair --cache {shlex.quote(str(root))}"
    for read in (
        lambda: split.rows(column, 32, 40),
        lambda: split.column(column)[32:40],
        lambda: cache.copy_split(root, SPLIT, root.with_name("copy")),
    ):
        with pytest.raises(CacheError) as lost:
            read()
        assert str(lost.value).endswith(repair)
    (problem,) = cache.verify(root).problems
    assert problem.endswith(repair)


def test_only_the_splits_that_are_named_are_verified(tmp_path):
    toy.add(tmp_path, "a", 40)
    shutil.copytree(tmp_path / "toy/train", tmp_path / "toy/val")
    shard = tmp_path / "toy/val/bbox/c/0/0"
    spoil(shard)
    assert cache.verify(tmp_path, splits=["toy/train"]).ok
    assert found(tmp_path, shard, splits=["toy/val"])
    with cache_refuses(r"no split 'toy/test'; there are: toy/train, toy/val"):
        cache.verify(tmp_path, splits=["toy/test"])
    with cache_refuses("feature cache"):
        cache.verify(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "code", [errno.EIO, errno.EACCES], ids=["bytes lost by the disk", "no permission"]
)
def test_what_the_disk_has_lost_is_damage_and_what_may_not_be_read_is_shown_and_never_removed(
    code, root, monkeypatch
):
    shard, real = root / SPLIT / "kp_2d/c/2/0/0", os.preadv
    bad = shard.stat().st_ino

    def preadv(fd, buffers, offset):
        if os.fstat(fd).st_ino == bad:
            raise OSError(code, os.strerror(code), str(shard))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert found(root, shard)
    if code == errno.EACCES:
        repaired = cache.repair(root, cache.verify(root))
        assert repaired.removed == [] and "Ask its owner" in repaired.refused[0] and shard.exists()


def test_a_commit_during_a_verification_is_no_damage(tracks):
    later = iter([[toy.video("x", 40)]])

    def commit_once(*_):
        for videos in later:
            toy.write(tracks, videos, drop=["a"], plan="x")

    assert cache.verify(tracks, progress=commit_once).problems == ()
    assert next(later, None) is None


def test_what_killed_writers_and_users_have_left_is_noted_and_no_damage(tmp_path):
    def notes():
        report = cache.verify(tmp_path)
        assert report.ok
        return "\n".join(report.notes)

    toy.unfinished(tmp_path, [toy.video("a", 40)], "p")
    assert "nothing is saved" in notes()
    toy.write(tmp_path, toy.videos(), plan="p")
    before = everything(tmp_path)
    assert notes() == ""
    assert everything(tmp_path) == before
    toy.unfinished(tmp_path, [toy.video("z", 40)])
    assert "unfinished work of a running writer, or of an ended one" in notes()
    # a first conversion's first changes: no group is there
    (tmp_path / "other/train/.writing").mkdir(parents=True)
    assert "other/train: nothing is saved" in notes()
    (tmp_path / SPLIT / "bbox/c/77").mkdir()


def read_while_it_shrinks(root, pipe):
    """In a process of its own: reading a map beyond the end of its file ends a process."""
    split = toy.opened(root)
    before = split.rows("kp_2d", 0, 5)
    shard = Path(root, SPLIT, "kp_2d/c/0/0/0")
    whole = shard.read_bytes()
    os.truncate(shard, 100)
    for _ in range(2):
        try:
            split.rows("kp_2d", 0, 5)
        except CacheError as error:
            pipe.send(str(error))
    shard.write_bytes(whole)
    pipe.send(np.array_equal(split.rows("kp_2d", 0, 5), before))


def test_a_shard_that_shrinks_under_a_reader_is_an_error_and_not_the_end_of_the_process(
    root,
):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(
        target=read_while_it_shrinks, args=(root, there)
    )
    process.start()
    there.close()
    process.join(60)
    assert process.exitcode == 0
    first, second, again = (here.recv() for _ in range(3))
    assert "kp_2d/c/0/0/0: expected a shard of" in first
    assert "kp_2d/c/0/0/0: expected a shard of" in second
    assert again is True


@pytest.mark.parametrize(
    "name", ["../../../out/a.txt", "../x/y", "/etc/x", "a/../b/zarr.json", "kp_2d/c/../0", ".x"]
)
@pytest.mark.parametrize("place", [SPLIT, f"{SPLIT}/features/{STREAM}"])
def test_names_in_a_manifest_from_elsewhere_stay_within_the_cache(root, name, place):
    outside = root.parent / "out/a.txt"
    outside.parent.mkdir()
    outside.write_text("mine")
    manifest = root / place / "manifest.json"
    intact = manifest.read_bytes()
    for entry, value in (
        ("shards", {**json.loads(intact)["shards"], name: {"0": "8:0"}}),
        ("tables", f"0{name}"),
    ):
        if entry == "tables" and place != SPLIT:  # a stream has none: they are not looked at
            continue
        toy.rewrite(manifest, **{entry: value})
        assert not cache.verify(root).ok
        cache.gc(root, unfinished=True)
        cache.repair(root, cache.verify(root))
        manifest.write_bytes(intact)
    assert {*root.parent.rglob("*")} - {*root.rglob("*")} == {root, outside.parent, outside}
    assert outside.read_text() == "mine"
    assert cache.verify(root).ok


def test_a_copied_stream_folder_and_exchanged_manifests_are_damage_of_their_place(root):
    streams = root / SPLIT / "features"
    shutil.copytree(streams / STREAM, streams / f"{STREAM}-old")
    report = cache.verify(root)
    assert [damage.stream for damage in report.damaged] == [f"{STREAM}-old"]
    assert f"of stream {STREAM!r}" in report.problems[0]
    split = toy.opened(root)
    assert len(split.rows(f"features/{STREAM}", 0, 4)) == 4, "the others can be read"
    with cache_refuses("that of stream"):
        split.rows(f"features/{STREAM}-old", 0, 4)
    shutil.copy(root / SPLIT / "manifest.json", streams / f"{STREAM}-old/manifest.json")
    assert f"the manifest of stream '{STREAM}-old'" in cache.verify(root).problems[0]


@pytest.mark.parametrize("text", ["[" * 100_000, "[1, 2]"], ids=["brackets", "a list"])
def test_json_that_is_no_manifest_is_damage(root, text):
    (root / SPLIT / "manifest.json").write_text(text)
    assert not cache.verify(root).ok
    with cache_refuses("a manifest in JSON"):
        toy.opened(root)
