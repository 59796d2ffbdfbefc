"""The picture of the structure, drawn from the code: `.venv/bin/python docs/structure.py` writes structure.md and .svg.

Names, what a module says of itself in the first line of its docstring, and who imports whom are read from the files.
Only which modules stand for their package in the picture is chosen here.
"""

import ast
import functools
import html
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOCS = Path(__file__).parent
ROOT = DOCS.parent

PACKAGES: Final = ("tasks", "report", "pipeline", "vibe_model", "cache")  # from the top of the picture to its bottom
COLOURS: Final = {
    "tasks": "#374151",
    "report": "#6f42c1",
    "pipeline": "#1a5fb4",
    "vibe_model": "#9a4d00",
    "cache": "#1a7042",
}
MAIN: Final = {  # modules that stand for their package in the picture besides its folders
    "tasks": ("data", "training", "ablation", "predict", "settings", "terminal"),
    "report": ("page", "figures", "overview", "examples", "distributions", "stream_health", "curves", "results"),
    "pipeline": (
        *("track", "skeletons", "boxes", "crops", "frames", "body", "convert", "accounting", "features", "plans"),
        *("pickles",),
    ),
    "vibe_model": (
        *("config", "data", "generator", "discriminator", "mposer", "losses", "steps", "training", "checkpoints"),
        *("evaluation", "metrics", "results"),
    ),
    "cache": ("layout", "writer", "streams", "manifest", "stores", "reader", "windows", "mixture", "verify"),
}


# ------------------------------------------------------------------------------------------------------ the code


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name; a package's is that of its __init__.py."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {".".join(_parts(file)): file for file in sorted(files)}


