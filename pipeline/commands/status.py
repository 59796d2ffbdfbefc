"""`python -m pipeline status`: the contents of a cache, compared with the releases, and what the
next conversion would do.

A `SplitStatus` has what is shown of one split. Each output makes something else of it: a table with
a line for each split, and notes below it (`_add_notes`); the JSON document (`_as_document`); CSV,
digests and sizes (`pipeline.steps.contents`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.table import Table

import cache
from cache.format.folders import split_folders
from cache.write.parts import staged_by_parts
from pipeline import datasets
from pipeline.accounting import (
    VideoAccount,
    VideoState,
    assumption_lines,
    describe_dropped,
    describe_no_rows,
    is_error,
)
from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import (
    DOUBT,
    IDLE,
    CommandResult,
    err,
    new_table,
    out,
    plain,
    print_document,
    print_result,
)
from pipeline.cli.progress import bar
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import FEW, command, count, few, size
from pipeline.errors import PipelineError
from pipeline.features.committed import IMPORTED, fill_command
from pipeline.people.estimates import estimates_of
from pipeline.settings.arguments import (
    cache_option,
    choose_splits,
    splits_argument,
    warn_of_broken,
)
from pipeline.steps.contents import StoredBytes, csv_table, list_digests
from pipeline.steps.sentences import missing_lines
from pipeline.steps.split_status import SplitStatus

_VIDEO_KEYS: Final = ("name", "found", "kept", "dropped", "set_aside", "message", "notes")


def _options(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument(
        "--all",
        action="store_true",
        help="List every video that was rejected, lost frames, or has notes",
    )
    help_ = "Exit with 1 if more of a split's videos are rejected, for example 2%%"
    sub.add_argument("--max-rejected", type=_percent, default=100.0, metavar="N%", help=help_)
    instead = sub.add_mutually_exclusive_group()  # of the table
    help_ = "Show bytes and commit times by split and stream, and what gc would free"
    instead.add_argument("--sizes", action="store_true", help=help_)
    help_ = "Print CSV with one line per video: its state, frames and grades"
    instead.add_argument("--csv", action="store_true", help=help_)
    help_ = "Print CSV with one line per track: its rows and grade"
    instead.add_argument("--tracks", action="store_true", help=help_)
    help_ = "Print digests of labels and streams, which are equal on any machine"
    instead.add_argument("--digest", action="store_true", help=help_)
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
    if args.json and (args.csv or args.tracks or args.digest):
        raise PipelineError("--json excludes --csv, --tracks and --digest")
    opened = cache.open(args.cache)
    names = {name.partition("/")[0] for name in opened.splits}
    warn_of_broken(name for name in datasets.names() if name in names)
    chosen = choose_splits(args.splits, opened.splits)
    problems = list[str]()
    if args.digest:
        with bar("digest", err) as progress:
            digests = list(list_digests(opened, chosen, problems, progress))
        return print_document("".join(f"{line}\n" for line in digests), problems)

    found = [_read_if_possible(opened, name) for name in chosen]
    rows = [status for status in found if isinstance(status, SplitStatus)]
    for status in found:
        problems += status.problems
    problems += _rejected_beyond(args.max_rejected, rows)
    if args.csv or args.tracks:
        table = csv_table([row.record.split for row in rows], problems, by_track=args.tracks)
        return print_document(table, problems)

    sizes = dict[str, StoredBytes]()
    if args.sizes:
        sizes = {row.name: StoredBytes.from_split(row.record.split) for row in rows}
    result = CommandResult([_as_document(status, sizes) for status in found], problems=problems)
    if not chosen:
        result.add_line("no split is committed yet")
        result.add_lines(cache.verify(args.cache, fast=True).notes, IDLE)
    elif sizes:
        result.text.append(_sizes_table(sizes))
        n_bytes = cache.gc(args.cache, dry_run=True).bytes
        result.add_line(f"gc would free {size(n_bytes)} in the whole cache", IDLE)
    elif rows and not args.sizes:
        result.text += _tables(rows)
    if not args.sizes:
        _add_notes(result, args, opened, rows)
    return print_result(result, as_json=args.json)


class _Unreadable(NamedTuple):
    """A split that cannot be read, as in the JSON document."""

    split: str
    problems: Sequence[str]


def _read_if_possible(opened: cache.FeatureCache, name: str) -> SplitStatus | _Unreadable:
    try:
        return SplitStatus.from_split(opened[name])
    except (cache.CacheError, OSError) as error:
        return _Unreadable(name, [error_text(error)])


def _rejected_beyond(most: float, rows: Sequence[SplitStatus]) -> Iterator[str]:
    """Messages about splits of which more than `most` percent of the videos are rejected."""
    for row in rows:
        n_videos = row.record.totals.get("videos", {}).get("found", 0)
        n_rejected = len(row.rejected)
        if n_rejected > most / 100 * n_videos:
            rejected = count(n_rejected, "video")
            yield f"{row.name}: {rejected} of {n_videos:,} rejected, more than {most:g}%"


# --------------------------------------------------------------------------------------------------
# JSON


def _as_document(status: SplitStatus | _Unreadable, sizes: Mapping[str, StoredBytes]) -> Any:
    """A split's JSON document; docs/terminal.md describes the keys."""
    if isinstance(status, _Unreadable):
        return status
    record = status.record
    plan = status.plan
    streams = status.streams
    document = {
        "split": status.name,
        "tracks": len(record.split.tracks),
        "accounting": record.totals,
        "stand_in": record.is_stand_in,
        "imported": record.imported,
        "estimates": estimates_of(record.split),
        "raw": record.raw,
        "streams": [stream.label for stream in streams],
        "to_convert": "" if plan is None else plan.why,
        "missing": {} if plan is None else plan.missing,
        "unusable": {} if plan is None else plan.unusable,
        "unlisted": status.unlisted or "",
        "weights": {stream.name: stream.weights for stream in streams if stream.weights},
        "undecodable": {stream.name: stream.undecodable for stream in streams},
        "without_features": {
            stream.name: stream.without_features
            for stream in streams
            if stream.without_features is not None
        },
        "set_aside": [f"{account.set_aside}: {account.message}" for account in status.rejected],
        "uncounted": status.n_uncounted,
        "without_track": status.without_track,
        "videos": [_video_document(account) for account in status.accounts],
        "problems": status.problems,
    }
    if status.name in sizes:
        document["sizes"] = sizes[status.name]
    return document


