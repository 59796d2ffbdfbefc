"""`python -m pipeline doctor`: what is there of each download, what is missing, what to do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.console import DONE, DOUBT, err, plain
from pipeline.cli.options import json_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import command
from pipeline.commands.maintenance.examine import Examination, PartCount, examine, examine_body
from pipeline.commands.settings.commands import dataset_of
from pipeline.commands.settings.file import settings_file
from pipeline.commands.settings.sections import Settings, load
from pipeline.errors import PipelineError
from pipeline.files.raw import listing

NO_SETTINGS: Final = "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the folder of the data: --raw DIR."
TO_BE_MADE, NOT_NEEDED = "will be made", "not needed yet"  # states of what is missing, and need not be got
MARKS: Final = {
    "there": DONE,
    "incomplete": "[yellow]incomplete[/yellow]",
    "missing": "[red]missing[/red]",
    "left out": "[dim]left out[/dim]",
}


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
    examined = [examine(reader, raw / reader.name) for reader in readers]
    if demo:
        examined = [e.excused(TO_BE_MADE) if datasets.has_demo_data(e.dataset) else e for e in examined]
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


def _all_of(raw: Path) -> list[str]:
    """All datasets; own clips, and those without demo data, only where they are there: else nothing is missing."""
    own = {*datasets.OWN_CLIPS, *datasets.WITHOUT_DEMO}
    return [name for name in datasets.names() if name not in own or listing.is_folder_there(raw / name)]


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
    for problem in e.mistakes:
        yield f"  {DOUBT} {plain(f'{problem.what}. {problem.do}'.rstrip(' .') + '.')}"
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
