"""The documentation as GitHub shows it: every link leads somewhere, every decision names what is there."""

import configparser
import itertools
import re
from collections.abc import Iterator
from functools import cache as remember
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from tasks import settings
from tasks.training import train_config

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --------------------------------------------------------------------------------------------- as GitHub shows them


@remember
def tokens(page: Path) -> list:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(place, anchor) of every link and picture to a file of this repository."""
    for token in (child for block in tokens(page) for child in block.children or ()):
        target = token.attrGet("href") or token.attrGet("src") or ""
        parts = urlsplit(str(target))
        if target and not parts.scheme:
            yield unquote(parts.path), parts.fragment


@remember
def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings: small letters, no punctuation, "-" for spaces, "-1" for the second of a name."""
    found: set[str] = set()
    blocks = tokens(page)
    for before, block in itertools.pairwise(blocks):
        if before.type == "heading_open":
            text = "".join(child.content for child in block.children or () if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            taken = next(number for number in range(1000) if (f"{slug}-{number}" if number else slug) not in found)
            found.add(f"{slug}-{taken}" if taken else slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    for place, anchor in links(page):
        target = (page.parent / place).resolve() if place else page
        assert target.is_relative_to(ROOT), f"{place} lies outside"
        assert target.exists(), f"there is no {place}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{place}#{anchor}: no such heading"


def test_a_link_that_leads_nowhere_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b_c`: d!\n\n## A\n\n## A\n\n[x](y.md#z) and ![p](q.png) and [w](https://example.org)\n")
    assert list(links(page)) == [("y.md", "z"), ("q.png", "")]
    assert anchors(page) == {"a-b_c-d", "a", "a-1"}


def test_every_file_that_a_decision_names_exists() -> None:
    named = re.findall(r"`([\w./]+(?:/|\.py))`", (ROOT / "docs" / "decisions.md").read_text())
    assert len(named) > 30
    assert [file for file in named if not (ROOT / file).exists()] == []


def test_every_decision_says_what_was_asked_what_it_costs_and_what_was_not_done() -> None:
    records = re.split(r"^### ", (ROOT / "docs" / "decisions.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(records) >= 15
    for record in records:
        said = re.findall(r"^- \*\*(.+?):\*\*", record, re.MULTILINE)
        assert said == ["Asked for", "Decided", "Costs", "Not done", "Code"], record.partition("\n")[0]


def test_the_luigi_cfg_of_getting_started_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.search(r"^```ini\n(.*?)^```$", (ROOT / "docs/getting-started.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown is not None
    whole = configparser.ConfigParser(interpolation=None)
    whole.read(ROOT / "luigi.cfg")
    whole.read_string(shown[1])
    with (tmp_path / "luigi.cfg").open("w") as file:
        whole.write(file)
    (tmp_path / "model_checkpoint.pt").touch()
    read = settings.load(tmp_path / "luigi.cfg")
    monkeypatch.setattr("tasks.training.settings", lambda: read)
    assert read.data.datasets == ("penn_action", "3dpw", "amass")
    wanted = {"penn_action/train", "3dpw/train", "amass/train", "3dpw/validation", "3dpw/test"}
    assert set(train_config().splits) == wanted
