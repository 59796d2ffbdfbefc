"""`python -m pipeline synthesize`: the embedded data and the stand-in body."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from pipeline.cli.progress import bar
from pipeline.commands.options import cores, err, out, plain, whole

HELP: Final = "Write the embedded default data: small stand-ins in the official layouts."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, required=True, help="gets raw/<dataset>/ and body/")
    sub.add_argument("--seed", type=whole(0), default=0, help="the same seed gives the same bytes")
    sub.add_argument("--size", default="default", help="how much of it: tiny, default or large")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes; 0: one a core")


def run(args: argparse.Namespace) -> int:
    """Write the embedded data and the stand-in body."""
    from pipeline import synthetic  # imports what renders: as much as all other commands need together

    with bar("synthesize", err, unit="video") as progress:
        workers = cores(args.workers)
        synthetic.synthesize(
            args.out / "raw", args.out / "body", seed=args.seed, size=args.size, workers=workers, progress=progress
        )
    out.print(plain(f"Embedded stand-in data in {args.out / 'raw'}, stand-in body in {args.out / 'body'}."))
    return 0
