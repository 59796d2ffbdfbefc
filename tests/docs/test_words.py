"""The text stays short and in plain English: words of the pages, and constructions that have plainer words."""

import re
from pathlib import Path

from tests.docs.markdown import DOCS, ROOT, name_of

READMES = sorted((ROOT / "vibe_extensions").rglob("README.md"))
MOST_IN_README, MOST_IN_DOCS = 950, 46_000  # words
MOST_ODD = 3.0  # a thousand words
ODD = {  # what is avoided, as a regular expression -> what to write
    r"what (is|are|was|were|it|they|this|that|only|one) ": "the name of the thing",
    r"what there is|of what |that which|whatever": "the name of the thing",
    r"(of|by|to) which": "a sentence of its own",
    r"there are none|where there is (one|none)|as of no": "if, without",
    r"in (the )?place of|otherwise than": "instead of",
    r"pictures?\b": "image, frame",
    r"lacks?\b": "is missing, without",
    r"alone[,.;]": "only",
    r"alike\b|likewise": "also, the same",
    r"of one's own|of your own": "your",
    r"which ones?\b": "which, with a noun",
    r"told\b": "named, printed",
}


def words(page: Path) -> int:
    return len(page.read_text().split())


def odd_constructions(text: str) -> list[str]:
    """Those of the prose; blocks of code do not count."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [found[0] for odd in ODD for found in re.finditer(rf"\b({odd})", prose, re.IGNORECASE)]


def test_the_readme_and_the_docs_stay_short() -> None:
    assert words(ROOT / "README.md") <= MOST_IN_README
    assert sum(map(words, DOCS)) <= MOST_IN_DOCS


def test_pages_are_written_in_plain_words() -> None:
    pages = [*sorted(ROOT.glob("*.md")), *DOCS, *READMES]
    odd = {name_of(page): odd_constructions(page.read_text()) for page in pages}
    found = {name: constructions for name, constructions in odd.items() if constructions}
    wrong = "The stream, of which a row lacks labels.\n```python\nwhat is this\n```\nIn place of pictures."
    assert set(odd_constructions(wrong)) == {"of which", "lacks", "In place of", "pictures"}
    assert 1000 * sum(map(len, found.values())) / sum(map(words, pages)) <= MOST_ODD, found
