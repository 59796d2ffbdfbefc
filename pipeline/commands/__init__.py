"""The commands of `python -m pipeline`: a file each, with `HELP`, `options(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final, Protocol

from pipeline.commands import (
    accept,
    compact,
    config,
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


class Command(Protocol):
    """What a file of this folder offers."""

    HELP: str

    def options(self, sub: argparse.ArgumentParser, /) -> None:
        """Add the command's arguments to its parser."""

    def run(self, args: argparse.Namespace, /) -> int:
        """Do it, tell what was done, and return the exit code."""


COMMANDS: Final[Mapping[str, Command]] = {
    "init": init,
    "config": config,
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
