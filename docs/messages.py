"""docs/messages.md: every text of an error or a problem that this project has.  python docs/messages.py rewrites it.

Read from the source, not kept by hand. Left out is what only a mistake in a program can cause: AssertionError,
TypeError, AttributeError, IndexError and KeyError; and an error without words of its own.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from messages_source import Module, called, parameters
from messages_text import MOST, Texts, World, gap, says, unique

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/messages.md"
PACKAGES: Final = ("cache", "pipeline", "vibe_model", "report", "tasks")
BUILT_IN: Final = (
    "ValueError",
    "OSError",
    "FileNotFoundError",
    "RuntimeError",
    "ArgumentTypeError",
    "ArgumentError",
    "SystemExit",
)
SECOND: Final = ("OSError", "PictureError", "ArgumentError")  # whose words are the second argument
# A call that says something without raising it, the heading it comes under, and which of its arguments are said.
PRINTED: Final = {
    "err.print": "Printed",
    "terminal.complain": "Printed",
    "complain": "Printed",
    "terminal.warn": "Printed",
    "warn": "Printed",
    "problems.append": "Problems in a list",
    "told.append": "Problems in a list",
    "notes.append": "Notes",
    "notes.extend": "Notes",
    "Mistake": "Mistakes that `doctor` tells",
}
YIELDS: Final = ("_problems", "_unseen")  # generators of what is wrong
PART: Final = "Parts of longer messages"
MEANS: Final = {
    PART: "What another message says was found, or adds.",
    "Printed": "Lines on the terminal, by commands or tasks.",
    "Problems in a list": "They are printed in a list of several, or within another message.",
    "Notes": "No errors: differences that cost no frame, kept in a split's accounting, and left-overs that `verify` "
    "tells of.",
    "Mistakes that `doctor` tells": "What `python -m pipeline doctor` takes for a mistake, and what to do about it.",
    "ValueError": "Of a function that was called from Python with something it does not take, or within another "
    "message.",
    "OSError": "As the system's own.",
    "FileNotFoundError": "As the system's own.",
    "ArgumentTypeError": "What an option does not take.",
}
MARKUP: Final = re.compile(r"\[/?(?:red|yellow|green|dim|bold)\]")
HEAD: Final = """# Messages

Every text of an error, and of what is printed as a problem, by package and kind, with the module it comes from.
`‹name›` stands for what differs from time to time. **To find a message, search for a few words of it that are neither
names nor numbers**, with the browser, or with `grep` in `docs/messages.md`. What to do about those that people meet
most is in [troubleshooting.md](troubleshooting.md). Most say themselves what was expected, what was found and what to
do.

