"""`python -m pipeline status`: the contents of a cache, compared with the releases, and what the
next conversion would do.

A `SplitStatus` has what is shown of one split. Each output makes something else of it: a table with
a line for each split (`tables`), and notes below it (`_add_notes`); JSON; CSV, digests and sizes
(`pipeline.steps.contents`).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from rich.table import Table

import cache
from cache.format.folders import deleted_streams, split_folders
from cache.storage.durable import write_atomic
from cache.write.parts import describe_staged, staged_by_parts
from pipeline import datasets
from pipeline.accounting import (
    VideoState,
    assumption_lines,
    describe_dropped,
    describe_no_rows,
    is_error,
    unread_lines,
)
from pipeline.cli.command_line import Command
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
from pipeline.cli.text import FEW, command, count, few, size
from pipeline.datasets.shared.contradictions import contradiction_lines
from pipeline.errors import PipelineError
from pipeline.features.committed import IMPORTED, fill_command
from pipeline.people.estimates import estimates_of
from pipeline.settings.arguments import choose_splits, warn_of_broken
from pipeline.steps.contents import StoredBytes, csv_table, list_digests
from pipeline.steps.conversion.keep import Loss, unusable
from pipeline.steps.grading import describe_words
from pipeline.steps.run_state import prometheus_lines, read_states
from pipeline.steps.sentences import missing_lines, next_cell
from pipeline.steps.split_status import Committed, SplitStatus


def _run(args: argparse.Namespace) -> int:
    """Print a table of splits; below it, incomplete downloads and rejected videos.

    Returns 1 for problems: unreadable or missing data, no rows, more rejected videos than allowed.
    """
    if args.json and (args.csv or args.tracks or args.digest):
        raise PipelineError("--json excludes --csv, --tracks and --digest")
    opened = cache.open(args.cache)
    names = dict.fromkeys(name.partition("/")[0] for name in opened.splits)
    warn_of_broken(filter(datasets.is_known, names))
    chosen = choose_splits(args.splits, opened.splits)
    problems = list[str]()
    if args.digest:
        with bar("digest", err) as progress:
            digests = list(list_digests(opened, chosen, problems, progress))
        return print_document((f"{line}\n" for line in digests), problems)

    states = [SplitStatus.from_cache(opened, name) for name in chosen]
    found = {state.name: state.committed for state in states if state.committed is not None}
    for state in states:
        problems += state.problems
    problems += _rejected_beyond(args.max_rejected, found.values())
    if args.csv or args.tracks:
        splits = [committed.record.split for committed in found.values()]
        return print_document(csv_table(splits, problems, by_track=args.tracks), problems)

    sizes = dict[str, StoredBytes]()
    if args.sizes:
        sizes = {name: StoredBytes.from_split(one.record.split) for name, one in found.items()}
    documents = [state.as_dict() for state in states] if args.json else []
    runs = read_states(getattr(args, "cfg", None), args.cache)
    if args.prometheus:
        lines = "".join(f"{line}\n" for line in prometheus_lines(runs))
        write_atomic(args.prometheus, lines.encode(), shared=True)
    for document in documents:
        document["runs"] = [run for run in runs if run["name"] == document["split"]]
        if document["split"] in sizes:
            document["sizes"] = sizes[document["split"]]
    result = CommandResult(documents, problems=problems)
    if not chosen:
        result.add_line("no split is saved yet")
        result.add_lines(cache.verify(args.cache, fast=True).notes, IDLE)
    elif sizes:
        result.text.append(_sizes_table(sizes))
        n_bytes = cache.gc(args.cache, dry_run=True).bytes
        result.add_line(f"gc would free {size(n_bytes)} in the whole cache", IDLE)
    elif found and not args.sizes:
        result.text += tables([state for state in states if state.committed is not None])
    if not args.sizes:
        _add_notes(result, args, opened, states)
    return print_result(result, as_json=args.json)


def _rejected_beyond(most: float, splits: Iterable[Committed]) -> Iterator[str]:
    """Messages about splits of which more than `most` percent of the videos are rejected."""
    for committed in splits:
        n_videos = committed.record.totals.get("videos", {}).get("found", 0)
        n_rejected = len(committed.rejected)
        if n_rejected > most / 100 * n_videos:
            rejected = count(n_rejected, "video")
            name = committed.record.split.name
            yield f"{name}: {rejected} of {n_videos:,} rejected, more than {most:g}%"


# --------------------------------------------------------------------------------------------------
# tables


def tables(states: Sequence[SplitStatus]) -> list[str | Table]:
    """One table with a line for each split; or two, if the terminal is too narrow for one: numbers
    of splits (NUMBERS), then the others.
    """
    columns = [*COLUMNS, "next run"]
    whole = _table(states, "split", *columns)
    if out.fits(whole):
        return [whole]
    numbers = _table(states, "split", *columns[:NUMBERS])
    return [numbers, "", _table(states, "split", *columns[NUMBERS:])]


def _table(states: Sequence[SplitStatus], *columns: str) -> Table:
    shown = new_table(*columns)
    for state in states:
        cells = []
        for column in columns:
            if column == "split":
                cells.append(_marked_name(state))
            elif column == "next run":
                cells.append(plain(_next_run(state)))
            else:
                committed = state.committed
                cells.append("-" if committed is None else COLUMNS[column].cell(committed))
        shown.add_row(*cells)
    return shown


def _next_run(state: SplitStatus) -> str:
    if state.unlisted:
        return "unknown"
    return "-" if state.next_run is None else next_cell(state.next_run)


def _marked_name(state: SplitStatus) -> str:
    """The split's name, with a note if it is demo data, or if its bodies are estimates."""
    name = plain(state.name)
    if state.committed is None:
        return name
    if state.committed.record.is_stand_in:
        name += " [yellow](demo data)[/yellow]"
    estimates = estimates_of(state.committed.record.split)
    if estimates:
        name += f" [yellow]({plain(estimates)})[/yellow]"
    return name


