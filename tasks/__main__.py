"""The command line: `python -m tasks COMMAND`. Luigi's tasks are run by `luigi --module tasks TASK`."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipeline.command_line import parser_of, show_any_symbol
from pipeline.wording import in_words
from tasks import terminal
from tasks.commands import COMMANDS


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    description = "Use a trained VIBE. From raw data to a trained model: luigi --module tasks EvaluateVIBE."
    return parser_of(COMMANDS, "python -m tasks", description)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit 0: done; 2: an error, told in words; 130: interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    show_any_symbol()
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
