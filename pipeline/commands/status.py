"""`python -m pipeline status`: the contents of a cache, compared with the releases, and what the
next conversion would do.

`_split_status` collects all that is shown about one split in a `_SplitStatus`, which also is the
split's JSON document: its committed state, and the plan of its next conversion, with the recorded
options. From these, `_run` prints a table with a line for each split, and below it notes
(`_add_notes`). --csv, --tracks, --digest and --sizes print another document or table instead.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.table import Table

import cache
from cache.format.folders import split_folders, unmounted_streams
from cache.write.parts import staged_by_parts
from pipeline import datasets
from pipeline.accounting import VideoAccount, describe_no_rows, is_error
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
from pipeline.cli.text import FEW, command, count, error_text, few, size
from pipeline.conversion import committed
from pipeline.conversion.plan import recorded_plan
from pipeline.errors import PipelineError
from pipeline.estimates import estimates_of
from pipeline.features.committed import (
    IMPORTED,
    fill_command,
    is_untrained,
    stream_label,
    weights_of,
)
from pipeline.recipe.contents import csv_table, list_digests, stored_bytes
from pipeline.settings.arguments import (
    cache_option,
    choose_splits,
    splits_argument,
    warn_of_broken,
)

COLUMNS: Final = (
    *("split", "videos", "tracks", "frames kept / found"),
    *("dropped", "streams", "to convert"),
)
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
    help_ = "Show bytes and commit times by split and stream"
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
    result = CommandResult([])
    if args.digest:
        with bar("digest", err) as progress:
            lines = list(list_digests(opened, chosen, result.problems, progress))
        return print_document("".join(f"{line}\n" for line in lines), result.problems)

    rows = []  # of the splits that can be read
    for name in chosen:
        try:
            rows.append(_split_status(opened[name]))
            document = {**vars(rows[-1])}
        except (cache.CacheError, OSError) as error:
            document = {"split": name, "problems": [error_text(error)]}
        result.document.append(document)
        result.problems += document["problems"]
    result.problems += _rejected_beyond(args.max_rejected, rows)
    if args.csv or args.tracks:
        splits = [opened[row.split] for row in rows]
        table = csv_table(splits, result.problems, by_track=args.tracks)
        return print_document(table, result.problems)
    if not chosen:
        result.add_line("no split is committed yet")
        result.add_lines(cache.verify(args.cache, fast=True).notes, IDLE)
    elif rows and args.sizes:
        _add_sizes(result, opened)
    elif rows:
        whole = _table(rows, range(len(COLUMNS)))
        result.text.append(whole)
        if not out.fits(whole):  # numbers of splits, then the others, each with the splits' names
            result.text[-1:] = [_table(rows, range(4)), "", _table(rows, (0, 4, 5, 6))]
    if not args.sizes:
        _add_notes(result, args, opened, rows)
    return print_result(result, as_json=args.json)


def _add_notes(
    result: CommandResult,
    args: argparse.Namespace,
    opened: cache.FeatureCache,
    rows: Sequence[_SplitStatus],
) -> None:
    """Add lines below the table: on the whole cache, then on streams, then on each split's videos.

    rows: the splits that can be read.
    """
    licences = dict[str, None]()  # each line once: several splits have streams of one network
    for row in rows:
        licences |= dict.fromkeys(_weights_lines(row))
    result.add_lines(licences, IDLE)
    for row in rows:
        result.add_lines(_incomplete_download(row), DOUBT)
    for row in rows:
        result.add_lines(_lost_lines(row, opened[row.split]), DOUBT)

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
                result.add_line(f"{row.split}: {text}", mark)


def _rejected_beyond(most: float, rows: Sequence[_SplitStatus]) -> Iterator[str]:
    """Messages about splits of which more than `most` percent of the videos are rejected."""
    for row in rows:
        n_videos = row.accounting.get("videos", {}).get("found", 0)
        n_rejected = len(row.set_aside)
        if n_rejected > most / 100 * n_videos:
            rejected = count(n_rejected, "video")
            yield f"{row.split}: {rejected} of {n_videos:,} rejected, more than {most:g}%"


def _video_lists(row: _SplitStatus, *, every: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield (mark, lines) for each list of a split's videos.

    The lists are rejected, without rows, and without a track; if `every`, also missing and unusable
    videos, of which the problems name the first few, and videos with dropped frames or notes.
    """
    rejected = []
    without_rows = Counter[str]()  # a reason by design -> number of videos
    noted = []
    for video in row.videos:
        name = video["name"]
        notes = video["notes"]
        if video["failed"]:
            account = VideoAccount(name, set_aside=video["set_aside"], message=video["message"])
            rejected.append(account.rejection)
        else:
            without_rows[video["set_aside"]] += 1
            notes = [*filter(None, [_by_reason(video["dropped"])]), *notes]
        if notes and name not in row.without_track:
            noted.append(f"{name}: {'; '.join(notes)}")
    del without_rows[""]

    yield DOUBT, rejected
    yield IDLE, [describe_no_rows(why, n) for why, n in without_rows.items()]
    yield IDLE, [f"without a track: {name}: {why}" for name, why in row.without_track.items()]
    if not every:
        return
    yield IDLE, noted
    yield IDLE, [f"missing: {name}" for name in committed.missing_names(row.missing)]
    yield DOUBT, [f"unusable: {rejection}" for rejection in row.unusable.values()]


