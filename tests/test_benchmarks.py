"""The benchmark of conversion is honest: both sides do the same, and what it prints is what it measured."""

from __future__ import annotations

import importlib
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

import cache  # noqa: E402
from pipeline import datasets, synthetic  # noqa: E402
from pipeline.conversion import convert  # noqa: E402
from pipeline.synthetic.layouts import writing  # noqa: E402

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_videos(work: Path, tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
import cache.write.split_writer
from pipeline import datasets
from pipeline.conversion import convert, plan
cache.write.split_writer.ROWS_PER_SHARD, cache.write.split_writer.ROWS_PER_CHUNK = 512, 64
raw, root = map(Path, sys.argv[1:])
convert.convert(plan.plan_conversion(datasets.get("penn_action"), "train", raw=raw, root=root))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for n_videos in (50, 400):
        raw = raw_at_scale.write("penn_action", work / "seeds/penn_action", tmp_path / str(n_videos), n_videos)
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
    options = ["--tracks", "8", "240", "--work", str(tmp_path), "--out", str(tmp_path / "scale.md")]
    monkeypatch.setattr(sys, "argv", ["scale.py", *options])
    scale.main()
    text = (tmp_path / "scale.md").read_text()
    for call in (*scale.CALLS.values(), *scale.COMMANDS):
        seconds, peak = (line for line in text.splitlines() if line.startswith(f"| `{call}` |"))
        *figures, growth = seconds.split("|")[2:-1]
        first, second = (float(figure.partition("(")[2].rstrip(") ")) for figure in figures)
        assert float(growth) == pytest.approx(second / first, rel=0.1, abs=0.1)
        assert all(float(mib) > 20 for mib in peak.split("|")[2:-1])
    assert "| 240 | 30,720 | 60 | 4 | 1,920 |" in text
    assert [path.name for path in tmp_path.iterdir()] == ["scale.md"]  # all else is cleared away


def test_a_measure_of_something_else_ends_the_benchmark(scale: Any, tmp_path: Path) -> None:
    scale.make(tmp_path, "train", 8)
    raw = tmp_path / "raw/kinetics"
    command = [sys.executable, "-m", "pipeline", "plan", "kinetics", "train", "--raw", str(raw)]
    here = [*command, "--cache", str(tmp_path / "cache")]
    assert scale.command_figure(here, "nothing to do", tmp_path).peak > 20
    next((raw / "train").rglob("*.mp4")).unlink()
    with pytest.raises(SystemExit, match="expected 'nothing to do', found exit code 0"):
        scale.command_figure(here, "nothing to do", tmp_path)


@pytest.mark.slow
def test_one_command_measures_windows_and_writes_the_report(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/windows.py"), "--small", "--at", str(tmp_path)]
    run = subprocess.run([*command, "--out", str(tmp_path / "windows.md")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "windows.md").read_text()
    assert text.strip() == run.stdout.strip()
    sections = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    assert [*sections][1:] == ["Windows", "Whole training batches", "Cold", "Two processes", "Memory"]
    for way in ("cache, float16", "memmap, np.take into the buffer", "h5py, opened per window", "zarr-python"):
        (line,) = (line for line in sections["Windows"].splitlines() if line.startswith(f"| {way} "))
        assert float(line.split("|")[2].replace(",", "")) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["windows.md"]  # all else is cleared away


def test_windows_that_differ_end_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import windows_data
    import windows_ways

    data = windows_data.make(tmp_path, rows=512, dim=4)
    starts = windows_ways.draw(data, 8, seed=0)
    windows_ways.compare(data, starts, batch=8)
    numbers = windows_ways.np.load(data.npy, mmap_mode="r+")
    numbers[starts[3] + 15, 2] += 1
    with pytest.raises(SystemExit, match="cache, float16 reads other numbers"):
        windows_ways.compare(data, starts, batch=8)


@pytest.fixture
def of_verify() -> Any:
    """benchmarks/verify.py, as a module."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("benchmark_of_verify", ROOT / "benchmarks/verify.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_cat_and_verify_are_measured_over_the_same_bytes(of_verify: Any, tmp_path: Path) -> None:
    of_verify.write_cache(tmp_path, 1024)
    files = of_verify.files_of(tmp_path)
    speeds = of_verify.measure(tmp_path, 1)
    assert {state for _, state in speeds} == {"warm", "cold"}
    read = sum(file.stat().st_size for file in files if "c" in file.parts) / 1e6
    assert speeds["cat", "warm"].mb == pytest.approx(sum(file.stat().st_size for file in files) / 1e6)
    assert read > speeds["verify", "warm"].mb > 0.98 * read  # of small files, verify counts no bytes


@pytest.mark.slow
def test_one_command_measures_verify_and_writes_the_report(
    of_verify: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--rows", "1024", "--times", "1", "--tracks", "300", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["verify.py", *options, "--out", str(tmp_path / "verify.md")])
    of_verify.main()
    text = (tmp_path / "verify.md").read_text()
    for state in ("in memory", "on the disk"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {state} |"))
        cat, verify, ratio, *_ = (float(cell.strip(" *").replace(",", "")) for cell in line.split("|")[2:-1])
        assert ratio == pytest.approx(verify / cat, abs=0.02)
    assert "| 300 | 30,000 |" in text
    assert [path.name for path in tmp_path.iterdir()] == ["verify.md"]  # all else is cleared away


@pytest.mark.slow
def test_kills_are_counted_and_what_went_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import crashes

    options = ["--toy", "7", "--commands", "0", "--work", str(tmp_path), "--out", str(tmp_path / "crashes.md")]
    monkeypatch.setattr(sys, "argv", ["crashes.py", *options])
    assert crashes.main() == 0
    text = (tmp_path / "crashes.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(crashes.RUNS)
    kills = sum(int(row.split(" | ")[2]) for row in rows)
    assert kills >= 7
    assert f"**{kills} kills. Every cache verified" in text
    assert [path.name for path in tmp_path.iterdir()] == ["crashes.md"]
    wrong = crashes.Tally("a run", changes=9, kills=1, wrong=["a reader saw a mixture"])
    assert "- a reader saw a mixture" in crashes.report([wrong], seed=0, seconds=1)
    assert "Every cache verified" not in crashes.report([wrong], seed=0, seconds=1)


@pytest.mark.slow
def test_a_command_dies_at_the_moment_and_not_otherwise(work: Path, tmp_path: Path) -> None:
    import crashes

    raw = work / "seeds/penn_action"
    command = crashes.Command("convert", ["convert", "penn_action", "train", "--raw", str(raw), "--workers", "1"])
    status, changes, seconds = command.run(tmp_path / "calm")
    assert status == 0
    assert seconds > 0
    assert command.run(tmp_path / "killed", crashes.Moment(at=changes // 2)) == (-9, 0, 0.0)
    assert (tmp_path / "killed/penn_action/train/.writing").is_dir()
    assert command.run(tmp_path / "killed")[0] == 0
    assert crashes.contents(tmp_path / "killed") == crashes.contents(tmp_path / "calm")


@pytest.mark.slow
def test_one_command_measures_features_and_writes_the_report(tmp_path: Path) -> None:
    options = ["--cases", "vga4", "cropped", "--frames", "40", "--usual", "2", "--rounds", "1", "--memory", "32"]
    command = [sys.executable, "benchmarks/features.py", *options, "--device", "cpu", "--out", str(tmp_path / "f.md")]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
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
    assert "STAND-IN" in text
    for way in ("usual", "ours, fp32", "ours, bf16"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {way} |"))
        assert float(line.split("|")[2]) > 0
    (line,) = (line for line in text.splitlines() if line.startswith("| kp_3d |"))
    assert float(line.split("|")[2]) <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["training.md"]
