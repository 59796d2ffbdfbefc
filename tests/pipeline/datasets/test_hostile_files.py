"""Damaged and hostile raw files over all readers: each costs its own video, and is good tracks or a counted reason.

They are read as conversion reads them, in supervised processes: a file at which a library crashes ends one of those.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.datasets import contract
from pipeline.processes import Failed, ordered_map
from pipeline.raw import RawVideo

Case = tuple[str, str, int]  # file, kind, seed


def flipped(data: bytes, seed: int) -> bytes:
    """One to four bits flipped, half of the time among the first 600 bytes, where headers are."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(min(len(out), 600) if seed % 2 else len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwritten(data: bytes, seed: int) -> bytes:
    """Some bytes all ones: lengths and counts become huge, floats NaN."""
    rng = random.Random(seed)
    n = rng.choice((2, 4, 8, 16))
    start = rng.randrange(max(1, min(len(data), 2000 if seed % 2 else len(data)) - n))
    return data[:start] + b"\xff" * n + data[start + n :]


def spliced(data: bytes, seed: int) -> bytes:
    """Some bytes taken out: all that follows is shifted."""
    start = random.Random(seed).randrange(max(1, len(data) - 1))
    return data[:start] + data[start + 1 + seed % 64 :]


CONTENT: dict[str, Callable[[bytes, int], bytes]] = {
    "truncated": lambda data, part: data[: len(data) * part // 10],
    "flipped": flipped,
    "overwritten": overwritten,
    "spliced": spliced,
    "zeros": lambda data, _: bytes(len(data)),
    "doubled": lambda data, _: data + data,
    "html": lambda *_: b"<!DOCTYPE html><html><body>Please log in to download this file</body></html>" * 20,
    "png": lambda *_: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0" + bytes(400),
    "zip": lambda *_: b"PK\x03\x04" + bytes(300),
    "pickle": lambda *_: b"cos\nsystem\n(S'touch hostile'\ntR.",
    "nested": lambda *_: b"[" * 100_000,
}
THINGS: dict[str, Callable[[Path], None]] = {
    "folder": lambda path: path.mkdir(),
    "dangling": lambda path: path.symlink_to("nowhere/at/all"),
    "loop": lambda path: path.symlink_to(path.name),
    "pipe": lambda path: os.mkfifo(path),
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "absent": lambda path: None,
}
SEEDS = {"truncated": (0, 3, 9), "flipped": range(4), "overwritten": range(2), "spliced": range(2)}


def kinds_of_file(raw: Path) -> list[str]:
    """One file, the first by name, of every kind that a raw folder has."""
    first: dict[tuple[str, ...], str] = {}
    for path in sorted(raw.rglob("*")):
        below = path.relative_to(raw)
        if path.is_file() and path.name != "STAND_IN.json":
            first.setdefault((path.suffix, *(re.sub(r"\d+", "#", part) for part in below.parts[:1])), below.as_posix())
    return list(first.values())


def replace(path: Path, put: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    put(path)


def read_damaged(name: str, good: Path, raw: Path, case: Case) -> list[str]:
    """What a reader did wrong with one damaged file of `raw`, a copy of `good`; empty: it behaved."""
    (file, kind, seed), dataset = case, datasets.get(name)
    data = (good / file).read_bytes()
    put = THINGS.get(kind, lambda path: path.write_bytes(CONTENT[kind](data, seed)))
    replace(raw / file, put)
    problems = []
    try:
        for split in dataset.splits:
            there = {video.name: video for video in dataset.videos(raw, split)}
            for video in dataset.videos(good, split):
                if not belongs(Path(file), video):
                    problems += [] if video.name in there else [f"{video.name} is not listed any more"]
                elif video.name in there:
                    tracks, _ = dataset.read_accounted(raw, split, there[video.name])
                    columns = dataset.columns(split, body=False)
                    problems += [problem for track in tracks for problem in contract.track_problems(track, columns)]
    finally:
        replace(raw / file, lambda path: path.write_bytes(data))
    return problems


def belongs(file: Path, video: RawVideo) -> bool:
    return file in video.files or file.parent in (*video.folders, *video.label_folders)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_damaged_files_cost_their_own_video_and_nothing_else(name: str, embedded: Any, tmp_path: Path) -> None:
    good, raw = embedded.raw(name), embedded.copy(name, tmp_path / "raw")
    cases = [(f, k, s) for f in kinds_of_file(raw) for k in (*CONTENT, *THINGS) for s in SEEDS.get(k, (0,))]
    results = ordered_map(functools.partial(read_damaged, name, good, raw), cases, 1, timeout=60, memory=1 << 31)
    ended = 0
    for case, problems in zip(cases, results, strict=True):
        if isinstance(problems, Failed):
            ended += 1
            shutil.copy(good / case[0], raw / case[0])
        else:
            assert problems == [], case
    assert ended <= len(cases) // 20
    assert contents(raw) == contents(good), "something was written"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


# ------------------------------------------------------------------------------------------- one by one, by name


def accounts(name: str, raw: Path) -> dict[str, VideoAccount]:
    """Every video's account, after all of its frames were tried too."""
    dataset, found = datasets.get(name), {}
    for split in dataset.splits:
        for video in dataset.videos(raw, split):
            tracks, account = dataset.read_accounted(raw, split, video)
            found[video.name] = account
            for track in tracks:
                assert track.frames is None or track.frames.place.resolve().is_relative_to(raw.resolve())
    return found


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch {}'\ntR.",
        b"cposix\nsystem\n(S'touch {}'\ntR.",
        b"cbuiltins\neval\n(S\"__import__('os').system('touch {}')\"\ntR.",
        b"(S'touch {}'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch {}'\no.",
        b"cnumpy\nload\n(S'{}'\ntR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n(dtR.",
        b"\x80\x02cpipeline.datasets\nget\n(S'amass'\ntR.",
    ],
)
def test_a_pickle_that_would_run_code_runs_none(code: bytes, embedded: Any, tmp_path: Path) -> None:
    raw, mark = embedded.copy("3dpw", tmp_path / "raw"), tmp_path / "mark"
    for file in raw.glob("sequenceFiles/*/*.pkl"):
        file.write_bytes(code.replace(b"{}", str(mark).encode()))
    assert not mark.exists()
    reasons = {account.set_aside for account in accounts("3dpw", raw).values()}
    assert reasons == {"unsafe_pickle"}
    assert not mark.exists()


