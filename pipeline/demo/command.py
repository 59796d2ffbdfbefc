"""`python -m pipeline synthesize`: demo data and a demo body."""

from __future__ import annotations

import argparse
from typing import Final

from pipeline.cli.command_line import Command, whole
from pipeline.cli.console import err, out, plain
from pipeline.cli.progress import bar
from pipeline.processes import cores
from pipeline.settings.file import PATH


def _options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out", type=PATH, required=True, help="output folder, for raw/<dataset>/ and body/"
    )
    sub.add_argument("--seed", type=whole(0), default=0, help="random seed (default: 0)")
    sub.add_argument("--size", default="default", help="amount of data: tiny, default or large")
    sub.add_argument(
        "--workers", type=whole(0), default=0, help="Number of processes (default: one per core)"
    )


def _run(args: argparse.Namespace) -> int:
    """Write the demo data and the demo body."""
    from pipeline.demo import writing as synthetic

    with bar("synthesize", err, unit="video") as progress:
        workers = cores(args.workers)
        synthetic.synthesize(
            args.out / "raw",
            args.out / "body",
            seed=args.seed,
            size=args.size,
            workers=workers,
            progress=progress,
        )
    out.print(plain(f"demo data in {args.out / 'raw'}, demo body in {args.out / 'body'}"))
    return 0


COMMAND: Final = Command(_options, _run)
