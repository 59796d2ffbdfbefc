"""`python -m pipeline status`: what is in a cache, beside what the releases are known to have."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.cli.console import DOUBT, IDLE, fits, show, show_json, table
from pipeline.commands.options import FEW, cache_option, command, count, err, few, json_option, out, plain
from pipeline.conversion import accepted
from pipeline.datasets.base import Dataset
from pipeline.features import extract

if TYPE_CHECKING:
    from rich.table import Table

HELP: Final = "What is in a cache: videos, tracks, frames kept and dropped, streams."

COLUMNS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")


def options(sub: argparse.ArgumentParser) -> None:
    cache_option(sub)
    sub.add_argument("--all", action="store_true", help="name every video of which something was left out or noted")
    json_option(sub, "; always names them all")


def run(args: argparse.Namespace) -> int:
    """A table of splits, or the same as JSON; below it, what is not all there, and what was set aside."""
    opened = cache.open(args.cache)
    known, held = datasets.names(), dict.fromkeys(name.partition("/")[0] for name in opened.splits)
    for text in datasets.broken(name for name in held if name in known).values():
        err.print(f"{DOUBT} {plain(text)}")
    rows = [split_status(opened[name]) for name in opened.splits]
    if args.json:
        show_json(rows)
        return 0
    show_rows(rows)
    for row in rows:
        for text in row["accepted"]:
            out.print(f"{IDLE} {plain(text)}")
    for text in (*beside_the_release(rows), *undecodable(rows, args.cache)):
        out.print(f"{DOUBT} {plain(text)}")
    for row in rows:
        tell_videos(row, args.cache, every=args.all)
    return 0


def tell_videos(row: Mapping[str, Any], root: cache.Root, *, every: bool) -> None:
    """The videos of a split that were set aside, and if `every`, what was left out or noted of each other one."""
    failed = [video for video in row["videos"] if video["failed"]]
    aside = [VideoAccount(v["name"], set_aside=v["set_aside"], message=v["message"]).rejection for v in failed]
    for text in few(aside, len(aside) if every else FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"{DOUBT} {row['split']}: {plain(text)}")
    for video in row["videos"] if every else ():
        dropped = "" if video["failed"] else ", ".join(f"{n:,} {reason}" for reason, n in video["dropped"].items())
        if told := "; ".join([*([dropped] if dropped else []), *video["notes"]]):
            out.print(f"{IDLE} {row['split']}: {plain(video['name'])}: {plain(told)}")


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """A row a split; in two tables where the terminal is too narrow for one."""
    whole = table_of(rows, COLUMNS)
    if fits(whole):
        show(whole)
        return
    show(table_of(rows, COLUMNS[:4]))
    out.print()
    show(table_of(rows, (COLUMNS[0], *COLUMNS[4:])))


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """These of all columns, a row a split."""
    made = table(*columns)
    for row in rows:
        frames = row["accounting"]["frames"]
        cells = (
            plain(row["split"]) + (" [yellow](stand-in)[/yellow]" if row["stand_in"] else ""),
            *(_counts(row["accounting"], what) for what in ("videos", "tracks", "frames")),
            ", ".join(_left_out(frames["dropped"], row["uncounted"])) or "-",
            plain(", ".join(row["streams"])) or "-",
        )
        by_name = dict(zip(COLUMNS, cells, strict=True))
        made.add_row(*(by_name[name] for name in columns))
    return made


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` tells of one split, for a table or for a machine."""
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
        "accepted": list(_accepted(split)),
        "undecodable": {name: _undecodable(split, name) for name in split.streams},
        "set_aside": [f"{video['set_aside']}: {video['message']}" for video in videos if video["failed"]],
        "uncounted": sum(video["failed"] and not video["found"] for video in videos),
        "videos": videos,
    }


def _videos(split: cache.Split, harmless: Collection[str]) -> Iterator[dict[str, Any]]:
    """Those of which something was left out or noted, in reading order."""
    for account in (video.account for video in split.videos):
        told = {key: account[key] for key in ("name", "found", "kept", "dropped", "set_aside", "message", "notes")}
        if told["dropped"] or told["set_aside"] or told["notes"]:
            yield {**told, "failed": told["set_aside"] not in ("", *harmless)}


def _accepted(split: cache.Split) -> Iterator[str]:
    """Differences that somebody said do not matter, of the split and of its streams."""
    yield from (f"{split.name}: {text}" for text in accepted.in_words(split.manifest))
    for name in split.streams:
        yield from (f"{split.name}, {name}: {text}" for text in accepted.in_words(split.stream_manifest(name)))


def stream_status(split: cache.Split, name: str) -> str:
    """A stream's name, and what one should know of it: resnet50 (untrained, lags behind)"""
    # A stream that somebody else wrote need not say what made it.
    untrained = bool(split.stream_manifest(name).get("backbone", {}).get("stand_in", False))
    marks = ["untrained"] * untrained + ["lags behind"] * (not extract.is_current(split, name))
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


def _left_out(dropped: Mapping[str, int], uncounted: int) -> list[str]:
    """Person-frames by reason, and that those of some videos are in no sum."""
    unread = [f"{count(uncounted, 'unread video')} not counted"] if uncounted else []
    return [*(f"{n:,} {reason}" for reason, n in dropped.items()), *unread]


def _undecodable(split: cache.Split, stream: str) -> int | None:
    """Rows without features; None when the stream's flags cannot be read."""
    try:
        return split.undecodable(stream)
    except cache.CacheError:
        return None


def _registered(name: str) -> Dataset | None:
    """The dataset's reader; None for what another installation has converted, and of a package that is broken now."""
    known = name in datasets.names() and not datasets.broken([name])
    return datasets.get(name) if known else None
