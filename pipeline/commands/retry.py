"""`python -m pipeline retry`: read again what could not be used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cache
from pipeline import retry
from pipeline.commands.console import FEW, command, cores, count, err, few, out, plain, print_accounting, whole
from pipeline.errors import PipelineError
from pipeline.progress import bar
from pipeline.wording import in_words

HELP: Final = "Read again the videos that were set aside because something was wrong with them."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("splits", nargs="*", metavar="DATASET[/SPLIT]", help="only these; else all of the cache")
    sub.add_argument("--failed", action="store_true", required=True, help="what there is to retry: say so")
    sub.add_argument("--cache", type=cache.place_of, required=True, help="the cache's folder, or its URL")
    sub.add_argument("--raw", type=Path, help="where the dataset's own raw folder lies now, when it has moved")
    sub.add_argument("--body", type=Path, help="where SMPL's files lie now, when they have moved")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes; 0: one a core")


def run(args: argparse.Namespace) -> int:
    """Split by split; one that cannot be tried is told, and the others go on."""
    names = chosen(cache.open(args.cache).splits, args.splits)
    if args.raw is not None and len({name.partition("/")[0] for name in names}) > 1:
        raise PipelineError("--raw is one dataset's own folder: name that dataset")
    troubles, failed = 0, 0
    for name in names:
        try:
            with bar(f"retry {name}", err) as progress:
                done = retry.retry_failed(
                    args.cache, name, raw=args.raw, body=args.body, workers=cores(args.workers), progress=progress
                )
        except (PipelineError, cache.CacheError, OSError) as error:
            troubles += 1
            err.print(f"[red]error:[/red] {plain(in_words(error, [args.cache]))}")
            continue
        failed += len(done.failed)
        if done.failed:
            tell(done, args.cache)
    if not failed and not troubles:
        out.print(f"nothing to retry: no video of {', '.join(names)} failed" if names else "nothing to retry")
    return 2 if troubles else 0


def chosen(there: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The committed splits that DATASET or DATASET/SPLIT name. Raises PipelineError for a name that fits none."""
    if not wanted:
        return list(there)
    for name in wanted:
        if name not in {split if "/" in name else split.partition("/")[0] for split in there}:
            raise PipelineError(f"no split {name!r} in the cache; there are: {', '.join(there) or 'none'}")
    return [split for split in there if split in wanted or split.partition("/")[0] in wanted]


def tell(done: retry.Retry, root: cache.Root) -> None:
    """How many can be used now, and why the others still cannot."""
    failed = count(len(done.failed), "failed video")
    out.print(f"{done.split}: {len(done.mended):,} of {failed} can be used now")
    if done.conversion is None:
        out.print("  the cache is unchanged" + (": each fails as it did before" if done.accounts else ""))
    else:
        print_accounting(done.conversion.totals)
    still = [f"set aside {account.set_aside}: {account.message}" for account in done.set_aside]
    for text in few(still, FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"  [yellow]![/yellow] {plain(text)}")
    if done.gone:
        first = plain(done.gone[0])
        out.print(f"  {len(done.gone)} not in the raw folder any more, first {first}: the next conversion drops them")
