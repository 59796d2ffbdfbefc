"""Broken packages cost themselves and a line."""

import itertools

import pytest

from pipeline import table
from pipeline.plug_ins import load
from tests import packages

GROUPS = ("datasets", "detectors", "exports", "models", "streams")
NUMBERS = itertools.count()  # a warning is printed once in a process


@pytest.fixture
def broken(site, monkeypatch, ran):
    """The name of a package with an entry in every group, which cannot be imported. The working
    folder has a luigi.cfg.
    """
    monkeypatch.chdir(site.parent)
    monkeypatch.setenv("COLUMNS", "400")
    ran("init")
    name = f"odd{next(NUMBERS)}"
    entries = {f"vibe_pipeline.{group}": {f"odd_{group}": f"{name}:THING"} for group in GROUPS}
    modules = {name: "raise ImportError('there is no torch3d')"}
    packages.install(site, name, entries, **modules)
    return name


def test_a_broken_package_costs_itself_and_a_line(broken, ran):
    shown = ran("config")
    assert "paths.raw" in shown.out
    why = "cannot be loaded: ImportError: there is no torch3d"
    warnings = [line for line in shown.err.splitlines() if line.startswith("!")]
    assert warnings == [f"! model 'odd_models' of package {broken} {why}"]


@pytest.mark.parametrize(
    "command",
    [
        "doctor odd_datasets",
        "export odd/train --format odd_exports --out file",
        "prepare videos --raw RAW --cache CACHE --detector odd_detectors",
    ],
)
def test_a_broken_thing_that_is_named_is_refused_with_its_error(broken, types, command):
    types(command, f"of package {broken}", "ImportError: there is no torch3d", code=2)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("wham", "export format 'wham' of package dance: this name is in use"),
        ("text", "of package dance: dance_entry:TEXT is not a ExportFormat whose name is 'text'"),
    ],
)
def test_an_export_that_takes_one_of_our_names_or_is_of_another_kind_is_refused(
    name, problem, site, types
):
    entries = {"vibe_pipeline.exports": {name: "dance_entry:TEXT"}}
    packages.install(site, "dance", entries, dance_entry="TEXT = 'x'")
    types(f"export a b --cache CACHE --format {name} --out file", problem, code=2)


def test_every_name_of_the_table_leads_to_something():
    commands = [f"{entry.module}:COMMAND" for entry in table.COMMANDS["pipeline"].values()]
    others = [where for entries in table.OWN.values() for where in entries.values()]
    for where in (*commands, *others):
        assert load(where) is not None, where
