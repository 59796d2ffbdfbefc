"""`python -m pipeline doctor`: what is there of each download, what is missing, what to do.  [raw] -> tracks

By the names of files and folders alone, from the parts and the known mistakes that each dataset declares
(`pipeline.datasets.base`): seconds on a full download. Three checks are the same for all datasets: missing, still
packed, one folder off.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

from rich.table import Table

from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.console import DONE, DOUBT, err, plain
from pipeline.cli.options import json_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import command
from pipeline.datasets.base import Dataset, Mistake, ReleasePart, globs, unexpected
from pipeline.demo import demo_data, has_demo_data
from pipeline.detect.clips import clips_in
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats import smpl_files
from pipeline.files.raw import listing
from pipeline.files.raw.stand_in import MARKER
from pipeline.settings.commands import dataset_of
from pipeline.settings.file import settings_file
from pipeline.settings.sections import Settings, load

NO_SETTINGS: Final = "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: --raw DIR."
TO_BE_MADE, NOT_NEEDED = "will be made", "not needed yet"  # states of what is missing, and need not be got
MARKS: Final = {
    "there": DONE,
    "incomplete": "[yellow]incomplete[/yellow]",
    "missing": "[red]missing[/red]",
    "left out": "[dim]left out[/dim]",
}
BODY: Final = "body"  # the name under which the body model's files are examined
BODY_PAGE: Final = "https://smpl.is.tue.mpg.de"
SPIN: Final = "data of SPIN, by fetch_data.sh of github.com/nkolot/SPIN"
ARCHIVE: Final = "SMPL_python_v.1.1.0.zip: smpl/models/basicmodel_{}_lbs_10_207_0_v1.1.0.pkl, renamed to {}.pkl"
WITHOUT: Final = "bodies of {} actors in evaluation"
BODY_PARTS: Final = (
    ReleasePart("SMPL, neutral", ("SMPL_NEUTRAL.{pkl,npz}",), ARCHIVE.format("neutral", "SMPL_NEUTRAL")),
    ReleasePart("joints for spin49", (smpl_files.REGRESSOR_EXTRA,), SPIN),
    ReleasePart("Human3.6M's joints", (smpl_files.REGRESSOR_H36M,), SPIN),
    ReleasePart("mean parameters", (smpl_files.MEAN_PARAMS,), SPIN),
    *(
        ReleasePart(
            f"SMPL, {gender}", (f"{name}.{{pkl,npz}}",), ARCHIVE.format(gender[0], name), without=WITHOUT.format(gender)
        )
        for gender, name in (("male", "SMPL_MALE"), ("female", "SMPL_FEMALE"))
    ),
)
BODY_MISTAKES: Final = tuple(
    Mistake(f"{folder}basicmodel_<gender>_<version>.pkl", "has its name in SMPL's archive", "Rename it: see below.")
    for folder in ("", "*/")
)


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="only these; default: all of luigi.cfg, or all with --raw"
    )
    sub.add_argument("--raw", type=Path, help="the folder that holds <dataset>/; default: [paths] raw of luigi.cfg")
    sub.add_argument(
        "--body", type=Path, help="the folder of SMPL's files; default: [paths] body, unless --raw is given"
    )
    json_option(sub)


def reads(args: argparse.Namespace) -> list[str] | None:
    """With --raw the datasets' sections, else all of luigi.cfg."""
    return None if args.raw is None else list(args.datasets or datasets.names())


