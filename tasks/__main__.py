"""The command line: `python -m tasks COMMAND`. Luigi's tasks are run by `luigi --module tasks TASK`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.cli import command_line
from pipeline.plug_ins import COMMANDS as GROUP
from pipeline.plug_ins import CommandEntry, load_records
from pipeline.settings import sections
from pipeline.settings.file import settings_file
from tasks.settings import settings, tolerating

COMMANDS: Final[Mapping[str, CommandEntry]] = {
    "evaluate": CommandEntry(
        "tasks.commands.evaluate",
        "Evaluate a checkpoint on splits of the cache by all protocols, beside published figures.",
    ),
    "train": CommandEntry(
        "tasks.commands.train", "Train on the cache by luigi.cfg; under torchrun, several processes train as one."
    ),
}


def commands() -> dict[str, CommandEntry]:
    """All commands by name, ours first."""
    added = load_records(GROUP, CommandEntry, taken=COMMANDS)
    return {**COMMANDS, **{name: entry for name, entry in added.items() if entry.program == "tasks"}}


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    description = "Use a trained VIBE. From raw data to a trained model: luigi --module tasks EvaluateVIBE."
    return command_line.parser_of(commands(), "python -m tasks", description, complete=_check_settings)


def _check_settings(args: argparse.Namespace) -> None:
    """Raise ConfigError for a wrong `--set`, also for commands that need no luigi.cfg."""
    if not args.settings:
        return
    if settings_file().exists() and getattr(args, "detector", None) is None:
        settings()
    else:
        sections.load(settings_file(), tolerant=True, optional=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code: `command_line.EXIT_CODES`."""
    with tolerating():
        return command_line.run(parser, argv, "tasks")


if __name__ == "__main__":
    sys.exit(main())