Some texts are parts of others: the *found* of a longer one, or what stands behind a file's name. Left out is what only
a mistake in a program can cause (`AssertionError`, `TypeError` and the like, which the command line tells as "This
should not happen"), and what other libraries and the operating system say.

This page is made from the source by `python docs/messages.py`.
"""


@dataclass(frozen=True, order=True)
class Message:
    """One text, with gaps, and where it comes from."""

    area: str  # package: "pipeline.datasets"
    kind: str  # class of the error, or a heading
    place: str  # "pipeline/datasets/base.py"
    text: str


@functools.cache
def modules() -> list[Module]:
    """All of the source that people run."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [Module.read(file, ROOT) for file in files]


def error_classes(source: Sequence[Module]) -> dict[str, str]:
    """Name of every class of errors of ours -> what its docstring says first."""
    classes = [node for module in source for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    known = {"Exception": "", **dict.fromkeys(BUILT_IN, "")}
    for _ in range(5):  # a class may be read before the one that it derives from
        for node in classes:
            bases = {getattr(base, "attr", getattr(base, "id", "")) for base in node.bases}
            if bases & known.keys():
                known[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return {name: said for name, said in known.items() if name not in ("Exception", *BUILT_IN)}


def messages() -> list[Message]:
    """Everything that is raised or printed as a problem, in order."""
    source = modules()
    texts, classes = Texts(source), error_classes(source)
    found = set()
    for module in source:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and (kind := kind_of(node, module, classes)):
                for text in said(node, kind, module, texts):
                    found.add(Message(area_of(module), kind, module.place, text))
    found |= {*system_errors(texts), *lists_of_problems(texts)}
    for module, parts in texts.parts.items():
        found |= {Message(area_of(module), PART, module.place, clean(part)) for part in parts if says(part)}
    return sorted(found)


def lists_of_problems(texts: Texts) -> Iterator[Message]:
    """What generators of problems yield: others put it into a message."""
    for module in texts.modules.values():
        for function in (each for name in YIELDS for each in module.functions.get(name, ())):
            values = [node.value for node in ast.walk(function) if isinstance(node, ast.Yield) and node.value]
            for text in (text for value in values for text in texts.of(value, module, {}) if says(text)):
                yield Message(area_of(module), PART, module.place, clean(text))


def system_errors(texts: Texts) -> Iterator[Message]:
    """What pipeline/wording.py says for an error of the system, such as a full disk."""
    wording = texts.modules["pipeline.wording"]
    for value in ast.walk(wording.constants["SYSTEM_ERRORS"]):
        if isinstance(value, ast.Tuple):
            what, do = (texts.of(each, wording, {})[0] for each in value.elts)
            yield Message(area_of(wording), "OSError", wording.place, f"‹file›: {what}. {do}")


def area_of(module: Module) -> str:
    """The package that a module belongs to."""
    is_package = module.place.endswith("__init__.py")
    return module.name if is_package else module.name.rpartition(".")[0]


def kind_of(node: ast.Call, module: Module, classes: dict[str, str]) -> str | None:
    """Under which heading a call's text belongs; None: it says nothing that is looked for."""
    name = ast.unparse(node.func)
    short = called(node)
    if short == "at" and isinstance(node.func, ast.Attribute):
        return called(ast.Call(node.func.value, [], [])) if ast.unparse(node.func.value) in classes else None
    if short in classes:
        return short
    if short in BUILT_IN and isinstance(module.parents.get(node), ast.Raise):
        return short
    for call, kind in PRINTED.items():
        if name == call or name.endswith(f".{call}"):
            return kind
    return "Argument of a command" if short == "error" and name == "parser.error" else None


def said(node: ast.Call, kind: str, module: Module, texts: Texts) -> list[str]:
    """The texts of one call: those of every caller of a helper that only hands its arguments on."""
    around = [n for n in module.around(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    bounds: list[World] = []
    if around and any(isinstance(n, ast.Name) and n.id in parameters(around[-1]) for n in ast.walk(node)):
        bounds = list(texts.callers(around[-1], module))
    everyone = [] if bounds and all(bounds) else [World()]
    for worlds in (*everyone, *bounds), everyone or [World()]:
        ways = [way for bound in worlds for way in texts.worlds(node, module, bound)]
        found = unique(clean(text) for way in ways for text in of_call(node, kind, module, texts, way))
        if len(found) <= 8 * MOST:
            break
    return [text for text in found if says(text)]


def of_call(node: ast.Call, kind: str, module: Module, texts: Texts, world: World) -> Iterator[str]:
    """What a call says on one way to it."""
    given = {keyword.arg: texts.of(keyword.value, module, world) for keyword in node.keywords if keyword.arg}
    by_place = [texts.of(value, module, world) for value in node.args]
    if "expected" in given:
        names = ["expected", "found", "do"]
        parts = [*by_place, *(given.get(name, [gap(name)]) for name in names)]
        form = "{}: '{}': expected {}, found {}. {}" if len(by_place) == 2 else "{}: expected {}, found {}. {}"
    elif kind.startswith("Mistake"):
        parts, form = by_place[:2], "{}. {}"
    else:
        parts, form = by_place[1:2] if kind in SECOND else by_place[:1], "{}"
    for each in itertools.islice(itertools.product(*parts), MOST) if len(parts) == form.count("{}") else ():
        if "" not in each[: form.count("{}") - 1]:  # what was not found yet on a way that does not lead here
            yield form.format(*each).replace("'folder': ", "")  # as RawDataError does


def clean(text: str) -> str:
    """On one line, without colours."""
    return " ".join(MARKUP.sub("", text).split())


def page(found: Sequence[Message]) -> str:
    """The whole page."""
    source = modules()
    about = {module.name: (ast.get_docstring(module.tree) or "").partition("\n")[0] for module in source}
    lines = [HEAD]
    classes = error_classes(source)
    for area, of_area in itertools.groupby(found, key=lambda message: message.area):
        lines += [f"## `{area}`", "", *([about[area], ""] if about.get(area) else [])]
        for kind, of_kind in itertools.groupby(of_area, key=lambda message: message.kind):
            name = kind if " " in kind or kind in ("Printed", "Notes") else f"`{kind}`"
            said = MEANS.get(kind) or classes.get(kind, "")
            lines += [f"### {name} in `{area}`", "", *([said, ""] if said else [])]
            lines += [f"- {code(message.text)} ({Path(message.place).name})" for message in of_kind]
            lines.append("")
    return "\n".join(lines)


def code(text: str) -> str:
    """As code, whatever is in it."""
    fence = "``" if "`" in text else "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


if __name__ == "__main__":
    PAGE.write_text(page(messages()))
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
