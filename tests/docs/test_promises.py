"""docs/promises.md and the README say what is held by a test or measured by a benchmark, and nothing else."""

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cache.format.layout import COLUMNS
from pipeline import datasets
from pipeline.datasets import mpi_inf_3dhp
from vibe_extensions.demo import RELEASES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROMISES = (ROOT / "docs/promises.md").read_text()
DATASETS = (ROOT / "docs/datasets.md").read_text()
NAMED_TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PROMISES)))
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"


@cache
def functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose first column is called `first`."""
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, f"no table begins with {first!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_every_promise_is_held_by_tests_and_benchmarks_that_exist() -> None:
    assert len(NAMED_TESTS) > 50
    for file, name in NAMED_TESTS:
        assert (ROOT / file).is_file(), file
        assert not name or name in functions(ROOT / file), f"{file}::{name}"
    for benchmark in re.findall(r"benchmarks/\w+\.(?:py|md)", PROMISES + README):
        assert (ROOT / benchmark).is_file(), benchmark
    for line in PROMISES.partition("## Figures")[0].splitlines():
        if line.startswith("| ") and not line.startswith("| promise"):
            assert "`tests/" in line or "`benchmarks/" in line, line


FIGURES = [*rows(PROMISES, "what"), *rows(README, "what")]


@pytest.mark.parametrize("row", FIGURES, ids=lambda row: row[0][:40] or row[1][:40])
def test_a_figure_stands_in_the_report_of_its_benchmark(row: list[str]) -> None:
    name = re.search(r"benchmarks/\w+\.md", row[2])
    assert name is not None
    report = (ROOT / name[0]).read_text()
    text = re.sub(r"640 x 480|16 frames|aim: 10", "", f"{row[0]} {row[1]}")
    measured = re.findall(rf"(?<![\w.,]){NUMBER}(?![\w])", text)
    assert measured
    for figure in measured:
        assert figure in report, f"{figure} is not in {name[0]}"


def test_a_row_takes_as_much_space_as_the_readme_says() -> None:
    labels_2d = ("frame_index", "bbox", "kp_2d", "valid")
    labels_3d = (*labels_2d, "kp_3d", "pose", "betas", "trans", "has_3d", "has_smpl")
    features = 2048 * np.dtype("float16").itemsize + 1 + 16  # flag, key
    of_2d, of_3d = (
        (sum(int(np.prod(COLUMNS[name].trailing)) * COLUMNS[name].dtype.itemsize for name in labels) + features) / 1000
        for labels in (labels_2d, labels_3d)
    )
    expected = f"With its features it takes {of_2d:.1f} KB with 2D labels, {of_3d:.1f} KB with 3D joints and SMPL"
    assert expected in " ".join(README.split())


def test_the_sizes_of_the_releases_are_those_that_doctor_and_status_know() -> None:
    sizes = {row[0]: row[1] for row in rows(DATASETS, "dataset")}
    assert len(sizes) == len(RELEASES)
    for (link, text), name in zip(sizes.items(), RELEASES, strict=True):
        assert f"datasets/{name}.md" in link
        totals = datasets.get(name).totals
        known = {n for total in totals.values() for n in (total.videos, total.frames) if n is not None}
        known |= {
            sum(total.videos or 0 for total in totals.values()),
            sum(total.frames or 0 for total in totals.values()),
        }
        if name == "mpi_inf_3dhp":
            known |= {len(mpi_inf_3dhp.SEQUENCES), len(mpi_inf_3dhp.CAMERAS)}
        for number in re.findall(rf"{NUMBER}(?! fps)(?=\s)", text):
            assert int(number.replace(",", "")) in known or number == "50", f"{name}: {number}"
