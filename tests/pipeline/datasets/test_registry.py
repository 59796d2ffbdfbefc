import importlib
from dataclasses import make_dataclass
from pathlib import Path

import pytest

from pipeline import datasets, plug_ins, table
from pipeline.datasets.base import Dataset
from pipeline.extras.demo.writing import LAYOUTS
from pipeline.steps.conversion.identity import reader_parts
from tests import packages
from tests.pipeline.datasets.contract import ImageFolders
from tests.pipeline.datasets.made_smplx import write_models
from tests.raising import config_refuses, pipeline_refuses

ROOT = Path(__file__).parents[3]
OTHERS = {"__init__", "__pycache__", "base", "labels", "releases", "shared"}  # beside the readers


def names_in(folder):
    return {entry.stem for entry in (ROOT / folder).iterdir()}


def test_a_dataset_is_a_line_of_the_table_and_a_reader_a_demo_layout_a_page_and_a_test():
    """A file's first dataset names the page and the test."""
    modules = {datasets.MODULES[name] for name in datasets.WITH_DEMO_DATA}
    readers = names_in("pipeline/datasets") - OTHERS
    assert readers == modules, "a reader needs a line of pipeline/table.py"
    layouts = names_in("pipeline/extras/demo/layouts") - OTHERS
    assert layouts == modules, "pipeline/extras/demo/layouts/ needs a file for each reader"
    names = {*datasets.WITH_DEMO_DATA}
    assert names_in("docs/datasets") == names, "docs/datasets/ needs a page for each reader"
    tests = {f"test_{name}" for name in names} - names_in("tests/pipeline/datasets")
    assert tests == set(), "tests/pipeline/datasets/ needs a file for each reader"
    assert {name: layout.name for name, layout in LAYOUTS.items()} == {name: name for name in names}


@pytest.mark.parametrize("name", datasets.RELEASES)
def test_a_release_of_image_folders_is_tried_with_damaged_ones(name):
    tests = importlib.import_module(f"tests.pipeline.datasets.test_{name}")
    contracts = [
        test
        for test in vars(tests).values()
        if isinstance(test, type) and issubclass(test, ImageFolders) and test is not ImageFolders
    ]
    assert bool(contracts) == (datasets.get(name).release.image_folders is not None)
    assert {test.dataset for test in contracts} <= {name}


def test_packages_come_after_ours_and_two_claims_to_a_name_are_refused(site):
    entries = {datasets.ENTRY_POINTS: {"dances": "d:Dances"}}
    packages.install(site, "one", entries)
    assert datasets.names() == (*table.OWN[datasets.ENTRY_POINTS], "dances")
    plug_ins._entry_points.cache_clear()
    packages.install(site, "two", entries)
    with pipeline_refuses("'dances' comes from package "):
        datasets.names()


def test_an_unknown_name_and_an_option_that_a_dataset_lacks_are_refused_with_the_known_ones():
    with pipeline_refuses("no dataset is called 'penn'; known: penn_action, "):
        datasets.get("penn")
    with config_refuses("amass has no option rate; it has resampling"):
        datasets.get("amass", rate=30)


def test_no_reader_leaves_an_option_of_all_datasets_out_of_its_identity(monkeypatch, tmp_path):
    assert reader_parts(datasets.get("insta_variety"), "train", tmp_path, None)["parameters"] == {}
    common = vars(make_dataclass("Common", [("tallest", int, 0)]))["__dataclass_fields__"]
    readers = [datasets.get(name) for name in table.OWN[datasets.ENTRY_POINTS]]
    monkeypatch.setattr(Dataset, "__dataclass_fields__", common)
    write_models(tmp_path)
    for reader in readers:
        object.__setattr__(reader, "tallest", 7)
        monkeypatch.setattr(
            type(reader),
            "__dataclass_fields__",
            vars(type(reader))["__dataclass_fields__"] | common,
        )
        body = tmp_path if reader.labels.needs_body else None
        assert reader_parts(reader, "train", tmp_path, body)["parameters"]["tallest"] == 7, (
            reader.name
        )