@pytest.mark.parametrize(
    "path",
    ["../../outside/{}", "/etc/{}", "images/../../outside/{}", "images\\..\\{}", "images/train/../../../outside/{}"],
)
def test_a_path_in_an_annotation_does_not_lead_outside(path: str, embedded: Any, tmp_path: Path) -> None:
    raw = embedded.copy("posetrack", tmp_path / "raw")
    (tmp_path / "outside").mkdir()
    for file in raw.glob("posetrack_data/annotations/*/*.json"):
        label = json.loads(file.read_bytes())
        for image in label["images"]:
            name = Path(image["file_name"]).name
            shutil.copy(raw / image["file_name"], tmp_path / "outside" / name)  # there is something to be found
            image["file_name"] = path.format(name)
        file.write_text(json.dumps(label))
    found = accounts("posetrack", raw)
    assert {account.set_aside for account in found.values()} == {"path_outside"}
    assert all(account.kept == 0 for account in found.values())


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 2**31])
def test_a_record_does_not_get_the_memory_that_it_claims(length: int, embedded: Any, tmp_path: Path) -> None:
    raw = embedded.copy("insta_variety", tmp_path / "raw")
    claim = length.to_bytes(8, "little")
    rotated = (crc := google_crc32c.value(claim)) >> 15 | crc << 17 & 0xFFFFFFFF
    for shard in raw.glob("*/*.tfrecord"):
        with shard.open("r+b") as stream:
            stream.write(claim + ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little"))
    tracemalloc.start()
    found = accounts("insta_variety", raw)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert {account.set_aside for account in found.values()} == {"record_damaged"}
