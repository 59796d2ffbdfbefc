"""Pages of `python -m pipeline show`, and of tracks that a test has made."""

import pytest

from pipeline.__main__ import main
from pipeline.show.player import write_video
from tests.html_pages import Page
from tests.pipeline.show.made_tracks import shown_split


@pytest.fixture
def page(tmp_path):
    """Runs the command and returns the page."""

    def run(*arguments):
        out = tmp_path / "page.html"
        assert main(["show", *map(str, arguments), "--out", str(out)]) == 0
        return Page(out.read_text(encoding="utf-8"))

    return run


@pytest.fixture
def drawn(tmp_path):
    """Writes the page of a video's tracks that a test has made, and returns it."""

    def write(*tracks, **changed):
        write_video(shown_split(tmp_path, *tracks, **changed), tmp_path / "page.html")
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return write
