"""Pages of `python -m pipeline show`, and of tracks that a test has made."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from tests.html_pages import Page
from vibe_extensions.pages import show


@pytest.fixture
def page(tmp_path: Path) -> Any:
    """Runs the command and returns the page."""

    def run(*arguments: object) -> Page:
        out = tmp_path / "page.html"
        assert main(["show", *map(str, arguments), "--out", str(out)]) == 0
        return Page(out.read_text(encoding="utf-8"))

    return run


@pytest.fixture
def drawn(tmp_path: Path) -> Any:
    """Writes the page of tracks that a test has made and returns it."""

    def write(*tracks: show.ShownTrack, **changed: Any) -> Page:
        facts: dict[str, Any] = {"name": "penn_action/train", "origin": "a test", "raw": tmp_path, "stand_in": False}
        facts |= {"reader": {"dataset": "penn_action", "version": 7, "parameters": {"model": "neutral"}, "body": None}}
        facts |= {"totals": {}, "totals_of": "the whole split", "rejected": (), "n_rejected": 1}
        facts |= {"body": None, "n_tracks": len(tracks), "warnings": ()}
        progress = changed.pop("progress", lambda *_: None)
        shown = show.Shown(**(facts | changed), tracks=tracks)
        show.write_page(shown, tmp_path / "page.html", progress=progress)
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return write
