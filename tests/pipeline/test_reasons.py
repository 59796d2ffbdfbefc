"""What reasons mean, against the pages of the datasets."""

import ast
import re
from pathlib import Path

import pytest

from pipeline.accounting import REASONS, UNKNOWN, is_error, reason

pytestmark = pytest.mark.promise("counted")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROW = re.compile(r"^\| `(\w+)` \| (?:video|track|frames)[^|]*\| (.*) \|$", re.MULTILINE)


def documented():
    """Each reason of the pages, with its meanings there."""
    found = {}
    for page in (DOCS / "reasons.md", *sorted((DOCS / "datasets").glob("*.md"))):
        for name, meaning in ROW.findall(page.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(meaning)
    return found


def texts(*nodes):
    return {node.value for node in nodes if isinstance(node, ast.Constant) and node.value}


def reasons_in(code):
    """The reasons that a module names: of errors, of what an account drops, keys of `reasons`."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.keyword(arg="reason", value=value):
                found |= texts(value)
            case ast.Call(
                func=ast.Attribute(attr="reject" | "drop" | "drop_track"), args=[first, *_]
            ):
                found |= texts(first)
            case (
                ast.keyword(arg="reasons", value=ast.Dict(keys=keys))
                | ast.Assign(targets=[ast.Name(id="reasons")], value=ast.Dict(keys=keys))
            ):
                found |= texts(*keys)
    return found


def test_every_reason_that_a_reader_names_has_a_meaning():
    folders = ("pipeline/datasets", "pipeline/clips/labels", "pipeline/clips/tracks")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    named = {(reason, file.name) for file in files for reason in reasons_in(file.read_text())}
    assert len(named) > 40
    assert sorted(found for found in named if found[0] not in REASONS) == []


def test_every_reason_that_a_page_of_a_dataset_explains_has_a_meaning():
    assert len(documented()) > 25
    assert documented().keys() - REASONS.keys() == set()


def test_reasons_that_the_pages_call_no_failure_are_by_design():
    harmless = {
        name
        for name, meanings in documented().items()
        if any("nothing is wrong" in m or "not a failure" in m for m in meanings)
    }
    assert harmless == {"resampled", "not_sampled", "no_keypoints", "no_annotations"}
    assert not any(map(is_error, harmless))
    assert all(reason(name).by_design for name in harmless)


def test_an_unknown_reason_is_not_taken_for_harmless():
    assert reason("made_up_by_a_plug_in") == UNKNOWN
    assert is_error("made_up_by_a_plug_in")
    assert is_error("no_label")
