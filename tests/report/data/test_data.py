"""The whole page about a cache, whatever the cache lacks."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from report.data.sections import data_sections
from report.page import write_page

VOID = frozenset(("meta", "img", "br", "input", "link"))


class Structure(HTMLParser):
    """What a screen reader goes by. Fails where an element is not closed in order."""

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


@pytest.fixture
def page(tmp_path: Path) -> Any:
    def write(root: Path, **chosen: Any) -> str:
        settings = {"raw": None, "body": None, "stream": "resnet50", **chosen}
        write_page(tmp_path / "report.html", data_sections(root, **settings), title="T", stand_in=True, facts={})
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def test_a_screen_reader_finds_its_way(root: Path, page: Any) -> None:
    found = Structure(page(root))
    assert len(set(found.ids)) == len(found.ids)
    assert {1, 2, 3, 4, 5} == set(found.headings)
    assert all(below - above <= 1 for above, below in zip(found.headings, found.headings[1:], strict=False))
    assert len(found.tables) >= 10
    for table in found.tables:
        assert table["caption"] == 1
        assert table["col"] >= 1
        assert table["row"] >= 1
    assert all(image.get("alt") or image.get("aria-label") for image in found.images)


def test_the_same_cache_gives_the_same_page(root: Path, page: Any) -> None:
    assert page(root) == page(root)


def test_every_section_is_there_and_pictures_are_within_the_page(root: Path, page: Any) -> None:
    text = page(root)
    headings = re.findall(r'<h2 id="([^"]+)">', text)
    assert headings == ["datasets", "accounting", "tracks", "distributions", "stream"]
    assert text.count("data:image/jpeg;base64,") == 12  # two tracks, three frames, the picture and the crop
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)""", text) == []


def test_messages_about_raw_files_are_text(root: Path, page: Any) -> None:
    assert "expected 13 joints, &lt;found&gt; 12." in page(root)


def test_a_cache_of_motion_alone_is_no_fault(tmp_path: Path, make: Any, page: Any) -> None:
    make.write_split(tmp_path / "cache", "amass/train", {"a/0": make.moving(make.sideways(5, 8))})
    text = page(tmp_path / "cache")
    assert "Motion without pictures, so without features: amass/train." in text
    assert 'class="problem"' not in text
    assert "There are no keypoints." in text
    Structure(text)


def test_a_cache_without_the_stream_says_what_to_do(tmp_path: Path, make: Any, page: Any) -> None:
    make.write_split(tmp_path / "cache", "penn_action/train", {"a/0": make.person(8)})
    text = page(tmp_path / "cache")
    assert "Without this stream: penn_action/train." in text
    assert "python -m pipeline extract" in text
    assert "No feature stream was asked for." in page(tmp_path / "cache", stream=None)


def test_an_empty_split_is_shown_as_empty(tmp_path: Path, page: Any) -> None:
    with cache.SplitWriter(
        tmp_path / "cache", "penn_action/train", columns=["frame_index", "bbox"], plan="x"
    ) as writer:
        writer.begin()
        writer.commit({})
    text = page(tmp_path / "cache")
    assert "There is no track to show." in text
    Structure(text)


def test_a_split_that_cannot_be_read_is_told_once_and_the_others_go_on(root: Path, tmp_path: Path, page: Any) -> None:
    broken = tmp_path / "cache"
    shutil.copytree(root, broken)
    (broken / "amass/train/manifest.json").write_text("{ not JSON")
    text = page(broken)
    assert len(re.findall(r'<p class="problem">amass/train: ', text)) == 1
    assert text.count("data:image/jpeg;base64,") == 12


def test_a_split_that_is_not_there_is_told(root: Path, page: Any) -> None:
    text = page(root, splits=("amass/train", "3dpw/test"))
    assert "no committed split &#39;3dpw/test&#39;" in text
    assert "penn_action/train</th>" not in text


def test_without_a_cache_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(cache.CacheError, match="Convert a dataset into it first"):
        data_sections(tmp_path / "nothing", raw=None, body=None, stream=None)


def test_reading_stays_small_however_many_rows_there_are(tmp_path: Path, make: Any, monkeypatch: Any) -> None:
    make.write_split(tmp_path / "cache", "penn_action/train", {"a/0": make.person(6000)})
    make.write_stream(tmp_path / "cache", "penn_action/train", np.ones((6000, 4)))
    read: list[int] = []
    rows = cache.Split.rows

    def counted(split: cache.Split, name: str, start: int, stop: int) -> Any:
        read.append(stop - start)
        return rows(split, name, start, stop)

    monkeypatch.setattr(cache.Split, "rows", counted)
    distributions, stream = data_sections(tmp_path / "cache", raw=None, body=None, stream="resnet50")[3:]
    assert distributions.data["samples"] == {"penn_action": "2,048 of 6,000 rows"}
    assert stream.data["finite"][0][1] == 2048
    assert sum(n for n in read if n == 1) == 3 * 2048  # keypoints, boxes, and whether there are features
