"""How `--help` lists the commands of a program, and the examples of a command."""

from __future__ import annotations

import argparse
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

SUMMARY_COLUMN: Final = 14  # of the program's --help
EXAMPLE: Final = " " * 4  # before an example of a command's --help


class CommandEntry(NamedTuple):
    """A command in the table of a program."""

    group: Literal["start", "look", "make", "keep", "exchange"]  # heading in the program's --help
    module: str  # has its `Command` as COMMAND, and all that it works with
    options: str  # "module:function", which adds its arguments to its parser
    summary: str
    examples: tuple[str, str]  # what is typed after its name
    # The rule of the files that it writes, besides caches and runs. "output": `OutputRule`, with
    # the option --overwrite; "new": nothing is replaced; "own": a rule of its own
    writes: Literal["nothing", "output", "new", "own"] = "nothing"


class HelpFormatter(argparse.HelpFormatter):
    """Fills each line of a text for itself. An indented line is a command: its summary begins at a
    fixed column, and an example is one line.
    """

    def _fill_text(self, text: str, width: int, _indent: str) -> str:
        lines = []
        for line in text.splitlines():
            rest = " " * SUMMARY_COLUMN if line.startswith(" ") else ""
            is_example = line.startswith(EXAMPLE)
            filled = textwrap.wrap(line, width, subsequent_indent=rest)
            lines += [line] if is_example or not line else filled
        return "\n".join(lines)


def list_of(commands: Mapping[str, CommandEntry]) -> Iterator[str]:
    """Lines of --help: each group of the table with its commands."""
    for group, names in itertools.groupby(commands, lambda name: commands[name].group):
        yield ""
        yield f"{group}:"
        for name in names:
            yield f"  {name}".ljust(SUMMARY_COLUMN) + commands[name].summary
