"""The command line: `python -m tasks COMMAND`. Luigi's tasks are run by `luigi --module tasks TASK`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipeline.wording import in_words
from tasks import terminal
from tasks.commands import COMMANDS


class _Parser(argparse.ArgumentParser):
    """One line for a mistake in the arguments, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(
        prog="python -m tasks",
        description="Use a trained VIBE. From raw data to a trained model: luigi --module tasks EvaluateVIBE.",
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        sub.set_defaults(run=command.run)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.options(sub)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit 0: done; 2: an error, told in words; 130: interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    args = argparse.Namespace()
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
    except KeyboardInterrupt:
        terminal.complain("interrupted: what is finished is kept; the same command goes on from there")
        return 130
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        places = [path for option in ("out", "cache") if isinstance(path := getattr(args, option, None), Path)]
        terminal.complain(told(error, places))
        return 2
    return code


def told(error: Exception, places: Sequence[Path]) -> str:
    """An error as the person is told it, who named these places to be written."""
    if isinstance(error, terminal.MENDABLE):
        return in_words(error, places)
    return f"{type(error).__name__}: {error}. This should not happen: --debug shows where it does."


if __name__ == "__main__":
    sys.exit(main())
