"""A Sphinx extension for the API reference: records with the comments behind their fields, signatures as written."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, cast

import luigi
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.inspect import stringify_signature

# A field's line: its type, its default where that is short, the comment behind it.
FIELD = re.compile(
    r"    (?!_)(?P<field>\w+: [^=#]+?)(?: = (?P<default>.+?))?(?:  # (?!noqa)(?P<about>.+?))?(?:  # noqa.*)?"
)


def fields(source: str) -> Iterator[tuple[str, str, str]]:
    """(field and type, default, what it is) of every field of a class; ("", "", heading) for a comment above fields."""
    heading: list[str] = []
    for line in textwrap.dedent(source).splitlines():
        if line.startswith("    # "):
            heading.append(line.removeprefix("    # "))
        elif found := FIELD.fullmatch(line):
            if heading:
                yield "", "", " ".join(heading)
            yield found["field"], found["default"] or "", found["about"] or ""
            heading = []


def is_record(thing: Any) -> bool:
    """Whether a class is made of its fields: a dataclass or a named tuple."""
    return "__dataclass_fields__" in vars(thing) or hasattr(thing, "_fields")


def write(_app: Sphinx, what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Sections as `Args:` set out, and below a record's docstring the list of its fields."""
    if what not in ("attribute", "data", "property"):  # there, "The manifest: ..." would be taken for a type
        lines[:] = GoogleDocstring(list(lines), cast(Any, Config()), what=cast(Any, what)).lines()
    if what != "class" or not is_record(thing):
        return
    # Own fields stand below those of bases, a named tuple's among them.
    sources = [inspect.getsource(cls) for cls in reversed(thing.__mro__) if is_record(cls)]
    # Without one empty line more, the list would be part of the docstring's last paragraph.
    lines += ["", ""]
    for field, default, about in (row for source in sources for row in fields(source)):
        escaped = about.replace("*", r"\*").replace("|", r"\|")
        if not field:
            lines += ["", f"*{escaped}*", ""]
            continue
        given = f" = {default}" if default and not default.startswith("field(") and default[-1] not in "([{" else ""
        lines += [f"- ``{field}{given}``" + (f": {escaped}" if about else ""), ""]


def sign(
    _app: Sphinx, what: str, _name: str, thing: Any, _options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Types by the names that the code gives them; nothing where a signature has no more than its name."""
    if what == "class" and (is_record(thing) or issubclass(thing, luigi.Task)):
        return "", None  # a record's fields are listed; a task's signature is Luigi's
    if not signature or what not in ("function", "method", "class"):
        return signature, returns
    written = inspect.signature(thing)
    given = [one for one in written.parameters.values() if one.name not in ("self", "cls")]
    shown = stringify_signature(written.replace(parameters=given), show_return_annotation=False)
    return shown, None if what == "class" else returns and str(written.return_annotation)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this once."""
    app.connect("autodoc-process-docstring", write)
    app.connect("autodoc-process-signature", sign)
    return {"parallel_read_safe": True}
