"""The documentation's site builds without a warning and loads only its own files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # the build takes as long as a hundred tests
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    """Sphinx warns of pages without a link to them, and of missing names."""
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "--quiet",
        "--fail-on-warning",
        "--keep-going",
        "--conf-dir",
        "docs",
    ]
    places = ["--doctree-dir", str(tmp_path / "trees"), ".", str(tmp_path / "html")]
    subprocess.run([*build, *places], cwd=ROOT, check=True)
    pages = [file for file in (tmp_path / "html").rglob("*.html") if "_static" not in file.parts]
    assert {"index.html", "promises.html", "settings.html"} <= {page.name for page in pages}
    loads = {
        load
        for page in pages
        for load in re.findall(r'(?:\bsrc|<link [^>]*href)="([^"]+)"', page.read_text())
    }
    assert loads
    assert {
        load for load in loads if re.match(r"(\w+:)?//", load) and not load.startswith("data:")
    } == set()
