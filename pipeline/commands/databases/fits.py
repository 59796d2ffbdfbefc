"""`python -m pipeline fits`: 4D-Humans' tars of SMPL fits -> one file in a raw folder, which conversion reads."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from pipeline.cli.console import DOUBT, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("tars", type=Path, nargs="+", metavar="TAR", help="000000.tar, ... of one of its dataset_tars")
    sub.add_argument("--raw", type=Path, required=True, help="the dataset's own raw folder, for fits.sqlite")
    what = "a regular expression: what its first group matches of a picture's key is the picture's name"
    sub.add_argument("--key", default="", metavar="REGEX", help=f"{what}; default: all of it")


def run(args: argparse.Namespace) -> int:
    """Read the tars that have not been read. 1 where one cannot be."""
    from pipeline.files.formats import fits

    n_fits, unread, skipped = 0, [], Counter[str]()
    with bar(f"fits {args.raw.name}", err, unit="tar") as progress:
        for i, (_, content) in enumerate(fits.read_all(sorted(args.tars), args.raw / fits.FILE, args.key), 1):
            progress(i, len(args.tars))
            if isinstance(content, fits.TarContent):
                n_fits += len(content.fits)
                skipped += content.skipped
            elif content is not None:
                unread.append(str(content))
    out.print(f"{count(n_fits, 'fit')} read of {count(len(args.tars), 'tar')}")
    for why, n in sorted(skipped.items()):
        out.print(f"  {DOUBT} {count(n, 'person')} left out: {plain(why)}")
    for message in unread:
        out.print(f"  {DOUBT} {plain(message)}")
    return 1 if unread else 0
