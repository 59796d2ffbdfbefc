"""`python -m pipeline doctor`, what it prints of each raw folder: a table of parts, what is wrong, and the layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.table import Table

from pipeline.cli import console
from pipeline.cli.console import DONE, DOUBT, out, plain
from pipeline.datasets.release import Part
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
    """A row a part. `states`: of what is missing, by dataset, where nobody has to bring it."""
    shown = console.table("dataset", "what", "where")
    for name in ("found", "in release"):
        shown.add_column(name, justify="right")
    shown.add_column("state")
    for e in examined:
        for i, found in enumerate(e.parts):
            stands_in = " [yellow](stand-in)[/yellow]" if e.stand_in else ""
            shown.add_row(
                e.dataset + stands_in if i == 0 else "",
                plain(found.part.what),
                plain(where(found)),
                f"{found.found:,}",
                "[dim]not known[/dim]" if found.known is None else f"{found.known:,}",
                mark(found, states.get(e.dataset, "")),
            )
    return shown


def records(examined: Sequence[Examination], states: Mapping[str, str]) -> Iterator[str]:
    """In a pipe, the same: a line a part, whole by itself, and no wider than it must be."""
    wide = max((len(e.dataset) for e in examined), default=0)
    for e in examined:
        for found in e.parts:
            what = f"{found.part.what}: {found.found:,}" + ("" if found.known is None else f" of {found.known:,}")
            state = mark(found, states.get(e.dataset, ""))
            stands_in = ", stand-in" if e.stand_in else ""
            yield f"{e.dataset:<{wide}}  {plain(what)}  {state}{stands_in}  {plain(where(found))}"


def mark(found: Found, state: str) -> str:
    """The state of a part, as the table has it; `state`: if it is missing."""
    if state == NOT_NEEDED and found.state == "left out":
        return f"[dim]{NOT_NEEDED}[/dim]"
    if found.state == "missing" and state:
        return f"[dim]{state}[/dim]"
    if found.state == "left out":
        return f"{MARKS['left out']} [dim](without it: {plain(found.part.without)})[/dim]"
    return MARKS[found.state] + (" [dim]more than the release has[/dim]" if found.too_many else "")


def where(found: Found) -> str:
    """The first form that it may have, and that there are others."""
    lines = forms(found.part)
    return lines[0] + (", ..." if len(lines) > 1 else "") if lines else ""


def forms(part: Part) -> list[str]:
    """Every form in which a part may lie, as people read it."""
    return list(part.shown) or by_extension(part.patterns)


def tell(e: Examination, state: str) -> None:
    """What is wrong with one raw folder, and how to mend it: the page, the archives, the layout."""
    if state == NOT_NEEDED:
        what = f"in {e.raw}: not needed to convert these; training and prediction need it"
        out.print(f"\n[bold]{e.dataset}[/bold] {plain(what)}")
        return
    if state == TO_BE_MADE and e.missing:
        out.print(f"\n[bold]{e.dataset}[/bold]: nothing of it in {plain(str(e.raw))} yet; `make data` makes a stand-in")
        return
    left_out = [] if e.stand_in else [found.part for found in e.parts if found.state == "left out"]
    if not (e.missing or e.incomplete or e.mistakes or left_out):
        return
    out.print(f"\n[bold]{e.dataset}[/bold] {plain(f'in {e.raw}: {summary(e)}')}")
    for mistake in e.mistakes:
        out.print(f"  {DOUBT} {plain(f'{mistake.what}. {mistake.do}'.rstrip(' .') + '.')}")
    sources = to_get(e)
    for i, source in enumerate(sources):
        out.print(f"  {'get' if i == 0 else '':<7} {plain(source)}")
    if sources:
        out.print(f"  from    {plain(e.page)}")
    for source, without in dict.fromkeys((part.source, part.without) for part in left_out):
        out.print(f"  optional {plain(f'{source} (without it: {without})')}")
    if e.missing:
        out.print(f"  so that {plain(f'{e.raw}/')} holds")
        for line in layout(e):
            out.print(f"          {plain(line)}")


def to_get(e: Examination) -> list[str]:
    """What of the download is wanted, without what is there and only has to be unpacked or moved."""
    wanted = [found.part for found in (*e.missing, *e.incomplete) if found.part not in e.misplaced]
    sources = dict.fromkeys(part.source for part in wanted)
    packed = [file.name.lower() for file in e.packed]
    lying = [source for source in sources if any(name in source.lower() for name in packed)]
    if packed and not lying:
        return []  # what is in them shows once they are unpacked
    return [source for source in sources if source not in lying]


def summary(e: Examination) -> str:
    """How far a raw folder is from what it should be, in a few words."""
    if e.missing and all(found.part in e.misplaced for found in e.missing):
        return "not where it should be"
    if e.missing and not any(found.found for found in e.parts):
        return "nothing of it is unpacked yet" if e.packed else "nothing of it is there yet"
    if e.missing:
        return f"not all there: {', '.join(found.part.what for found in e.missing)}"
    if e.incomplete:
        told = [f"{f.found:,} of {f.known:,} {f.part.what}" for f in e.incomplete]
        return f"{', '.join(told)}: what is there can be converted"
    return "all there, but look at this" if e.mistakes else "all there that is needed"


def layout(e: Examination) -> Iterator[str]:
    """How everything must lie once it is unpacked, one line a form that it may have."""
    rows = [
        (form, f"{'or ' if i else ''}{found.part.what}" + (" (not needed)" if found.part.without else ""))
        for found in e.parts
        for i, form in enumerate(forms(found.part))
    ]
    width = max((len(form) for form, _ in rows), default=0)
    return (f"{form:<{width}}  {what}" for form, what in rows)


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
