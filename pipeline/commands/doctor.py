"""`python -m pipeline doctor`: which parts of each download are complete or missing, and what to
do.  [raw] -> tracks

Only names of files and folders are compared, with the parts and the known mistakes that each
dataset declares (`pipeline.datasets.base`): seconds for a full download. Of detected keypoints,
those of the first clips are read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from rich.table import Table

from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import DONE, DOUBT, CommandResult, err, plain
from pipeline.cli.progress import line_if_slow
from pipeline.cli.text import command
from pipeline.cli.text import count as count_of
from pipeline.clips.files import EXTENSIONS, KEYPOINTS, labels_of, list_clips
from pipeline.commands.init import tool
from pipeline.datasets.base import Dataset, Mistake, ReleasePart, describe_error, globs
from pipeline.datasets.downloads import (
    OTHER_NAMES,
    find_archives,
    folders_in_part,
    misplaced_parts,
    packed_parts,
)
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats import smpl_files
from pipeline.files.formats.people.detections import read_detections
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import MARKER, RawVideo, files
from pipeline.settings.file import PATH, settings_file
from pipeline.settings.sections import SHARED, Settings, load

NO_SETTINGS: Final = (
    "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: "
    "--raw DIR."
)
SAMPLED: Final = 3  # clips whose keypoints are read
OPENED: Final = 100  # clips of a split whose first frame is decoded
TO_BE_MADE = "will be made"
NOT_NEEDED = "not needed yet"  # states of missing parts that the user need not get
MARKS: Final = {
    "there": DONE,
    "incomplete": "[yellow]incomplete[/yellow]",
    "missing": "[red]missing[/red]",
    "invalid": "[red]invalid[/red]",
    "left out": "[dim]left out[/dim]",
}
SPIN: Final = "data of SPIN, by fetch_data.sh of github.com/nkolot/SPIN"
ARCHIVE: Final = (
    "SMPL_python_v.1.1.0.zip: smpl/models/basicmodel_{}_lbs_10_207_0_v1.1.0.pkl, renamed to {}.pkl"
)


class _BodyFiles:
    """The body model's files, declared as those of a dataset."""

    name = "body"
    page = "https://smpl.is.tue.mpg.de"
    splits: tuple[str, ...] = ()
    parts = (
        ReleasePart(
            "SMPL, neutral", ("SMPL_NEUTRAL.{pkl,npz}",), ARCHIVE.format("neutral", "SMPL_NEUTRAL")
        ),
        ReleasePart("joints for spin49", (smpl_files.REGRESSOR_EXTRA,), SPIN),
        ReleasePart("Human3.6M's joints", (smpl_files.REGRESSOR_H36M,), SPIN),
        ReleasePart("mean parameters", (smpl_files.MEAN_PARAMS,), SPIN),
        *(
            ReleasePart(
                f"SMPL, {gender}",
                (f"{name}.{{pkl,npz}}",),
                ARCHIVE.format(gender[0], name),
                without=f"bodies of {gender} actors in evaluation",
            )
            for gender, name in (("male", "SMPL_MALE"), ("female", "SMPL_FEMALE"))
        ),
    )
    mistakes = tuple(
        Mistake(
            f"{folder}basicmodel_<gender>_<version>.pkl",
            "has its name in SMPL's archive",
            "Rename it: see below.",
        )
        for folder in ("", "*/")
    )


BODY: Final = _BodyFiles()


def _options(sub: argparse.ArgumentParser) -> None:
    help_ = "Datasets to check (default: [data] datasets; with --raw: all)"
    sub.add_argument("datasets", nargs="*", metavar="DATASET", help=help_)
    sub.add_argument(
        "--raw", type=PATH, help="Folder that contains <dataset>/ (default: [paths] raw)"
    )
    help_ = "Folder of SMPL's files (default: [paths] body; with --raw: none)"
    sub.add_argument("--body", type=PATH, help=help_)
    json_option(sub)


