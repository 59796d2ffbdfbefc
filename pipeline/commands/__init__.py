"""The commands of `python -m pipeline`: a file each, with `HELP`, `options(parser)` and `run(args) -> exit code`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.cli.command_line import Command
from pipeline.commands import (
    accept,
    config,
    convert,
    copy,
    detect,
    doctor,
    extract,
    gc,
    init,
    leaks,
    plan,
    show,
    status,
    synthesize,
    verify,
)
from pipeline.commands.databases import export, import_

COMMANDS: Final[Mapping[str, Command]] = {
    "init": init,
    "config": config,
    "doctor": doctor,
    "synthesize": synthesize,
    "detect": detect,
    "plan": plan,
    "accept": accept,
    "convert": convert,
    "extract": extract,
    "export": export,
    "import": import_,
    "show": show,
    "verify": verify,
    "status": status,
    "leaks": leaks,
    "gc": gc,
    "copy": copy,
}
