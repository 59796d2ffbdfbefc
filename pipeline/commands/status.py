"""`python -m pipeline status`: what is in a cache, beside the known numbers of the releases."""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.cli.console import (
    DOUBT,
    IDLE,
    WRONG,
    err,
    fits,
    out,
    plain,
    printable,
    show,
    show_json,
    show_text,
    size,
    table,
)
from pipeline.cli.options import json_option
from pipeline.cli.text import FEW, command, count, error_text, few
from pipeline.commands.maintenance.overview import accepted_of, sizes
from pipeline.commands.settings.arguments import cache_option, chosen, splits_argument
from pipeline.conversion.committed import missing_names, missing_now, recorded_raw, why_empty
from pipeline.datasets import installed
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current
from pipeline.reasons import reason

if TYPE_CHECKING:
    from rich.table import Table

HELP: Final = "Show what is in a cache: videos, tracks, frames kept and dropped, streams."

COLUMNS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")


def options(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument("--all", action="store_true", help="list every video with rejected or dropped parts, or notes")
    sub.add_argument("--sizes", action="store_true", help="bytes by split and stream, and when each was committed")
    help_ = "exit with 1 where more of a split's videos are rejected, as 2%%: for nightly runs"
    sub.add_argument("--max-rejected", type=_percent, default=100.0, metavar="N%", help=help_)
    help_ = "print one table with a line for each video: what became of it and of its frames, as CSV"
    sub.add_argument("--csv", action="store_true", help=help_)
    json_option(sub, "; always lists all videos")


def _percent(text: str) -> float:
    try:
        if 0 <= (number := float(text.removesuffix("%"))) <= 100:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected per cent, as 2%; found {text!r}")


def run(args: argparse.Namespace) -> int:
    """A table of splits, or the same as JSON; below it, what is incomplete, and the rejected videos.

    1 where there are problems: what cannot be read, videos that are gone, no rows, more rejected videos than allowed.
    """
    if args.csv and (args.json or args.sizes):
        raise PipelineError("--csv goes without --json and --sizes")
    opened = cache.open(args.cache)
    known, names = datasets.names(), dict.fromkeys(name.partition("/")[0] for name in opened.splits)
    for text in datasets.broken(name for name in names if name in known).values():
        err.print(f"{DOUBT} {plain(text)}")
    every = [_status_of(opened, name, with_sizes=args.sizes) for name in chosen(args.splits, opened.splits)]
    rows = [row for row in every if "accounting" in row]  # of the others the manifest cannot be read
    problems = [problem for row in every for problem in row["problems"]] + _too_many(rows, args.max_rejected)
    if args.json:
        show_json(every)
    elif args.csv:
        for line in _csv([opened[row["split"]] for row in rows]):
            show_text(line)
    elif args.sizes:
        show(_sizes_table([row["split"] for row in rows], [row["sizes"] for row in rows]))
    else:
        _print_overview(rows, args)
    for text in problems:
        (err if args.json or args.csv else out).print(f"{WRONG} {plain(text)}")
    for row in () if args.json or args.csv else rows:
        _print_missing(row, args.cache, every=args.all)
    return 1 if problems else 0


def _print_overview(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """The table of splits, and what is to be said of them."""
    whole = _table(rows, range(len(COLUMNS)))
    if fits(whole):
        show(whole)
    else:
        show(_table(rows, range(4)))
        out.print()
        show(_table(rows, (0, 4, 5)))
    for row in rows:
        for text in row["accepted"]:
            out.print(f"{IDLE} {plain(text)}")
    for text in (*beside_the_release(rows), *_undecodable_lines(rows)):
        out.print(f"{DOUBT} {plain(text)}")
    for row in rows:
        _print_videos(row, args.cache, every=args.all)


def _too_many(rows: Sequence[Mapping[str, Any]], most: float) -> list[str]:
    """Splits of which more per cent of the videos are rejected, as messages."""
    shares = [
        (row, sum(video["failed"] for video in row["videos"]), row["accounting"]["videos"]["found"]) for row in rows
    ]
    return [
        f"{row['split']}: {count(failed, 'video')} of {found:,} rejected, more than {most:g}%"
        for row, failed, found in shares
        if failed > most / 100 * found
    ]


def _print_videos(row: Mapping[str, Any], root: cache.Root, *, every: bool) -> None:
    """The rejected videos of a split, how many have no labels; if `every`, each with dropped frames or notes."""
    failed = [video for video in row["videos"] if video["failed"]]
    rejected = [VideoAccount(v["name"], set_aside=v["set_aside"], message=v["message"]).rejection for v in failed]
    for text in few(rejected, len(rejected) if every else FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"{DOUBT} {row['split']}: {plain(text)}")
    without = Counter(video["set_aside"] for video in row["videos"] if video["set_aside"] and not video["failed"])
    for why, n in without.items():
        out.print(f"{IDLE} {row['split']}: {count(n, 'video')} without rows: {plain(why)}, {reason(why).meaning}")
    names = [f"{name}: {why}" for name, why in row["without_track"].items()]
    for text in few(names, len(names) if every else FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"{IDLE} {row['split']}: without a track: {plain(text)}")
    for video in row["videos"] if every else ():
        if video["name"] in row["without_track"]:
            continue
        dropped = {} if video["failed"] else video["dropped"]
        if notes := [*_by_reason(dropped), *video["notes"]]:
            out.print(f"{IDLE} {row['split']}: {plain(video['name'])}: {plain('; '.join(notes))}")


def _print_missing(row: Mapping[str, Any], root: cache.Root, *, every: bool) -> None:
    """The names of a split's missing videos, if `every` of all of them."""
    names = [f"{row['split']}: missing: {name}" for name in missing_names(row["missing"])]
    for text in few(names, len(names) if every else FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"{IDLE} {plain(text)}")


def _by_reason(dropped: Mapping[str, int]) -> list[str]:
    """All reasons as one text; [] where there are none."""
    return [", ".join(f"{n:,} {reason}" for reason, n in dropped.items())] if dropped else []


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[int]) -> Table:
    """These of all columns, one line for each split."""
    made = table(*(COLUMNS[i] for i in columns))
    for row in rows:
        dropped = _by_reason(row["accounting"]["frames"]["dropped"])
        dropped += [f"{count(row['uncounted'], 'unread video')} not counted"] if row["uncounted"] else []
        cells = (
            plain(row["split"]) + (" [yellow](demo data)[/yellow]" if row["stand_in"] else ""),
            *(counts_text(row["accounting"], what) for what in ("videos", "tracks", "frames")),
            ", ".join(dropped) or "-",
            plain(", ".join(row["streams"])) or "-",
        )
        made.add_row(*(cells[i] for i in columns))
    return made


def _sizes_table(names: Sequence[str], stored: Sequence[Mapping[str, Any]]) -> Table:
    """One line for the columns of each split, each stream and all tables; then their sum."""
    made = table("split", "what", "bytes", "committed")
    for name, of in zip(names, stored, strict=True):
        for what, n_bytes in {"columns": of["columns"], **of["streams"]}.items():
            made.add_row(plain(name), plain(what), size(n_bytes), plain(of["commits"][what] or "not known"))
        made.add_row(plain(name), "tables, manifests", size(of["tables"]), "")
    total = sum(of["columns"] + of["tables"] + sum(of["streams"].values()) for of in stored)
    made.add_row("all", "", size(total), "")
    return made


def _status_of(opened: cache.FeatureCache, name: str, *, with_sizes: bool) -> dict[str, Any]:
    """`split_status`; where the split cannot be read, its name and the problem alone."""
    try:
        split = opened[name]
        return split_status(split) | ({"sizes": sizes(split)} if with_sizes else {})
    except cache.CacheError as error:
        return {"split": name, "problems": [str(error)]}


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` shows of one split, for a table or for --json."""
    streams, undecodable = dict[str, str](), dict[str, int | None]()  # None: the stream's flags cannot be read
    intact, problems = [], []
    for name in split.streams:
        streams[name], undecodable[name] = f"{name} (damaged)", None
        try:
            streams[name] = stream_status(split, name)
            intact.append(name)
            undecodable[name] = split.undecodable(name)
        except cache.CacheError as error:
            problems.append(f"{split.name}: {name} is damaged: {error}")
    gone = _missing(split)
    if gone["missing"]:
        n = count(len(gone["missing"]), "video")
        problems.append(f"{split.name}: {n} not in {recorded_raw(split)} any more, whose rows stay")
    problems += [f"{split.name}: {gone['unlisted']}"] if gone["unlisted"] else why_empty(split)
    harmless, keys = harmless_of(split), ("name", "found", "kept", "dropped", "set_aside", "message", "notes")
    videos, without_track = [], {}
    for account in (video.account for video in split.videos):
        if why := why_without_track(account):
            without_track[account["name"]] = why
        if account["dropped"] or account["set_aside"] or account["notes"]:  # in reading order
            failed = account["set_aside"] not in harmless
            videos.append({**{key: account[key] for key in keys}, "failed": failed})
    return {
        "split": split.name,
        "tracks": len(split.tracks),
        "accounting": split.manifest["accounting"],
        "stand_in": split.manifest["stand_in"],
        "imported": split.manifest.get("reader", {}).get("imported", {}).get("file"),
        "raw": split.provenance.get("raw"),
        "streams": [*streams.values()],
        "accepted": list(accepted_of(split, intact)),
        **gone,
        "undecodable": undecodable,
        "set_aside": [f"{video['set_aside']}: {video['message']}" for video in videos if video["failed"]],
        "uncounted": sum(video["failed"] and not video["found"] for video in videos),
        "without_track": without_track,
        "videos": videos,
        "problems": problems,
    }


def why_without_track(account: Mapping[str, Any]) -> str:
    """Why a video of the split that was read gave no track; "" for all others."""
    if account["tracks_kept"] or account["set_aside"] or account["other_split"]:
        return ""
    return "; ".join([*_by_reason(account["dropped"]), *account["notes"]]) if account["found"] else "no person"


def harmless_of(split: cache.Split) -> tuple[str, ...]:
    """Reasons for which a video of the split has no rows and that are no failure; "" is one."""
    dataset = installed(split.name.partition("/")[0])
    return ("", *(dataset.harmless if dataset is not None else ()))


def _csv(splits: Sequence[cache.Split]) -> Iterator[str]:
    """The header, and a line for each video: found = kept + what was dropped for each reason, in person-frames."""
    reasons = sorted({name for split in splits for name in split.manifest["accounting"]["frames"]["dropped"]})
    yield _line(["split", "video", "state", "reason", "tracks", "found", "kept", *reasons, "message"])
    for split in splits:
        harmless = harmless_of(split)
        for account in (video.account for video in split.videos):
            why, because = why_without_track(account), account["set_aside"]
            if why:
                state, because = (
                    "without a track",
                    max(account["dropped"], key=account["dropped"].get, default="no_person"),
                )
            elif because:
                state = "not labelled" if because in harmless else "rejected"
            elif account["tracks_kept"]:
                state = "kept"
            else:  # of another split
                continue
            dropped = [account["dropped"].get(name, 0) for name in reasons]
            message = why or "; ".join(filter(None, [account["message"], *account["notes"]]))
            counts = [account["tracks_kept"], account["found"], account["kept"], *dropped]
            yield _line([split.name, account["name"], state, because, *counts, message])


def _line(cells: Sequence[object]) -> str:
    """One line of CSV, in which nothing steers a terminal."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([printable(str(cell)) for cell in cells])
    return text.getvalue()


def _missing(split: cache.Split) -> dict[str, Any]:
    """`missing`: committed videos that are gone from the raw folder -> which of their files; "": all.

    And `unlisted`, why that cannot be known.
    """
    try:
        return {"missing": missing_now(split), "unlisted": ""}
    except (PipelineError, OSError) as error:
        return {"missing": {}, "unlisted": error_text(error)}


def stream_status(split: cache.Split, name: str) -> str:
    """A stream's name, with warnings: resnet50 (untrained, lacks rows)"""
    # A stream that another program wrote need not have an entry for this.
    untrained = bool(split.stream_manifest(name).get("backbone", {}).get("stand_in", False))
    marks = ["untrained"] * untrained + ["lacks rows"] * (not is_current(split, name))
    return f"{name} ({', '.join(marks)})" if marks else name


def beside_the_release(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where less was found than the release has, by split, and over all splits where only their sum is known."""
    real = [row for row in rows if not row["stand_in"] and not row["imported"]]
    compared = [(row["split"], [row], row["accounting"].get("known", {})) for row in real]
    for name in dict.fromkeys(row["split"].partition("/")[0] for row in real):
        of_dataset = [row for row in real if row["split"].partition("/")[0] == name]
        dataset, by_split = installed(name), [row["accounting"].get("known", {}) for row in of_dataset]
        if dataset is not None and "all" in dataset.totals and len(of_dataset) >= len(dataset.splits):
            every = dataset.totals["all"].as_dict()
            rest = {what: n for what, n in every.items() if not all(what in known for known in by_split)}
            compared.append((f"{name}, all splits", of_dataset, rest))
    for where, of, known in compared:
        for what, in_release in known.items():
            if (found := sum(row["accounting"][what]["found"] for row in of)) < in_release:
                text = f"{where}: {found:,} {what} found of {in_release:,} in the release: the download is incomplete"
                name, raw = of[0]["split"].partition("/")[0], Path(of[0]["raw"] or "")
                if raw.name == name:  # doctor needs <raw>/<dataset>
                    text += f". What is missing: {command('doctor', name, '--raw', str(raw.parent))}"
                yield text


def _undecodable_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rows whose pictures could not be decoded."""
    for row in rows:
        for stream, lost in row["undecodable"].items():
            if lost:
                do = "replace them, then convert and extract again (extract --replace, where the files are the same)"
                why = f"{count(lost, 'row')} without features in {stream}, because pictures could not be decoded"
                yield f"{row['split']}: {why}; {do}"


def counts_text(accounting: Mapping[str, Any], what: str) -> str:
    """kept / found, and the number of the release."""
    counts, known = accounting[what], accounting.get("known", {}).get(what)
    return f"{counts['kept']:,} / {counts['found']:,}" + (f" of {known:,} known" if known is not None else "")
