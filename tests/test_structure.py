"""docs/structure.md and its picture say what the code is."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"
REWRITE = "the code has changed: .venv/bin/python docs/structure.py writes docs/structure.md and .svg anew"


@pytest.fixture
def structure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/structure.py, as a module of its own in each test."""
    spec = importlib.util.spec_from_file_location("structure", ROOT / "docs" / "structure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "structure", module)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_the_code_says(structure: ModuleType) -> None:
    assert (ROOT / "docs" / "structure.svg").read_text() == structure.draw(), REWRITE


def test_the_page_is_what_the_code_says(structure: ModuleType) -> None:
    assert (ROOT / "docs" / "structure.md").read_text() == structure.page(), REWRITE


def test_every_module_says_what_it_is(structure: ModuleType) -> None:
    silent = [name for name, file in structure.modules().items() if not structure.about(file)]
    assert silent == []


def test_every_module_is_in_the_page() -> None:
    page = (ROOT / "docs" / "structure.md").read_text()
    listed = {}
    for section in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]:
        listed[section.partition("`")[2].partition("`")[0]] = set(re.findall(r"^\| `(\w+)` ", section, re.MULTILINE))
    for package in ("cache", "pipeline", "vibe_model", "report", "tasks"):
        for file in (ROOT / package).rglob("*.py"):
            if file.name != "__init__.py":
                assert file.stem in listed[file.parent.relative_to(ROOT).as_posix()], file


def test_the_picture_is_told_in_words_and_needs_nothing_else() -> None:
    for name in ("structure.svg", "flow.svg"):
        text = (ROOT / "docs" / name).read_text()
        picture = ElementTree.fromstring(text)
        assert (picture.findtext(f"{SVG}title") or "").strip(), name
        assert len((picture.findtext(f"{SVG}desc") or "").split()) > 20, name
        assert "<script" not in text, name
        assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}, name


def test_every_text_lies_within_the_picture() -> None:
    for name in ("structure.svg", "flow.svg"):
        picture = ElementTree.parse(ROOT / "docs" / name).getroot()
        _, _, width, height = map(float, picture.attrib["viewBox"].split())
        for text in picture.iter(f"{SVG}text"):
            assert 0 < float(text.attrib["x"]) < width, text.text
            assert 0 < float(text.attrib["y"]) < height, text.text


@pytest.fixture
def made_up(structure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A project of two packages."""
    files = {
        "tasks/__init__.py": '"""What runs."""\nfrom cache import rows, open_cache\n',
        "tasks/run.py": '"""It runs.  raw -> [all of it]\n\nMore of it.\n"""\ndef f():\n    import cache.inner.deep\n',
        "cache/__init__.py": '"""What is kept."""\n',
        "cache/rows.py": '"""Rows | of all."""\nimport numpy\n',
        "cache/inner/__init__.py": '"""Inside."""\n',
        "cache/inner/deep.py": '"""Deep."""\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    monkeypatch.setattr(structure, "MAIN", {"tasks": ("run",), "cache": ("rows",)})
    return structure


def test_imports_are_found_also_inside_functions_and_of_modules_by_name(made_up: ModuleType) -> None:
    assert made_up.edges() == {("tasks", "cache"): {"cache", "cache.rows", "cache.inner.deep"}}
    assert made_up.in_words() == "tasks imports cache; cache imports none of the others."


def test_a_module_is_told_by_its_first_line_without_its_place_in_the_flow(made_up: ModuleType) -> None:
    page = made_up.page()
    assert "| `run` | It runs. |\n" in page
    assert "| `inner/` | Inside. |\n| `rows` | Rows \\| of all. |\n" in page
    assert "### `cache/inner`\n\n| module | |\n|---|---|\n| `deep` | Deep. |" in page


def test_an_import_against_the_direction_would_show(made_up: ModuleType) -> None:
    (made_up.ROOT / "cache/rows.py").write_text('"""Rows."""\nimport tasks.run\n')
    made_up.tree_of.cache_clear()
    assert ("cache", "tasks") in made_up.edges()
