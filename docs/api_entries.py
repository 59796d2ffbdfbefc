"""A Sphinx extension for records and signatures of the API reference, and for the keys of
luigi.cfg.
"""

import inspect
from collections.abc import Iterator
from typing import Any, cast

import luigi
from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature

from docs.setting_keys import NO_VALUES, Key, crop_words, fields, sections


def is_record(thing: Any) -> bool:
    """Whether a class is a dataclass or a named tuple."""
    return "__dataclass_fields__" in vars(thing) or hasattr(thing, "_fields")


def write(_app: Sphinx, what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Format sections as `Args:`, and append the list of fields to a record's docstring."""
    # there, "The manifest: ..." would be read as a type
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(list(lines), cast(Any, Config()), what=cast(Any, what)).lines()
    if what != "class" or not is_record(thing):
        return
    # A class's fields follow those of its bases. Without the second empty line, the list would be
    # part of the docstring's last paragraph.
    lines += ["", ""]
    for field in (
        field for cls in reversed(thing.__mro__) if is_record(cls) for field in fields(cls)
    ):
        about, heading = (
            text.replace("*", r"\*").replace("|", r"\|") for text in (field.about, field.heading)
        )
        if heading:
            lines += ["", f"*{heading}*", ""]
        short = (
            field.default and "\n" not in field.default and not field.default.startswith("field(")
        )
        given = f"{field.name}: {field.type}" + (f" = {field.default}" if short else "")
        lines += [f"- ``{given}``" + (f": {about}" if about else ""), ""]


def sign(
    _app: Sphinx,
    what: str,
    _name: str,
    thing: Any,
    _options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Show types as the code names them, and no signature for records and tasks."""
    if what == "class" and (is_record(thing) or issubclass(thing, luigi.Task)):
        return "", None  # a record's fields are listed; a task's signature is Luigi's
    if not signature or what not in ("function", "method", "class"):
        return signature, returns
    written = inspect.signature(thing)
    parameters = [item for item in written.parameters.values() if item.name not in ("self", "cls")]
    shown = stringify_signature(
        written.replace(parameters=parameters), show_return_annotation=False
    )
    return shown, None if what == "class" else returns and str(written.return_annotation)


def prose(text: str) -> Iterator[nodes.Node]:
    """Nodes of a text with `code`."""
    for number, part in enumerate(text.split("`")):
        yield nodes.literal(text=part) if number % 2 else nodes.Text(part)


def row(key: Key) -> list[list[str]]:
    """The paragraphs of three cells: key, values, meaning."""
    about = key.about
    if not all(choice in about for choice in key.choices):
        about = f"{about.rstrip('.')}. One of {', '.join(f'`{choice}`' for choice in key.choices)}."
    default = key.default if key.default in NO_VALUES else f"`{key.default}`"
    if key.limits:
        default += f", {key.limits}"
    values = [default, *(f"{preset}: `{value}`" for preset, value in key.presets.items())]
    return [[f"`{key.name}`" + ("" if key.decides else " *")], values, [about]]


class Settings(SphinxDirective):
    """The directive `settings`: all sections of luigi.cfg, with a table of their keys."""

    def run(self) -> list[nodes.Node]:
        tables = {f"[{name}]": keys for name, keys in sections().items()} | {
            "Words of crop": crop_words()
        }
        return [self._section(title, [row(key) for key in keys]) for title, keys in tables.items()]

    def _section(self, title: str, rows: list[list[list[str]]]) -> nodes.Node:
        section = nodes.section(
            "", nodes.title(text=title), names=[nodes.fully_normalize_name(title)]
        )
        self.state.document.note_implicit_target(section, section)
        columns = [nodes.colspec(colwidth=width) for width in (20, 30, 50)]
        parts = [
            part("", *(nodes.row("", *map(self._cell, cells)) for cells in lines))
            for part, lines in (
                (nodes.thead, [[["key"], ["default"], ["meaning"]]]),
                (nodes.tbody, rows),
            )
        ]
        section += nodes.table("", nodes.tgroup("", *columns, *parts, cols=3))
        return section

    @staticmethod
    def _cell(paragraphs: list[str]) -> nodes.Node:
        return nodes.entry("", *(nodes.paragraph("", "", *prose(text)) for text in paragraphs))


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this once."""
    app.add_directive("settings", Settings)
    app.connect("autodoc-process-docstring", write)
    app.connect("autodoc-process-signature", sign)
    return {"parallel_read_safe": True}