def _run(args: argparse.Namespace) -> int:
    """Print a table of parts; below it, what to do about missing ones.

    Returns 1 if a part is missing, or an image folder was unpacked in part.

    Raises ConfigError, PipelineError for an unknown dataset, PlugInError for a named one that
    cannot be loaded.
    """
    if unknown := next(filter(None, map(datasets.unknown, args.datasets)), ""):
        raise PipelineError(unknown)
    settings = load(settings_file(), NO_SETTINGS) if args.raw is None else None
    enabled = _all_of(args.raw) if settings is None else settings.data.datasets
    raw = args.raw
    body_folder = args.body
    if settings is not None:
        raw = settings.paths.raw
        body_folder = body_folder or settings.paths.body
    demo = settings is not None and settings.embedded.enabled
    if not demo and not files.is_folder_there(raw):
        option = "--raw" if settings is None else f"{settings.file}, [paths] raw"
        what = "is a file" if files.is_there(raw) else "folder not found"
        raise PipelineError(
            f"{option} {raw}: {what}. Name the folder that contains <dataset>/, or make it: "
            f"mkdir -p {raw}"
        )
    broken = datasets.broken(enabled)
    for text in broken.values():
        err.print(f"{DOUBT} {plain(text)}: skipped")
    readers = [
        args.cfg.dataset(name)
        for name in args.datasets or enabled
        if name not in broken or args.datasets
    ]
    examined = [examine(reader, _own_folder(raw, reader.name)) for reader in readers]
    if demo:
        examined = [
            e.replace_missing(TO_BE_MADE) if e.dataset in datasets.WITH_DEMO_DATA else e
            for e in examined
        ]
    if body_folder is not None:
        body = examine(BODY, body_folder)
        if demo:
            body = body.replace_missing(TO_BE_MADE)
        elif not any(reader.uses_body for reader in readers) and args.body is None:
            body = body.replace_missing(NOT_NEEDED)
        examined.append(body)
    missing = any(e.missing or e.is_in_part for e in examined)
    body_option = [] if args.body is None else ["--body", str(args.body)]
    result = CommandResult(
        {"examined": examined}, [_table(examined)], exit_code=int(missing or bool(broken))
    )
    for e in examined:
        result.text += _problems(e)
    again = [*args.datasets, *(["--raw", str(raw)] if settings is None else []), *body_option]
    if missing:
        result.line("")
        result.line(f"Then check again: {command('doctor', *again)}")
    else:
        result.text += [plain(text) for text in _next(settings, examined, body_option)]
    return result.print(as_json=args.json)


def _own_folder(raw: Path, dataset: str) -> Path:
    """A dataset's raw folder; for clips also `raw` itself, as in `prepare`, if there is no folder
    `videos`.
    """
    own = raw / dataset
    return (
        raw
        if dataset in datasets.OWN_CLIPS and not files.is_folder_there(own) and list_clips(raw)
        else own
    )


def _all_of(raw: Path) -> list[str]:
    """All datasets; own clips, and datasets without demo data, only if their folder exists."""
    official = datasets.RELEASES
    return [
        name for name in datasets.names() if name in official or files.is_folder_there(raw / name)
    ]


def _next(
    settings: Settings | None, examined: Sequence[Examination], body_option: list[str]
) -> Iterator[str]:
    if settings is not None:
        yield from ("", f"Next: {tool('luigi')} --module tasks Data")
        return
    yield from ("", "To prepare it:")
    for e in examined:
        if e.usable:
            body = body_option if datasets.get(e.dataset).uses_body else []
            # a clone's data/cache holds demo data
            root = "data/cache" if e.stand_in else "cache-real"
            yield "  " + command("prepare", e.dataset, "--raw", str(e.raw), *body, "--cache", root)