def _parts(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """A file as it parses."""
    return ast.parse(file.read_text())


def about(file: Path) -> str:
    """The first line of a module's docstring, without where it stands in the flow."""
    first = (ast.get_docstring(tree_of(file)) or "").partition("\n")[0]
    # "raw -> [tracks] -> features" and the like: at the end, after two spaces, or the whole rest from the first arrow.
    return re.sub(r"\s{2,}\S.*$", "", first).strip()


def imports(name: str, known: Iterable[str]) -> set[str]:
    """The modules of ours that one imports, also inside functions: `from pipeline import body` is pipeline.body."""
    known = set(known)
    found = set()
    for node in ast.walk(tree_of(modules()[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            longer = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in known else node.module for one in longer}
    return (found & known) - {name}


def edges() -> dict[tuple[str, str], set[str]]:
    """(package, another that it imports) -> which of the other's modules, of all pairs there are."""
    known = modules()
    found: dict[tuple[str, str], set[str]] = {}
    for name in known:
        for other in imports(name, known):
            pair = name.split(".")[0], other.split(".")[0]
            if pair[0] != pair[1]:
                found.setdefault(pair, set()).add(other)
    return found


@dataclass(frozen=True)
class Entry:
    """A module or folder of a package."""

    name: str  # below the package; folders end with a slash
    about: str


def entries(package: str) -> list[Entry]:
    """All modules and folders right below a package, folders first. Those of folders are `entries` of the folder."""
    home = ROOT / package
    folders = [Entry(f"{file.parent.name}/", about(file)) for file in sorted(home.glob("*/__init__.py"))]
    files = [file for file in sorted(home.glob("*.py")) if file.name != "__init__.py"]
    return folders + [Entry(file.stem, about(file)) for file in files]


def chosen(package: str) -> list[Entry]:
    """What the picture shows of a package: its folders, and the modules of MAIN in that order."""
    there = {entry.name: entry for entry in entries(package)}
    return [entry for entry in there.values() if entry.name.endswith("/")] + [there[name] for name in MAIN[package]]


# --------------------------------------------------------------------------------------------------- the picture

WIDTH: Final = 920
MARGIN: Final = 42  # room left and right of the cards, for the arrows that go past one
GAP: Final = 44  # between rows of cards
ASIDE: Final = 76  # between cards of one row
HEAD: Final = 36  # of a card, and a line more for each line of what its package says of itself
LINE: Final = 15
PER_CHARACTER: Final = 6.2  # px, of 11.5 px text, on the wide side


@dataclass
class Card:
    """A package's place in the picture."""

    package: str
    x: float
    y: float
    width: float
    columns: int
    said: list[str]  # lines in the head
    height: float = 0.0
    head: float = 0.0

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def draw() -> str:
    """The picture as SVG: a card for each package, an arrow for each pair of which one imports the other."""
    inner = WIDTH - 2 * MARGIN
    left = inner * 0.58
    y = 10.0
    parts: list[str] = []
    cards: dict[str, Card] = {}
    for row in (("tasks",), ("report",), ("pipeline", "vibe_model"), ("cache",)):
        there = [package for package in row if (ROOT / package).is_dir()]
        for package in there:
            x, wide, columns = float(MARGIN), float(inner), 3
            if len(row) > 1:
                x, wide, columns = (x, left, 2) if package == row[0] else (x + left + ASIDE, inner - left - ASIDE, 1)
            said = about(ROOT / package / "__init__.py").partition("`")[0].strip()
            cards[package] = Card(package, x, y, wide, columns, _wrapped(said, (wide - 32) / 1.06))
        head = HEAD + LINE * max([0, *(len(cards[package].said) for package in there)])
        for package in there:
            cards[package].head = head
            parts += _card(cards[package])
        if there:
            tallest = max(cards[package].height for package in there)
            for package in there:
                cards[package].height = tallest
            y += tallest + GAP
    frames = [_frame(card) for card in cards.values()]
    body = "\n".join([*frames, *parts, *_arrows(cards)])
    return f"""{_HEADER.format(width=WIDTH, height=round(y - GAP + 10), text=html.escape(in_words()))}
{body}
</svg>
"""


_HEADER: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
aria-labelledby="title text">
<!-- Written by docs/structure.py from the code. -->
<title id="title">The packages of vibe-pipeline and what imports what</title>
<desc id="text">{text}</desc>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0.5 8 4 0 7.5z" fill="#7d8590"/></marker></defs>
<style>
text {{ font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }}
text {{ font-size: 11.5px; fill: #374151 }}
.package {{ font-size: 17px; font-weight: 600; fill: #ffffff }}
.said {{ font-size: 12px; fill: #ffffff }}
.name {{ font-size: 12px; font-weight: 600 }}
.only {{ font-size: 11px; text-anchor: middle }}
.way {{ fill: none; stroke: #7d8590; stroke-width: 2; marker-end: url(#head) }}
</style>"""


def _frame(card: Card) -> str:
    colour = COLOURS[card.package]
    x, y, width, height = card.x, card.y, card.width, card.height
    top = f"v{10 - card.head:g}a10 10 0 0 1 10 -10h{width - 20:g}a10 10 0 0 1 10 10v{card.head - 10:g}z"
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="10" fill="#ffffff" stroke="{colour}"/>\n'
        f'<path d="M{x:g} {y + card.head:g}{top}" fill="{colour}"/>'
    )


def _card(card: Card) -> list[str]:
    """A card's texts; sets its height."""
    parts = [_text(card.x + 16, card.y + 23, card.package, "package")]
    parts += [_text(card.x + 16, card.y + 42 + LINE * number, line, "said") for number, line in enumerate(card.said)]
    wide = (card.width - 32 - 20 * (card.columns - 1)) / card.columns
    blocks = [(entry, _wrapped(entry.about, wide)) for entry in chosen(card.package)]
    tall = [(len(lines) + 1) * LINE + 9 for _, lines in blocks]
    deepest = 0.0
    for column, (first, last) in enumerate(_spread(tall, card.columns)):
        x, y = card.x + 16 + column * (wide + 20), card.y + card.head + 22
        for (entry, lines), height in zip(blocks[first:last], tall[first:last], strict=True):
            colour = f' style="fill:{COLOURS[card.package]}"'
            parts.append(_text(x, y, entry.name, "name", colour))
            parts += [_text(x, y + LINE * (number + 1), line) for number, line in enumerate(lines)]
            y += height
        deepest = max(deepest, y)
    card.height = deepest - card.y - 12
    return parts


def _spread(tall: Sequence[float], columns: int) -> Iterator[tuple[int, int]]:
    """Blocks of these heights into columns, in order, so that the tallest column is as low as it can be."""

    def fits(limit: float) -> list[tuple[int, int]]:
        stops, first, used = [], 0, 0.0
        for number, height in enumerate(tall):
            if used + height > limit:
                stops.append((first, number))
                first, used = number, 0.0
            used += height
        return [*stops, (first, len(tall))]

    limits = sorted({sum(tall[i:j]) for i in range(len(tall)) for j in range(i + 1, len(tall) + 1)})
    return iter(next(cut for cut in map(fits, filter(lambda limit: limit >= max(tall), limits)) if len(cut) <= columns))


def _text(x: float, y: float, text: str, kind: str = "", more: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}{more}>{html.escape(text)}</text>'


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text.replace("`", "").replace("->", "→"), int(width / PER_CHARACTER), break_on_hyphens=False)


def _arrows(cards: dict[str, Card]) -> Iterator[str]:
    """Straight down to the next row; past a row, in the margin beside it; from side to side within one."""
    rows = sorted({card.y for card in cards.values()})
    beside = {"left": 0, "right": 0}
    for (one, other), what in sorted(edges().items()):
        start, end = cards[one], cards[other]
        if start.y == end.y:
            y = start.y + start.head + 40
            sign = -1 if end.x < start.x else 1
            from_x, to_x = (start.x, end.right) if sign < 0 else (start.right, end.x)
            yield f'<path class="way" d="M{from_x + sign * 2:g} {y:g}H{to_x - sign * 3:g}"/>'
            yield from _only(what, (from_x + to_x) / 2, y)
        elif rows.index(end.y) - rows.index(start.y) == 1:
            x = min((start, end), key=lambda card: card.width).middle
            yield f'<path class="way" d="M{x:g} {start.bottom + 2:g}V{end.y - 4:g}"/>'
        else:
            side = "right" if end.middle > WIDTH / 2 + 1 or one == "report" else "left"
            off = 12 + 14 * beside[side]
            beside[side] += 1
            from_x, to_x, x = (
                (start.x, end.x, MARGIN - off) if side == "left" else (start.right, end.right, WIDTH - MARGIN + off)
            )
            sign = 1 if side == "left" else -1
            from_y, to_y = start.y + 12 + 9 * beside[side], end.y + 12 + 9 * beside[side]
            yield (f'<path class="way" d="M{from_x - 2 * sign:g} {from_y:g}H{x:g}V{to_y:g}H{to_x - 4 * sign:g}"/>')


def _only(what: set[str], x: float, y: float) -> Iterator[str]:
    """The names of what is imported, beside an arrow within a row: there they are few, and on purpose."""
    names = sorted(name.split(".", 1)[1] for name in what)
    height = 14 * len(names) + 8
    wide = max(map(len, names)) * PER_CHARACTER + 8
    yield (
        f'<rect x="{x - wide / 2:g}" y="{y + 10:g}" width="{wide:g}" height="{height:g}" rx="5" '
        f'fill="#ffffff" stroke="#7d8590"/>'
    )
    for number, name in enumerate(names):
        yield _text(x, y + 24 + 14 * number, name, "only")


# ------------------------------------------------------------------------------------------------------ in words


def in_words() -> str:
    """What the arrows say, for whoever cannot see them."""
    found = edges()
    sentences = []
    for one in PACKAGES:
        others = [other for other in PACKAGES if (one, other) in found]
        if others:
            sentences.append(f"{one} imports {_listed(others)}")
        elif (ROOT / one).is_dir():
            sentences.append(f"{one} imports none of the others")
    return "; ".join(sentences) + "."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def page() -> str:
    """structure.md: the picture, the same in words, and every module with what it says of itself."""
    parts = [_PAGE.format(words=textwrap.fill(in_words(), 120))]
    of_pipeline = sorted(edges().get(("vibe_model", "pipeline"), set()))
    parts.append(f"Of `pipeline`, `vibe_model` imports {_listed([f'`{name}`' for name in of_pipeline])} alone.\n")
    for package in PACKAGES:
        if (ROOT / package).is_dir():
            parts += [f"## `{package}`\n\n{about(ROOT / package / '__init__.py')}\n", _table(package)]
            for folder in (entry.name[:-1] for entry in entries(package) if entry.name.endswith("/")):
                parts += [f"### `{package}/{folder}`\n", _table(f"{package}/{folder}")]
    return "\n".join(parts)


_PAGE: Final = """# Structure

<!-- Written by docs/structure.py from the code: .venv/bin/python docs/structure.py -->

[![The packages, their folders and main modules, and which package imports which.](structure.svg)](structure.svg)

An arrow leads from a package to one that it imports. In words:
{words}

`tests/test_architecture.py` holds the direction, `tests/test_structure.py` that this page is what the code says.
"""


def _table(package: str) -> str:
    rows = [f"| `{entry.name}` | {entry.about.replace('|', chr(92) + '|')} |" for entry in entries(package)]
    return "\n".join(["| module | |", "|---|---|", *rows, ""])


def main() -> None:
    """Write both files."""
    (DOCS / "structure.svg").write_text(draw())
    (DOCS / "structure.md").write_text(page())


if __name__ == "__main__":
    main()
