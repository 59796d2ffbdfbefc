"""`python -m pipeline config`: what `python -m tasks config` prints, run in a process of its own.

Only the package `tasks` knows what [train] and [mposer] mean, and nothing here may import it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from pipeline.cli.options import json_option

HELP: Final = "The effective settings, and where each comes from."


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("names", nargs="*", metavar="SECTION[.KEY]", help="only these, as features or features.precision; default: all")
    json_option(sub)
    add("--check", action="store_true", help="only whether the file is right; exit 1 where training is refused")
    help_ = "another luigi.cfg than LUIGI_CONFIG_PATH or ./luigi.cfg"
    add("--config", type=Path, metavar="FILE", help=help_)
    sub.set_defaults(complete=complete)


def complete(_: argparse.Namespace) -> None:
    """Every `--set` is read, and checked, by `run`."""


def run(args: argparse.Namespace) -> int:
    """The same command of `tasks`. Its exit code."""
    flags = [f"--{name}" for name in ("json", "check", "debug") if getattr(args, name)]
    file = [] if args.config is None else ["--config", str(args.config)]
    words = [sys.executable, "-m", "tasks", "config", *flags, *file, "--", *args.names]
    return subprocess.run(words, check=False).returncode  # noqa: S603  our own command
