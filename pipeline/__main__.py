"""The command line: `python -m pipeline COMMAND`. Each command calls one function and reports what it did."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.cli import command_line
from pipeline.cli.command_line import CommandEntry
from pipeline.errors import PipelineError
from pipeline.plug_ins import COMMANDS as GROUP
from pipeline.plug_ins import load_records

COMMANDS: Final[Mapping[str, CommandEntry]] = {
    "init": CommandEntry(
        "pipeline.commands.init",
        "Write a luigi.cfg: for the demo data, or with --real for downloads of your own.",
    ),
    "config": CommandEntry("pipeline.commands.config", "The settings that differ from the defaults; or all of them."),
    "doctor": CommandEntry(
        "pipeline.commands.doctor",
        "Examine the raw folders: what is found, what is missing, what to do. Exit code 1 when something is missing.",
    ),
    "prepare": CommandEntry(
        "pipeline.commands.prepare",
        "Do all of it for one dataset, or for clips of your own: detect where keypoints are missing, convert every "
        "split, extract features, draw a page of tracks. Run it again to go on, or after more videos came.",
    ),
    "plan": CommandEntry(
        "pipeline.commands.plan",
        "Show what `make data` would convert and extract, how much, and why. Training is not included.",
    ),
    "convert": CommandEntry(
        "pipeline.commands.convert",
        "Convert one split of a raw dataset into committed rows of the cache.",
    ),
    "extract": CommandEntry("pipeline.commands.extract", "Compute feature streams for the rows that lack them."),
    "verify": CommandEntry(
        "pipeline.commands.verify",
        "Check every byte of a cache against its manifests; exit code 1 when something is damaged.",
    ),
    "status": CommandEntry(
        "pipeline.commands.status",
        "Show what is in a cache: videos, tracks, frames kept and dropped, streams.",
    ),
    "leaks": CommandEntry(
        "pipeline.commands.leaks",
        "Show which people, recordings and pictures training splits (called train) share with all others; "
        "exit code 1 when they share any.",
    ),
    "gc": CommandEntry(
        "pipeline.commands.storage.gc",
        "Remove the files that killed runs and replaced data left, and that no manifest refers to.",
    ),
    "copy": CommandEntry(
        "pipeline.commands.storage.copy",
        "Copy splits and their streams into another cache, without the rows of replaced and removed videos.",
    ),
    "tag": CommandEntry(
        "pipeline.commands.storage.tag",
        "Give the committed state of splits and their streams a name, by which it can be read and trained on later; "
        "or list the names.",
    ),
}
SEE: Final = (
    "With a trained model: python -m tasks --help (predict, evaluate, report). All at once, by luigi.cfg: make help."
)


def commands() -> dict[str, CommandEntry]:
    """All commands by name, those of extensions and packages last. Raises PlugInError for one that cannot be loaded."""
    added = load_records(GROUP, CommandEntry)
    return {**COMMANDS, **{name: entry for name, entry in added.items() if entry.program == "pipeline"}}


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    description = "Raw datasets -> tracks -> features in a Zarr cache."
    return command_line.parser_of(commands(), "python -m pipeline", description, SEE, complete=complete)


def complete(args: argparse.Namespace) -> None:
    """As `pipeline.settings.commands.complete`, which --help does not wait for."""
    from pipeline.settings import commands

    commands.complete(args)


def user_errors() -> tuple[type[Exception], ...]:
    """Those whose messages are meant for users."""
    import cache

    return PipelineError, cache.CacheError, OSError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code: `command_line.EXIT_CODES`."""
    return command_line.run(parser, argv, user_errors, "pipeline")


if __name__ == "__main__":
    sys.exit(main())
