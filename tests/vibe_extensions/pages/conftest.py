"""Pages of `python -m pipeline show`, and of tracks that a test has made."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from tests.html_pages import Page
from tests.vibe_extensions.pages.made_tracks import shown_split
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
        progress = changed.pop("progress", lambda *_: None)
        show.write_page(shown_split(tmp_path, *tracks, **changed), tmp_path / "page.html", progress=progress)
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return write
