"""How long work tells how far it is, whoever listens: a terminal, Luigi's page, or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Called with units done, units in all and a few words ("S1/Seq1", "71 crops/s")."""

    def __call__(self, done: int, total: int, message: str = "") -> None: ...


def silent(done: int, total: int, message: str = "") -> None:
    """Nobody listens."""


@contextmanager
def bar(what: str, console: Console, *, quiet: bool = False) -> Iterator[Progress]:
    """A bar with counts, words and the time left, gone when the work is done; nothing where there is no terminal."""
    from rich import progress as bars  # processes that read for another one show nothing

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=30),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[message]}"),
        bars.TimeRemainingColumn(),
    )
    disable = quiet or not console.is_terminal
    with bars.Progress(*columns, console=console, transient=True, disable=disable) as shown:
        line = shown.add_task(what, total=None, message="")

        def tell(done: int, total: int, message: str = "") -> None:
            shown.update(line, completed=done, total=total, message=message)

        yield tell
