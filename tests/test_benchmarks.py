"""The benchmark of conversion is honest: both sides do the same, and what it prints is what it measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import plain_scripts  # noqa: E402
import raw_at_scale  # noqa: E402

from pipeline import convert, datasets, synthetic  # noqa: E402
from pipeline.synthetic import writing  # noqa: E402

TINY = {  # videos a split and frames that are rendered
    "penn_action": (1, 1),
    "posetrack": (1, 9),
    "insta_variety": (3, 2),
    "kinetics": (1, 10),
    "mpi_inf_3dhp": (2, 2),
    "h36m": (4, 2),
    "3dpw": (1, 10),
    "amass": (1, 60),
}


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with embedded data to multiply, in `seeds`, and the body."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, (n_videos, n_frames) in TINY.items():
        synthetic.write_dataset(name, folder / "seeds" / name, n_videos=n_videos, n_frames=n_frames)
    writing.write_body(folder / "body")
    return folder


@pytest.fixture
def benchmark() -> Any:
    """benchmarks/convert.py, as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("benchmark_of_convert", ROOT / "benchmarks/convert.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_there_is_a_plain_script_for_every_dataset_and_raw_data_of_any_size(benchmark: Any) -> None:
    assert list(benchmark.LARGE) == list(datasets.DATASETS) == list(raw_at_scale.WRITERS)
    assert {*plain_scripts.SCRIPTS, "3dpw"} == set(datasets.DATASETS)


@pytest.mark.parametrize("name", list(TINY))
def test_what_is_told_apart_of_a_conversion_is_there(name: str, benchmark: Any) -> None:
    for place in (*benchmark.STAGES.values(), *benchmark.READING[name].values()):
        holder, attribute = benchmark.found_at(place)
        assert callable(getattr(holder, attribute)), place


@pytest.mark.parametrize("name", list(TINY))
def test_the_plain_script_and_the_pipeline_give_the_same_numbers(
    name: str, work: Path, benchmark: Any, tmp_path: Path
) -> None:
    raw = raw_at_scale.write(name, work / "seeds" / name, tmp_path / "raw", 8, n_frames=40)
    body = work / "body" if name == "3dpw" else None
    plain_scripts.prepare(name, str(raw), str(tmp_path / "plain"), str(body))
    plan = convert.plan_conversion(datasets.get(name), "train", raw=raw, root=tmp_path / "cache", body=body)
    done = convert.convert(plan)
    assert not done.set_aside
    assert benchmark.compare(name, tmp_path) == done.totals["frames"]["kept"] > 50


def test_a_difference_between_the_two_ends_the_benchmark(work: Path, benchmark: Any, tmp_path: Path) -> None:
    raw = raw_at_scale.write("penn_action", work / "seeds/penn_action", tmp_path / "raw", 4)
    plan = convert.plan_conversion(datasets.get("penn_action"), "train", raw=raw, root=tmp_path / "cache")
    convert.convert(plan)
    plain_scripts.prepare("penn_action", str(raw), str(tmp_path / "plain"))
    data = benchmark.joblib.load(tmp_path / "plain")
    data["bbox"][0, 2] *= 1.1
    benchmark.joblib.dump(data, tmp_path / "plain")
    with pytest.raises(SystemExit, match="penn_action: bbox adds up to"):
        benchmark.compare("penn_action", tmp_path)
    benchmark.joblib.dump({key: rows[1:] for key, rows in data.items()}, tmp_path / "plain")
    with pytest.raises(SystemExit, match="rows by the plain script"):
        benchmark.compare("penn_action", tmp_path)


def test_one_command_measures_and_writes_the_report(
    work: Path, benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_at_scale, "seed_of", lambda name, folder: work / "seeds" / name)
    monkeypatch.setattr(raw_at_scale, "FULL", {"penn_action": 20, "amass": 4})
    options = ["--datasets", "penn_action", "--scale", "0.01", "--full", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["convert.py", *options, "--out", str(tmp_path / "convert.md")])
    benchmark.main()
    text = (tmp_path / "convert.md").read_text()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    (speed,) = (line for line in sections["Speed, at 4 N videos"].splitlines() if line.startswith("| penn_action"))
    (memory,) = (
        line for line in sections["Memory, from N to 4 N videos"].splitlines() if line.startswith("| penn_action")
    )
    two, one, *_, plain_s, one_s, two_s = (cell.strip(" *") for cell in speed.split("|")[2:-1])
    assert float(two) == pytest.approx(float(plain_s) / float(two_s), abs=0.2)
    assert float(one) == pytest.approx(float(plain_s) / float(one_s), abs=0.2)
    assert min(float(mib) for cell in memory.split("|")[4:-1] for mib in cell.split("->")) > 20
    assert "| amass | 4 |" in sections["At full size"]
    assert "parsing .mat" in sections["Where the time of one process goes"]
    assert [path.name for path in tmp_path.iterdir()] == ["convert.md"]  # all else is cleared away


def test_memory_does_not_grow_with_the_number_of_videos(work: Path, tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
import cache.writer
from pipeline import convert, datasets
cache.writer.ROWS_PER_SHARD, cache.writer.ROWS_PER_CHUNK = 512, 64
raw, root = map(Path, sys.argv[1:])
convert.convert(convert.plan_conversion(datasets.get("penn_action"), "train", raw=raw, root=root))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for n_videos in (50, 400):
        raw = raw_at_scale.write("penn_action", work / "seeds/penn_action", tmp_path / str(n_videos), n_videos)
        command = [sys.executable, "-c", code, str(raw), str(tmp_path / f"cache {n_videos}")]
        peaks.append(int(subprocess.check_output(command, cwd=ROOT)) / 1024)
    assert peaks[1] - peaks[0] < 6, f"MiB: {peaks}"
