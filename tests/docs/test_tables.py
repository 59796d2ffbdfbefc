"""Tables of the pages are those of the code; `--rewrite-golden` writes them."""

import re

import pytest

from docs.tables import TABLES
from tests.docs.markdown import PAGES, name_of

MARKED = re.compile(r"(<!-- table ([^\n]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)
WITH_TABLES = [page for page in PAGES if "\n<!-- table " in page.read_text()]


def made(block):
    """A marked block with the table that the code gives now."""
    return f"{block[1]}\n{TABLES[block[2]]()}\n\n{block[4]}"


@pytest.mark.parametrize("page", WITH_TABLES, ids=name_of)
def test_the_tables_of_a_page_are_those_of_the_code(page, request):
    text = page.read_text()
    assert len(MARKED.findall(text)) == text.count("\n<!-- table "), "a mark without its end"
    expected = MARKED.sub(made, text)
    if request.config.getoption("--rewrite-golden"):
        page.write_text(expected)
    hint = f"pytest --rewrite-golden tests/docs/test_tables.py writes {name_of(page)}"
    assert page.read_text().splitlines() == expected.splitlines(), hint


def test_every_table_stands_on_a_page():
    shown = {name for page in WITH_TABLES for _, name, _, _ in MARKED.findall(page.read_text())}
    assert shown == TABLES.keys()


def test_a_changed_table_is_found(tmp_path):
    block = MARKED.search("<!-- table exit codes -->\n| 75 | done |\n<!-- end of table -->")
    assert block is not None
    assert "| 75 | busy" in made(block)
    assert made(block) != block[0]
