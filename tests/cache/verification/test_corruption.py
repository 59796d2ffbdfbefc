"""Damage anywhere: verification finds it, and no reader is ever given it."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError, SplitWriter

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from interrupted_runs import RUNS, SPLIT, STREAM, make_video, seen

TRIALS = 30  # flipped bits in each kind of file
KINDS = ("shard", "table", "zarr.json", "manifest", "copy")


def kind_of(name: str) -> str:
    """What a file of the cache is, by its path below the root."""
    parts = name.split("/")
    if name.endswith("provenance.json"):
        return "provenance"  # a note: no promise holds for it
    if len(parts) <= 3 or parts[2:] == ["features", "zarr.json"]:
        return "manifest" if parts[-1] == "manifest.json" else "group"
    if parts[-1] == "manifest.json":
        return "manifest"
    if any(part.startswith(".") for part in parts):
        return "copy"
    if parts[-1] == "zarr.json":
        return "zarr.json"
    return "table" if parts[2].startswith(("track_", "video_", "run_")) else "shard"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits with replaced videos, and their features. Whoever damages it puts it right again."""
    root = tmp_path_factory.mktemp("corruption") / "cache"
    for name, run in RUNS.items():
        if name != "compaction":
            run(root)
    return root


@pytest.fixture(scope="module")
def truth(root: Path) -> str | None:
    return seen(root)


@contextlib.contextmanager
def damaged(file: Path, data: bytes) -> Iterator[None]:
    """Other bytes in a file, for a while."""
    whole = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(whole)


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def files_of(root: Path, kind: str) -> list[Path]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return [path for path in files if kind_of(path.relative_to(root).as_posix()) == kind]


def as_read(root: Path) -> str | None:
    """All that a new reader is given, or "refused"."""
    try:
        return seen(root)
    except CacheError:
        return "refused"


@pytest.mark.parametrize("kind", [*KINDS, "index"])
def test_a_flipped_bit_is_found_and_never_read(kind: str, root: Path, truth: str | None) -> None:
    rng = random.Random(kind)
    files = files_of(root, "shard" if kind == "index" else kind)
    for _ in range(TRIALS):
        file = rng.choice(files)
        whole = file.read_bytes()
        index = 2 * 16 + 4  # bytes at the end: two chunks and a checksum
        bit = rng.randrange(8 * (len(whole) - index) if kind == "index" else 0, 8 * len(whole))
        with damaged(file, flipped(whole, bit)):
            where = f"{file}: bit {bit % 8} of byte {bit // 8} of {len(whole)}"
            assert not cache.verify(root).ok, where
            assert as_read(root) in (truth, "refused"), where
    assert cache.verify(root).ok
    assert seen(root) == truth


def test_every_bit_of_a_small_shard_counts(tmp_path: Path) -> None:
    entry, tracks = make_video("a", [3], 0)
    sizes: Any = {"rows_per_shard": 4, "rows_per_chunk": 2}
    with SplitWriter(tmp_path, SPLIT, columns=["valid"], plan="p", **sizes) as writer:
        writer.begin()
        writer.append(entry, [with_columns(tracks[0], "frame_index", "valid")])
        writer.commit({})
    shard = tmp_path / SPLIT / "valid/c/0"
    whole = shard.read_bytes()
    assert len(whole) == 48  # as docs/cache-format.md has it, byte by byte
    for bit in range(8 * len(whole)):
        with damaged(shard, flipped(whole, bit)):
            with pytest.raises(CacheError, match=r"valid/c/0"):
                cache.open(tmp_path)[SPLIT].rows("valid", 0, 3)
            if bit % 8 == bit // 8 % 8:  # one of every byte
                assert any("valid/c/0" in problem for problem in cache.verify(tmp_path).problems), bit
    assert cache.verify(tmp_path).ok


def with_columns(track: cache.TrackRows, *names: str) -> cache.TrackRows:
    return dataclasses.replace(track, columns={name: track.columns[name] for name in names})


def shorter(by: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-by]


def zeros(start: int, n_bytes: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:start] + bytes(len(data[start : start + n_bytes])) + data[start + n_bytes :]


def repeated(n_bytes: int) -> Callable[[bytes], bytes]:
    """A block where another one belongs."""
    return lambda data: data[:n_bytes] + data[:n_bytes] + data[2 * n_bytes :]


