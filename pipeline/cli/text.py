"""Parts of messages: counts and numbers with units, commands to copy, values, long lists."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

FEW: Final = 5  # lines of a long list that are shown
CLONE: Final = Path(__file__).parents[2]


def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "video"), count(12000, "row")
    ('1 video', '12,000 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def size(n_bytes: float) -> str:
    """A size with its unit.

    >>> [size(n) for n in (0, 1536, 1024**2 - 1, 19_600_000, 2 * 2**40)]
    ['0 B', '1.5 KiB', '1.0 MiB', '18.7 MiB', '2.0 TiB']
    """
    if round(n_bytes) < 1024:
        return f"{n_bytes:.0f} B"
    power = 1
    while power < 4 and round(n_bytes / 1024**power, 1) >= 1024:
        power += 1
    return f"{n_bytes / 1024**power:,.1f} {'KMGT'[power - 1]}iB"


def duration(seconds: float) -> str:
    """A time with its unit.

    >>> [duration(s) for s in (0.2, 61, 540, 9000, 10**6)]
    ['1 s', '61 s', '9 min', '2.5 h', '11.6 days']
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def rate(a_second: float, unit: str) -> str:
    """A speed; below one per second, the time of one unit.

    >>> rate(1234.5, "row"), rate(3.14, "video"), rate(1 / 90, "video")
    ('1,234 rows/s', '3.1 videos/s', '90 s/video')
    """
    if 0 < a_second < 1:
        return f"{duration(1 / a_second)}/{unit}"
    if a_second < 10:
        return f"{a_second:.1f} {unit}s/s"
    return f"{a_second:,.0f} {unit}s/s"


def command(*words: str, module: str = "pipeline") -> str:
    """A command to type here: .venv/bin/python -m pipeline status, or vibe-pipeline status."""
    if _is_called_by_name():
        return " ".join([tool(f"vibe-{module}"), *map(shlex.quote, words)])
    return shlex.join([python(), "-m", module, *words])


def _is_called_by_name() -> bool:
    """Whether the user typed the name of an installed command, such as `vibe-pipeline`."""
    return Path(sys.argv[0]).name in ("vibe-pipeline", "vibe-tasks", "luigi")


def tool(name: str) -> str:
    """How to type an installed command in any folder: its name, or its path beside this Python."""
    path = str(Path(sys.executable).with_name(name))
    if shutil.which(name) == path:
        return name
    return shlex.quote(path)


def as_called(text: str) -> str:
    """A message as it fits here: with the names of commands by which the user calls them, and with
    names of pages in place of their paths if there is no clone.
    """
    if _is_called_by_name():
        text = re.sub("python -m (pipeline|tasks)", r"vibe-\1", text)
    if not (CLONE / "docs/index.md").exists():
        text = re.sub(r"docs/([\w/-]+)\.md(#[\w-]+)?", r'the page "\1\2"', text)
    return text


def python() -> str:
    """Path of this interpreter for messages: .venv/bin/python"""
    return from_here(Path(sys.executable))


def from_here(place: str | Path) -> str:
    """A path for messages: relative if it is below the working folder. A URL (str) is unchanged."""
    if isinstance(place, str):
        return place
    if place.is_relative_to(Path.cwd()):
        place = place.relative_to(Path.cwd())
    return str(place)


def text_of(value: Any) -> str:
    """A value as it is written in luigi.cfg.

    >>> text_of(True), text_of(None), text_of(("a/b", "c/d")), text_of({"a/b": 4}), text_of(())
    ('true', 'none', 'a/b c/d', 'a/b:4', '')
    """
    if isinstance(value, Mapping):
        value = [f"{name}:{number}" for name, number in value.items()]
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def printable(text: str, keep: str = "") -> str:
    """Escape control codes, for text that rich does not print."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def first_few(names: Sequence[object]) -> str:
    """The first names of a list, on one line.

    >>> first_few(["a", "b"]), first_few(range(9))
    ('a, b', '0, 1, 2, 3, 4, ...')
    """
    shown = [str(name) for name in names[:FEW]]
    if len(names) > FEW:
        shown.append("...")
    return ", ".join(shown)


def few(lines: Sequence[str], most: int | None, where: str) -> list[str]:
    """The first `most` lines (None: all), and where to see the rest.

    >>> few(["a", "b", "c"], 2, "status --all")
    ['a', 'b', 'and 1 more: status --all']
    """
    if most is None or len(lines) <= most:
        return [*lines]
    return [*lines[:most], f"and {len(lines) - most:,} more: {where}"]
