"""The documentation's site builds without a warning, loads only its own files, and its search finds
pages by the words of people who do not know ours.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser import NEEDED

ROOT = Path(__file__).parents[2]
# what people type -> names of pages that answer, as regular expressions
QUERIES = dict(
    line.split(" -> ")
    for line in (ROOT / "tests/docs/search_queries.txt").read_text().splitlines()
    if not line.startswith("#")
)
KEYWORDS = dict(
    line.split(": ") for line in (ROOT / "docs/keywords.txt").read_text().splitlines()[1:]
)
pytestmark = pytest.mark.slow  # the build takes as long as a hundred tests


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site. Sphinx warns of pages without a link to them, and of missing names."""
    folder = tmp_path_factory.mktemp("site")
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
    places = ["--doctree-dir", str(folder / "trees"), ".", str(folder / "html")]
    subprocess.run([*build, *places], cwd=ROOT, check=True)
    return folder / "html"


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(site):
    pages = [file for file in site.rglob("*.html") if "_static" not in file.parts]
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


def test_the_words_of_users_are_main_entries_of_the_search_index(site):
    text = (site / "searchindex.js").read_text()
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    found = {
        (index["docnames"][page], entry)
        for entry, targets in index["indexentries"].items()
        for page, _, is_main in targets
        if is_main
    }
    wanted = {
        (page, phrase) for page, phrases in KEYWORDS.items() for phrase in phrases.split(", ")
    }
    assert len(wanted) > 300
    assert wanted - found == set()


WIDER = """[...document.querySelectorAll("article table")].filter(
    (table) => table.scrollWidth > table.parentElement.clientWidth + 1).length"""


@NEEDED
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_and_no_table_is_wider_than_the_window(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    wide = {}
    for file in (*site.glob("*.html"), *site.glob("docs/**/*.html"), *site.glob("bench*/*.html")):
        if file.name in ("index.html", "demo.html", "genindex.html") and file.parent.name != "docs":
            continue
        page.goto(file.as_uri())
        beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        wide[file.relative_to(site)] = (max(beyond, 0), page.evaluate(WIDER))
    page.close()
    assert len(wide) > 80
    assert {file: found for file, found in wide.items() if any(found)} == {}


@NEEDED
def test_a_page_opens_the_player_of_the_demo_clip(site, browser):
    page = browser.new_page()
    page.goto((site / "docs/index.html").as_uri())
    page.get_by_role("link", name="Open this page").click()
    page.locator("#frame", has_text="of 229").wait_for()
    page.goto((site / "README.html").as_uri())
    widths = "[...document.querySelectorAll('article img')].map((image) => image.naturalWidth)"
    page.wait_for_function(f"{widths}.length && {widths}.every(Boolean)")
    page.close()


@NEEDED
def test_nine_of_ten_queries_have_a_right_page_among_the_first_three(site, browser):
    page = browser.new_page()
    first = {}
    for query in QUERIES:
        page.goto(f"{(site / 'search.html').as_uri()}?q={quote(query)}")
        page.wait_for_function("/finished|did not match/.test(document.body.innerText)")
        links = page.locator("#search-results li > a").evaluate_all(
            "links => links.map(link => link.getAttribute('href').replace('.html', ''))"
        )
        first[query] = [re.sub(r"[?#].*", "", link) for link in links[:3]]
    page.close()
    missed = {
        query: first[query]
        for query, right in QUERIES.items()
        if not any(re.search(right, found) for found in first[query])
    }
    assert len(missed) <= len(QUERIES) / 10, missed
