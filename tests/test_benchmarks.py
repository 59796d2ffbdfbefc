"""The benchmarks run, and their reports hold what they measured."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import cache  # noqa: E402
from pipeline import datasets, synthetic  # noqa: E402
from pipeline.conversion import convert  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.mark.slow
def test_one_command_measures_conversion_and_writes_the_report(tmp_path: Path) -> None:
    options = ["--datasets", "amass", "--scale", "0.02", "--frames", "100", "--beside", ".", "--work", str(tmp_path)]
    command = [sys.executable, "benchmarks/convert.py", *options, "--out", str(tmp_path / "convert.md")]
    subprocess.run(command, cwd=ROOT, check=True)
    sections = {part.partition("\n")[0]: part for part in (tmp_path / "convert.md").read_text().split("\n## ")}
    names = ["Speed at 4 N videos", "Beside another checkout", "Memory from N to 4 N videos"]
    assert [*sections][1:] == names
    for name in names:
        (line,) = (line for line in sections[name].splitlines() if line.startswith("| amass "))
        assert "-" not in line.replace("->", "")
    assert [path.name for path in tmp_path.iterdir()] == ["convert.md"]  # all else is deleted


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_videos(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
import cache.write.split_writer
from pipeline import datasets
from pipeline.conversion import convert, plan
cache.write.split_writer.ROWS_PER_SHARD, cache.write.split_writer.ROWS_PER_CHUNK = 512, 64
raw, root = map(Path, sys.argv[1:])
convert.convert(plan.plan_conversion(datasets.get("amass"), "train", raw=raw, root=root))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for n_videos in (50, 400):
        raw = tmp_path / str(n_videos)
        synthetic.write_dataset("amass", raw, n_videos=n_videos, n_frames=250)
        command = [sys.executable, "-c", code, str(raw), str(tmp_path / f"cache {n_videos}")]
        peaks.append(int(subprocess.check_output(command, cwd=ROOT)) / 1024)
    assert peaks[1] - peaks[0] < 6, f"MiB: {peaks}"


@pytest.fixture
def scale() -> Any:
    """benchmarks/scale.py, as a module."""
    return importlib.import_module("scale")


def test_what_scale_is_measured_on_is_a_cache_like_any_other(scale: Any, tmp_path: Path) -> None:
    for split in scale.SPLITS:
        scale.make(tmp_path, split, 240)  # three full shards, and a part of one
    assert cache.verify(tmp_path / "cache").ok
    split = cache.open(tmp_path / "cache")["kinetics/train"]
    assert (len(split.tracks), len(split.videos), split.manifest["rows"]) == (240, 60, 240 * 128)
    assert len(split.windows(16, 16, stream="resnet50")) == 240 * 128 // 16
    (tmp_path / "cache/kinetics/train/stamps.json").unlink()  # then contents decide: they are true too
    plan = convert.plan_conversion(
        datasets.get("kinetics"), "train", raw=tmp_path / "raw/kinetics", root=tmp_path / "cache"
    )
    assert (plan.why, plan.kept, len(plan.touched)) == ("", 60, 60)


@pytest.mark.slow
def test_one_command_measures_how_everything_grows(scale: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--tracks", "8", "240", "--rows", "1024", "--work", str(tmp_path), "--out", str(tmp_path / "scale.md")]
    monkeypatch.setattr(sys, "argv", ["scale.py", *options])
    scale.main()
    text = (tmp_path / "scale.md").read_text()
    for call in (*scale.CALLS, *scale.COMMANDS):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{call}` |"))
        *cells, growth = line.split("|")[2:-1]
        first, second = (float(cell.partition("(")[2].partition(")")[0]) for cell in cells)
        assert float(growth) == pytest.approx(second / first, rel=0.1, abs=0.1)
        assert all(float(cell.partition(", ")[2].removesuffix(" MiB ")) > 20 for cell in cells)
    for state in ("in memory", "on the disk"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {state} |"))
        cat, verify, ratio = (float(cell.strip(" *").replace(",", "")) for cell in line.split("|")[2:-1])
        assert ratio == pytest.approx(verify / cat, abs=0.02)
    assert "30,720 rows, 60 videos, 4 shards" in text
    assert [path.name for path in tmp_path.iterdir()] == ["scale.md"]  # all else is cleared away


@pytest.mark.slow
def test_a_measure_of_something_else_ends_the_benchmark(scale: Any, tmp_path: Path) -> None:
    scale.make(tmp_path, "train", 8)
    raw = tmp_path / "raw/kinetics"
    command = [sys.executable, "-m", "pipeline", "plan", "kinetics", "train", "--raw", str(raw)]
    here = [*command, "--cache", str(tmp_path / "cache")]
    assert scale.command_figure(here, "up to date", tmp_path).peak > 20
    next((raw / "train").rglob("*.mp4")).unlink()
    with pytest.raises(SystemExit, match="expected 'up to date', found exit code 0"):
        scale.command_figure(here, "up to date", tmp_path)


@pytest.mark.slow
def test_one_command_measures_windows_and_writes_the_report(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/windows.py"), "--small", "--at", str(tmp_path)]
    run = subprocess.run([*command, "--out", str(tmp_path / "windows.md")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "windows.md").read_text()
    assert text.strip() == run.stdout.strip()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    assert [*sections][1:] == ["Windows", "Whole training batches"]
    for way in ("cache, float16", "memmap, np.take into the buffer", "h5py, opened per window", "zarr-python"):
        (line,) = (line for line in sections["Windows"].splitlines() if line.startswith(f"| {way} "))
        assert float(line.split("|")[2].replace(",", "")) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["windows.md"]  # all else is cleared away


def test_windows_that_differ_end_the_benchmark(tmp_path: Path) -> None:
    import windows

    data = windows.make(tmp_path, rows=512, dim=4)
    starts = windows.draw(data, 8, seed=0)
    windows.compare(data, starts, batch=8)
    numbers = np.load(data.npy, mmap_mode="r+")
    numbers[starts[3] + 15, 2] += 1
    with pytest.raises(SystemExit, match="cache, float16 reads other numbers"):
        windows.compare(data, starts, batch=8)


@pytest.mark.slow
def test_kills_are_counted_and_what_went_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import crashes

    none = "--toy 8 --commands 0 --training 0 --work"
    options = [*none.split(), str(tmp_path), "--out", str(tmp_path / "crashes.md")]
    monkeypatch.setattr(sys, "argv", ["crashes.py", *options])
    assert crashes.main() == 0
    text = (tmp_path / "crashes.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(crashes.RUNS)
    kills = sum(int(row.split(" | ")[1]) for row in rows)
    assert kills >= 8
    assert f"**{kills} kills. Every cache verified" in text
    assert [path.name for path in tmp_path.iterdir()] == ["crashes.md"]
    wrong = crashes.Tally("a run", kills=1, wrong=["a reader saw a mixture"])
    assert "- a reader saw a mixture" in crashes.report([wrong], seed=0, seconds=1)
    assert "Every cache verified" not in crashes.report([wrong], seed=0, seconds=1)


@pytest.mark.slow
def test_one_command_measures_features_and_writes_the_report(tmp_path: Path) -> None:
    options = ["--cases", "vga4", "cropped", "--frames", "40", "--usual", "2", "--rounds", "1", "--memory", "32"]
    command = [sys.executable, "benchmarks/features.py", *options, "--device", "cpu", "--out", str(tmp_path / "f.md")]
    subprocess.run(
        command,
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    (line,) = (one for one in (tmp_path / "f.md").read_text().splitlines() if one.startswith("| 640 x 480 JPEG, 4"))
    cells = [float(cell.partition(" (")[0].replace(",", "")) for cell in line.split("|")[2:-2]]
    ratio, usual, ours, decode, model, limit, share = cells
    assert ratio == pytest.approx(ours / usual, rel=0.01, abs=0.01)
    assert limit == pytest.approx(1 / (1 / decode + 1 / model), rel=0.01, abs=0.01)
    assert share == pytest.approx(ours / limit, rel=0.01, abs=0.01)


@pytest.mark.slow
def test_one_command_measures_training_and_writes_the_report(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/training.py"), "--small", "--at", str(tmp_path)]
    run = subprocess.run([*command, "--out", str(tmp_path / "training.md")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "training.md").read_text()
    assert "DEMO data" in text
    for way in ("usual", "ours, fp32", "ours, bf16"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {way} |"))
        assert float(line.split("|")[2]) > 0
    (line,) = (line for line in text.splitlines() if line.startswith("| kp_3d |"))
    assert float(line.split("|")[2]) <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["training.md"]
