"""The commands of `python -m pipeline`: a file each, with `HELP`, `options(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.cli.command_line import Command
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
    show,
    status,
    synthesize,
    verify,
)

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
    "show": show,
    "verify": verify,
    "status": status,
    "gc": gc,
    "compact": compact,
}