def _by_reason(dropped: Mapping[str, int]) -> str:
    """Numbers by reason as one text, such as "20 no_visible_joint, 3 no_box"."""
    return ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())


def _table(rows: Sequence[_SplitStatus], columns: Sequence[int]) -> Table:
    """One line for each split. columns: indices of COLUMNS."""
    shown = new_table(*(COLUMNS[i] for i in columns))
    for row in rows:
        dropped = [_by_reason(row.accounting.get("frames", {}).get("dropped", {}))]
        if row.uncounted:
            dropped.append(f"{count(row.uncounted, 'unreadable video')} not counted")
        cells = (
            _marked_name(row),
            *(_counts(row.accounting, unit) for unit in ("videos", "tracks", "frames")),
            ", ".join(filter(None, dropped)) or "-",
            plain(", ".join(row.streams)) or "-",
            plain(row.to_convert) or "-",
        )
        shown.add_row(*(cells[i] for i in columns))
    return shown


def _counts(accounting: Mapping[str, Any], unit: str) -> str:
    """A cell of the table: "kept / found", and the number in the release."""
    if not accounting:
        return committed.NOT_RECORDED
    counts = accounting[unit]
    text = f"{counts['kept']:,} / {counts['found']:,}"
    in_release = accounting.get("known", {}).get(unit)
    if in_release is not None:
        text += f" of {in_release:,} in the release"
    return text


def _add_sizes(result: CommandResult, opened: cache.FeatureCache) -> None:
    """Add the stored bytes to the splits' documents, and a table of them: a line for each split's
    columns, streams and tables; then their sum.
    """
    shown = new_table("split", "what", "bytes", "committed")
    total = 0
    for document in result.document:
        if "streams" not in document:  # an unreadable split
            continue
        stored = stored_bytes(opened[document["split"]])
        document["sizes"] = stored
        parts = {
            "columns": stored["columns"],
            **stored["streams"],
            "tables, manifests": stored["tables"],
        }
        commits = {"tables, manifests": "", **stored["commits"]}
        for part, n_bytes in parts.items():
            when = commits[part]
            shown.add_row(
                plain(document["split"]),
                plain(part),
                size(n_bytes),
                plain("not known" if when is None else when),
            )
        total += sum(parts.values())
    shown.add_row("all", "", size(total), "")
    result.text.append(shown)


@dataclass
class _SplitStatus:
    """All that is shown about one split; it is also the split's JSON document."""

    split: str
    tracks: int  # number of tracks
    accounting: Mapping[str, Any]  # `Accounting.totals`; {}: not recorded
    stand_in: bool  # demo data
    imported: str | None  # the file of an imported split
    estimates: str  # whose bodies these are, which are no ground truth; "": labels
    raw: str | None  # the raw folder at conversion
    streams: list[str] = field(default_factory=list)  # label of each stream, such as "x (damaged)"
    to_convert: str = ""  # why the next conversion has something to do; "": nothing, or not known
    missing: dict[str, str] = field(default_factory=dict)  # video -> its missing file; "": all
    unusable: dict[str, str] = field(default_factory=dict)  # video -> its rejection
    unlisted: str = ""  # why it is unknown what the next conversion would do
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)  # stream -> its weights
    # stream -> number of rows without features; None: the stream's flags cannot be read
    undecodable: dict[str, int | None] = field(default_factory=dict)
    # stream -> reason -> number of rows without features
    without_features: dict[str, dict[str, int]] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)  # "reason: message" of rejected videos
    uncounted: int = 0  # rejected videos whose frames are unknown
    without_track: dict[str, str] = field(default_factory=dict)  # video -> why
    # videos with losses or notes: _VIDEO_KEYS of their accounts, and whether they are "failed"
    videos: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # messages


def _split_status(split: cache.Split) -> _SplitStatus:
    """Collect all that is shown about a split. Raises CacheError and OSError if it is unreadable,
    but not for a damaged stream, which is among its problems.
    """
    manifest = split.manifest
    imported = manifest.get("reader", {}).get("imported", {})
    status = _SplitStatus(
        split=split.name,
        tracks=len(split.tracks),
        accounting=manifest.get("accounting", {}),
        stand_in=bool(manifest.get("stand_in")),
        imported=imported.get("file"),
        estimates=estimates_of(split),
        raw=split.provenance.get("raw"),
    )
    for name in split.streams:
        _add_stream(status, split, name)
    status.problems += unmounted_streams(cache.store_at(split.root), split.name).values()
    _add_plan(status, split)
    _add_videos(status, split)
    return status


