"""The benchmarks run, and their reports have figures."""

import importlib
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from pipeline import datasets  # noqa: E402
from pipeline.extras.demo import writing as synthetic  # noqa: E402
from pipeline.extras.demo.layouts import Request  # noqa: E402
from tests.environments import run  # noqa: E402
from tests.fixtures import planned  # noqa: E402
from vibe_model import models  # noqa: E402


@pytest.mark.promise("problems of MPI-INF-3DHP")
@pytest.mark.promise("flat memory")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_videos(tmp_path):
    code = """
import re, sys
from pathlib import Path
import cache.write.split_writer
from pipeline import datasets
from pipeline.steps.conversion import convert, plan
from pipeline.steps.recipe import Recipe
cache.write.split_writer.ROWS_PER_SHARD, cache.write.split_writer.ROWS_PER_CHUNK = 512, 64
raw, root = map(Path, sys.argv[1:])
convert.convert(plan.plan_conversion(Recipe(datasets.get("amass"), "train", raw, root)))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])  # getrusage has the parent's, too
"""
    peaks = []
    for n_videos in (50, 400):
        raw = tmp_path / str(n_videos)
        synthetic.write_dataset("amass", raw, Request(n_videos=n_videos, n_frames=250))
        command = [sys.executable, "-c", code, str(raw), str(tmp_path / f"cache {n_videos}")]
        peaks.append(int(subprocess.check_output(command, cwd=ROOT)) / 1024)
    assert peaks[1] - peaks[0] < 6, f"MiB: {peaks}"


def test_a_plan_needs_little_memory_for_each_clip(tmp_path):
    scale = importlib.import_module("scale")
    scale.make(tmp_path, "train", 8_000)
    places = {"raw": tmp_path / "raw/kinetics", "root": tmp_path / "cache"}
    planned(datasets.get("kinetics"), "train", **places)  # what is imported is no clip's
    tracemalloc.start()
    try:
        plan = planned(datasets.get("kinetics"), "train", **places)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (plan.up_to_date, len(plan.listed)) == (True, 2_000)
    assert kept / 2_000 < 850
    assert most / 2_000 < 1_100


def test_windows_that_differ_end_the_benchmark(tmp_path):
    import windows

    data = windows.make(tmp_path, rows=512, dim=4)
    starts = windows.draw(data, 8, seed=0)
    windows.compare(data, starts)
    numbers = np.load(data.npy, mmap_mode="r+")
    numbers[starts[3] + 15, 2] += 1
    with pytest.raises(SystemExit, match="cache, float16 reads other numbers"):
        windows.compare(data, starts)


def ran(name, out, *options):
    """The report of a benchmark's command, which deletes its other files."""
    command = [sys.executable, ROOT / f"benchmarks/{name}.py", *options, "--out", out / "report.md"]
    ended = run(command, ROOT, PYTHONPATH=str(ROOT), TMPDIR=str(out))
    assert ended.returncode == 0, ended.stderr
    of_libraries = ("torchinductor", "dask-scratch-space")
    left = [path.name for path in out.iterdir() if not path.name.startswith(of_libraries)]
    assert left == ["report.md"]
    return (out / "report.md").read_text()


