"""An HTML page as a tree of elements."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

VOID = frozenset(("meta", "img", "br", "input", "link"))


class Element:
    """One element of a page, with all that is in it."""

    def __init__(self, tag, attributes, parent=None):
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.classes = set(attributes.get("class", "").split())
        self.children: list[Element | str] = []

    @property
    def text(self):
        return " ".join(
            "".join(c if isinstance(c, str) else f" {c.text} " for c in self.children).split()
        )

    def all(self, *tags):
        """Elements below this one, in the page's order; of these tags, when some are named."""
        found = []
        for child in (c for c in self.children if isinstance(c, Element)):
            found += ([child] if not tags or child.tag in tags else []) + child.all(*tags)
        return found

    def of_class(self, *names):
        return [element for element in self.all() if element.classes >= set(names)]


class Page(HTMLParser):
    """Reads a page, and fails where an element is not closed in order."""

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.root = self._open = Element("", {})
        self.feed(source)
        self.close()
        assert self._open is self.root
        (self.main,), (self.header,) = self.root.all("main"), self.root.all("header")

    @property
    def ids(self):
        """All of them, each once."""
        ids = [
            element.attributes["id"] for element in self.root.all() if "id" in element.attributes
        ]
        assert len(set(ids)) == len(ids)
        return ids

    @property
    def levels(self):
        """Of the headings: one of the first level, and no level left out."""
        levels = [
            int(heading.tag[1]) for heading in self.root.all("h1", "h2", "h3", "h4", "h5", "h6")
        ]
        assert levels.count(1) == levels[0] == 1
        assert all(below - above <= 1 for above, below in pairwise(levels))
        return levels

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs}, self._open)
        self._open.children.append(element)
        if tag not in VOID:
            self._open = element

    def handle_endtag(self, tag):
        assert self._open.tag == tag, f"{self.getpos()}: </{tag}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data):
        self._open.children.append(data)
