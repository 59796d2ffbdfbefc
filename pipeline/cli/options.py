"""Parts of argparse that the commands of `python -m pipeline` and `python -m tasks` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Final

KEPT: Final = "finished shards (8,192 rows each) are kept; the same command continues from there"


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, found {text!r}")
        return int(text)

    return parse


def json_option(sub: argparse.ArgumentParser, more: str = "") -> None:
    """`--json`, for scripts."""
    sub.add_argument("--json", action="store_true", help=f"print one JSON document, for scripts{more}")


def workers_option(sub: argparse.ArgumentParser, what: str = "processes") -> None:
    """`--workers`: 0 is one a core."""
    sub.add_argument("--workers", type=whole(0), default=0, help=f"{what}; 0: one for each core (default)")


def cores(workers: int) -> int:
    """Processes that an option of 0 stands for: one a core."""
    return workers or len(os.sched_getaffinity(0))


def scheduler_option(sub: argparse.ArgumentParser) -> None:
    """`--scheduler`: where else than here the work is done."""
    sub.add_argument(
        "--scheduler", metavar="ADDRESS", help="work on the Dask cluster at this address (tcp://node:8786)"
    )


def shards_kept(_: argparse.Namespace) -> str:
    """What of an interrupted conversion or extraction is kept."""
    return KEPT
