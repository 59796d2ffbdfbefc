"""The page: one file, without a script, that holds whatever strangers call their videos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from report.page import Section, write_page


def problems_section(anchor: str, title: str, *texts: str) -> Section:
    """A real section of the report that shows no more than these problems."""
    return Section(anchor, title, "overview.html", {"problems": texts, "rows": []})


def page(tmp_path: Path, *sections: Section, stand_in: bool = False, title: str = "A cache") -> str:
    out = tmp_path / "report.html"
    write_page(out, sections, title=title, stand_in=stand_in, facts={"Cache": "data/cache"})
    return out.read_text(encoding="utf-8")


def test_every_section_can_be_reached_from_the_top(tmp_path: Path) -> None:
    text = page(tmp_path, problems_section("first", "The first"), problems_section("second", "The second"))
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text)
    assert links == [("first", "The first"), ("second", "The second")]
    for anchor, title in links:
        assert f'<h2 id="{anchor}">{title}</h2>' in text


def test_facts_are_told_at_the_top(tmp_path: Path) -> None:
    text = page(tmp_path, problems_section("first", "The first"))
    assert text.index("<dt>Cache</dt><dd>data/cache</dd>") < text.index("<main>")


@pytest.mark.parametrize("stand_in", [True, False])
def test_a_stand_in_says_so_before_anything_else_and_real_data_does_not(tmp_path: Path, stand_in: bool) -> None:
    text = page(tmp_path, problems_section("first", "The first"), stand_in=stand_in)
    assert ("STAND-IN" in text) == stand_in
    assert ("A cache (stand-in)</title>" in text) == stand_in


def test_the_page_forbids_scripts_and_addresses_and_has_none(tmp_path: Path) -> None:
    text = page(tmp_path, problems_section("first", "The first"))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert "<script" not in text
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)""", text) == []


def test_names_from_raw_files_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&\udcff"  # of a file whose name is no UTF-8
    text = page(tmp_path, problems_section("first", evil, evil), title=evil)
    assert "<img" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;&amp;\\udcff") == 5  # title, h1, link, heading, problem


def test_two_sections_with_one_anchor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one anchor"):
        page(tmp_path, problems_section("same", "The first"), problems_section("same", "The second"))


def test_what_fails_on_the_way_leaves_the_page_of_before(tmp_path: Path) -> None:
    page(tmp_path, problems_section("first", "The first"))
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(UndefinedError):
        page(tmp_path, Section("broken", "Broken", "overview.html", {}))
    assert (tmp_path / "report.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
