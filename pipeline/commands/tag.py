"""`python -m pipeline tag`: give the current state of a cache a name, or take it back."""

from __future__ import annotations

import argparse
from typing import Final

import cache
from pipeline.cli.command_line import Command
from pipeline.cli.console import DONE, out


def _run(args: argparse.Namespace) -> int:
    """Make or delete the tag. Returns 0."""
    change = cache.delete_tag if args.delete else cache.tag
    change(args.cache, args.name)
    out.print(f"{DONE} {args.name}")
    return 0


COMMAND: Final = Command(_run)
