"""`python -m pipeline doctor`: check the downloads, and say what is missing.  [raw] -> tracks

An examination (`pipeline.datasets.releases.examination`) counts the files of one dataset's raw
folder by the parts of its release.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from rich.table import Table

import cache
from cache import CacheError
from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.command_line import Command
from pipeline.cli.console import DONE, DOUBT, WRONG, CommandResult, plain, print_result
from pipeline.cli.text import command, tool
from pipeline.clips.listing import list_clips
from pipeline.datasets.base import Dataset
from pipeline.datasets.releases.examination import (
    BODY,
    SMPLX,
    Examination,
    PartCount,
    PartState,
    examine,
)
from pipeline.datasets.shared.contradictions import contradiction_lines
from pipeline.errors import PipelineError
from pipeline.files.raw import files
from pipeline.people.boxes import require_opencv
from pipeline.processes.software import require_torchvision
from pipeline.settings.arguments import warn_of_broken
from pipeline.settings.file import settings_file
from pipeline.settings.sections import Settings, load
from pipeline.steps.split_status import Committed

_NO_SETTINGS: Final = (
    "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: "
    "--raw DIR."
)
_COLOURS: Final = {
    PartState.INCOMPLETE: "yellow",
    PartState.MISSING: "red",
    PartState.INVALID: "red",
}


class _DownloadPlace(NamedTuple):
    """Where a part of a release is expected."""

    pattern: str  # below the raw folder
    content: str


def _run(args: argparse.Namespace) -> int:
    """Print a table of parts; below it, what to do about missing ones.

    Returns 1 if a part is missing, or an image folder was unpacked in part.

    Raises ConfigError, also for libraries that do not fit; PipelineError for an unknown dataset,
    PlugInError for a named one that cannot be loaded.
    """
    require_opencv()
    require_torchvision()
    for name in args.datasets:
        if not datasets.is_known(name):
            raise datasets.unknown(name)
    settings = None if args.raw is not None else load(settings_file(), _NO_SETTINGS)
    raw = args.raw if settings is None else settings.paths.raw
    if settings is None or not settings.embedded.enabled:  # else demo data will be made there
        _require_folder(raw, settings)
    is_there = {name: files.is_folder_there(raw / name) for name in datasets.names()}
    enabled = [name for name in is_there if name in datasets.RELEASES or is_there[name]]
    if settings is not None:
        enabled = [*settings.data.datasets]
    broken = warn_of_broken(enabled)
    names = args.datasets or [name for name in enabled if name not in broken]
    readers = [args.cfg.dataset(name) for name in names]
    examined = _examine_all(readers, raw, args.body, settings)

    result = CommandResult({"examined": examined}, [_table(examined)])
    for examination in examined:
        result.text += _problems(examination)
    if settings is not None:
        result.add_lines(_contradictions(settings.paths.cache, names), DOUBT)
    is_missing = any(examination.missing or examination.is_in_part for examination in examined)
    result.exit_code = int(bool(is_missing or broken))
    if is_missing:
        result.add_lines(_check_again(args))
    elif settings is None:
        result.add_lines(_prepare_commands(args, examined))
    else:
        result.add_lines(("", f"Next: {tool('luigi')} --module tasks Data"))
    return print_result(result, as_json=args.json)


def _examine_all(
    readers: Sequence[Dataset], raw: Path, body: Path | None, settings: Settings | None
) -> list[Examination]:
    """Examine the raw folders of datasets, and the body model's folder if there is one.

    body: of the option --body. settings: luigi.cfg; None: with --raw, it is not read.
    """
    demo = settings is not None and settings.embedded.enabled
    examined = list[Examination]()
    for reader in readers:
        examination = examine(reader, _own_folder(raw, reader.name))
        if demo and reader.name in datasets.WITH_DEMO_DATA:
            examination = examination.replace_missing(PartState.TO_BE_MADE)
        examined.append(examination)
    folder = body
    if folder is None and settings is not None:
        folder = settings.paths.body
    if folder is not None:
        models = {reader.labels.body_model for reader in readers if reader.labels.uses_body}
        of_body = examine(BODY, folder)
        if demo:
            of_body = of_body.replace_missing(PartState.TO_BE_MADE)
        elif "smpl" not in models and (body is None or models):
            of_body = of_body.replace_missing(PartState.NOT_NEEDED)
        examined.append(of_body)
        if "smplx" in models:
            of_smplx = examine(SMPLX, folder)
            examined.append(of_smplx.replace_missing(PartState.TO_BE_MADE) if demo else of_smplx)
    return examined


def _require_folder(raw: Path, settings: Settings | None) -> None:
    """Raise PipelineError for a missing folder; the message names the option or the setting."""
    if files.is_folder_there(raw):
        return
    option = "--raw"
    if settings is not None:
        option = f"{settings.file}, [paths] raw"
    problem = "is a file" if files.is_there(raw) else "folder not found"
    raise PipelineError(
        f"{option} {raw}: {problem}. Name the folder that contains <dataset>/, or make it: "
        f"mkdir -p {raw}"
    )


def _own_folder(raw: Path, dataset: str) -> Path:
    """A dataset's raw folder, `raw`/<dataset>.

    For the user's clips, it is `raw` itself (as in `prepare`) if that has clips, but no folder
    `videos`.
    """
    folder = raw / dataset
    may_be_raw = dataset in datasets.OWN_CLIPS and not files.is_folder_there(folder)
    if may_be_raw and list_clips(raw):
        return raw
    return folder


def _table(examined: Sequence[Examination]) -> Table:
    """One line for each part of each release."""
    shown = console.new_table("dataset", "what", "where")
    for name in ("found", "official"):
        shown.add_column(name, justify="right")
    shown.add_column("state")
    for examination in examined:
        name = examination.dataset
        if examination.stand_in:
            name += " [yellow](demo data)[/yellow]"
        for part in examination.parts:
            release = "[dim]not known[/dim]"
            if part.known is not None:
                release = f"{part.known:,}"
            where = plain("".join(part.where[:1]))
            if len(part.where) > 1:
                where += ", ..."
            shown.add_row(name, plain(part.what), where, f"{part.found:,}", release, _mark(part))
    return shown


def _mark(part: PartCount) -> str:
    """The cell with a part's state."""
    if part.state is PartState.THERE:
        mark = DONE
    else:
        colour = _COLOURS.get(part.state, "dim")
        mark = f"[{colour}]{part.state}[/{colour}]"
    if part.state is PartState.LEFT_OUT:
        return f"{mark} [dim](needed for {plain(part.without)})[/dim]"
    if part.known and part.found > part.known:
        return f"{mark} [dim]more than the official download has[/dim]"
    return mark


