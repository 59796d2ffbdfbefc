"""Damaged and hostile raw files, hundreds of them, over all readers.

Each is good tracks or a counted reason: no defect of ours, no crash, no hang, no memory filled, nothing written.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import pytest

from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.errors import RawDataError

WORKER = Path(__file__).with_name("hostile_worker.py")
ROOT = Path(__file__).parents[3]
PATIENCE = 60  # s for a case; the usual one takes a hundredth of a second
MAX_GROWTH = 1100  # MiB. A picture of 8192 x 8192, the largest accepted, takes 200, and is decoded into a second one
FLIPS = int(os.environ.get("HOSTILE_FLIPS", "8"))  # of bits, for each kind of file; more: a longer search

Outcome = tuple[list[str], int]  # problems, and the process's peak MiB


class Case(NamedTuple):
    dataset: str
    file: str
    kind: str
    argument: Any = 0


class Worker:
    """hostile_worker.py, started anew after a crash or a hang."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.home = folder.parent / "home"
        self.home.mkdir()
        self.process: subprocess.Popen[str] | None = None
        self.peak = 0

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.home), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", str(WORKER), str(self.folder)],
                cwd=self.home,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(process, self.answers), daemon=True).start()
        self.peak = 0
        return process

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def examine(self, case: Case) -> list[str]:
        """What went wrong with a case."""
        self.process = self.process or self.start()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(case._asdict()) + "\n")
        self.process.stdin.flush()
        try:
            line = self.answers.get(timeout=PATIENCE)
        except queue.Empty:
            self.stop()
            self.restore(case)
            return [f"no answer within {PATIENCE} s"]
        if not line:
            code = self.process.wait()
            self.stop()
            self.restore(case)
            return [f"the process died with {code}: {self.log.read_text(errors='replace')[-2000:]}"]
        answer = json.loads(line)
        grown, self.peak = answer["peak_mib"] - self.peak if self.peak else 0, answer["peak_mib"]
        problems: list[str] = answer["problems"]
        return problems + [f"memory grew by {grown} MiB"] * (grown > MAX_GROWTH)

    def restore(self, case: Case) -> None:
        """After a worker that could not undo its case."""
        shutil.rmtree(self.folder / case.dataset)
        shutil.copytree(self.folder.parent / "good" / case.dataset, self.folder / case.dataset)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("hostile") / "raw"
    folder.mkdir()
    worker = Worker(folder, folder.parent / "log")
    yield worker
    worker.stop()


@pytest.fixture
def lay_out(worker: Worker, embedded: Any) -> Any:
    """Copy an embedded dataset to where the worker may change it."""

    def copy(name: str) -> Path:
        folder = worker.folder / name
        if not folder.is_dir():
            embedded.copy(name, folder)
            good = worker.folder.parent / "good" / name
            shutil.copytree(folder, good)
        return folder

    return copy


def kinds_of_file(raw: Path) -> list[str]:
    """One file, the first by name, of every kind that lies in a raw folder."""
    first: dict[tuple[str, ...], str] = {}
    for path in sorted(raw.rglob("*")):
        below = path.relative_to(raw)
        if path.is_file() and path.name != "STAND_IN.json":
            folders = [re.sub(r"\d+", "#", part) for part in below.parts[:-1]]
            first.setdefault((path.suffix, re.sub(r"\d+", "#", path.stem), *folders), below.as_posix())
    by_place: dict[tuple[str, str, int], list[str]] = {}
    for (suffix, _, *folders), file in first.items():
        by_place.setdefault((suffix, folders[0] if folders else "", len(folders)), []).append(file)
    return [file for files in by_place.values() for file in files[:2]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cases(dataset: str, file: str, seed: int) -> Iterator[Case]:
    yield from (Case(dataset, file, "truncated", part) for part in (0, 1, 30, 300, 600, 900, 999))
    yield from (Case(dataset, file, "cut_off", n) for n in (1, 7))
    for i in range(FLIPS):
        yield Case(dataset, file, "flipped", seed + i)
        yield Case(dataset, file, ("overwritten", "spliced")[i % 2], seed + i)
    if file.endswith(".jpg"):
        yield from (Case(dataset, file, "claiming", side) for side in (60_000, 8192, 8193))
    for kind in ("zeros", "doubled", "html", "png", "gzip", "zip", "pickle", "nested"):
        yield Case(dataset, file, kind)
    yield from (Case(dataset, file, kind) for kind in ("folder", "dangling", "loop", "fifo", "endless", "absent"))


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_damaged_files_cost_their_own_video_and_nothing_else(name: str, worker: Worker, lay_out: Any) -> None:
    raw = lay_out(name)
    failures = {}
    for number, file in enumerate(kinds_of_file(raw)):
        for case in cases(name, file, 1000 * number):
            if problems := worker.examine(case):
                failures[case] = problems
    assert not list(worker.home.iterdir()), "something was written into the current or the temporary folder"
    assert contents(raw) == contents(worker.folder.parent / "good" / name), "something was written beside the case"
    told = "\n".join(f"{case.file} {case.kind} {case.argument}: {' | '.join(p)}" for case, p in failures.items())
    assert not failures, told


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


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_an_empty_raw_folder_is_told_or_has_no_videos(name: str, tmp_path: Path) -> None:
    dataset = datasets.get(name)
    for split in dataset.splits:
        try:
            assert not list(dataset.videos(tmp_path, split))
        except RawDataError as error:
            assert str(tmp_path) in str(error)
