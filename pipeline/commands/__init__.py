"""The commands of `python -m pipeline`: a file each, with `HELP`, `options(parser)` and `run(args) -> exit code`.

Other packages add theirs: see `pipeline.commands.command_plug_ins`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final, Protocol

from pipeline.commands import (
    accept,
    compact,
    convert,
    doctor,
    export,
    extract,
    gc,
    import_,
    init,
    plan,
    retry,
    show,
    status,
    synthesize,
    verify,
)
from pipeline.commands.command_plug_ins import plug_ins


class Command(Protocol):
    """What a file of this folder offers."""

    HELP: str

    def options(self, sub: argparse.ArgumentParser, /) -> None:
        """Add the command's arguments to its parser."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Do it, tell what was done, and return the exit code."""


_OURS: Final[Mapping[str, Command]] = {
    "init": init,
    "doctor": doctor,
    "synthesize": synthesize,
    "plan": plan,
    "accept": accept,
    "convert": convert,
    "extract": extract,
    "export": export,
    "import": import_,
    "retry": retry,
    "show": show,
    "verify": verify,
    "status": status,
    "gc": gc,
    "compact": compact,
}

COMMANDS: Final[Mapping[str, Command]] = {**_OURS, **dict(plug_ins(_OURS))}
