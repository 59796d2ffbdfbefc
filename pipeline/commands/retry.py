"""`python -m pipeline retry`: read again what could not be used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DOUBT, ERROR, show_json
from pipeline.cli.progress import bar
from pipeline.cli.text import in_words
from pipeline.commands.options import (
    FEW,
    cache_option,
    command,
    cores,
    count,
    err,
    few,
    joined,
    json_option,
    out,
    plain,
    print_accounting,
    shards_kept,
    whole,
)
from pipeline.conversion import retry
from pipeline.errors import PipelineError

HELP: Final = "Read again the videos that were set aside because something was wrong with them."
kept = shards_kept


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("splits", nargs="*", metavar="DATASET[/SPLIT]", help="only these; else all of the cache")
    sub.add_argument("--failed", action="store_true", required=True, help="what there is to retry: say so")
    cache_option(sub)
    sub.add_argument("--raw", type=Path, help="where the dataset's own raw folder lies now, when it has moved")
    sub.add_argument("--body", type=Path, help="where SMPL's files lie now, when they have moved")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes; 0: one a core")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Split by split; one that cannot be tried is told, and the others go on."""
    names = chosen(cache.open(args.cache).splits, joined(args.splits))
    if args.raw is not None and len({name.partition("/")[0] for name in names}) > 1:
        raise PipelineError("--raw is one dataset's own folder: name that dataset")
    troubles: list[str] = []
    tried: list[retry.Retry] = []
    for name in names:
        try:
            with bar(f"retry {name}", err, unit="video") as progress:
                done = retry.retry_failed(
                    args.cache, name, raw=args.raw, body=args.body, workers=cores(args.workers), progress=progress
                )
        except (PipelineError, cache.CacheError, OSError) as error:
            troubles.append(in_words(error, [args.cache]))
            err.print(f"{ERROR} {plain(troubles[-1])}")
            continue
        tried.append(done)
        if done.failed and not args.json:
            tell(done, args.cache)
    if args.json:
        show_json({"splits": [as_dict(done) for done in tried], "errors": troubles})
    elif not any(done.failed for done in tried) and not troubles:
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


def as_dict(done: retry.Retry) -> dict[str, Any]:
    """For a machine to read."""
    return {
        "split": done.split,
        "failed": done.failed,
        "mended": done.mended,
        "gone": done.gone,
        "set_aside": {account.name: f"{account.set_aside}: {account.message}" for account in done.set_aside},
        "changed": done.conversion is not None,
    }


def tell(done: retry.Retry, root: cache.Root) -> None:
    """How many can be used now, and why the others still cannot."""
    failed = count(len(done.failed), "failed video")
    out.print(f"{done.split}: {len(done.mended):,} of {failed} can be used now")
    if done.conversion is None:
        out.print("  the cache is unchanged" + (": each fails as it did before" if done.accounts else ""))
    else:
        print_accounting(done.conversion.totals, done.conversion.uncounted)
    still = [f"set aside {account.rejection}" for account in done.set_aside]
    for text in few(still, FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"  {DOUBT} {plain(text)}")
    if done.gone:
        first = plain(done.gone[0])
        out.print(f"  {len(done.gone)} not in the raw folder any more, first {first}: the next conversion drops them")