def run(args: argparse.Namespace) -> int:
    """A table of parts; below it, what to do about those that are missing.

    Raises PipelineError for an unknown dataset, PlugInError for one that is named and cannot be loaded, ConfigError.
    """
    if unknown := next(filter(None, map(datasets.unknown, args.datasets)), ""):
        raise PipelineError(unknown)
    settings = load(settings_file(), NO_SETTINGS) if args.raw is None else None
    enabled = _all_of(args.raw) if settings is None else settings.data.datasets
    raw, body_folder = args.raw, args.body
    if settings is not None:
        raw, body_folder = settings.paths.raw, body_folder or settings.paths.body
    demo = settings is not None and settings.embedded.enabled
    if not demo and not listing.is_folder_there(raw):
        option = "--raw" if settings is None else f"{settings.file}, [paths] raw"
        what = "is a file" if listing.is_there(raw) else "there is no such folder (a typo?)"
        raise PipelineError(f"{option} {raw}: {what}. Name the folder that holds <dataset>/, or make it: mkdir -p")
    broken = datasets.broken(enabled)
    for text in broken.values():
        err.print(f"{DOUBT} {plain(text)}: left out")
    readers = [dataset_of(args, name) for name in args.datasets or enabled if name not in broken or args.datasets]
    examined = [examine(reader, _own_folder(raw, reader.name)) for reader in readers]
    if demo:
        examined = [e.excused(TO_BE_MADE) if has_demo_data(e.dataset) else e for e in examined]
    if body_folder is not None:
        body = examine_body(body_folder)
        if demo:
            body = body.excused(TO_BE_MADE)
        elif not any(reader.uses_body for reader in readers) and args.body is None:
            body = body.excused(NOT_NEEDED)
        examined.append(body)
    missing = any(e.missing for e in examined)
    result = CommandResult({"examined": examined}, [_table(examined)], exit_code=int(missing or bool(broken)))
    for e in examined:
        result.text += _problems(e)
    again = [*args.datasets, *(["--raw", str(raw)] if settings is None else [])]
    if missing:
        result.line("")
        result.line(f"When that is done: {command('doctor', *again, *_body_option(args))}")
    else:
        result.text += [plain(text) for text in _next(args, settings, examined)]
    return print_result(result, as_json=args.json)


def _own_folder(raw: Path, dataset: str) -> Path:
    """A dataset's own raw folder; of clips also `raw` itself, as `prepare` takes it, if there is no folder `videos`."""
    own = raw / dataset
    return raw if dataset in datasets.OWN_CLIPS and not listing.is_folder_there(own) and clips_in(raw) else own


def _all_of(raw: Path) -> list[str]:
    """All datasets; own clips, and those without demo data, only where they are there: else nothing is missing."""
    official = {*demo_data().datasets} - {*datasets.OWN_CLIPS}
    return [name for name in datasets.names() if name in official or listing.is_folder_there(raw / name)]


def _body_option(args: argparse.Namespace) -> list[str]:
    return [] if args.body is None else ["--body", str(args.body)]


def _next(args: argparse.Namespace, settings: Settings | None, examined: Sequence[Examination]) -> Iterator[str]:
    """The commands that convert what is there."""
    if settings is not None:
        yield from ("", "Next, unless `plan` shows that all is up to date: make data")
        return
    yield from ("", "To convert it:")
    for e in examined:
        for split in e.usable:
            body = _body_option(args) if datasets.get(e.dataset).uses_body else []
            yield "  " + command("convert", e.dataset, split, "--raw", str(e.raw), *body, "--cache", "data/cache")


def _table(examined: Sequence[Examination]) -> Table:
    """One row per part."""
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


def _mark(part: PartCount) -> str:
    mark = MARKS.get(part.state, f"[dim]{part.state}[/dim]")
    if part.state == "left out":
        return f"{mark} [dim](lost without it: {plain(part.without)})[/dim]"
    return f"{mark} [dim]more than the release has[/dim]" if part.known and part.found > part.known else mark


def _problems(e: Examination) -> Iterator[str]:
    """What is wrong with one raw folder, and what to do: the page, the archives, the layout."""
    if not (e.missing or e.incomplete or e.mistakes):
        return
    yield from ("", f"[bold]{e.dataset}[/bold] {plain(f'in {e.raw}: {_summary(e)}')}")
    yield from (f"  {DOUBT} {plain(text)}" for text in e.mistakes)
    packed = [file.name.lower() for file in e.packed]
    parts = [part for part in e.parts if part.state != "there"]
    sources = dict.fromkeys(part.source + " (optional)" * bool(part.without) for part in parts)
    absent = [source for source in sources if not any(name in source.lower() for name in packed)]
    for i, source in enumerate(absent):
        yield f"  {'' if i else 'get':<7} {plain(source)}"
    if absent and e.page:
        yield f"  from    {plain(e.page)}"
    rows = [(pattern, part) for part in e.parts for pattern in part.where]
    if e.missing and rows:
        yield f"  so that {plain(f'{e.raw}/')} holds"
        width = max(len(pattern) for pattern, _ in rows)
        for pattern, part in rows:
            what = ("" if pattern == part.where[0] else "or ") + part.what + (" (not needed)" * bool(part.without))
            yield f"          {plain(f'{pattern:<{width}}  {what}')}"


