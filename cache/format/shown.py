"""Objects that consoles and notebooks show by shape and content, in eight lines.  [cache]"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from cache.errors import CacheError

_MOST_LINES: Final = 8

Lines = list[Sequence[str]]


class Shown(ABC):
    """An object with a title, and lines of cells below it."""

    @abstractmethod
    def _summary(self) -> tuple[str, Lines]:
        """A title, and lines, of which the first ones are shown and the others counted. Raises
        CacheError, OSError.
        """

    def _first_lines(self) -> tuple[str, Lines]:
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
