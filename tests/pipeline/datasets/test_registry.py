from dataclasses import make_dataclass

import pytest

from pipeline import datasets, plug_ins, table
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, PipelineError
from pipeline.steps.conversion.identity import reader_parts
from tests import packages
from tests.pipeline.datasets.made_smplx import write_models


def test_packages_come_after_ours_and_two_claims_to_a_name_are_refused(site):
    entries = {datasets.ENTRY_POINTS: {"dances": "d:Dances"}}
    packages.install(site, "one", entries)
    assert datasets.names() == (*table.OWN[datasets.ENTRY_POINTS], "dances")
    plug_ins._entry_points.cache_clear()
    packages.install(site, "two", entries)
    with pytest.raises(PipelineError, match="'dances' comes from package "):
        datasets.names()


def test_an_unknown_name_and_an_option_that_a_dataset_lacks_are_refused_with_the_known_ones():
    with pytest.raises(PipelineError, match="no dataset is called 'penn'; known: penn_action, "):
        datasets.get("penn")
    with pytest.raises(ConfigError, match="amass has no option rate; it has resampling"):
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