def _counts(unit: str, committed: Committed) -> str:
    """A cell of the table: "kept / found", and the number in the release."""
    totals = committed.record.totals
    if not totals:
        return VideoState.NOT_RECORDED
    text = f"{totals[unit]['kept']:,} / {totals[unit]['found']:,}"
    in_release = totals.get("known", {}).get(unit)
    if in_release is not None:
        text += f" of {in_release:,} official"
    return text


def _dropped_frames(committed: Committed) -> str:
    parts = [describe_dropped(committed.record.totals.get("frames", {}).get("dropped", {}))]
    if committed.n_uncounted:
        parts.append(f"{count(committed.n_uncounted, 'unreadable video')} not counted")
    return ", ".join(filter(None, parts)) or "-"


def _streams(committed: Committed) -> str:
    return plain(", ".join(stream.label for stream in committed.streams)) or "-"


class StatusColumn(NamedTuple):
    """A column of the table."""

    meaning: str  # for the page
    cell: Callable[[Committed], str]


NUMBERS: Final = 3  # columns of numbers, the first ones
COLUMNS: Final[Mapping[str, StatusColumn]] = {
    "videos": StatusColumn(
        "kept / found, of the official number if known", partial(_counts, "videos")
    ),
    "tracks": StatusColumn("kept / found", partial(_counts, "tracks")),
    "frames kept / found": StatusColumn("frames of persons, likewise", partial(_counts, "frames")),
    "dropped": StatusColumn("frames of persons that were dropped, by reason", _dropped_frames),
    "streams": StatusColumn("features in the cache", _streams),
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
    states: Sequence[SplitStatus],
) -> None:
    """Add lines on tracks, on streams, on the whole cache, then on each split's videos."""
    rows = {state.name: state.committed for state in states if state.committed is not None}
    for name, row in rows.items():
        result.add_line(f"{name}: {describe_words(row.grades)}", IDLE)
    licences = dict[str, None]()  # each line once: several splits have streams of one network
    for row in rows.values():
        licences |= dict.fromkeys(_weights_lines(row))
    result.add_lines(licences, IDLE)
    for row in rows.values():
        result.add_lines(_incomplete_download(row), DOUBT)
    for row in rows.values():
        result.add_lines(_lost_lines(row), DOUBT)
        lines = [*assumption_lines(row.accounts), *contradiction_lines(row.accounts)]
        name = row.record.split.name
        result.add_lines((f"{name}: {line}" for line in lines), DOUBT)
        result.add_lines((f"{name}: {line}" for line in unread_lines(row.accounts)), IDLE)

    folders: Iterable[str] = split_folders(opened.store)  # also those that are not committed
    if args.splits:
        folders = choose_splits(args.splits, opened.splits)
    for name in folders:
        staged = staged_by_parts(opened.store, name)
        if staged:
            result.add_line(f"{name}: {describe_staged(staged)}", IDLE)

    limit = None if args.all else FEW
    every = command("status", "--all", "--cache", str(args.cache))
    for state in states:
        if state.committed is not None:
            for mark, texts in _video_lists(state.committed, state.losses, every=args.all):
                for text in few(texts, limit, every):
                    result.add_line(f"{state.name}: {text}", mark)


