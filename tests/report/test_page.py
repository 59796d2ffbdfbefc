"""The page: one file without a script, whatever names are in the data and whatever the cache lacks."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import UndefinedError

import cache
from report.data import data_sections
from report.page import Section, write_page
from tests.report.conftest import moving, person, write_split, write_stream

VOID = frozenset(("meta", "img", "br", "input", "link"))


class Structure(HTMLParser):
    """What a screen reader uses. Fails where an element is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[dict[str, int]] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            assert "scroll" in self.around, "a table that cannot scroll by itself"
            self.tables.append({"caption": 0, "col": 0, "row": 0})
        if tag == "caption":
            self.tables[-1]["caption"] += 1
        if tag == "th":
            self.tables[-1][attributes["scope"] or ""] += 1
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img" or attributes.get("role") == "img":
            self.images.append(attributes)
        self.around = attributes.get("class") or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def of_problems(anchor: str, title: str, *texts: str) -> Section:
    """A real section of the report that shows no more than these problems."""
    return Section(anchor, title, "overview.html", {"problems": texts, "rows": []})


def page(folder: Path, *sections: Section, stand_in: bool = False, title: str = "A cache") -> str:
    out = folder / "report.html"
    write_page(out, sections, title=title, stand_in=stand_in, facts={"Cache": "data/cache"})
    return out.read_text(encoding="utf-8")


def of_cache(root: Path, folder: Path, **chosen: Any) -> str:
    """The page of a cache, with its structure checked."""
    text = page(folder, *data_sections(root, **{"raw": None, "body": None, "stream": "resnet50", **chosen}))
    Structure(text)
    return text


@pytest.mark.parametrize("stand_in", [True, False])
def test_facts_and_links_to_every_section_are_at_the_top(tmp_path: Path, stand_in: bool) -> None:
    text = page(tmp_path, of_problems("first", "The first"), of_problems("second", "The second"), stand_in=stand_in)
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text)
    assert links == [("first", "The first"), ("second", "The second")]
    for anchor, title in links:
        assert f'<h2 id="{anchor}">{title}</h2>' in text
    assert text.index("<dt>Cache</dt><dd>data/cache</dd>") < text.index("<main>")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert "<script" not in text
    assert ("DEMO DATA" in text) == ("A cache (demo data)</title>" in text) == stand_in


def test_names_from_raw_files_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>&\udcff"  # of a file whose name is no UTF-8
    text = page(tmp_path, of_problems("first", evil, evil), title=evil)
    assert "<img" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;&amp;\\udcff") == 5  # title, h1, link, heading, problem


def test_a_page_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    page(tmp_path, of_problems("first", "The first"))
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(UndefinedError):
        page(tmp_path, Section("broken", "Broken", "overview.html", {}))
    with pytest.raises(ValueError, match="one anchor"):
        page(tmp_path, of_problems("same", "The first"), of_problems("same", "The second"))
    assert (tmp_path / "report.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_page_of_a_cache_has_its_sections_in_a_sound_structure_and_is_reproducible(
    root: Path, tmp_path: Path
) -> None:
    text = of_cache(root, tmp_path)
    assert text == of_cache(root, tmp_path)
    assert re.findall(r'<h2 id="([^"]+)">', text) == ["datasets", "accounting", "tracks", "distributions", "stream"]
    assert text.count("data:image/jpeg;base64,") == 12  # two tracks, three frames, the picture and the crop
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)""", text) == []
    assert "expected 13 joints, &lt;found&gt; 12." in text
    found = Structure(text)
    assert len(set(found.ids)) == len(found.ids)
    assert {1, 2, 3, 4, 5} == set(found.headings)
    assert all(below - above <= 1 for above, below in pairwise(found.headings))
    assert len(found.tables) >= 10
    assert all(table["caption"] == 1 and table["col"] and table["row"] for table in found.tables)
    assert all(image.get("alt") or image.get("aria-label") for image in found.images)


def test_motion_alone_a_missing_stream_and_an_empty_split_are_no_faults(tmp_path: Path) -> None:
    write_split(tmp_path / "motion", "amass/train", {"a/0": moving(5, 8)})
    text = of_cache(tmp_path / "motion", tmp_path)
    assert "Motion without pictures, so without features: amass/train." in text
    assert "There are no keypoints." in text
    assert 'class="problem"' not in text
    write_split(tmp_path / "cache", "penn_action/train", {"a/0": person(8)})
    text = of_cache(tmp_path / "cache", tmp_path)
    assert "Without this stream: penn_action/train." in text
    assert "python -m pipeline extract" in text
    assert "No feature stream was asked for." in of_cache(tmp_path / "cache", tmp_path, stream=None)
    write_split(tmp_path / "empty", "penn_action/train", {})
    assert "There is no track to show." in of_cache(tmp_path / "empty", tmp_path)


def test_a_split_that_cannot_be_read_is_reported_once_and_the_others_are_shown(root: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cache"
    shutil.copytree(root, broken)
    (broken / "amass/train/manifest.json").write_text("{ not JSON")
    text = of_cache(broken, tmp_path)
    assert len(re.findall(r'<p class="problem">amass/train: ', text)) == 1
    assert text.count("data:image/jpeg;base64,") == 12
    text = of_cache(root, tmp_path, splits=("amass/train", "3dpw/test"))
    assert "no committed split &#39;3dpw/test&#39;" in text
    assert "penn_action/train</th>" not in text
    with pytest.raises(cache.CacheError, match="Convert a dataset into it first"):
        of_cache(tmp_path / "nothing", tmp_path)


def test_few_rows_are_read_of_many(tmp_path: Path) -> None:
    write_split(tmp_path, "penn_action/train", {"a/0": person(6000)})
    write_stream(tmp_path, "penn_action/train", np.ones((6000, 4)))
    distributions, stream = data_sections(tmp_path, raw=None, body=None, stream="resnet50")[3:]
    assert distributions.data["samples"] == {"penn_action": "2,048 of 6,000 rows"}
    assert stream.data["finite"][0][1] == 2048
