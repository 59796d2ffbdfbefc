"""docs/licences.md names every package that is installed because of this project, with the licence that it states."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "licences.md").read_text()
AGAIN = "see what is new there, then: .venv/bin/python docs/licences.py"


def the_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences_page", ROOT / "docs" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass asks for it
    spec.loader.exec_module(module)
    return module


licences = the_generator()


def excused() -> set[str]:
    """The packages of the table that says why a licence with conditions is no problem."""
    section = PAGE.partition("| package | why it is no problem here |")[2].partition("<!--")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return {name.strip() for cell in cells for name in cell.split(",")}


def stating(path: Path, lines: str) -> Distribution:
    """An installed package whose metadata have these lines."""
    path.mkdir()
    (path / "METADATA").write_text(f"Metadata-Version: 2.4\nName: made-up\nVersion: 1\n{lines}\n")
    return Distribution.at(path)


@pytest.mark.parametrize("use", licences.named())
def test_everything_that_the_project_names_is_in_the_table(use: str) -> None:
    told = licences.told(PAGE)
    for requirement in licences.named()[use]:
        assert canonicalize_name(Requirement(requirement).name) in told, f"{requirement}: {AGAIN}"


def test_everything_that_comes_with_it_is_in_the_table_with_the_licence_that_it_states() -> None:
    installed = {package.name: package.licence for package in licences.packages()}
    told = licences.told(PAGE)
    assert len(installed) > 40
    assert {name: told.get(name) for name in installed} == installed, AGAIN


def test_no_licence_with_conditions_comes_in_without_a_word_on_it() -> None:
    names = [package.name for package in licences.packages() if not package.permissive]
    assert {"smplx", "hypothesis"} <= {*names}
    unexplained = [name for name in names if not {name, re.sub(r"^nvidia-.*", "nvidia-*", name)} & excused()]
    assert unexplained == [], f"say in docs/licences.md why they are no problem, or do without: {unexplained}"


def test_no_word_is_said_on_a_package_that_does_not_come_in() -> None:
    assert excused() - {"nvidia-*"} <= licences.told(PAGE).keys()


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        ("License-Expression: MIT AND GPL-3.0-only\nLicense: MIT", "MIT AND GPL-3.0-only"),
        ("License: Apache License 2.0", "Apache-2.0"),
        ("License: MIT License\n        \n        Copyright of somebody", "MIT"),
        (
            "License: Whatever\n        \n        is written here\nClassifier: License :: OSI Approved :: BSD License",
            "BSD",
        ),
        ("License: UNKNOWN", "not stated"),
        ("", "not stated"),
        (
            "License: Dual License\nClassifier: License :: OSI Approved :: BSD License\n"
            "Classifier: License :: OSI Approved :: GNU General Public License (GPL)",
            "BSD, GPL",
        ),
    ],
)
def test_a_licence_is_read_as_the_metadata_state_it(lines: str, licence: str, tmp_path: Path) -> None:
    assert licences.licence_of(stating(tmp_path / "made_up-1.dist-info", lines)) == licence


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("(MIT AND ISC) OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("BSD, GPL", False),
        ("LGPL-2.1-only", False),
        ("MPL-2.0", False),
        ("AGPL-3.0-or-later", False),
        ("not stated", False),
        ("a licence of tomorrow", False),
    ],
)
def test_what_is_not_known_to_be_permissive_is_not(licence: str, permissive: bool) -> None:
    assert licences.Package("made-up", "run", "", licence).permissive is permissive