def _table(examined: Sequence[Examination]) -> Table:
    shown = console.table("dataset", "what", "where")
    for name in ("found", "in release"):
        shown.add_column(name, justify="right")
    shown.add_column("state")
    for e in examined:
        name = e.dataset + (" [yellow](demo data)[/yellow]" if e.stand_in else "")
        for part in e.parts:
            first, *more = part.where or ("",)
            release = "[dim]not known[/dim]" if part.known is None else f"{part.known:,}"
            where = plain(first) + (", ..." if more else "")
            shown.add_row(name, plain(part.what), where, f"{part.found:,}", release, _mark(part))
    return shown


def _mark(part: _PartCount) -> str:
    mark = MARKS.get(part.state, f"[dim]{part.state}[/dim]")
    if part.state == "left out":
        return f"{mark} [dim](needed for {plain(part.without)})[/dim]"
    return (
        f"{mark} [dim]more than the release has[/dim]"
        if part.known and part.found > part.known
        else mark
    )


def _problems(e: Examination) -> Iterator[str]:
    """Problems of one raw folder, and what to do: the page, the archives, the layout."""
    if not (e.missing or e.incomplete or e.mistakes):
        return
    yield from ("", f"[bold]{e.dataset}[/bold] {plain(f'in {e.raw}: {_summary(e)}')}")
    yield from (f"  {DOUBT} {plain(text)}" for text in e.mistakes)
    packed = [file.name.lower() for file in e.packed]
    parts = [part for part in e.parts if part.state != "there"]
    sources = dict.fromkeys(part.source + (" (optional)" if part.without else "") for part in parts)
    absent = [source for source in sources if not any(name in source.lower() for name in packed)]
    for i, source in enumerate(absent):
        yield f"  {'' if i else 'get':<7} {plain(source)}"
    if absent and e.page:
        yield f"  from    {plain(e.page)}"
    rows = [(pattern, part) for part in e.parts for pattern in part.where]
    if e.missing and rows:
        yield f"  layout  {plain(f'{e.raw}/')}"
        width = max(len(pattern) for pattern, _ in rows)
        for pattern, part in rows:
            what = (
                ("" if pattern == part.where[0] else "or ")
                + part.what
                + (" (not needed)" if part.without else "")
            )
            yield f"          {plain(f'{pattern:<{width}}  {what}')}"


def _summary(e: Examination) -> str:
    if e.missing and not any(part.found for part in e.parts):
        return "still packed" if e.packed else "no files found"
    if e.is_in_part and not e.missing:
        return "unpacked in part"
    if e.missing:
        return (
            f"{min(part.state for part in e.missing)}: {', '.join(part.what for part in e.missing)}"
        )
    if e.incomplete:
        counts = [f"{part.found:,} of {part.known:,} {part.what}" for part in e.incomplete]
        return f"{', '.join(counts)}: they can be converted"
    return "complete, with warnings"


# --------------------------------------------------------------------------------------------------
# examination


class _PartCount(NamedTuple):
    """One part of a release, with the number of its files or folders."""

    what: str
    where: tuple[str, ...]  # the part's patterns
    source: str
    without: str
    splits: tuple[str, ...]
    found: int
    known: int | None  # number in the release; None: unknown, or demo data
    # there, incomplete, missing, invalid, left out (missing and optional), TO_BE_MADE or NOT_NEEDED
    state: str

    @classmethod
    def from_part(
        cls, part: ReleasePart, splits: tuple[str, ...], found: int, known: int | None
    ) -> _PartCount:
        state = "incomplete" if known is not None and found < known else "there"
        if not found:
            state = "left out" if part.without else "missing"
        return cls(
            part.what,
            part.patterns,
            part.source,
            part.without,
            part.splits or splits,
            found,
            known,
            state,
        )


