"""The commands of `python -m tasks`: a file each, with `options(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.cli.command_line import CommandEntry

COMMANDS: Final[Mapping[str, CommandEntry]] = {
    "evaluate": CommandEntry(
        "tasks.commands.evaluate",
        "Evaluate a checkpoint on splits of the cache, by all protocols, beside the published figures.",
    ),
    "train": CommandEntry(
        "tasks.commands.train",
        "Train by luigi.cfg on what the cache holds; under torchrun, in several processes as one.",
    ),
}
