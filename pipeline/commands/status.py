"""`python -m pipeline status`: the contents of a cache, compared with the releases."""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.table import Table

import cache
from cache.format.manifest import split_folders
from cache.write.parts import staged_by_parts
from pipeline import datasets
from pipeline.accounting import VideoAccount, reason
from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import DOUBT, IDLE, CommandResult, err, out, plain, printable, size, table
from pipeline.cli.text import FEW, command, count, error_text, few
from pipeline.conversion import committed
from pipeline.errors import PipelineError
from pipeline.features.plan import is_current, is_untrained, stream_label, weights_of
from pipeline.files.pixels import sources
from pipeline.grades import Grade, track_grade
from pipeline.recipe.overview import stored_bytes
from pipeline.settings import sections
from pipeline.settings.arguments import cache_option, choose_splits, splits_argument
from pipeline.settings.file import settings_file

COLUMNS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")


def _options(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument(
        "--all",
        action="store_true",
        help="List every video that was rejected, lost frames, or has notes",
    )
    sub.add_argument(
        "--sizes", action="store_true", help="Show bytes and commit times by split and stream"
    )
    help_ = "Exit with 1 if more of a split's videos are rejected, for example 2%%"
    sub.add_argument("--max-rejected", type=_percent, default=100.0, metavar="N%", help=help_)
    help_ = "Print CSV with one line per video: its state, frames and grades"
    sub.add_argument("--csv", action="store_true", help=help_)
    json_option(sub, ", with all videos")


def _percent(text: str) -> float:
    expected = f"expected a percentage such as 2%, found {text!r}"
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(expected) from None
    is_fraction = 0 < number < 1 and not text.endswith("%")
    if not 0 <= number <= 100 or is_fraction:
        raise argparse.ArgumentTypeError(expected)
    return number


def _run(args: argparse.Namespace) -> int:
    """Print a table of splits; below it, incomplete downloads and rejected videos.

    Returns 1 for problems: unreadable or missing data, no rows, more rejected videos than allowed.
    """
    if args.csv and (args.json or args.sizes):
        raise PipelineError("--csv excludes --json and --sizes")
    opened = cache.open(args.cache)
    all_datasets = datasets.names()
    names = dict.fromkeys(name.partition("/")[0] for name in opened.splits)
    for text in datasets.broken(name for name in names if name in all_datasets).values():
        err.print(f"{DOUBT} {plain(text)}")
    chosen = choose_splits(args.splits, opened.splits)
    result = CommandResult([_status_of(opened, name, sizes=args.sizes) for name in chosen])
    rows = [row for row in result.rows if "accounting" in row]  # else its manifest cannot be read
    result.problems = [problem for row in result.rows for problem in row["problems"]]
    result.problems += _rejected_beyond(args.max_rejected, rows)
    if args.csv:
        return result.print(instead=_csv([opened[row["split"]] for row in rows], result.problems))
    if not result.rows:
        result.line("no split is committed yet")
        result.lines(cache.verify(args.cache, fast=True).notes, IDLE)
    elif rows and args.sizes:
        result.text.append(_sizes_table(rows))
    elif rows and out.fits(whole := _table(rows, range(len(COLUMNS)))):
        result.text.append(whole)
    elif rows:
        result.text += [_table(rows, range(4)), "", _table(rows, (0, 4, 5))]
    if not args.sizes:
        result.lines(_left_out(args, opened), IDLE)
        result.lines(dict.fromkeys(text for row in rows for text in _weights_lines(row)), IDLE)
        result.lines((*_incomplete_downloads(rows), *_lost_lines(rows, args.cache)), DOUBT)
        # also those that are not committed
        folders = chosen if args.splits else split_folders(opened.store)
        result.lines(
            (f"{name}: {text}" for name in folders for text in staged_by_parts(opened.store, name)),
            IDLE,
        )
        for row in rows:
            for mark, texts in _video_lists(row, every=args.all):
                command_line = command("status", "--all", "--cache", str(args.cache))
                shown = few(texts, len(texts) if args.all else FEW, command_line)
                result.lines((f"{row['split']}: {text}" for text in shown), mark)
    return result.print(as_json=args.json)


def _left_out(args: argparse.Namespace, opened: cache.FeatureCache) -> list[str]:
    """A message about datasets that luigi.cfg no longer names, if this is its cache."""
    file = settings_file()
    if not file.exists():
        return []
    s = sections.load(file, tolerant=True)
    is_own = os.path.realpath(s.paths.cache) == os.path.realpath(opened.root)
    message = s.left_out(opened.splits) if is_own and not args.splits else ""
    return [message] if message else []


def _rejected_beyond(most: float, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        n_videos = row["accounting"].get("videos", {}).get("found", 0)
        if (n := sum(video["failed"] for video in row["videos"])) > most / 100 * n_videos:
            yield (
                f"{row['split']}: {count(n, 'video')} of {n_videos:,} rejected, more than {most:g}%"
            )


def _video_lists(row: Mapping[str, Any], *, every: bool) -> Iterator[tuple[str, list[str]]]:
    """(mark, videos) of a split: rejected, without rows, without a track, missing, unusable; if
    `every`, also those with dropped frames or notes.
    """
    failed = [video for video in row["videos"] if video["failed"]]
    yield (
        DOUBT,
        [
            VideoAccount(v["name"], set_aside=v["set_aside"], message=v["message"]).rejection
            for v in failed
        ],
    )
    without = Counter(
        video["set_aside"] for video in row["videos"] if video["set_aside"] and not video["failed"]
    )
    yield (
        IDLE,
        [
            f"{count(n, 'video')} without rows: {why}, {reason(why).meaning}"
            for why, n in without.items()
        ],
    )
    yield IDLE, [f"without a track: {name}: {why}" for name, why in row["without_track"].items()]
    noted = []
    for video in row["videos"] if every else ():
        dropped = {} if video["failed"] else video["dropped"]
        if video["name"] not in row["without_track"] and (
            notes := [*_by_reason(dropped), *video["notes"]]
        ):
            noted.append(f"{video['name']}: {'; '.join(notes)}")
    yield IDLE, noted
    yield IDLE, [f"missing: {name}" for name in committed.missing_names(row["missing"])]
    yield DOUBT, [f"unusable: {rejection}" for rejection in row["unusable"].values()]


def _by_reason(dropped: Mapping[str, int]) -> list[str]:
    return [", ".join(f"{n:,} {reason}" for reason, n in dropped.items())] if dropped else []


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[int]) -> Table:
    """Some of COLUMNS, one line for each split."""
    shown = table(*(COLUMNS[i] for i in columns))
    for row in rows:
        dropped = _by_reason(row["accounting"].get("frames", {}).get("dropped", {}))
        dropped += (
            [f"{count(row['uncounted'], 'unreadable video')} not counted"]
            if row["uncounted"]
            else []
        )
        cells = (
            plain(row["split"]) + (" [yellow](demo data)[/yellow]" if row["stand_in"] else ""),
            *(_counts(row["accounting"], unit) for unit in ("videos", "tracks", "frames")),
            ", ".join(dropped) or "-",
            plain(", ".join(row["streams"])) or "-",
        )
        shown.add_row(*(cells[i] for i in columns))
    return shown


def _counts(accounting: Mapping[str, Any], what: str) -> str:
    """kept / found, and the number in the release."""
    if not accounting:
        return committed.NOT_RECORDED
    counts = accounting[what]
    in_release = accounting.get("known", {}).get(what)
    release = "" if in_release is None else f" of {in_release:,} in the release"
    return f"{counts['kept']:,} / {counts['found']:,}{release}"


def _sizes_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each split's columns, streams and tables; then their sum."""
    shown = table("split", "what", "bytes", "committed")
    total = 0
    for row in rows:
        stored = row["sizes"]
        for part, n_bytes in {"columns": stored["columns"], **stored["streams"]}.items():
            when = stored["commits"][part] or "not known"
            shown.add_row(plain(row["split"]), plain(part), size(n_bytes), plain(when))
        shown.add_row(plain(row["split"]), "tables, manifests", size(stored["tables"]), "")
        total += stored["columns"] + stored["tables"] + sum(stored["streams"].values())
    shown.add_row("all", "", size(total), "")
    return shown


def _status_of(opened: cache.FeatureCache, name: str, *, sizes: bool) -> dict[str, Any]:
    """`_split_status`; for an unreadable split, only its name and the problem."""
    try:
        split = opened[name]
        return _split_status(split) | ({"sizes": stored_bytes(split)} if sizes else {})
    except (cache.CacheError, OSError) as error:
        return {"split": name, "problems": [error_text(error)]}


def _split_status(split: cache.Split) -> dict[str, Any]:
    """The document of one split."""
    streams = dict[str, str]()
    undecodable = dict[str, int | None]()  # None: the stream's flags cannot be read
    without = dict[str, dict[str, int]]()  # stream -> reason -> rows
    weights = dict[str, dict[str, Any]]()
    problems = []
    for name in split.streams:
        streams[name] = f"{name} (damaged)"
        undecodable[name] = None
        try:
            streams[name] = stream_label(
                split, name, "" if is_current(split, name) else "rows missing"
            )
            if made := weights_of(split, name):
                weights[name] = made | {"untrained": is_untrained(split, name)}
            undecodable[name] = split.undecodable(name)
            without[name] = split.stream_provenance(name).get("without_features") or {}
        except cache.AccessDenied as error:
            problems.append(f"{split.name}: {error}")
        except (cache.CacheError, OSError) as error:
            problems.append(f"{split.name}: {name} is damaged: {error_text(error)}")
    # committed video -> its missing file ("": all), or its rejection; why they are unknown
    missing = dict[str, str]()
    unusable = dict[str, str]()
    unlisted = ""
    try:
        missing, unusable = committed.missing_now(split)
    except (PipelineError, OSError) as error:
        unlisted = error_text(error)
    if missing:
        n = count(len(missing), "video")
        problems.append(
            f"{split.name}: {n} missing from {committed.recorded_raw(split)}; the rows are kept"
        )
    if unusable:
        problems.append(f"{split.name}: {count(len(unusable), 'video')} {committed.UNUSABLE}")
    problems += [f"{split.name}: {unlisted}"] if unlisted else committed.why_empty(split)
    harmless = committed.harmless_of(split)
    keys = ("name", "found", "kept", "dropped", "set_aside", "message", "notes")
    videos = []
    without_track = {}
    for account in (video.account for video in split.videos if "tracks_kept" in video.account):
        if why := committed.why_without_track(account):
            without_track[account["name"]] = why
        if account["dropped"] or account["set_aside"] or account["notes"]:  # in reading order
            failed = account["set_aside"] not in harmless
            videos.append({**{key: account[key] for key in keys}, "failed": failed})
    return {
        "split": split.name,
        "tracks": len(split.tracks),
        "accounting": split.manifest.get("accounting", {}),
        "stand_in": bool(split.manifest.get("stand_in")),
        "imported": split.manifest.get("reader", {}).get("imported", {}).get("file"),
        "raw": split.provenance.get("raw"),
        "streams": [*streams.values()],
        "missing": missing,
        "unusable": unusable,
        "unlisted": unlisted,
        "weights": weights,
        "undecodable": undecodable,
        "without_features": without,
        "set_aside": [
            f"{video['set_aside']}: {video['message']}" for video in videos if video["failed"]
        ],
        "uncounted": sum(video["failed"] and not video["found"] for video in videos),
        "without_track": without_track,
        "videos": videos,
        "problems": problems,
    }


def _csv(splits: Sequence[cache.Split], problems: list[str]) -> str:
    """A header, and a line for each video: found = kept + dropped by reason, in person-frames; its
    worst grades.
    """
    totals = [split.manifest.get("accounting", {}).get("frames", {}) for split in splits]
    reasons = sorted({name for frames in totals for name in frames.get("dropped", {})})
    header = [
        "split",
        "video",
        "state",
        "reason",
        "tracks",
        "found",
        "kept",
        *reasons,
        *Grade._fields,
        "message",
    ]
    lines: list[list[object]] = [[*header]]
    for split in splits:
        harmless = committed.harmless_of(split)
        grades = _worst_grades(split, problems)
        for number, video in enumerate(split.videos):
            account = video.account
            state, because, message = committed.video_state(account, harmless)
            if state == committed.OTHER_SPLIT:
                continue
            counts = [account.get(key, "") for key in ("tracks_kept", "found", "kept")]
            counts += [
                account["dropped"].get(name, 0) if "dropped" in account else "" for name in reasons
            ]
            worst = [
                "" if math.isnan(x) else f"{round(x, 3):g}" for x in grades.get(number, Grade())
            ]
            lines.append([split.name, video.name, state, because, *counts, *worst, message])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [printable(str(cell)) for cell in line] for line in lines
    )
    return text.getvalue()


