"""`python -m pipeline doctor`, what it prints: a table of parts, and what is wrong with each raw folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table

from pipeline.cli import console
from pipeline.cli.console import DONE, DOUBT, out, plain
from pipeline.commands.maintenance.examine import Examination, Found

MARKS: Final = {
    "there": DONE,
    "incomplete": "[yellow]incomplete[/yellow]",
    "missing": "[red]missing[/red]",
    "left out": "[dim]left out[/dim]",
}
TO_BE_MADE: Final = "will be made"  # an Examination's excuses
NOT_NEEDED: Final = "not needed yet"


def table(examined: Sequence[Examination]) -> Table:
    """One row per part."""
    shown = console.table("dataset", "what", "where")
    for name in ("found", "in release"):
        shown.add_column(name, justify="right")
    shown.add_column("state")
    for e in examined:
        name = e.dataset + (" [yellow](demo data)[/yellow]" if e.stand_in else "")
        for found in e.parts:
            first, *others = found.part.patterns or ("",)
            known = "[dim]not known[/dim]" if found.known is None else f"{found.known:,}"
            about = (plain(found.part.what), plain(first) + (", ..." if others else ""), f"{found.found:,}", known)
            shown.add_row(name, *about, _mark(found, e.excuse))
    return shown


def _mark(found: Found, excuse: str) -> str:
    if excuse and found.state == "missing":
        return f"[dim]{excuse}[/dim]"
    more = ""
    if found.state == "left out":
        more = f"(lost without it: {plain(found.part.without)})"
    elif found.known is not None and found.found > found.known:
        more = "more than the release has"
    return f"{MARKS[found.state]} [dim]{more}[/dim]" if more else MARKS[found.state]


def print_problems(e: Examination) -> None:
    """Print what is wrong with one raw folder, and what to do: the page, the archives, the layout."""
    if e.excuse == NOT_NEEDED:
        what = f"in {e.raw}: not needed to convert these; training and prediction need it"
        out.print(f"\n[bold]{e.dataset}[/bold] {plain(what)}")
        return
    if e.excuse and e.missing:
        out.print(f"\n[bold]{e.dataset}[/bold]: not in {plain(str(e.raw))} yet; `make data` makes demo data")
        return
    left_out = [] if e.stand_in else [found.part for found in e.parts if found.state == "left out"]
    if not (e.missing or e.incomplete or e.mistakes or left_out):
        return
    out.print(f"\n[bold]{e.dataset}[/bold] {plain(f'in {e.raw}: {summary(e)}')}")
    for problem in e.mistakes:
        out.print(f"  {DOUBT} {plain(f'{problem.what}. {problem.do}'.rstrip(' .') + '.')}")
    packed = [file.name.lower() for file in e.packed]
    sources = dict.fromkeys(found.part.source for found in (*e.missing, *e.incomplete))
    absent = [source for source in sources if not any(name in source.lower() for name in packed)]
    for i, source in enumerate(absent):
        out.print(f"  {'' if i else 'get':<7} {plain(source)}")
    if absent and e.page:
        out.print(f"  from    {plain(e.page)}")
    for source, without in dict.fromkeys((part.source, part.without) for part in left_out):
        out.print(f"  optional {plain(f'{source} (lost without it: {without})')}")
    if any(found.part.patterns for found in e.missing):
        out.print(f"  so that {plain(f'{e.raw}/')} holds")
        rows = [(pattern, found.part) for found in e.parts for pattern in found.part.patterns]
        width = max(len(pattern) for pattern, _ in rows)
        for pattern, part in rows:
            what = ("" if pattern == part.patterns[0] else "or ") + part.what + (" (not needed)" * bool(part.without))
            out.print(f"          {plain(f'{pattern:<{width}}  {what}')}")


def summary(e: Examination) -> str:
    """How far a raw folder is from what it should be, in a few words."""
    if e.missing and not any(found.found for found in e.parts):
        return "still packed" if e.packed else "nothing was found"
    if e.missing:
        return f"missing: {', '.join(found.part.what for found in e.missing)}"
    if e.incomplete:
        counts = [f"{f.found:,} of {f.known:,} {f.part.what}" for f in e.incomplete]
        return f"{', '.join(counts)}: these can be converted"
    return "complete, but see below" if e.mistakes else "complete"
