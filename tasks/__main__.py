"""The command line: `python -m tasks COMMAND`. Luigi's tasks are run by `luigi --module tasks
TASK`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextvars import copy_context

from pipeline import table
from pipeline.cli import command_line


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    description = (
        "Use a trained VIBE. From raw data to a trained model: luigi --module tasks EvaluateVIBE."
    )
    return command_line.parser_of(
        table.COMMANDS["tasks"],
        "python -m tasks",
        description,
        elsewhere=dict.fromkeys(table.COMMANDS["pipeline"], "python -m pipeline"),
        complete=_check_settings,
        version=_describe_version,
    )


def _describe_version() -> str:
    """Return `package_version`, imported late: --help does not need it."""
    from pipeline.processes.software import package_version

    return package_version()


def _check_settings(args: argparse.Namespace) -> None:
    """Raise ConfigError for a wrong `--set`, also for commands that need no luigi.cfg."""
    from pipeline.settings import sections
    from pipeline.settings.file import settings_file
    from tasks.settings import settings, tolerate

    tolerate()
    if not args.settings:
        return
    if settings_file().exists() and getattr(args, "detector", None) is None:
        settings()
    else:
        sections.load(settings_file(), tolerant=True, optional=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code: `command_line.EXIT_CODES`."""
    return copy_context().run(command_line.run, parser, argv, "tasks")


if __name__ == "__main__":
    sys.exit(main())
