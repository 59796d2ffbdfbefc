"""`python -m pipeline status`: what is in a cache, beside the known numbers of the releases."""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.cli.console import DOUBT, IDLE, err, fits, plain, printable, size, table
from pipeline.cli.options import json_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, command, count, error_text, few
from pipeline.commands.storage import tag
from pipeline.conversion.committed import (
    OTHER_SPLIT,
    harmless_of,
    missing_names,
    missing_now,
    recorded_raw,
    video_state,
    why_empty,
    why_without_track,
)
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current, marked
from pipeline.reasons import reason
from pipeline.recipe.overview import stored_bytes
from pipeline.settings.arguments import cache_option, chosen, splits_argument

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
    all_datasets, names = datasets.names(), dict.fromkeys(name.partition("/")[0] for name in opened.splits)
    for text in datasets.broken(name for name in names if name in all_datasets).values():
        err.print(f"{DOUBT} {plain(text)}")
    result = CommandResult([_status_of(opened, name, sizes=args.sizes) for name in chosen(args.splits, opened.splits)])
    rows = [row for row in result.rows if "accounting" in row]  # of the others the manifest cannot be read
    result.problems = [problem for row in result.rows for problem in row["problems"]]
    result.problems += _too_many(rows, args.max_rejected)
    if args.csv:
        return print_result(result, instead="".join(_csv([opened[row["split"]] for row in rows])))
    if not result.rows:
        result.line("no split is committed yet")
        result.lines(cache.verify(args.cache, fast=True).notes, IDLE)
    elif args.sizes:
        result.text.append(_sizes_table(rows))
    elif fits(whole := _table(rows, range(len(COLUMNS)))):
        result.text.append(whole)
    else:
        result.text += [_table(rows, range(4)), "", _table(rows, (0, 4, 5))]
    if not args.sizes:
        try:
            result.lines(tag.lines(args.cache), IDLE)
        except cache.CacheError as error:  # of a split that cannot be read, it is there already
            result.problems += [] if str(error) in result.problems else [str(error)]
        result.lines((*beside_the_release(rows), *_undecodable_lines(rows)), DOUBT)
        for row in rows:
            for mark, texts in _of_videos(row, every=args.all):
                command_line = command("status", "--all", "--cache", str(args.cache))
                shown = few(texts, len(texts) if args.all else FEW, command_line)
                result.lines((f"{row['split']}: {text}" for text in shown), mark)
    return print_result(result, as_json=args.json)


def _too_many(rows: Sequence[Mapping[str, Any]], most: float) -> list[str]:
    """Splits of which more per cent of the videos are rejected, as messages."""
    texts = []
    for row in rows:
        n, n_videos = sum(video["failed"] for video in row["videos"]), row["accounting"]["videos"]["found"]
        if n > most / 100 * n_videos:
            texts.append(f"{row['split']}: {count(n, 'video')} of {n_videos:,} rejected, more than {most:g}%")
    return texts


def _of_videos(row: Mapping[str, Any], *, every: bool) -> Iterator[tuple[str, list[str]]]:
    """Lists of a split's videos, each with its mark: rejected, without labels, without a track, gone from the raw
    folder; if `every`, also those with dropped frames or notes."""
    failed = [video for video in row["videos"] if video["failed"]]
    yield (
        DOUBT,
        [VideoAccount(v["name"], set_aside=v["set_aside"], message=v["message"]).rejection for v in failed],
    )
    without = Counter(video["set_aside"] for video in row["videos"] if video["set_aside"] and not video["failed"])
    yield IDLE, [f"{count(n, 'video')} without rows: {why}, {reason(why).meaning}" for why, n in without.items()]
    yield IDLE, [f"without a track: {name}: {why}" for name, why in row["without_track"].items()]
    noted = []
    for video in row["videos"] if every else ():
        dropped = {} if video["failed"] else video["dropped"]
        if video["name"] not in row["without_track"] and (notes := [*_by_reason(dropped), *video["notes"]]):
            noted.append(f"{video['name']}: {'; '.join(notes)}")
    yield IDLE, noted
    yield IDLE, [f"missing: {name}" for name in missing_names(row["missing"])]