def _summary(e: Examination) -> str:
    """How far a raw folder is from what it should be, in a few words."""
    if e.missing and not any(part.found for part in e.parts):
        return "still packed" if e.packed else "nothing was found"
    if e.missing:
        return f"missing: {', '.join(part.what for part in e.missing)}"
    if e.incomplete:
        counts = [f"{part.found:,} of {part.known:,} {part.what}" for part in e.incomplete]
        return f"{', '.join(counts)}: these can be converted"
    return "complete, but see below"


# ----------------------------------------------------------------------------------------------------- examination


class PartCount(NamedTuple):
    """One part of a release, and how many of its files or folders are there."""

    what: str
    where: tuple[str, ...]  # the part's patterns
    source: str
    without: str
    splits: tuple[str, ...]
    found: int
    known: int | None  # how many the release has; None: not known, or demo data, which are no release
    state: str  # there, incomplete, missing, left out (missing and not needed), or an excuse for what is missing

    @classmethod
    def of(cls, part: ReleasePart, splits: tuple[str, ...], found: int, known: int | None) -> PartCount:
        """With its state."""
        state = "incomplete" if known is not None and found < known else "there"
        if not found:
            state = "left out" if part.without else "missing"
        return cls(part.what, part.patterns, part.source, part.without, part.splits or splits, found, known, state)


@dataclass(frozen=True, slots=True)
class Examination:
    """What is there in one raw folder."""

    dataset: str
    page: str
    raw: Path
    stand_in: bool
    splits: tuple[str, ...]
    parts: tuple[PartCount, ...]
    mistakes: tuple[str, ...]  # what is wrong, and what to do
    packed: tuple[Path, ...] = ()  # archives, which may hold what is missing
    usable: tuple[str, ...] = ()  # the splits of which every needed part is there, complete or not

    @property
    def missing(self) -> tuple[PartCount, ...]:
        """The parts without which a split cannot be converted."""
        return tuple(part for part in self.parts if part.state == "missing")

    @property
    def incomplete(self) -> tuple[PartCount, ...]:
        """The parts of which there are fewer files than in the release."""
        return tuple(part for part in self.parts if part.state == "incomplete")

    def excused(self, excuse: str) -> Examination:
        """The same, where the user need not get what is missing: that is its state then."""
        parts = [part._replace(state=excuse) if part.state == "missing" else part for part in self.parts]
        return replace(self, parts=tuple(parts))


def examine(dataset: Dataset, raw: Path) -> Examination:
    """Examine a dataset's own raw folder. Raises for nothing that is or is not in it."""
    return _examine(dataset.name, dataset.page, raw, dataset.splits, dataset.parts, dataset.mistakes, dataset)


def examine_body(folder: Path) -> Examination:
    """Examine the body model's folder."""
    return _examine(BODY, BODY_PAGE, folder, (), BODY_PARTS, BODY_MISTAKES)


