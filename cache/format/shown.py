"""A base class for objects that consoles and notebooks show as a small table of at most eight
lines.  [cache]
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from cache.errors import CacheError

_MOST_LINES: Final = 8

Lines = list[Sequence[str]]  # the cells of each line


class Shown(ABC):
    """An object that is shown as a title with a table of text cells below it.

    Subclasses define `_summary`; this class makes `repr()` and the HTML of notebooks from it.
    """

    @abstractmethod
    def _summary(self) -> tuple[str, Lines]:
        """The title, and all lines of the table. Only the first lines are shown; the others are
        counted. May raise CacheError and OSError, which are then shown in place of the title.
        """

    def _first_lines(self) -> tuple[str, Lines]:
        """The title and the lines to show, cut to `_MOST_LINES` with the title."""
        try:
            title, lines = self._summary()
        except (CacheError, OSError) as error:
            return f"{type(self).__name__}: {error}", []
        n_more = len(lines) + 1 - _MOST_LINES
        if n_more > 0:
            lines = [*lines[: _MOST_LINES - 2], (f"... {n_more + 1} more",)]
        return f"{type(self).__name__} {title}", lines

    def __repr__(self) -> str:
        title, lines = self._first_lines()
        full = [line for line in lines if len(line) > 1]
        widths = [max(map(len, column)) for column in zip(*full, strict=True)]
        texts = [title]
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            texts.append(f"  {'  '.join(cells)}".rstrip())
        return "\n".join(texts)

    def _repr_html_(self) -> str:
        title, lines = self._first_lines()
        rows = []
        for line in lines:
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
            rows.append(f"<tr>{cells}</tr>")
        return f"<b>{html.escape(title)}</b><table>{''.join(rows)}</table>"
