"""`python -m pipeline status`: what is in a cache, beside what the releases are known to have."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

import cache
from pipeline import accepted, datasets, features
from pipeline.commands.console import FEW, command, count, few, out, plain
from pipeline.datasets.base import Dataset

HELP: Final = "What is in a cache: videos, tracks, frames kept and dropped, streams."

COLUMNS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--cache", type=cache.place_of, required=True, help="the cache's folder, or its URL")
    sub.add_argument("--all", action="store_true", help="name every video that was set aside, not the first few")
    sub.add_argument("--json", action="store_true", help="for a machine to read; always names them all")


def run(args: argparse.Namespace) -> int:
    """A table of splits, or the same as JSON; below it, what is not all there, and what was set aside."""
    opened = cache.open(args.cache)
    rows = [split_status(opened[name]) for name in opened.splits]
    if args.json:
        out.out(json.dumps(rows, indent=2))
        return 0
    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        name = row["split"] + (" [yellow](stand-in)[/yellow]" if row["stand_in"] else "")
        frames = row["accounting"]["frames"]
        dropped = ", ".join(f"{n:,} {reason}" for reason, n in frames["dropped"].items()) or "-"
        streams = ", ".join(row["streams"]) or "-"
        table.add_row(
            name, *(_counts(row["accounting"], what) for what in ("videos", "tracks", "frames")), dropped, streams
        )
    out.print(table)
    for row in rows:
        for text in row["accepted"]:
            out.print(f"[dim]·[/dim] {plain(text)}")
    for text in (*beside_the_release(rows), *undecodable(rows, args.cache)):
        out.print(f"[yellow]![/yellow] {plain(text)}")
    for row in rows:
        most = len(row["set_aside"]) if args.all else FEW
        for message in few(row["set_aside"], most, command("status", "--all", "--cache", str(args.cache))):
            out.print(f"[yellow]![/yellow] {row['split']}: {plain(message)}")
    return 0


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` tells of one split, for a table or for a machine."""
    accounts = [video.account for video in split.videos]
    dataset = _registered(split.name.partition("/")[0])
    harmless = dataset.harmless if dataset is not None else ()
    return {
        "split": split.name,
        "tracks": len(split.tracks),
        "accounting": split.manifest["accounting"],
        "stand_in": split.manifest["stand_in"],
        "imported": split.manifest.get("reader", {}).get("imported", {}).get("file"),
        "raw": split.provenance.get("raw"),
        "streams": [stream_status(split, name) for name in split.streams],
        "accepted": list(_accepted(split)),
        "undecodable": {name: _undecodable(split, name) for name in split.streams},
        "set_aside": [f"{a['set_aside']}: {a['message']}" for a in accounts if a["set_aside"] not in ("", *harmless)],
    }


def _accepted(split: cache.Split) -> Iterator[str]:
    """Differences that somebody said do not matter, of the split and of its streams."""
    yield from (f"{split.name}: {text}" for text in accepted.in_words(split.manifest))
    for name in split.streams:
        yield from (f"{split.name}, {name}: {text}" for text in accepted.in_words(split.stream_manifest(name)))


def stream_status(split: cache.Split, name: str) -> str:
    """A stream's name, and what one should know of it: resnet50 (untrained, lags behind)"""
    # A stream that somebody else wrote need not say what made it.
    untrained = bool(split.stream_manifest(name).get("backbone", {}).get("stand_in", False))
    marks = ["untrained"] * untrained + ["lags behind"] * (not features.is_current(split, name))
    return f"{name} ({', '.join(marks)})" if marks else name


def beside_the_release(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where less was found than the release has, by split, and over all splits where only that is known."""
    real = [row for row in rows if not row["stand_in"] and not row["imported"]]
    for row in real:
        for what, known in row["accounting"].get("known", {}).items():
            found = row["accounting"][what]["found"]
            if found < known:
                yield _short(row["split"], what, found, known, row["raw"])
    for name in dict.fromkeys(row["split"].partition("/")[0] for row in real):
        dataset = _registered(name)
        of_dataset = [row for row in real if row["split"].partition("/")[0] == name]
        if dataset is None or "all" not in dataset.totals or len(of_dataset) < len(dataset.splits):
            continue
        for what, known in dataset.totals["all"].as_dict().items():
            found = sum(row["accounting"][what]["found"] for row in of_dataset)
            told_by_split = all(what in row["accounting"].get("known", {}) for row in of_dataset)
            if found < known and not told_by_split:
                yield _short(f"{name}, all splits", what, found, known, of_dataset[0]["raw"])


def undecodable(rows: Sequence[Mapping[str, Any]], root: cache.Root) -> Iterator[str]:
    """Rows whose pictures were not readable, and streams that cannot be asked."""
    for row in rows:
        for stream, lost in row["undecodable"].items():
            if lost is None:
                where = command("verify", "--cache", str(root))
                yield f"{row['split']}: {stream} is damaged. Where, says: {where}"
            elif lost:
                do = "once they are mended, convert and extract again (extract --replace, where the files are the same)"
                why = f"{count(lost, 'row')} without features in {stream}, since pictures were not readable"
                yield f"{row['split']}: {why}; {do}"


def _short(where: str, what: str, found: int, known: int, raw: str | None) -> str:
    told = f"{where}: {found:,} {what} found of {known:,} in the release: the download is not complete"
    name = where.partition("/")[0].partition(",")[0]
    if raw is None or Path(raw).name != name:  # doctor wants <raw>/<dataset>
        return told
    return f"{told}. What is missing: {command('doctor', name, '--raw', str(Path(raw).parent))}"


def _counts(accounting: Mapping[str, Any], what: str) -> str:
    """kept / found, and how many the release has."""
    counts, known = accounting[what], accounting.get("known", {}).get(what)
    found = f" / {counts['found']:,}" if "found" in counts else ""  # of tracks, not in manifests of earlier versions
    return f"{counts['kept']:,}{found}" + (f" of {known:,} known" if known is not None else "")


def _undecodable(split: cache.Split, stream: str) -> int | None:
    """Rows without features; None when the stream's flags cannot be read."""
    try:
        return split.undecodable(stream)
    except cache.CacheError:
        return None


def _registered(name: str) -> Dataset | None:
    """The dataset's reader; None for what another installation has converted."""
    return datasets.get(name) if name in datasets.names() else None