def cells(text, row):
    """The cells of the one row that begins with `row`."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip(" *") for cell in line.split("|")[2:-1]]


MEASURED = {  # words of the command -> first cells of rows whose second cell is a positive number
    "windows --small": (
        "cache, float16",
        "memmap, np.take into the buffer",
        "h5py, opened per window",
        "zarr-python",
    ),
    "features --small": (
        "640 x 480 JPEG, 1 person",
        "1920 x 1080 JPEG, 1 person",
        "640 x 480 MPEG-4, 1 person",
        "32",
    ),
    "scale --tracks 8 240 --rows 1024": ("in memory", "on the disk"),
    "stored_grades --tracks 64 --stored 128": (
        "`status --csv`, computed",
        "`status --csv`, stored",
        "`status`",
    ),
    "jpegs": ("512 bytes cut out", "grey", "all"),
    "h264 --copies 1 --clips 10": ("one bit flipped", "640 x 352", "CABAC"),
    "training --small": ("usual", "ours, fp32", "ours, bf16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", MEASURED)
def test_one_command_measures_and_writes_the_report(words, tmp_path):
    name, *options = words.split()
    text = ran(name, tmp_path, *options)
    for row in MEASURED[words]:
        lines = [line for line in text.splitlines() if line.startswith(f"| {row} ")]
        assert lines
        for line in lines:
            number, *_ = re.findall(r"[\d,]*\.?\d+", line.removeprefix(f"| {row} "))
            assert float(number.replace(",", "")) > 0, line


@pytest.mark.slow
def test_one_command_shows_what_models_learn_from_planted_features(tmp_path):
    text = ran("learning", tmp_path, "--small")
    errors = {}
    for name in ("mean body", "per frame", "VIBE"):
        errors[name] = float(cells(text, name)[0].partition(" ")[0])
    assert max(errors, key=errors.__getitem__) == "mean body"


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_on_a_cpu_at_small_sizes(tmp_path):
    text = ran("gpu_check", tmp_path, "--tiny", "--device", "cpu")
    assert "A trial run at small sizes: its figures mean nothing" in text
    parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert parts == [title for title, *_ in importlib.import_module("gpu_check").PARTS]
    assert "Failed" not in text
    for case in ("64 x 48 JPEG, 1 person", "64 x 48 MPEG-4, 1 person"):
        assert "model " in text[text.index(f"| {case} |") :].partition("\n")[0]
    for model in models.every():
        steps = [
            line.split("|")[4]
            for line in text.splitlines()
            if line.startswith(f"| {model.title} |")
        ]
        assert len(steps) == 2
        assert all(float(rate) > 0 for rate in steps)
    assert "the same bytes as by one" in text


def test_the_check_of_a_gpu_goes_on_after_a_failure_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    page, gpu_check = tmp_path / "page.md", importlib.import_module("gpu_check")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(page)])
    with pytest.raises(SystemExit, match="torch finds no CUDA GPU here"):
        gpu_check.main()
    assert not page.exists()
    fails = ("A sum", lambda *_: (f"{1 // n}" for n in (1, 0)), "divide by another.")
    parts = [fails, ("Another", lambda *_: iter(["done"]), "")]
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--out", str(page)])
    with pytest.raises(
        SystemExit, match=r"A sum: ZeroDivisionError: .* What to do: divide by another"
    ):
        gpu_check.main()
    text = page.read_text()
    assert (
        "## A sum\n\n1\n\n**Failed.** A sum: ZeroDivisionError" in text
        and "## Another\n\ndone\n" in text
    )


@pytest.mark.slow
def test_twenty_steps_of_a_lab_leave_what_a_model_expects(tmp_path):
    text = ran("crashes", tmp_path, "--seed", 1, "--steps", 20)
    assert "**20 steps, " in text
    assert "killed: 0 differences.**" in text


def run_code(code, folder):
    ended = run([sys.executable, "-c", code, folder], ROOT, PYTHONPATH=str(ROOT))
    assert ended.returncode == 0, ended.stderr


NOTICED = """
import sys
import tracemalloc
from pathlib import Path
from benchmarks.crashes import Steps
from benchmarks.lab import differences

steps = Steps(Path(sys.argv[1]), 0)
for command in ("convert", "extract"):
    steps.end(steps.words(command), (0,))
whole = steps.require([steps.fresh()], complete=True)
track = next(name for name in whole if not name.startswith("video "))
entry = whole[track]
frames, columns = entry.labels
flags, rows = entry.stream
moved = entry._replace(labels=(frames, {**columns, "bbox": b""}))
cut = entry._replace(stream=(flags, rows[1:]))
lags = entry._replace(stream=None)
for changed in (None, moved, cut, lags):
    other = {name: entry for name, entry in whole.items() if name != track}
    if changed is not None:
        other[track] = changed
    assert differences(other, whole, complete=True) == [track], changed
"""


@pytest.mark.slow
def test_what_a_lab_does_not_have_in_its_cache_is_noticed(tmp_path):
    run_code(NOTICED, tmp_path)


KEEP_THEIR_ROWS = """
import random
import shutil
import sys
import tracemalloc
from pathlib import Path
from benchmarks.crashes import Steps
from tests.fixtures import planned

class Chosen(random.Random):
    def sample(self, names, n):
        return self.names

def exchange(*names):
    rng.names = names
    lab._exchange(rng)

def remove(name):
    (lab.raw / f"labels/{name}.mat").unlink()
    shutil.rmtree(lab.raw / "frames" / name)

rng = Chosen(0)
steps = Steps(Path(sys.argv[1]), 0)
lab = steps.lab
for command in ("convert", "extract"):
    steps.end(steps.words(command), (0,))
steps.current = steps.require([steps.fresh()], complete=True)

lab._spoil_label("0001")
lab._replace_image("0003", rng, is_broken=True)
exchange("0005", "0010")  # which is of the other split
exchange("0009", "0011")
remove("0011")  # so it is renamed, to 0009
remove("0007")
expected = steps.fresh()
kept = steps.lost(expected)
assert {entry.video for entry in kept.values()} == {"0001", "0003", "0005", "0007"}
steps.end(steps.words("convert"), (1,))
steps.current = steps.require([{**expected, **kept}])
steps.end(steps.words("extract"), (0,))
steps.require([steps.fresh_stream()], complete=True)
"""


@pytest.mark.slow
def test_a_lab_knows_which_videos_keep_their_rows(tmp_path):
    run_code(KEEP_THEIR_ROWS, tmp_path)
