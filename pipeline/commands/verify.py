"""`python -m pipeline verify`: check a cache, and drop damaged shards.  [raw -> tracks -> features]

The check (`cache.verify`) returns a report: problems as text, and damaged files and shards as
records. Options add steps, in this order: repair and a second check, comparison with a list of
digests. Unless with --fast, the sums of each video are compared with its columns, too.

A repair does two things. `cache.repair` removes a stream's damaged shards from its manifest, so
that `extract` computes them again. If a shard of a split's columns is damaged, all videos with rows
in it are dropped in one commit, so that `convert` reads them again. Their features stay, and are
carried over by their keys after that conversion.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import cache
from cache.format import layout
from cache.write.copy import to_track_rows, videos_by_name
from pipeline.cli import pages
from pipeline.cli.command_line import Command
from pipeline.cli.console import DONE, ERROR, IDLE, WRONG, CommandResult, err, plain, print_result
from pipeline.cli.progress import Progress, bar
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import FEW, count, few, size
from pipeline.errors import PipelineError
from pipeline.features.committed import MissingRows, fill_command
from pipeline.features.pixels import videos_of
from pipeline.files.raw import changes, texts_of
from pipeline.grades.sums import sums_of
from pipeline.people.estimates import files_of, recorded_estimates
from pipeline.settings.arguments import choose_splits
from pipeline.settings.options import DROP
from pipeline.steps.conversion.convert import convert
from pipeline.steps.conversion.keep import missing
from pipeline.steps.conversion.plan import ConversionWork, plan_conversion
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.grading import stored_words
from pipeline.steps.raw_images import require_videos
from pipeline.steps.recipe import Recipe

# fields of the report of a check that the JSON document has
_REPORTED: Final = ("fast", "splits", "shards", "bytes", "problems", "notes", "damaged")
_LINE: Final = re.compile(r"([0-9a-f]{64}) +(\S+/\S+) +(labels|features/(\S+))")


def _run(args: argparse.Namespace) -> int:
    """Check a cache; with options, repair or compare it. Returns 1 for problems.

    Prints every problem, files of killed runs, and repairs.
    """
    result = CommandResult({})
    names = list[str]()  # also those that the cache does not have
    for name in args.splits:
        names += [name] if "/" in name else choose_splits([name], cache.open(args.cache).splits)
    splits = names or None
    listed = []
    if args.digest:
        listed = _read_list(args.digest, splits)

    report = _verify(args, splits, result)
    repair = None
    if args.repair:
        repair = _repair(args.cache, report)
        _add_repair(result, repair)
        if repair.restored or repair.removed or repair.dropped or repair.refused:
            report = _verify(args, splits, result)  # what remains
    differing = None
    if args.digest:
        with bar("digest", err) as progress:
            differing = list(_compare_digests(cache.open(args.cache), listed, progress))
        result.add_lines(differing, WRONG)
        n_equal = len(listed) - len(differing)
        mark = WRONG if differing else DONE
        result.add_line(f"{n_equal} of {count(len(listed), 'digest')} equal to {args.digest}", mark)

    refused = repair.refused if repair is not None else []
    for text in refused:
        err.print(f"{ERROR} {plain(text)}")
    is_ok = report.ok and not (differing or refused)
    result.document = {
        "ok": is_ok,
        **{key: getattr(report, key) for key in _REPORTED},
        "digest": differing,
        "repair": repair,
    }
    result.exit_code = 0 if is_ok else 1
    return print_result(result, as_json=args.json)


def _verify(
    args: argparse.Namespace, splits: Sequence[str] | None, result: CommandResult
) -> cache.VerifyReport:
    """Verify the cache, and add the report to the result."""
    with bar("verify", err) as progress:
        report = cache.verify(args.cache, fast=args.fast, progress=progress, splits=splits)
        if report.ok:
            opened = cache.open(args.cache)
            for name in splits or opened.splits:
                report.notes += _describe_grades(opened[name])
                if not args.fast:
                    report.damaged += _wrong_sums(opened[name], progress)
    result.add_lines(report.problems, WRONG)
    result.add_lines(report.notes, IDLE)
    summary = f"{count(report.shards, 'shard')}, {size(report.bytes)}"
    if report.fast:
        summary += ", sizes and indexes only"
    if report.ok:
        result.add_line(f"intact: {summary}", DONE)
    else:
        result.add_line(f"{count(len(report.problems), 'problem')} in {summary}")
    return report


def _describe_grades(split: cache.Split) -> Iterator[str]:
    """Yield a note if stored grades are not used, because they are damaged or of another commit."""
    key = f"{split.name}/{layout.MEASURES}"
    if split.store.exists(key) and stored_words(split) is None:
        state = "damaged, or of an earlier commit"
        yield f"{split.store.location(key)}: {state}: grades are computed until the next conversion"


def _wrong_sums(split: cache.Split, progress: Progress) -> Iterator[cache.Damage]:
    """Yield damage of the tables for each video whose sums are not those of its columns."""
    for number, (entry, tracks) in enumerate(videos_by_name(split)):
        progress(number, len(split.videos), f"{split.name} sums")
        if not entry.sums:  # of another program
            continue
        sums = sums_of([to_track_rows(split, track) for track in tracks])
        wrong = {name: n for name, n in entry.sums.items() if sums.get(name, n) != n}
        if wrong:
            what = (
                f"{split.name}: totals of video {entry.name!r}: expected {sums}, as its rows have, "
                f"found {wrong}. Delete the split, and convert it again."
            )
            yield cache.Damage(split.name, None, None, None, split.commit.tables_key, what)


# --------------------------------------------------------------------------------------------------
# published digests


class _ListedDigest(NamedTuple):
    """One line of a list that `status --digest` prints."""

    digest: str
    split: str
    content: str  # "labels" or "features/<stream>"
    stream: str | None  # None: the digest is of the labels


def _read_list(file: Path, splits: Sequence[str] | None) -> list[_ListedDigest]:
    """Read the lines of a published list, for all splits or only these. Text after # is a comment.

    Raises PipelineError for a file without digests of these splits, and for an invalid line; and
    OSError.
    """
    listed = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        parts = _LINE.fullmatch(text)
        if parts is None:
            raise PipelineError(
                f"{file}, line {number}: expected SHA-256, split and content, as status --digest "
                f"prints them, found another text"
            )
        if splits is None or parts[2] in splits:
            listed.append(_ListedDigest(*parts.groups()))
    if not listed:
        names = ""
        if splits:
            names = f" of {', '.join(splits)}"
        do = "Write a list: python -m pipeline status --digest > FILE"
        raise PipelineError(f"{file}: no digests{names}. {do}")
    return listed


def _compare_digests(
    opened: cache.FeatureCache, listed: Sequence[_ListedDigest], progress: Progress
) -> Iterator[str]:
    """Yield a message for each line of a list whose labels or stream are different in the cache, or
    cannot be read.
    """
    for number, entry in enumerate(listed):
        progress(number, len(listed), f"{entry.split} {entry.content}")
        try:
            digest = cache.content_digest(opened[entry.split], entry.stream)
        except (cache.CacheError, OSError) as error:
            yield f"{entry.split}: {entry.content} cannot be compared: {error_text(error)}"
            continue
        if digest == entry.digest:
            continue
        do = f"Compare release, split, settings and version ({pages.DIGESTS})."
        if entry.stream is not None:
            do = f"Other hardware and libraries compute other last digits ({pages.DIGESTS})."
        title = f"{entry.split}: {entry.content}"
        yield f"{title}: expected the digest {entry.digest}, found {digest}. {do}"


# --------------------------------------------------------------------------------------------------
# repair


class _DroppedVideos(NamedTuple):
    """Videos of a split to convert again."""

    split: str
    videos: tuple[str, ...]


class _Repair(NamedTuple):
    """Data dropped from a damaged cache, and the commands that fill it again. It is also the entry
    of the JSON document.
    """

    restored: Sequence[str]  # files
    removed: Sequence[str]
    dropped: Sequence[_DroppedVideos]
    fill: Sequence[str]  # commands, in the order in which to run them
    refused: Sequence[str]  # messages about failed repairs


def _add_repair(result: CommandResult, repair: _Repair) -> None:
    """Add the lines for the terminal."""
    for verb, keys in (
        ("restored", repair.restored),
        ("of damaged shards taken off the manifest", repair.removed),
    ):
        if keys:
            result.add_line(f"{count(len(keys), 'file')} {verb}:")
            result.add_lines(few(keys, FEW, "all below the cache"), indent=2)
    for split, videos in repair.dropped:
        result.add_line(f"{split}: rows of {count(len(videos), 'video')} dropped")
    if repair.fill:
        result.add_line("to fill them again:")
        result.add_lines(repair.fill, indent=2)
    elif not (repair.restored or repair.removed or repair.refused):
        result.add_line("nothing to repair")


def _repair(root: cache.Root, report: cache.VerifyReport) -> _Repair:
    """Drop data that `cache.verify` found damaged, unless the raw files to replace it are missing.

    Can be run again after it was killed. Raises CacheError if there is no cache.
    """
    lost = _streams_without_images(root, report.damaged)
    damaged = [d for d in report.damaged if d.shard is None or (d.split, d.stream) not in lost]
    files = cache.repair(root, replace(report, damaged=damaged))
    refused = [*lost.values(), *files.refused]
    dropped = []
    fill = []
    for name, shards in files.rows.items():
        try:
            split = cache.open(root)[name]
            extractions = [fill_command(split, stream) for stream in split.streams]
            videos = _drop_videos(split, shards)
        except (PipelineError, cache.CacheError) as error:
            refused.append(str(error))
            continue
        dropped.append(_DroppedVideos(name, videos))
        fill.append(f"{ConversionRecord(split).convert_command()}  # {count(len(videos), 'video')}")
        fill += extractions
    dropped_splits = {videos.split for videos in dropped}
    for name, stream in files.streams:
        if name not in dropped_splits:  # otherwise, all of its streams are extracted again
            split = cache.open(root)[name]
            rows = count(MissingRows.find(split, stream).rows, "row")
            fill.append(f"{fill_command(split, stream)}  # {rows} of {stream}")
    return _Repair(files.restored, files.removed, dropped, fill, refused)


def _streams_without_images(
    root: cache.Root, damaged: Sequence[cache.Damage]
) -> dict[tuple[str, str], str]:
    """Find damaged streams whose images are missing: (split, stream) -> a message.

    They are not repaired: dropping a shard would also lose its intact rows for good.
    """
    shards: dict[tuple[str, str], set[int]] = {}
    for damage in damaged:
        if damage.stream is not None and damage.shard is not None:
            shards.setdefault((damage.split, damage.stream), set()).add(damage.shard)
    lost: dict[tuple[str, str], str] = {}
    for (name, stream), numbers in shards.items():
        try:
            split = cache.open(root)[name]
            if split.open_stream(stream).identity.get("kind") != "imported":
                require_videos(split, None, sorted(numbers))
        except cache.CacheError:
            # a small file is damaged, too: it is restored first, and the next repair finds the rest
            continue
        except PipelineError as error:
            lost[name, stream] = (
                f"{error} Stream {stream!r} was not changed: its other rows are readable."
            )
    return lost


def _drop_videos(split: cache.Split, shards: Sequence[int]) -> tuple[str, ...]:
    """Drop every video with a row in these shards, in one commit. Returns their names.

    Raises PipelineError, and changes nothing, unless all of them are in the raw folder.
    """
    names = {split.videos[number].name for number in videos_of(split, shards)}
    work = _plan_rereading(split, names)
    drop = tuple(sorted(names))
    recorded = changes.read_stamps(split.root, split.name)
    # The other videos keep their recorded stamps: new ones would hide changes.
    unread = {name: seen for name, seen in recorded.items() if name not in names}
    damaged = tuple(sorted(shards))
    convert(
        replace(
            work,
            items=(),
            drop=drop,
            removed=drop,
            losses={},
            unread=unread,
            damaged_shards=damaged,
        )
    )
    return drop


def _plan_rereading(split: cache.Split, names: Set[str]) -> ConversionWork:
    """What a conversion that could read these videos again is to do. Raises PipelineError if none
    can.
    """
    record = ConversionRecord(split)
    n_videos = count(len(names), "video")
    if record.imported is not None:
        files = files_of(recorded_estimates(split), names) or [record.imported]
        raise PipelineError(
            f"{split.name}: rows of {n_videos} are damaged. They were imported from "
            f"{', '.join(files)}. Nothing was changed. Delete the split with its features, and "
            "import it again."
        )
    work = plan_conversion(Recipe.from_committed(split))
    if work.differs:
        raise PipelineError(
            f"{split.name}: all videos must be converted again ({work.why}). Do that first."
        )
    there = {video.name for video in texts_of(work.listed)} - missing(work.losses).keys()
    gone = sorted(names - there)
    if gone:
        raise PipelineError(
            f"{split.name}: {count(len(gone), 'video')} with damaged rows missing from "
            f"{work.recipe.raw}, first {gone[0]}. Nothing was changed. Restore the files, or "
            f"delete the rows: {record.convert_command(DROP)}"
        )
    return work


COMMAND: Final = Command(_run)
