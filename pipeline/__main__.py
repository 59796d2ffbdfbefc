"""The command line: `python -m pipeline COMMAND`. Each command calls one function and reports what it did."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import cache
from pipeline.cli import command_line
from pipeline.commands import (
    accept,
    config,
    convert,
    copy,
    detect,
    doctor,
    extract,
    gc,
    init,
    leaks,
    plan,
    show,
    status,
    synthesize,
    verify,
)
from pipeline.commands.databases import export, import_
from pipeline.commands.settings.commands import complete
from pipeline.errors import PipelineError

COMMANDS: Final[Mapping[str, command_line.Command]] = {
    "init": init,
    "config": config,
    "doctor": doctor,
    "synthesize": synthesize,
    "detect": detect,
    "plan": plan,
    "accept": accept,
    "convert": convert,
    "extract": extract,
    "export": export,
    "import": import_,
    "show": show,
    "verify": verify,
    "status": status,
    "leaks": leaks,
    "gc": gc,
    "copy": copy,
}
SEE: Final = (
    "With a trained model: python -m tasks --help (predict, evaluate, report). All at once, by luigi.cfg: make help."
)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    description = "Raw datasets -> tracks -> features in a Zarr cache."
    return command_line.parser_of(COMMANDS, "python -m pipeline", description, SEE, complete=complete)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code: `command_line.EXIT_CODES`."""
    return command_line.run(parser, argv, (PipelineError, cache.CacheError, OSError), "pipeline")


if __name__ == "__main__":
    sys.exit(main())
