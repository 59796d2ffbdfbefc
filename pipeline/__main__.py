"""The command line: `python -m pipeline COMMAND`. Each command calls one function and tells what it did."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import cache
from pipeline.command_line import parser_of, show_any_symbol
from pipeline.commands import COMMANDS
from pipeline.commands.console import err, plain
from pipeline.errors import PipelineError
from pipeline.wording import in_words


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    return parser_of(COMMANDS, "python -m pipeline", "Raw datasets -> tracks -> features in a Zarr cache.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Exit 0: done; 1: `verify` found problems, or `doctor` something missing; 2: an error, told in words;
    130: interrupted.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    show_any_symbol()
    args = argparse.Namespace()
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
    except KeyboardInterrupt:
        err.print("interrupted: finished shards (8,192 rows each) are kept; the same command goes on from there")
        return 130
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        named = [path for option in ("cache", "out") if (path := getattr(args, option, None)) is not None]
        err.print(f"[red]error:[/red] {plain(told(error, named))}")
        return 2
    return code


def told(error: Exception, named: Sequence[Path | str]) -> str:
    """An error as the user is told it, who named these places to be written."""
    if isinstance(error, PipelineError | cache.CacheError | OSError):
        return in_words(error, named)
    return f"{type(error).__name__}: {error}. This should not happen: --debug shows where it does."


if __name__ == "__main__":
    sys.exit(main())