def _video_document(account: VideoAccount) -> dict[str, Any]:
    values = {key: getattr(account, key) for key in _VIDEO_KEYS}
    return {**values, "failed": is_error(account.set_aside)}


# --------------------------------------------------------------------------------------------------
# tables


def _tables(rows: Sequence[SplitStatus]) -> list[str | Table]:
    """One table with a line for each split; or two, if the terminal is too narrow for one: numbers
    of splits, then the others.
    """
    whole = _table(rows, *_COLUMNS)
    if out.fits(whole):
        return [whole]
    numbers = _table(rows, "split", "videos", "tracks", "frames kept / found")
    return [numbers, "", _table(rows, "split", "dropped", "streams", "to convert")]


def _table(rows: Sequence[SplitStatus], *columns: str) -> Table:
    shown = new_table(*columns)
    for row in rows:
        shown.add_row(*(_COLUMNS[column](row) for column in columns))
    return shown


def _marked_name(row: SplitStatus) -> str:
    """The split's name, with a note if it is demo data, or if its bodies are estimates."""
    name = plain(row.name)
    if row.record.is_stand_in:
        name += " [yellow](demo data)[/yellow]"
    estimates = estimates_of(row.record.split)
    if estimates:
        name += f" [yellow]({plain(estimates)})[/yellow]"
    return name


def _counts(row: SplitStatus, unit: str) -> str:
    """A cell of the table: "kept / found", and the number in the release."""
    if not row.record.totals:
        return VideoState.NOT_RECORDED
    counts = row.record.totals[unit]
    text = f"{counts['kept']:,} / {counts['found']:,}"
    in_release = row.record.totals.get("known", {}).get(unit)
    if in_release is not None:
        text += f" of {in_release:,} in the release"
    return text


def _dropped_cell(row: SplitStatus) -> str:
    parts = [describe_dropped(row.record.totals.get("frames", {}).get("dropped", {}))]
    if row.n_uncounted:
        parts.append(f"{count(row.n_uncounted, 'unreadable video')} not counted")
    return ", ".join(filter(None, parts)) or "-"


def _streams(row: SplitStatus) -> str:
    return plain(", ".join(stream.label for stream in row.streams)) or "-"


def _to_convert(row: SplitStatus) -> str:
    return "-" if row.plan is None else plain(row.plan.why) or "-"


_COLUMNS: Final[Mapping[str, Callable[[SplitStatus], str]]] = {
    "split": _marked_name,
    "videos": lambda row: _counts(row, "videos"),
    "tracks": lambda row: _counts(row, "tracks"),
    "frames kept / found": lambda row: _counts(row, "frames"),
    "dropped": _dropped_cell,
    "streams": _streams,
    "to convert": _to_convert,
}


