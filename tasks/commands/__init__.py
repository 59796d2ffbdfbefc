"""The commands of `python -m tasks`: a file each, with `HELP`, `options(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.cli.command_line import Command
from tasks.commands import evaluate, predict, report, train

COMMANDS: Final[Mapping[str, Command]] = {
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "train": train,
}