DAMAGE: Mapping[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "one byte short": shorter(1),
    "half": lambda data: data[: len(data) // 2],
    "one byte more": lambda data: data + b"\0",
    "twice": lambda data: data + data,
    "all zeros": lambda data: bytes(len(data)),
    "a page of zeros": zeros(0, 4096),
    "zeros at the end": lambda data: data[:-16] + bytes(16),
    "all ones": lambda data: b"\xff" * len(data),
    "a block twice": repeated(16),
    "moved by one": lambda data: data[-1:] + data[:-1],
    "reversed": lambda data: data[::-1],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_coarse_damage_is_found_and_never_read(damage: str, root: Path, truth: str | None) -> None:
    rng = random.Random(damage)
    for kind in KINDS:
        file = rng.choice(files_of(root, kind))
        whole = file.read_bytes()
        if (data := DAMAGE[damage](whole)) != whole:
            with damaged(file, data):
                assert not cache.verify(root).ok, file
                assert as_read(root) in (truth, "refused"), file


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_gone_or_a_folder_is_found_and_never_read(kind: str, root: Path, truth: str | None) -> None:
    file = random.Random(kind).choice(files_of(root, kind))
    whole = file.read_bytes()
    file.unlink()
    try:
        assert not cache.verify(root).ok, file
        assert as_read(root) in (truth, None, "refused"), file  # None: without its manifest there is no split
        file.mkdir()
        try:
            assert not cache.verify(root).ok, file
            assert as_read(root) in (truth, None, "refused"), file
        finally:
            file.rmdir()
    finally:
        file.write_bytes(whole)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of boxes of another split."""
    root = tmp_path_factory.mktemp("elsewhere")
    entry, tracks = make_video("z", [20], 3)
    with SplitWriter(root, "toy/test", columns=["bbox"], plan="p", rows_per_shard=8, rows_per_chunk=4) as writer:
        writer.begin()
        writer.append(entry, [with_columns(tracks[0], "frame_index", "bbox")])
        writer.commit({})
    return root / "toy/test/bbox/c/1/0"


@pytest.mark.parametrize("what", ["of other rows", "of another split", "of a stream's other rows"])
def test_an_intact_shard_in_the_wrong_place_is_found(what: str, root: Path, elsewhere: Path) -> None:
    place, lies_there = {
        "of other rows": (root / SPLIT / "bbox/c/0/0", root / SPLIT / "bbox/c/1/0"),
        "of another split": (root / SPLIT / "bbox/c/1/0", elsewhere),
        "of a stream's other rows": (
            root / SPLIT / f"features/{STREAM}/c/1/0",
            root / SPLIT / f"features/{STREAM}/c/0/0",
        ),
    }[what]
    assert place.stat().st_size == lies_there.stat().st_size
    with damaged(place, lies_there.read_bytes()):
        problems = cache.verify(root).problems
    assert any(place.relative_to(root).as_posix() in problem for problem in problems), problems


def test_two_chunks_of_a_shard_exchanged_with_their_checksums_are_found(root: Path) -> None:
    shard = root / SPLIT / "bbox/c/0/0"
    data = shard.read_bytes()
    size = 4 * 4 * 4 + 4  # 4 rows of 4 float32, and the checksum
    with damaged(shard, data[size : 2 * size] + data[:size] + data[2 * size :]):
        assert any("bbox/c/0/0" in problem for problem in cache.verify(root).problems)


def test_two_tables_exchanged_are_found_and_never_read(root: Path, truth: str | None) -> None:
    first, second = (root / SPLIT / f"track_{name}/c/0" for name in ("start", "stop"))
    held, other = first.read_bytes(), second.read_bytes()
    with damaged(first, other), damaged(second, held):
        assert not cache.verify(root).ok
        assert as_read(root) in (truth, "refused")


def read_while_it_shrinks(root: str, left: int, told: Any) -> None:
    """In a process of its own: reading a map beyond the end of its file ends a process."""
    split = cache.open(root)[SPLIT]
    before = split.rows("kp_2d", 0, 5)
    shard = Path(root, SPLIT, "kp_2d/c/0/0/0")
    whole = shard.read_bytes()
    os.truncate(shard, left)
    for _ in range(2):
        try:
            split.rows("kp_2d", 0, 5)
        except CacheError as error:
            told.send(str(error))
    shard.write_bytes(whole)
    told.send(np.array_equal(split.rows("kp_2d", 0, 5), before))


@pytest.mark.parametrize("left", [0, 100])
def test_a_shard_that_shrinks_under_a_reader_is_an_error_and_not_the_end_of_the_process(left: int, root: Path) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=read_while_it_shrinks, args=(root, left, there))
    process.start()
    there.close()
    process.join(60)
    assert process.exitcode == 0
    first, second, again = (here.recv() for _ in range(3))
    assert "kp_2d/c/0/0/0" in first
    assert "kp_2d/c/0/0/0" in second
    assert again is True
