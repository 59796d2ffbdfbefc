"""Each promise and each problem of a page has a test or a benchmark, and each figure is in a
report.
"""

import re

import numpy as np
import pytest

from cache.format.layout import COLUMNS
from pipeline import datasets, table
from pipeline.datasets.base import Dataset
from tests.docs.markdown import ROOT, document, tables

README, PROMISES = (ROOT / "README.md").read_text(), document("promises.md")
MEASURED = document("measured.md")
PROBLEMS = document("problems.md")
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"


def test_each_promise_has_a_list_of_the_tests_that_are_marked_with_it():
    """The lists themselves are tables: tests/docs/test_tables.py."""
    prose = PROMISES.partition("## Damage that is not seen")[0]
    promises, more = prose.split("## Also tested")
    for section in promises.split("\n## ")[1:]:
        assert section.count("<!-- table tests of ") == 1, section
    assert promises.count("\n## ") == 11
    assert more.count("<!-- table tests of ") >= 18
    assert prose.count("\n- ") > 85  # tests


def test_the_problems_of_each_dataset_have_a_list_of_the_tests_that_are_marked_with_it():
    sections = PROBLEMS.split("\n## ")[1:]
    for section in sections:
        dataset = section.partition("\n")[0]
        assert section.count(f"<!-- table tests of problems of {dataset} -->") == 1
        assert "`tests/" in section
    assert PROBLEMS.count("\n- ") > 90  # problems and tests


FIGURES = [
    tuple(row.values())
    for text, first in ((MEASURED, "what, on which input"), (README, "what"))
    for row in tables(text, first)
]


@pytest.mark.parametrize(
    ("what", "figure", "source"), FIGURES, ids=[what[:40] for what, *_ in FIGURES]
)
def test_a_figure_is_in_the_report_of_its_benchmark(what, figure, source):
    name = re.search(r"benchmarks/\w+\.md", source)
    assert name is not None
    report = (ROOT / name[0]).read_text()
    text = re.sub(r"640 x 480|1920 x 1080|16[ -]frame|2 cores|16 cores", "", f"{what} {figure}")
    measured = re.findall(rf"(?<![\w.,]){NUMBER}(?![\w])", text)
    assert measured
    values = [float(number.replace(",", "")) for number in re.findall(NUMBER, report)]
    values += [1 / value for value in values if value]  # of ratios: slower by as much
    decimals = {number: len(number.partition(".")[2]) for number in measured}
    assert [
        number
        for number, n in decimals.items()
        if number not in {f"{value:,.{n}f}" for value in values}
    ] == []


def test_the_page_of_figures_has_ten():
    assert len(list(tables(MEASURED, "what, on which input"))) == 10


def test_a_row_takes_as_much_space_as_the_readme_says():
    labels_2d = ("frame_index", "bbox", "kp_2d", "valid")
    labels_3d = (*labels_2d, "kp_3d", "pose", "betas", "trans", "has_3d", "has_smpl")
    features = 2048 * np.dtype("float16").itemsize + 1 + 16  # flag, key
    of_2d, of_3d = (
        (
            sum(int(np.prod(COLUMNS[name].shape)) * COLUMNS[name].dtype.itemsize for name in labels)
            + features
        )
        / 1000
        for labels in (labels_2d, labels_3d)
    )
    expected = (
        f"With its features it takes {of_2d:.1f} KB with 2D labels, {of_3d:.1f} KB with 3D "
        "joints and SMPL"
    )
    assert expected in " ".join(README.split())


def test_the_table_of_leaks_has_each_dataset_that_names_people_or_recordings():
    rows = [row for row in tables(document("datasets.md"), "dataset") if "person" in row]
    words = re.findall(r"\w+", " ".join(row["dataset"] for row in rows))
    readers = [datasets.get(name) for name in table.OWN[datasets.ENTRY_POINTS]]
    knowing = {reader.name for reader in readers if type(reader).origin is not Dataset.origin}
    assert {*words} & {reader.name for reader in readers} == knowing
