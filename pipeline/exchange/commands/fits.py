"""`python -m pipeline fits`: SMPL fits of 4D-Humans or CameraHMR -> one file in a raw folder, for
conversion.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Final

from pipeline.cli.command_line import Command
from pipeline.cli.console import DOUBT, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.settings.file import PATH


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "files",
        type=PATH,
        nargs="+",
        metavar="FILE",
        help="4D-Humans' 000000.tar, ..., or CameraHMR's .npz files",
    )
    sub.add_argument(
        "--raw", type=PATH, required=True, help="the dataset's raw folder, for fits.sqlite"
    )
    text = "regular expression whose first group extracts the image's name from its key"
    sub.add_argument("--key", default="", metavar="REGEX", help=f"{text} (default: the whole key)")


def _run(args: argparse.Namespace) -> int:
    """Read new files. Returns 1 if one cannot be read."""
    from pipeline.exchange import fits
    from pipeline.files.formats.fits import FILE

    n_fits = 0
    n_read = 0
    n_known = 0
    unread = []
    skipped = Counter[str]()
    contents = fits.read_all(sorted(args.files), args.raw / FILE, args.key)
    with bar(f"fits {args.raw.name}", err, unit="file") as progress:
        for n_done, content in enumerate(contents, 1):
            progress(n_done, len(args.files))
            if content is None:  # an earlier run has read this file
                n_known += 1
            elif isinstance(content, fits.FitsRead):
                n_read += 1
                n_fits += len(content.fits)
                skipped += content.skipped
            else:
                unread.append(str(content))
    text = f"{count(n_fits, 'fit')} read of {count(n_read, 'file')}"
    if n_known:
        text += f", {count(n_known, 'file')} read before"
    out.print(text)
    for why, n in sorted(skipped.items()):
        out.print(f"  {DOUBT} skipped {count(n, 'person')}: {plain(why)}")
    for message in unread:
        out.print(f"  {DOUBT} {plain(message)}")
    return 1 if unread else 0


COMMAND: Final = Command(_options, _run)
