"""The command line: `python -m pipeline COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.cli import command_line
from pipeline.plug_ins import COMMANDS as GROUP
from pipeline.plug_ins import CommandEntry, load_records

_SUMMARIES: Final = {  # of the modules in pipeline.commands
    "init": "Write a luigi.cfg for the demo data, or with --real for your downloads.",
    "config": "Print the settings that differ from their defaults, or all.",
    "doctor": "Check the raw folders: what is complete, what is missing, and how to get it.",
    "prepare": "Prepare a dataset or your own clips: detect missing keypoints, convert all splits, extract features, "
    "draw a page of tracks. Run it again to resume, or after adding videos.",
    "plan": "Show what `make data` would convert and extract, how much, and why.",
    "convert": "Convert one split of a raw dataset into the cache.",
    "extract": "Compute the missing rows of feature streams.",
    "verify": "Check every byte of a cache against its manifests.",
    "status": "Show the contents of a cache: videos, tracks, kept and dropped frames, streams.",
    "gc": "Delete files that no manifest references, such as those of killed runs and replaced data.",
    "copy": "Copy splits and their streams into another cache, without rows of replaced and removed videos.",
}
COMMANDS: Final[Mapping[str, CommandEntry]] = {
    name: CommandEntry(f"pipeline.commands.{name}", summary) for name, summary in _SUMMARIES.items()
}
SEE: Final = "Training, evaluation, prediction: python -m tasks --help. The whole pipeline by luigi.cfg: make help."


def commands() -> dict[str, CommandEntry]:
    """All commands, those of extensions and packages last."""
    added = load_records(GROUP, CommandEntry, taken=COMMANDS)
    return {**COMMANDS, **{name: entry for name, entry in added.items() if entry.program == "pipeline"}}


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    description = "Raw datasets -> tracks -> features in a Zarr cache."
    return command_line.parser_of(commands(), "python -m pipeline", description, SEE, complete=complete)


def complete(args: argparse.Namespace) -> None:
    """Call `pipeline.settings.arguments.complete`, imported late: --help does not need it."""
    from pipeline.settings import arguments

    arguments.complete(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (EXIT_CODES)."""
    return command_line.run(parser, argv, "pipeline")


if __name__ == "__main__":
    sys.exit(main())
