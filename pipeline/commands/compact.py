"""`python -m pipeline compact`: a split without the rows of replaced videos."""

from __future__ import annotations

import argparse
from typing import Final

import cache
from pipeline.cli.console import err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.settings.arguments import split_options

HELP: Final = "Rewrite a split, streams included, without the rows of replaced and removed videos."


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub)


def run(args: argparse.Namespace) -> int:
    """Write the split again beside the old one, and exchange them."""
    name = f"{args.dataset}/{args.split}"
    with bar(f"compact {name}", err, unit="row") as progress:
        done = cache.compact(args.cache, name, progress=progress)
    if done.before == done.after:
        out.print(f"{name}: nothing to compact, no rows of replaced videos")
    else:
        gone = count(done.before - done.after, "row")
        out.print(plain(f"{name}: {count(done.after, 'row')} now; {gone} of replaced videos and padding are gone"))
    return 0