def _problems(examination: Examination) -> Iterator[str]:
    """Lines on the problems of one raw folder, and what to do: page, archives, expected layout."""
    if not (examination.missing or examination.incomplete or examination.mistakes):
        return
    yield ""
    summary = plain(f"in {examination.raw}: {_summary(examination)}")
    heading = f"[bold]{examination.dataset}[/bold] {summary}"
    yield f"{WRONG} {heading}" if examination.missing or examination.is_in_part else heading
    yield from (f"  {DOUBT} {plain(text)}" for text in examination.mistakes)
    sources = _sources(examination)
    verb = "get"
    for source in sources:
        yield f"  {verb:<7} {plain(source)}"
        verb = ""
    if sources and examination.page:
        yield f"  from    {plain(examination.page)}"
    if examination.missing:
        yield from _layout(examination)


def _contradictions(root: cache.Root, names: Collection[str]) -> Iterator[str]:
    """Lines on labels of these datasets in the cache that contradict each other."""
    with suppress(CacheError, OSError):  # no cache yet, or a damaged one: `status` says so
        opened = cache.open(root)
        for split in opened.splits:
            if split.partition("/")[0] in names:
                lines = contradiction_lines(Committed.from_split(opened[split]).accounts)
                yield from (f"{split}: {line}" for line in lines)


def _sources(examination: Examination) -> list[str]:
    """Archives to download: sources of parts that are missing and not in an archive here."""
    packed = [file.name.lower() for file in examination.packed]
    absent = dict[str, None]()
    for part in examination.parts:
        source = part.source
        is_packed = any(name in source.lower() for name in packed)
        if part.state is PartState.THERE or is_packed:
            continue
        if part.without and source not in absent:
            source += " (optional)"
        absent[source] = None
    return [*absent]


def _layout(examination: Examination) -> Iterator[str]:
    """Lines with the expected paths of all parts below the raw folder."""
    places = list[_DownloadPlace]()
    for part in examination.parts:
        content = part.what
        if part.without:
            content += " (optional)"
        for pattern in part.where:
            places.append(_DownloadPlace(pattern, content))
            # the part's other patterns are alternatives
            if not content.startswith("or "):
                content = f"or {content}"
    if not places:
        return
    width = max(len(place.pattern) for place in places)
    yield f"  layout  {plain(f'{examination.raw}/')}"
    for place in places:
        yield f"          {plain(f'{place.pattern:<{width}}  {place.content}')}"


def _summary(examination: Examination) -> str:
    """What is wrong with a raw folder, in a few words."""
    if examination.missing and not any(part.found for part in examination.parts):
        return "still packed" if examination.packed else "no files found"
    if examination.is_in_part and not examination.missing:
        return "unpacked in part"
    if examination.missing:
        state = min(part.state for part in examination.missing)
        return f"{state}: {', '.join(part.what for part in examination.missing)}"
    if examination.incomplete:
        counts = [
            f"{part.found:,} of {part.known:,} {part.what}" for part in examination.incomplete
        ]
        return f"{', '.join(counts)}: they can be converted"
    return "complete, with warnings"


# --------------------------------------------------------------------------------------------------
# what to do next


def _check_again(args: argparse.Namespace) -> Iterator[str]:
    """Yield lines with the command that checks again."""
    words = [*args.datasets]
    if args.raw is not None:
        words += ["--raw", str(args.raw)]
    yield ""
    yield f"Then check again: {command('doctor', *words, *_body_option(args))}"


def _prepare_commands(args: argparse.Namespace, examined: Sequence[Examination]) -> Iterator[str]:
    """Yield lines with the commands that prepare what was examined."""
    yield from ("", "To prepare it:")
    for examination in examined:
        if not examination.usable:
            continue
        # demo data and real data need different caches; in a clone, demo/cache is the demo's
        root = "demo/cache" if examination.stand_in else "cache-real"
        options = ["--raw", str(examination.raw)]
        if datasets.get(examination.dataset).labels.uses_body:
            options += _body_option(args)
        yield "  " + command("prepare", examination.dataset, *options, "--cache", root)


def _body_option(args: argparse.Namespace) -> list[str]:
    return [] if args.body is None else ["--body", str(args.body)]


def _reads(args: argparse.Namespace) -> Sequence[str] | None:
    """Without --raw, the whole file is read; with it, only options of datasets."""
    if args.raw is None:
        return None
    return args.datasets or datasets.names()


COMMAND: Final = Command(_run, reads=_reads)
