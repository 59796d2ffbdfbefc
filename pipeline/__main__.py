"""The command line: `python -m pipeline COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from pipeline import table
from pipeline.cli import command_line

SEE: Final = (
    "Training, evaluation, prediction: python -m tasks --help. The whole pipeline by "
    "luigi.cfg: luigi --module tasks Report."
)


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    description = "Raw datasets -> tracks -> features in a Zarr cache."
    return command_line.parser_of(
        table.COMMANDS["pipeline"],
        "python -m pipeline",
        description,
        SEE,
        elsewhere=dict.fromkeys(table.COMMANDS["tasks"], "python -m tasks"),
        complete=_complete,
        version=_describe_version,
    )


def _complete(args: argparse.Namespace) -> None:
    """Call `pipeline.settings.arguments.complete`, imported late: --help does not need it."""
    from pipeline.settings import arguments

    arguments.complete(args)


def _describe_version() -> str:
    """Return `pipeline.processes.software.package_version`, imported late: --help does not need
    it.
    """
    from pipeline.processes.software import package_version

    return package_version()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (EXIT_CODES)."""
    return command_line.run(parser, argv, "pipeline")


if __name__ == "__main__":
    sys.exit(main())
