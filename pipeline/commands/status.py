"""`python -m pipeline status`: what is in a cache, beside the known numbers of the releases."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.cli.console import DOUBT, IDLE, err, fits, out, plain, show, show_json, table
from pipeline.cli.options import FEW, few, json_option
from pipeline.cli.text import command, count
from pipeline.datasets.base import Dataset
from pipeline.features.plan import is_current
from pipeline.maintenance.overview import accepted_of
from pipeline.settings.arguments import cache_option

if TYPE_CHECKING:
    from rich.table import Table

HELP: Final = "Show what is in a cache: videos, tracks, frames kept and dropped, streams."

COLUMNS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")


def options(sub: argparse.ArgumentParser) -> None:
    cache_option(sub)
    sub.add_argument("--all", action="store_true", help="list every video with rejected or dropped parts, or notes")
    json_option(sub, "; always lists all videos")


def run(args: argparse.Namespace) -> int:
    """A table of splits, or the same as JSON; below it, what is incomplete, and the rejected videos."""
    opened = cache.open(args.cache)
    known, names = datasets.names(), dict.fromkeys(name.partition("/")[0] for name in opened.splits)
    for text in datasets.broken(name for name in names if name in known).values():
        err.print(f"{DOUBT} {plain(text)}")
    rows = [split_status(opened[name]) for name in opened.splits]
    if args.json:
        show_json(rows)
        return 0
    whole = _table(rows, COLUMNS)
    if fits(whole):
        show(whole)
    else:
        show(_table(rows, COLUMNS[:4]))
        out.print()
        show(_table(rows, (COLUMNS[0], *COLUMNS[4:])))
    for row in rows:
        for text in row["accepted"]:
            out.print(f"{IDLE} {plain(text)}")
    for text in (*beside_the_release(rows), *_undecodable_lines(rows, args.cache)):
        out.print(f"{DOUBT} {plain(text)}")
    for row in rows:
        _print_videos(row, args.cache, every=args.all)
    return 0


def _print_videos(row: Mapping[str, Any], root: cache.Root, *, every: bool) -> None:
    """The rejected videos of a split, and if `every`, each other one with dropped frames or notes."""
    failed = [video for video in row["videos"] if video["failed"]]
    rejected = [VideoAccount(v["name"], set_aside=v["set_aside"], message=v["message"]).rejection for v in failed]
    for text in few(rejected, len(rejected) if every else FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"{DOUBT} {row['split']}: {plain(text)}")
    for video in row["videos"] if every else ():
        dropped = "" if video["failed"] else ", ".join(f"{n:,} {reason}" for reason, n in video["dropped"].items())
        if text := "; ".join([*([dropped] if dropped else []), *video["notes"]]):
            out.print(f"{IDLE} {row['split']}: {plain(video['name'])}: {plain(text)}")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """These of all columns, one line for each split."""
    made = table(*columns)
    for row in rows:
        dropped = [f"{n:,} {reason}" for reason, n in row["accounting"]["frames"]["dropped"].items()]
        dropped += [f"{count(row['uncounted'], 'unread video')} not counted"] if row["uncounted"] else []
        cells = (
            plain(row["split"]) + (" [yellow](demo data)[/yellow]" if row["stand_in"] else ""),
            *(counts_text(row["accounting"], what) for what in ("videos", "tracks", "frames")),
            ", ".join(dropped) or "-",
            plain(", ".join(row["streams"])) or "-",
        )
        by_name = dict(zip(COLUMNS, cells, strict=True))
        made.add_row(*(by_name[name] for name in columns))
    return made


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` shows of one split, for a table or for --json."""
    dataset = _registered(split.name.partition("/")[0])
    videos = list(_videos(split, dataset.harmless if dataset is not None else ()))
    return {
        "split": split.name,
        "tracks": len(split.tracks),
        "accounting": split.manifest["accounting"],
        "stand_in": split.manifest["stand_in"],
        "imported": split.manifest.get("reader", {}).get("imported", {}).get("file"),
        "raw": split.provenance.get("raw"),
        "streams": [stream_status(split, name) for name in split.streams],
        "accepted": list(accepted_of(split)),
        "undecodable": {name: _undecodable(split, name) for name in split.streams},
        "set_aside": [f"{video['set_aside']}: {video['message']}" for video in videos if video["failed"]],
        "uncounted": sum(video["failed"] and not video["found"] for video in videos),
        "videos": videos,
    }


def _videos(split: cache.Split, harmless: Collection[str]) -> Iterator[dict[str, Any]]:
    """Those with rejected or dropped parts, or notes, in reading order."""
    for account in (video.account for video in split.videos):
        keys = ("name", "found", "kept", "dropped", "set_aside", "message", "notes")
        video = {key: account[key] for key in keys}
        if video["dropped"] or video["set_aside"] or video["notes"]:
            yield {**video, "failed": video["set_aside"] not in ("", *harmless)}


def stream_status(split: cache.Split, name: str) -> str:
    """A stream's name, with warnings: resnet50 (untrained, lacks rows)"""
    # A stream that another program wrote need not have an entry for this.
    untrained = bool(split.stream_manifest(name).get("backbone", {}).get("stand_in", False))
    marks = ["untrained"] * untrained + ["lacks rows"] * (not is_current(split, name))
    return f"{name} ({', '.join(marks)})" if marks else name


def beside_the_release(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where less was found than the release has, by split, and over all splits where only their sum is known."""
    real = [row for row in rows if not row["stand_in"] and not row["imported"]]
    for row in real:
        for what, known in row["accounting"].get("known", {}).items():
            found = row["accounting"][what]["found"]
            if found < known:
                yield _incomplete(row["split"], what, found, known, row["raw"])
    for name in dict.fromkeys(row["split"].partition("/")[0] for row in real):
        dataset = _registered(name)
        of_dataset = [row for row in real if row["split"].partition("/")[0] == name]
        if dataset is None or "all" not in dataset.totals or len(of_dataset) < len(dataset.splits):
            continue
        for what, known in dataset.totals["all"].as_dict().items():
            found = sum(row["accounting"][what]["found"] for row in of_dataset)
            by_split = all(what in row["accounting"].get("known", {}) for row in of_dataset)
            if found < known and not by_split:
                yield _incomplete(f"{name}, all splits", what, found, known, of_dataset[0]["raw"])


def _undecodable_lines(rows: Sequence[Mapping[str, Any]], root: cache.Root) -> Iterator[str]:
    """Rows whose pictures could not be decoded, and streams that cannot be read."""
    for row in rows:
        for stream, lost in row["undecodable"].items():
            if lost is None:
                yield f"{row['split']}: {stream} is damaged. To see where: {command('verify', '--cache', str(root))}"
            elif lost:
                do = "replace them, then convert and extract again (extract --replace, where the files are the same)"
                why = f"{count(lost, 'row')} without features in {stream}, because pictures could not be decoded"
                yield f"{row['split']}: {why}; {do}"


def _incomplete(where: str, what: str, found: int, known: int, raw: str | None) -> str:
    text = f"{where}: {found:,} {what} found of {known:,} in the release: the download is incomplete"
    name = where.partition("/")[0].partition(",")[0]
    if raw is None or Path(raw).name != name:  # doctor needs <raw>/<dataset>
        return text
    return f"{text}. What is missing: {command('doctor', name, '--raw', str(Path(raw).parent))}"


def counts_text(accounting: Mapping[str, Any], what: str) -> str:
    """kept / found, and the number of the release."""
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
    """The dataset's reader; None where another installation converted it, and where its package is broken."""
    known = name in datasets.names() and not datasets.broken([name])
    return datasets.get(name) if known else None
