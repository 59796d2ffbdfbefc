"""What `prepare` prints at its end: the cache's contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cache
from pipeline.cli.console import DOUBT, STAND_IN, VERB_WIDTH, out, plain
from pipeline.cli.text import FEW, command, few, from_here
from pipeline.commands.preparation.pages import page_file
from pipeline.conversion.committed import rejected_videos
from pipeline.conversion.plan import committed_split
from pipeline.features.plan import stream_label
from pipeline.recipe.recipe import SplitPlan
from pipeline.recipe.steps import accounting_lines


def split_now(plan: SplitPlan) -> cache.Split | None:
    """The split as it is in the cache now; None if it was not converted."""
    if plan.up_to_date:
        return plan.committed
    return committed_split(plan.recipe.root, plan.name)


def print_summary(root: cache.Root, plans: Sequence[SplitPlan]) -> int:
    """Print the content of each split in the cache. Returns the number of rejected videos."""
    status = command("status", "--all", "--cache", str(root))
    n_rejected = 0
    for plan in plans:
        split = split_now(plan)
        if split is not None:
            n_rejected += _print_split(split, page_file(plan.recipe), status)
    out.print(f"{'videos':<{VERB_WIDTH}} {plain(status)}")
    return n_rejected


def _print_split(split: cache.Split, page: Path, status: str) -> int:
    """Print the content of one split in the cache. Returns the number of rejected videos.

    status: the command that shows all videos.
    """
    from pipeline.show.page import shows

    title = f"[bold]{plain(split.name)}[/bold]"
    if split.manifest["stand_in"]:
        title += f"  {STAND_IN}"
    out.print(title)
    for text in accounting_lines(split.manifest["accounting"]):
        out.print(f"  {plain(text)}")
    streams = [stream_label(split, stream) for stream in split.streams]
    out.print(f"  features {plain(', '.join(streams)) or 'none'}")
    if shows(page, split.manifest["digest"]):
        out.print(f"  page {plain(from_here(page))}")
    n_rejected, messages = rejected_videos(split)
    rejected = [f"rejected {text}" for text in messages]
    for text in few(rejected, FEW, status):
        out.print(f"  {DOUBT} {plain(text)}")
    return n_rejected
