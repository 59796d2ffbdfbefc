"""The pages of the documentation, and their tables, blocks of code and settings."""

import configparser
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
OF_TODAY = sorted({*ROOT.glob("*.md")} - {ROOT / "CHANGELOG.md"})  # which has the names of its day
PAGES = [*OF_TODAY, *DOCS, *sorted((ROOT / "benchmarks").glob("*.md"))]


def document(name):
    return (ROOT / "docs" / name).read_text()


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(language, text):
    """The code of each block of a language, a regular expression."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def merged(*texts):
    """A luigi.cfg with the sections of several; later values win."""
    config, file = configparser.ConfigParser(interpolation=None), io.StringIO()
    for text in texts:
        config.read_string(text)
    config.write(file)
    return file.getvalue()


def tables(text, first):
    """The rows, by column, of each table whose first column is called `first`; without
    back-quotes.
    """
    header = []
    for line in text.splitlines():
        cells = (
            [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        )
        if not cells:
            header = []
        elif not header:
            header = [cell.strip("`") for cell in cells]
        elif header[0] == first and not set(line) <= set("|-"):
            yield {name: cell.strip("`") for name, cell in zip(header, cells, strict=True)}