def _sizes_table(sizes: Mapping[str, StoredBytes]) -> Table:
    """A line for each split's columns, streams and tables; then their sum."""
    shown = new_table("split", "what", "bytes", "committed")
    total = 0
    for split, stored in sizes.items():
        parts = {"columns": stored.columns, **stored.streams, "tables, manifests": stored.tables}
        for part, n_bytes in parts.items():
            when = stored.commits.get(part, "")
            cells = (split, part, size(n_bytes), "not known" if when is None else when)
            shown.add_row(*map(plain, cells))
        total += sum(parts.values())
    shown.add_row("all", "", size(total), "")
    return shown


# --------------------------------------------------------------------------------------------------
# notes below the table


def _add_notes(
    result: CommandResult,
    args: argparse.Namespace,
    opened: cache.FeatureCache,
    rows: Sequence[SplitStatus],
) -> None:
    """Add lines on the whole cache, then on streams, then on each split's videos.

    rows: the splits that can be read.
    """
    licences = dict[str, None]()  # each line once: several splits have streams of one network
    for row in rows:
        licences |= dict.fromkeys(_weights_lines(row))
    result.add_lines(licences, IDLE)
    for row in rows:
        result.add_lines(_incomplete_download(row), DOUBT)
    for row in rows:
        result.add_lines(_lost_lines(row), DOUBT)
        lines = assumption_lines(row.accounts)
        result.add_lines((f"{row.name}: {line}" for line in lines), DOUBT)

    folders: Iterable[str] = split_folders(opened.store)  # also those that are not committed
    if args.splits:
        folders = choose_splits(args.splits, opened.splits)
    for name in folders:
        staged = staged_by_parts(opened.store, name)
        if staged is not None:
            result.add_line(f"{name}: {staged}", IDLE)

    limit = None if args.all else FEW
    every = command("status", "--all", "--cache", str(args.cache))
    for row in rows:
        for mark, texts in _video_lists(row, every=args.all):
            for text in few(texts, limit, every):
                result.add_line(f"{row.name}: {text}", mark)


def _video_lists(row: SplitStatus, *, every: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield (mark, lines) for each list of a split's videos.

    The lists are rejected, without rows, and without a track; if `every`, also missing and unusable
    videos, of which the problems name the first few, and videos with dropped frames or notes.
    """
    yield DOUBT, [account.rejection for account in row.rejected]
    without_rows = Counter(account.set_aside for account in row.accounts)
    yield (
        IDLE,
        [describe_no_rows(why, n) for why, n in without_rows.items() if why and not is_error(why)],
    )
    yield IDLE, [f"without a track: {name}: {why}" for name, why in row.without_track.items()]
    if not every:
        return
    yield IDLE, [*_noted_lines(row)]
    if row.plan is not None:
        yield IDLE, [f"missing: {line}" for line in missing_lines(row.plan.stays)]
        yield DOUBT, [f"unusable: {rejection}" for rejection in row.plan.unusable.values()]


def _noted_lines(row: SplitStatus) -> Iterator[str]:
    """A line about each video with tracks that has dropped frames or notes."""
    for account in row.accounts:
        notes = [*account.notes]
        if account.dropped and not is_error(account.set_aside):
            notes.insert(0, describe_dropped(account.dropped))
        if notes and account.name not in row.without_track:
            yield f"{account.name}: {'; '.join(notes)}"


def _incomplete_download(row: SplitStatus) -> Iterator[str]:
    """Messages about a split that has less than the full release."""
    if row.record.is_stand_in or row.record.imported:
        return
    for unit, in_release in row.record.totals.get("known", {}).items():
        n = row.record.totals[unit]["found"]
        if n < in_release:
            numbers = f"{n:,} {unit} found of {in_release:,} in the release"
            yield f"{row.name}: {numbers}: incomplete download"


def _weights_lines(row: SplitStatus) -> Iterator[str]:
    """Licence and source of the streams' networks."""
    for stream in row.streams:
        weights = stream.weights
        if weights and not weights["untrained"]:
            terms = f"licence {weights['licence']}, source {weights['source']}"
            digest = weights["sha256"][:12]
            yield f"weights of {stream.name}: {weights['network']}, {terms}, sha256 {digest}"


def _lost_lines(row: SplitStatus) -> Iterator[str]:
    """Rows without features, by reason."""
    split = row.record.split
    for stream in row.streams:
        if not stream.undecodable:
            continue
        if split.open_stream(stream.name).identity.get("kind") == IMPORTED:
            why = "not in its file, or not finite"
        else:
            # Where rows have been replaced since, not every reason may still apply.
            reasons = " or ".join(stream.without_features or ()) or "reason not recorded"
            why = f"{reasons}; to try again: {fill_command(split, stream.name, '--replace')}"
        lost = count(stream.undecodable, "row")
        yield f"{split.name}: {lost} without features in {stream.name}: {why}"


COMMAND: Final = Command(_options, _run)