def _video_lists(
    row: Committed, losses: Mapping[str, Loss], *, every: bool
) -> Iterator[tuple[str, list[str]]]:
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
    yield IDLE, [f"missing: {line}" for line in missing_lines(losses)]
    yield DOUBT, [f"unusable: {why}" for why in unusable(losses).values()]


def _noted_lines(row: Committed) -> Iterator[str]:
    """A line about each video with tracks that has dropped frames or notes."""
    for account in row.accounts:
        notes = [*account.notes, *account.contradictions]
        if account.dropped and not is_error(account.set_aside):
            notes.insert(0, describe_dropped(account.dropped))
        if notes and account.name not in row.without_track:
            yield f"{account.name}: {'; '.join(notes)}"


def _incomplete_download(row: Committed) -> Iterator[str]:
    """Messages about a split that has less than the full release."""
    if row.record.is_stand_in or row.record.imported:
        return
    for unit, in_release in row.record.totals.get("known", {}).items():
        n = row.record.totals[unit]["found"]
        if n < in_release:
            numbers = f"{n:,} {unit} found of {in_release:,} in the official download"
            yield f"{row.record.split.name}: {numbers}: incomplete download"


def _weights_lines(row: Committed) -> Iterator[str]:
    """Licence and source of the streams' networks."""
    for stream in row.streams:
        weights = stream.weights
        if weights and not weights["untrained"]:
            terms = f"licence {weights['licence']}, source {weights['source']}"
            digest = weights["sha256"][:12]
            yield f"weights of {stream.name}: {weights['network']}, {terms}, sha256 {digest}"


def _lost_lines(row: Committed) -> Iterator[str]:
    """Rows without features, by reason."""
    split = row.record.split
    yield from dict.fromkeys(deleted_streams(split.store, split.name).values())
    for stream in row.streams:
        if not stream.undecodable:
            continue
        if split.open_stream(stream.name).identity.get("kind") == IMPORTED:
            why = "not in its file, or not finite"
        else:
            # Where rows have been replaced since, not every reason may still apply.
            reasons = " or ".join(stream.without_features or ()) or "reason not recorded"
            whole = fill_command(split, stream.name, "--replace")
            why = (
                f"{reasons}; to try again: touch the folder of a mended file, convert and extract; "
                f"all rows: {whole}"
            )
        lost = count(stream.undecodable, "row")
        yield f"{split.name}: {lost} without features in {stream.name}: {why}"


COMMAND: Final = Command(_run)