def _worst_grades(split: cache.Split, problems: list[str]) -> dict[int, Grade]:
    """Each video's worst grades, by its number. Adds a problem for rows that cannot be read."""
    worst = dict[int, Grade]()
    raw = committed.recorded_raw(split)
    try:
        for track, number in zip(split.tracks, split.tracks.video.tolist(), strict=True):
            video = split.videos[number]
            source = sources.parse(Path(raw), video.source) if raw and video.source else None
            found = track_grade(split, track, source, video.account.get("clip", {}))
            worst[number] = worst[number].worse(found) if number in worst else found
    except (cache.CacheError, OSError) as error:
        problems.append(f"{split.name}: no grades: {error_text(error)}")
    return worst


def _incomplete_downloads(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Messages about splits with less than the release."""
    for row in rows:
        if row["stand_in"] or row["imported"]:
            continue
        for unit, in_release in row["accounting"].get("known", {}).items():
            if (n := row["accounting"][unit]["found"]) < in_release:
                text = (
                    f"{row['split']}: {n:,} {unit} found of {in_release:,} in the release: "
                    "incomplete download"
                )
                name = row["split"].partition("/")[0]
                raw = Path(row["raw"] or "")
                if raw.name == name:  # doctor needs <raw>/<dataset>
                    text += (
                        ". To list missing files: "
                        f"{command('doctor', name, '--raw', str(raw.parent))}"
                    )
                yield text


def _weights_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """Licence and source of the streams' networks; equal lines of several splits are printed
    once.
    """
    for stream, made in row["weights"].items():
        if not made["untrained"]:
            terms = (
                f"licence {made['licence']}, source {made['source']}, sha256 {made['sha256'][:12]}"
            )
            yield f"weights of {stream}: {made['network']}, {terms}"


def _lost_lines(rows: Sequence[Mapping[str, Any]], root: cache.Root) -> Iterator[str]:
    """Rows without features, by reason."""
    for row in rows:
        imported = {label.partition(" ")[0] for label in row["streams"] if "(imported" in label}
        for stream, lost in row["undecodable"].items():
            reasons = row["without_features"].get(stream, {})
            # else rows have been replaced since, or a killed run found some
            exact = sum(reasons.values()) == lost
            why = _by_reason(reasons) if exact else [", ".join(reasons) or "reason not recorded"]
            again = command(
                "extract", row["split"], "--stream", stream, "--cache", str(root), "--replace"
            )
            why = (
                ["not in its file, or not finite"]
                if stream in imported
                else [*why, f"to try again: {again}"]
            )
            if lost:
                yield (
                    f"{row['split']}: {count(lost, 'row')} without features in {stream}: "
                    f"{'; '.join(why)}"
                )


COMMAND: Final = Command(_options, _run)
