"""`python -m pipeline doctor`: what of each download is there, what is missing, what to do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from pipeline import datasets, doctor, synthetic
from pipeline.commands.console import command, out, plain
from pipeline.doctor import Examination, Found
from pipeline.errors import PipelineError
from pipeline.places import read_places, settings_file

HELP: Final = "Look at the raw folders: what is there, what is missing, what to do. Exit 1 when something is missing."
FORMS: Final = 2  # of those in which a part may lie, so many are shown
MARKS: Final = {
    "there": "[green]✓[/green]",
    "incomplete": "[yellow]incomplete[/yellow]",
    "missing": "[red]missing[/red]",
    "left out": "[dim]left out[/dim]",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be looked at, and where."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path | None
    cache: Path
    datasets: tuple[str, ...]
    made: frozenset[str]  # of these, stand-ins will be made where there is nothing
    by_make: bool  # luigi.cfg leads there, so `make data` does the rest


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("datasets", nargs="*", metavar="DATASET", help="only these; else all that luigi.cfg enables")
    sub.add_argument("--raw", type=Path, help="the folder that holds <dataset>/; else [paths] raw of luigi.cfg")
    sub.add_argument("--body", type=Path, help="the folder of SMPL's files; else [paths] body, unless --raw is given")
    sub.add_argument("--json", action="store_true", help="for a machine to read")


def run(args: argparse.Namespace) -> int:
    """A table of parts; below it, what to do about those that are not there."""
    scope = scope_of(args.datasets, args.raw, args.body)
    examined = [doctor.examine(datasets.get(name), scope.raw / name) for name in scope.datasets]
    body = None if scope.body is None else doctor.examine_body(scope.body)
    mixtures = list(doctor.mixtures(examined, body))
    lacking = [e for e in examined if e.missing and e.dataset not in scope.made]
    if body is not None and body.missing and not scope.made and any(e.uses_body for e in examined):
        lacking.append(body)
    if args.json:
        told = [e.as_dict() for e in (*examined, *([body] if body else []))]
        out.out(json.dumps({"examined": told, "mixtures": [m._asdict() for m in mixtures]}, indent=2))
        return 1 if lacking or mixtures else 0
    shown = [*examined, *([body] if body is not None else [])]
    out.print(table(shown))
    for e in shown:
        tell(e, made=e.dataset in scope.made or (e is body and bool(scope.made)))
    for mixture in mixtures:
        out.print(f"\n[red]✗[/red] {plain(f'{mixture.what}. {mixture.do}')}")
    for line in next_steps(scope, examined, [e.dataset for e in lacking]):
        out.print(plain(line))
    return 1 if lacking or mixtures else 0


def scope_of(names: Sequence[str], raw: Path | None, body: Path | None) -> Scope:
    """What the options and luigi.cfg say together. Raises PipelineError for an unknown dataset, ConfigError."""
    known = datasets.names()
    if unknown := sorted(set(names) - set(known)):
        raise PipelineError(f"no dataset is called {unknown[0]!r}; known: {', '.join(known)}")
    if raw is not None:
        return Scope(raw, body, Path("data/cache"), tuple(names) or known, frozenset(), by_make=False)
    places = read_places(settings_file())
    chosen = tuple(names) or places.datasets
    made = frozenset(chosen) & frozenset(synthetic.LAYOUTS) if places.embedded else frozenset[str]()
    by_make = set(chosen) <= set(places.datasets)
    return Scope(places.raw, body or places.body, places.cache, chosen, made, by_make=by_make)


def table(examined: Sequence[Examination]) -> Table:
    """A row a part."""
    shown = Table("dataset", "what", "where", box=None, pad_edge=False, header_style="bold")
    for name in ("found", "of"):
        shown.add_column(name, justify="right")
    shown.add_column("")
    for e in examined:
        for i, found in enumerate(e.parts):
            stands_in = " [yellow](stand-in)[/yellow]" if e.stand_in else ""
            of = "" if found.known is None else f"{found.known:,}"
            shown.add_row(
                e.dataset + stands_in if i == 0 else "",
                plain(found.part.what),
                plain(where(found)),
                f"{found.found:,}",
                of,
                MARKS[found.state] + (f" [dim]{plain(found.part.without)}[/dim]" if found.state == "left out" else ""),
            )
    return shown


def where(found: Found) -> str:
    """The first pattern that it may lie under, and that there are others."""
    forms = by_extension(found.part.patterns)
    return forms[0] + (", ..." if len(forms) > 1 else "") if forms else ""


def tell(e: Examination, *, made: bool) -> None:
    """What is wrong with one raw folder, and how to mend it: the page, the archives, the layout."""
    if made and e.missing:
        out.print(f"\n[bold]{e.dataset}[/bold]: nothing of it in {plain(str(e.raw))} yet; `make data` makes a stand-in")
        return
    if not (e.missing or e.incomplete or e.mistakes):
        return
    out.print(f"\n[bold]{e.dataset}[/bold] {plain(f'in {e.raw}: {summary(e)}')}")
    for mistake in e.mistakes:
        out.print(f"  [yellow]![/yellow] {plain(f'{mistake.what}. {mistake.do}'.rstrip(' .') + '.')}")
    sources = dict.fromkeys(found.part.source for found in (*e.missing, *e.incomplete))
    for i, source in enumerate(sources):
        out.print(f"  {'get' if i == 0 else '':<7} {plain(source)}")
    if sources:
        out.print(f"  from    {plain(e.page)}")
    if e.missing:
        out.print(f"  so that {plain(f'{e.raw}/')} holds")
        for line in layout(e):
            out.print(f"          {plain(line)}")


def summary(e: Examination) -> str:
    """How far a raw folder is from what it should be, in a few words."""
    if e.missing and not any(found.found for found in e.parts):
        return "nothing of it is there yet"
    if e.missing:
        return f"not all there: {', '.join(found.part.what for found in e.missing)}"
    if e.incomplete:
        told = [f"{f.found:,} of {f.known:,} {f.part.what}" for f in e.incomplete]
        return f"{', '.join(told)}: what is there can be converted"
    return "all there, but look at this"


def layout(e: Examination) -> list[str]:
    """How everything must lie once it is unpacked, one line a form that it may have."""
    rows = [
        (pattern, f"{'or ' if i else ''}{found.part.what}" + (" (not needed)" if found.part.without else ""))
        for found in e.parts
        for i, pattern in enumerate(by_extension(found.part.patterns)[:FORMS])
    ]
    width = max((len(pattern) for pattern, _ in rows), default=0)
    return [f"{pattern:<{width}}  {what}" for pattern, what in rows]


def by_extension(patterns: Sequence[str]) -> list[str]:
    """Patterns that differ in their extension alone, as one.

    >>> by_extension(("train/*.mp4", "train/*.avi", "labels/*/"))
    ['train/*.{mp4,avi}', 'labels/*/']
    """
    forms: dict[str, list[str]] = {}
    for pattern in patterns:
        before, dot, after = pattern.rpartition(".")
        whole = not dot or "/" in after
        forms.setdefault(pattern if whole else before + dot, []).append("" if whole else after)
    return [f"{head}{{{','.join(ends)}}}" if len(ends) > 1 else head + ends[0] for head, ends in forms.items()]


def next_steps(scope: Scope, examined: Sequence[Examination], lacking: Sequence[str]) -> Iterator[str]:
    """The command that comes next, ready to be run."""
    yield ""
    where = [] if scope.by_make else ["--raw", str(scope.raw)]
    if where and scope.body is not None:
        where += ["--body", str(scope.body)]
    if lacking:
        names = [name for name in lacking if name != doctor.BODY]
        again = command("doctor", *names, *where)
        yield f"When that is done: {again}"
    if scope.by_make:
        if not lacking:
            yield "Next: make data"
        elif len(lacking) < len(examined):
            yield "Or take out of [data] datasets what you do not have, and: make data"
        return
    ready = [(e, split) for e in examined for split in e.usable]
    if ready:
        yield "To convert what is there:"
    for e, split in ready:
        body = ["--body", str(scope.body)] if e.uses_body and scope.body is not None else []
        yield "  " + command("convert", e.dataset, split, "--raw", str(e.raw), *body, "--cache", str(scope.cache))