def _examine(
    name: str,
    page: str,
    raw: Path,
    splits: tuple[str, ...],
    parts: Sequence[ReleasePart],
    mistakes: Sequence[Mistake],
    reader: Dataset | None = None,
) -> Examination:
    unreadable: listing.Unreadable = {}
    stand_in, counts = listing.is_there(raw / MARKER), list[PartCount]()
    for part in parts:
        n = sum(1 for glob in globs(part.patterns) for _ in listing.find(raw, glob, unreadable))
        counts.append(PartCount.of(part, splits, n, None if stand_in else part.known))
    packed = _packed(raw, parts)
    problems = [
        f"{place} cannot be read: {why}. Get the permission to read it." for place, why in sorted(unreadable.items())
    ]
    problems += _misplaced(raw, parts, counts, packed)
    for mistake in mistakes:
        if paths := [path for glob in globs([mistake.pattern]) for path in listing.find(raw, glob, {})]:
            problems.append(f"{min(paths)} {mistake.what}. {mistake.do}")
    if reader is not None and not parts:
        counts, unlistable = _listed_videos(reader, raw, stand_in=stand_in)
        problems += unlistable
        if not page:  # one's own clips need not be in every split
            counts = [part for part in counts if part.found] or counts
            splits = tuple(split for part in counts for split in part.splits)
    without = {split for part in counts if part.state == "missing" for split in part.splits}
    usable = tuple(split for split in splits if split not in without)
    return Examination(name, page, raw, stand_in, splits, tuple(counts), tuple(problems), packed, usable)


def _listed_videos(dataset: Dataset, raw: Path, *, stand_in: bool) -> tuple[list[PartCount], list[str]]:
    """The videos that the reader lists, of a dataset that declares no parts."""
    counts, problems = list[PartCount](), dict[str, None]()
    for split in dataset.splits:
        n, total = 0, dataset.totals.get(split)
        try:
            n = len(dataset.videos(raw, split))
        except RawDataError as error:
            problems[str(error)] = None
        except Exception as error:  # a reader from another package may fail in any way
            do = "A defect of its reader: please report it to its authors."
            problems[f"{dataset.name} cannot be examined: {unexpected(error)}. {do}"] = None
        source = "the download" if dataset.page else "your own clips"
        known = None if stand_in or total is None else total.videos
        counts.append(PartCount.of(ReleasePart(f"videos of {split}", (), source, (split,)), dataset.splits, n, known))
    return counts, [*problems]


def _misplaced(
    raw: Path, parts: Sequence[ReleasePart], counts: Sequence[PartCount], packed: Sequence[Path]
) -> Iterator[str]:
    """What is one folder off; else what is still packed."""
    absent = [part for part, count in zip(parts, counts, strict=True) if count.state == "missing"]
    if absent and (elsewhere := _elsewhere(raw, absent)) is not None:
        do = f"Move what is in {elsewhere}, so that it is in {raw}."
        if elsewhere == raw.parent:
            own = elsewhere.resolve()
            renamed = "" if own.name == raw.name else f", with {own.name}/ renamed to {raw.name}"
            do = f"Name the folder above: --raw {own.parent}{renamed}."
        yield f"{' and '.join(part.what for part in absent)}: one folder off, in {elsewhere}. {do}"
    elif any(not count.without and count.state != "there" for count in counts):
        for folder in dict.fromkeys(archive.parent for archive in packed):
            first, *more = [archive for archive in packed if archive.parent == folder]
            which = f"{first} and {len(more)} more are" if more else f"{first} is"
            yield f"{which} still packed. Unpack in {raw}."


def _elsewhere(raw: Path, parts: Sequence[ReleasePart]) -> Path | None:
    """The folder that holds `parts` instead of `raw`: below it, above it, or next to it in other capitals."""
    patterns = [glob for part in parts for glob in globs(part.patterns)]
    if listing.is_folder_there(raw):
        return listing.deeper(raw, patterns)
    same = [folder for folder in listing.folders_in(raw.parent) if _letters(folder.name) == _letters(raw.name)]
    return next((folder for folder in (raw.parent, *same) if listing.any_fits(folder, patterns)), None)


def _letters(name: str) -> str:
    """A name without capitals and signs.

    >>> _letters("Penn_Action"), _letters("3DPW")
    ('pennaction', '3dpw')
    """
    return "".join(char for char in name.lower() if char.isalnum())


def _packed(raw: Path, parts: Sequence[ReleasePart]) -> tuple[Path, ...]:
    """Archives in the raw folder; where there is none, next to its place, under the names that the parts give."""
    if listing.is_folder_there(raw):
        return tuple(listing.packed(raw))
    named = [part.source.lower() for part in parts]
    return tuple(file for file in listing.packed(raw.parent) if any(file.name.lower() in source for source in named))
