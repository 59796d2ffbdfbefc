"""What `python -m pipeline` and `python -m tasks` share: their arguments, and a terminal that shows them everything."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from typing import NoReturn

from pipeline.commands import Command


class _Parser(argparse.ArgumentParser):
    """One line for a mistake in the arguments, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


def parser_of(commands: Mapping[str, Command], prog: str, description: str) -> argparse.ArgumentParser:
    """All commands and their options; `run` of what it parses is the command's function."""
    top = _Parser(prog=prog, description=description)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    known = top.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        sub = known.add_parser(name, help=command.HELP, description=command.HELP)
        sub.set_defaults(run=command.run)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.options(sub)
    return top


def show_any_symbol() -> None:
    """A terminal that knows no "✓" is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