def _add_stream(status: _SplitStatus, split: cache.Split, name: str) -> None:
    """Add a stream: its label, weights, and rows without features."""
    label = f"{name} (damaged)"
    status.undecodable[name] = None
    try:
        label = stream_label(split, name)
        weights = weights_of(split, name)
        if weights:
            status.weights[name] = weights | {"untrained": is_untrained(split, name)}
        status.undecodable[name] = split.open_stream(name).undecodable()
        reasons = split.open_stream(name).provenance.get("without_features")
        status.without_features[name] = reasons or {}
    except cache.AccessDenied as error:
        status.problems.append(f"{split.name}: {error}")
    except (cache.CacheError, OSError) as error:
        status.problems.append(f"{split.name}: {name} is damaged: {error_text(error)}")
    status.streams.append(label)


def _add_plan(status: _SplitStatus, split: cache.Split) -> None:
    """Add what the next conversion of the recorded raw folder would do: why it has something to do,
    and the committed videos that are missing or unusable.
    """
    if not committed.recorded_raw(split) or "parameters" not in split.manifest.get("reader", {}):
        # it was not converted here, or its raw folder is not recorded
        status.problems += committed.why_empty(split)
        return
    try:
        _require_raw(split)
        plan = recorded_plan(split, reads_contents=False)  # a look at a cache reads no terabyte
    except (PipelineError, OSError) as error:
        status.unlisted = error_text(error)
        status.problems.append(f"{split.name}: {status.unlisted}")
        return
    status.to_convert = plan.why
    status.missing = plan.missing
    status.unusable = plan.unusable
    status.problems += plan.problems


def _require_raw(split: cache.Split) -> None:
    """Raise PipelineError if the recorded raw folder is missing."""
    raw = committed.recorded_raw(split)
    if not Path(raw).is_dir():
        again = committed.convert_command(split, "--retry", "--raw", "DIR")
        raise PipelineError(
            f"its raw folder {raw} is missing. {committed.MOUNT}. If it has moved: {again}"
        )


def _add_videos(status: _SplitStatus, split: cache.Split) -> None:
    """Add videos with dropped frames, without rows, or with notes, in reading order."""
    for video in split.videos:
        account = video.account
        state, _, why = committed.video_state(account)
        if state == committed.NOT_RECORDED:
            continue
        if state == committed.WITHOUT_TRACK:
            status.without_track[account["name"]] = why
        if not any(account[key] for key in ("dropped", "set_aside", "notes")):
            continue
        failed = is_error(account["set_aside"])
        status.videos.append({**{key: account[key] for key in _VIDEO_KEYS}, "failed": failed})
        if failed:
            status.set_aside.append(f"{account['set_aside']}: {account['message']}")
            status.uncounted += not account["found"]


def _marked_name(row: _SplitStatus) -> str:
    """The split's name, with a note if it is demo data, or if its bodies are estimates."""
    name = plain(row.split)
    if row.stand_in:
        name += " [yellow](demo data)[/yellow]"
    if row.estimates:
        name += f" [yellow]({plain(row.estimates)})[/yellow]"
    return name


def _incomplete_download(row: _SplitStatus) -> Iterator[str]:
    """Messages about a split that has less than the full release."""
    if row.stand_in or row.imported:
        return
    for unit, in_release in row.accounting.get("known", {}).items():
        n = row.accounting[unit]["found"]
        if n >= in_release:
            continue
        yield (
            f"{row.split}: {n:,} {unit} found of {in_release:,} in the release: incomplete download"
        )


def _weights_lines(row: _SplitStatus) -> Iterator[str]:
    """Licence and source of the streams' networks."""
    for stream, weights in row.weights.items():
        if not weights["untrained"]:
            terms = f"licence {weights['licence']}, source {weights['source']}"
            digest = weights["sha256"][:12]
            yield f"weights of {stream}: {weights['network']}, {terms}, sha256 {digest}"


def _lost_lines(row: _SplitStatus, split: cache.Split) -> Iterator[str]:
    """Rows without features, by reason."""
    for stream, lost in row.undecodable.items():
        if not lost:
            continue
        if split.open_stream(stream).identity.get("kind") == IMPORTED:
            why = "not in its file, or not finite"
        else:
            # Where rows have been replaced since, not every reason may still apply.
            reasons = " or ".join(row.without_features.get(stream, ())) or "reason not recorded"
            why = f"{reasons}; to try again: {fill_command(split, stream, '--replace')}"
        yield f"{row.split}: {count(lost, 'row')} without features in {stream}: {why}"


COMMAND: Final = Command(_options, _run)