@dataclass(frozen=True, slots=True)
class Examination:
    """Contents of one raw folder."""

    dataset: str
    page: str
    raw: Path
    stand_in: bool
    splits: tuple[str, ...]
    parts: tuple[_PartCount, ...]
    mistakes: tuple[str, ...]  # messages: what is wrong, and what to do
    packed: tuple[Path, ...] = ()  # archives
    usable: tuple[str, ...] = ()  # splits with all required parts, complete or not
    is_in_part: bool = False  # image folders lack images

    @property
    def missing(self) -> tuple[_PartCount, ...]:
        """The parts without which a split cannot be converted, also invalid ones."""
        return tuple(part for part in self.parts if part.state in ("missing", "invalid"))

    @property
    def incomplete(self) -> tuple[_PartCount, ...]:
        return tuple(part for part in self.parts if part.state == "incomplete")

    def replace_missing(self, excuse: str) -> Examination:
        """Replace the state of missing parts, which the user need not get."""
        parts = [
            part._replace(state=excuse) if part.state == "missing" else part for part in self.parts
        ]
        return replace(self, parts=tuple(parts))


@line_if_slow("listing the raw files ...")
def examine(dataset: Dataset | _BodyFiles, raw: Path) -> Examination:
    """Examine the raw folder of a dataset, or the body model's folder."""
    splits = dataset.splits
    parts = _choose_layout(raw, dataset.parts)
    unreadable = files.Unreadable()
    stand_in = files.is_there(raw / MARKER)
    counts = list[_PartCount]()
    refused = list[str]()
    for part in parts:
        if isinstance(dataset, Dataset) and part.patterns[0].startswith(KEYPOINTS):
            counts.append(_count_keypoints(dataset, raw, part, refused))
            continue
        found = {
            p: sum(1 for glob in globs([p]) for _ in files.find(raw, glob, unreadable))
            for p in part.patterns
        }
        part = replace(part, patterns=tuple(sorted(found, key=lambda p: -found[p])))
        counts.append(
            _PartCount.from_part(
                part, splits, sum(found.values()), None if stand_in else part.known
            )
        )
    packed = find_archives(raw, parts)
    problems = [
        f"{place} cannot be read: {why}. Change its permissions."
        for place, why in sorted(unreadable.items())
    ]
    absent = [part for part, count in zip(parts, counts, strict=True) if count.state == "missing"]
    misplaced = [*misplaced_parts(raw, absent, OTHER_NAMES.get(dataset.name, ()))]
    if not misplaced and any(not count.without and count.state != "there" for count in counts):
        misplaced = [*packed_parts(raw, packed)]
    problems += [*refused, *misplaced]
    for mistake in dataset.mistakes:
        if paths := [
            path for glob in globs([mistake.pattern]) for path in files.find(raw, glob, {})
        ]:
            problems.append(f"{min(paths)} {mistake.what}. {mistake.do}")
    unused = (
        {split: dataset.unused_labels(raw, split) for split in splits}
        if isinstance(dataset, Dataset)
        else {}
    )
    problems += [f"{split}: {text}" for split, text in unused.items() if text]
    if isinstance(dataset, Dataset) and not parts:
        counts, unlistable = _listed_videos(dataset, raw, stand_in=stand_in)
        problems += unlistable
        if not dataset.page:  # own clips need not be in every split
            counts = [part for part in counts if part.found] or counts
            splits = tuple(split for part in counts for split in part.splits)
    without = {
        split for part in counts if part.state in ("missing", "invalid") for split in part.splits
    }
    usable = tuple(split for split in splits if split not in without)
    in_part = folders_in_part(dataset, raw) if isinstance(dataset, Dataset) else []
    examined = Examination(
        dataset.name, dataset.page, raw, stand_in, splits, tuple(counts), (*in_part, *problems)
    )
    return replace(examined, packed=packed, usable=usable, is_in_part=bool(in_part))