def _by_reason(dropped: Mapping[str, int]) -> list[str]:
    """All reasons as one text; [] where there are none."""
    return [", ".join(f"{n:,} {reason}" for reason, n in dropped.items())] if dropped else []


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[int]) -> Table:
    """These of all columns, one line for each split."""
    shown = table(*(COLUMNS[i] for i in columns))
    for row in rows:
        dropped = _by_reason(row["accounting"]["frames"]["dropped"])
        dropped += [f"{count(row['uncounted'], 'unread video')} not counted"] if row["uncounted"] else []
        cells = (
            plain(row["split"]) + (" [yellow](demo data)[/yellow]" if row["stand_in"] else ""),
            *(_counts(row["accounting"], unit) for unit in ("videos", "tracks", "frames")),
            ", ".join(dropped) or "-",
            plain(", ".join(row["streams"])) or "-",
        )
        shown.add_row(*(cells[i] for i in columns))
    return shown


def _counts(accounting: Mapping[str, Any], what: str) -> str:
    """kept / found, and the number of the release."""
    counts, in_release = accounting[what], accounting.get("known", {}).get(what)
    return f"{counts['kept']:,} / {counts['found']:,}" + (f" of {in_release:,} known" if in_release is not None else "")


def _sizes_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for the columns of each split, each stream and all tables; then their sum."""
    shown, total = table("split", "what", "bytes", "committed"), 0
    for row in rows:
        stored = row["sizes"]
        for part, n_bytes in {"columns": stored["columns"], **stored["streams"]}.items():
            shown.add_row(
                plain(row["split"]), plain(part), size(n_bytes), plain(stored["commits"][part] or "not known")
            )
        shown.add_row(plain(row["split"]), "tables, manifests", size(stored["tables"]), "")
        total += stored["columns"] + stored["tables"] + sum(stored["streams"].values())
    shown.add_row("all", "", size(total), "")
    return shown


def _status_of(opened: cache.FeatureCache, name: str, *, sizes: bool) -> dict[str, Any]:
    """`split_status`; where the split cannot be read, its name and the problem alone."""
    try:
        split = opened[name]
        return split_status(split) | ({"sizes": stored_bytes(split)} if sizes else {})
    except cache.CacheError as error:
        return {"split": name, "problems": [str(error)]}


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` shows of one split, for a table or for --json."""
    streams, undecodable = dict[str, str](), dict[str, int | None]()  # None: the stream's flags cannot be read
    intact, problems = [], []
    for name in split.streams:
        streams[name], undecodable[name] = f"{name} (damaged)", None
        try:
            streams[name] = marked(split, name, "" if is_current(split, name) else "lacks rows")
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
        **gone,
        "undecodable": undecodable,
        "set_aside": [f"{video['set_aside']}: {video['message']}" for video in videos if video["failed"]],
        "uncounted": sum(video["failed"] and not video["found"] for video in videos),
        "without_track": without_track,
        "videos": videos,
        "problems": problems,
    }


def _csv(splits: Sequence[cache.Split]) -> Iterator[str]:
    """The header, and a line for each video: found = kept + what was dropped for each reason, in person-frames."""
    reasons = sorted({name for split in splits for name in split.manifest["accounting"]["frames"]["dropped"]})
    yield _line(["split", "video", "state", "reason", "tracks", "found", "kept", *reasons, "message"])
    for split in splits:
        harmless = harmless_of(split)
        for account in (video.account for video in split.videos):
            state, because, message = video_state(account, harmless)
            if state == OTHER_SPLIT:
                continue
            dropped = [account["dropped"].get(name, 0) for name in reasons]
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


def beside_the_release(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Where there is less than the release has."""
    for row in rows:
        if row["stand_in"] or row["imported"]:
            continue
        for unit, in_release in row["accounting"].get("known", {}).items():
            if (n := row["accounting"][unit]["found"]) < in_release:
                text = (
                    f"{row['split']}: {n:,} {unit} found of {in_release:,} in the release: the download is incomplete"
                )
                name, raw = row["split"].partition("/")[0], Path(row["raw"] or "")
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
