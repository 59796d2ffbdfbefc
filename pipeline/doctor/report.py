"""`python -m pipeline doctor`, what it prints of each raw folder: a table of parts, what is wrong, and the layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.table import Table

from pipeline.cli import console
from pipeline.cli.console import DONE, DOUBT, out, plain
from pipeline.doctor.examine import Examination, Found

MARKS: Final = {
    "there": DONE,
    "incomplete": "[yellow]incomplete[/yellow]",
    "missing": "[red]missing[/red]",
    "left out": "[dim]left out[/dim]",
}
TO_BE_MADE: Final = "will be made"
NOT_NEEDED: Final = "not needed yet"


def table(examined: Sequence[Examination], states: Mapping[str, str]) -> Table:
    """One row per part. `states`: dataset -> state of its missing parts, where the user need not get them."""
    shown = console.table("dataset", "what", "where")
    for name in ("found", "in release"):
        shown.add_column(name, justify="right")
    shown.add_column("state")
    for e in examined:
        for i, found in enumerate(e.parts):
            demo = " [yellow](demo data)[/yellow]" if e.stand_in else ""
            shown.add_row(
                e.dataset + demo if i == 0 else "",
                plain(found.part.what),
                plain(where(found)),
                f"{found.found:,}",
                "[dim]not known[/dim]" if found.known is None else f"{found.known:,}",
                mark(found, states.get(e.dataset, "")),
            )
    return shown


def records(examined: Sequence[Examination], states: Mapping[str, str]) -> Iterator[str]:
    """The same for a pipe: one line per part, each complete by itself."""
    wide = max((len(e.dataset) for e in examined), default=0)
    for e in examined:
        for found in e.parts:
            what = f"{found.part.what}: {found.found:,}" + ("" if found.known is None else f" of {found.known:,}")
            state = mark(found, states.get(e.dataset, ""))
            demo = ", demo data" if e.stand_in else ""
            yield f"{e.dataset:<{wide}}  {plain(what)}  {state}{demo}  {plain(where(found))}"


def mark(found: Found, state: str) -> str:
    """The state of a part; `state`: instead of "missing"."""
    if state == NOT_NEEDED and found.state == "left out":
        return f"[dim]{NOT_NEEDED}[/dim]"
    if found.state == "missing" and state:
        return f"[dim]{state}[/dim]"
    if found.state == "left out":
        return f"{MARKS['left out']} [dim](without it: {plain(found.part.without)})[/dim]"
    too_many = found.known is not None and found.found > found.known
    return MARKS[found.state] + (" [dim]more than the release has[/dim]" if too_many else "")


def where(found: Found) -> str:
    """The first path that the part may have, and whether there are others."""
    patterns = found.part.patterns
    return patterns[0] + (", ..." if len(patterns) > 1 else "") if patterns else ""


def print_problems(e: Examination, state: str) -> None:
    """Print what is wrong with one raw folder, and what to do: the page, the archives, the layout."""
    if state == NOT_NEEDED:
        what = f"in {e.raw}: not needed to convert these; training and prediction need it"
        out.print(f"\n[bold]{e.dataset}[/bold] {plain(what)}")
        return
    if state == TO_BE_MADE and e.missing:
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
        out.print(f"  {'get' if i == 0 else '':<7} {plain(source)}")
    if absent:
        out.print(f"  from    {plain(e.page)}")
    for source, without in dict.fromkeys((part.source, part.without) for part in left_out):
        out.print(f"  optional {plain(f'{source} (without it: {without})')}")
    if e.missing:
        out.print(f"  so that {plain(f'{e.raw}/')} holds")
        for line in layout(e):
            out.print(f"          {plain(line)}")


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


def layout(e: Examination) -> Iterator[str]:
    """The paths that everything has once it is unpacked, one line per path that a part may have."""
    rows = [
        (pattern, f"{'or ' if i else ''}{found.part.what}" + (" (not needed)" if found.part.without else ""))
        for found in e.parts
        for i, pattern in enumerate(found.part.patterns)
    ]
    width = max((len(pattern) for pattern, _ in rows), default=0)
    return (f"{pattern:<{width}}  {what}" for pattern, what in rows)