def _choose_layout(raw: Path, parts: Sequence[ReleasePart]) -> Sequence[ReleasePart]:
    """The parts; where another layout's first part of a split exists, those of it that replace
    missing ones.
    """
    first: dict[tuple[str, ...], bool] = {}
    for part in parts:
        if part.instead and part.splits not in first:
            first[part.splits] = files.any_fits(raw, globs(part.instead.patterns))
    missing = {
        part.what
        for part in parts
        if first.get(part.splits) and not files.any_fits(raw, globs(part.patterns))
    }
    return [part.instead if part.instead and part.what in missing else part for part in parts]


def _listed_videos(
    dataset: Dataset, raw: Path, *, stand_in: bool
) -> tuple[list[_PartCount], list[str]]:
    """Videos that the reader lists, for a dataset without declared parts."""
    counts = list[_PartCount]()
    problems = dict[str, None]()
    for split in dataset.splits:
        n = 0
        total = dataset.totals.get(split)
        try:
            videos = dataset.videos(raw, split)
            n = len(videos)
            if dataset.keypoints_from == "detected":
                problems |= dict.fromkeys(_unusual_clips(raw, videos[:OPENED]))
        except RawDataError as error:
            problems[str(error)] = None
        except Exception as error:  # a reader of another package
            do = "Please report this bug of its reader to its authors."
            problems[f"{dataset.name} cannot be examined: {describe_error(error)}. {do}"] = None
        source = "the download" if dataset.page else "your own clips"
        part = ReleasePart(f"videos of {split}", (), source, (split,))
        counts.append(
            _PartCount.from_part(
                part, dataset.splits, n, total.videos if total and not stand_in else None
            )
        )
        refused: list[str] = []
        part = ReleasePart(f"videos of {split} with keypoints", (), source, (split,))
        has_detections = n and dataset.keypoints_from == "detected"
        if has_detections and (labelled := _count_keypoints(dataset, raw, part, refused)).found:
            counts.append(labelled)
            problems |= dict.fromkeys(refused)
    return counts, [*problems]


def _unusual_clips(raw: Path, videos: Sequence[RawVideo]) -> Iterator[str]:
    """What is unusual about clips by their headers and first frames, with an example: conversion
    decodes all.
    """
    clips_of = dict[str, list[str]]()
    for video in videos:
        clip = str(video.files[0]) if video.files else video.name
        if PurePath(clip).suffix.lower() not in EXTENSIONS:
            continue
        try:
            remarks = Video(raw, clip).first_look().remarks()
        except RawDataError as error:
            remarks = [str(error)]
        for remark in remarks:
            clips_of.setdefault(remark, []).append(clip)
    for remark, clips in clips_of.items():
        shown = clips[0]
        if len(clips) > 1:
            shown += f" and {count_of(len(clips) - 1, 'other clip')}"
        yield f"{shown}: {remark}"


def _count_keypoints(
    dataset: Dataset, raw: Path, part: ReleasePart, refused: list[str]
) -> _PartCount:
    """Number of clips with keypoint files; "invalid" if those of the first SAMPLED clips all are.

    Messages about invalid ones are added to `refused`.
    """
    try:
        videos = (
            dataset.videos(raw, part.splits[0]) if files.is_folder_there(raw / KEYPOINTS) else []
        )
    except RawDataError:  # there is no clip either
        videos = []
    labelled = [(video, labels) for video in videos if (labels := labels_of(raw, video))]
    errors = list[str]()
    n = min(SAMPLED, len(labelled))
    for video, labels in labelled[:n]:
        clip = PurePath(video.files[0] if video.files else video.name)
        try:
            read_detections(labels, clip.stem, Video(raw, clip.as_posix()).sizes)
        except RawDataError as error:
            errors.append(f"{error} (of the first {n} of {len(labelled)} clips with keypoints)")
    refused += errors
    counted = _PartCount.from_part(part, dataset.splits, len(labelled), None)
    return counted._replace(state="invalid") if labelled and len(errors) == n else counted


COMMAND: Final = Command(
    _options, _run, reads=lambda a: a.raw and (*SHARED, *(a.datasets or datasets.names()))
)
