"""`python -m pipeline status`: what is in a cache."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from rich.table import Table

import cache
from pipeline import datasets, features
from pipeline.commands.console import out, plain

HELP: Final = "What is in a cache: videos, tracks, frames kept and dropped, streams."

COLUMNS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--cache", type=Path, required=True)
    sub.add_argument("--json", action="store_true", help="for a machine to read")


def run(args: argparse.Namespace) -> int:
    """A table of splits, or the same as JSON."""
    opened = cache.open(args.cache)
    rows = [split_status(opened[name]) for name in opened.splits]
    if args.json:
        out.out(json.dumps(rows, indent=2))
        return 0
    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        frames = row["accounting"]["frames"]
        dropped = ", ".join(f"{n} {reason}" for reason, n in frames["dropped"].items()) or "-"
        videos = row["accounting"]["videos"]
        name = row["split"] + (" [yellow](stand-in)[/yellow]" if row["stand_in"] else "")
        kept = f"{frames['kept']} / {frames['found']}"
        table.add_row(
            name,
            f"{videos['kept']} / {videos['found']}",
            str(row["tracks"]),
            kept,
            dropped,
            ", ".join(row["streams"]) or "-",
        )
    out.print(table)
    for row in rows:
        for message in row["set_aside"]:
            out.print(f"[yellow]![/yellow] {row['split']}: {plain(message)}")
    return 0


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` tells of one split, for a table or for a machine."""
    accounts = [video.account for video in split.videos]
    name = split.name.split("/")[0]
    harmless = datasets.get(name).harmless if name in datasets.names() else ()
    return {
        "split": split.name,
        "tracks": len(split.tracks),
        "accounting": split.manifest["accounting"],
        "stand_in": split.manifest["stand_in"],
        "streams": [name + ("" if features.is_current(split, name) else " (lags behind)") for name in split.streams],
        "set_aside": [f"{a['set_aside']}: {a['message']}" for a in accounts if a["set_aside"] not in ("", *harmless)],
    }
