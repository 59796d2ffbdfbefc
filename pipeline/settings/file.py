"""luigi.cfg as text, read here alone: section -> key -> value, which knows its line.  [raw] -> tracks -> features

Nothing is known here of what a key means: `pipeline.settings.sections` and `tasks.settings` say that.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from configparser import (
    ConfigParser,
    DuplicateOptionError,
    DuplicateSectionError,
    Error,
    MissingSectionHeaderError,
    ParsingError,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pipeline.errors import ConfigError

# Sections that are Luigi's own, read by itself.
LUIGI: Final = frozenset(
    {"core", "scheduler", "worker", "retcode", "logging", "email", "resources", "task_history", "task"}
)

# (section, key) -> what to do now; key "": the whole section.
GONE: Final[Mapping[tuple[str, str], str]] = {
    ("machine", ""): "Set [convert] workers, [features] workers, device and timeout, [train] hold and read_workers as "
    "they suit the machine (docs/settings.md).",
    ("features", "decode"): "Pictures are decoded at their full size: take this line out.",
}


class Text(str):
    """A value, and the line of the file that it is in."""

    line: int = 0  # from 1 on

    @classmethod
    def at(cls, text: str, line: int) -> Self:
        """A value of that line."""
        made = cls(text)
        made.line = line
        return made


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file says, section by section, in its order."""

    path: Path
    sections: Mapping[str, Mapping[str, Text]]
    headers: Mapping[str, int]  # section -> its line

    def section(self, name: str) -> dict[str, Text]:
        """Empty, where the file does not have it."""
        return dict(self.sections.get(name, {}))

    def where(self, section: str, key: str = "") -> str:
        """`luigi.cfg, line 23 [features] precision`: the key's line, or the section's where the key is not there."""
        line = getattr(self.section(section).get(key), "line", 0) or self.headers.get(section, 0)
        return _where(self.path, line, section, key)


def where(file: Path, section: str, key: str, text: str) -> str:
    """`luigi.cfg, line 23 [features] precision`, for a value that may know its line."""
    return _where(file, getattr(text, "line", 0), section, key)


def _where(file: Path, line: int, section: str, key: str) -> str:
    return f"{file}{f', line {line}' if line else ''} [{section}]" + (f" {key}" if key else "")


def blamed(file: Path, section: str, given: Mapping[str, str], message: str) -> str:
    """An error of a section's owner, with the line of the first key that its words name.

    >>> given = {"seed": Text.at("0", 7), "epochs": Text.at("0", 8)}
    >>> blamed(Path("luigi.cfg"), "train", given, "epochs: expected more than 0, found 0")
    'luigi.cfg, line 8 [train] epochs: expected more than 0, found 0'
    """
    words = re.findall(r"\w+", message)
    named = [key for key in given if key in words]
    first = min(named, key=words.index, default="")
    return f"{where(file, section, '', given.get(first, ''))} {message}"


def unknown(file: Path, section: str, key: str, text: str, known: Iterable[str]) -> ConfigError:
    """For a key that nobody reads: which one may have been meant, and all that there are."""
    if (section, key) in GONE:
        return ConfigError(f"{where(file, section, key, text)}: there is no such key any more. {GONE[section, key]}")
    names = list(known)
    return ConfigError(
        f"{where(file, section, key, text)}: unknown key{did_you_mean(key, names)} known: {', '.join(names) or 'none'}"
    )


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """
    >>> did_you_mean("precison", ["weights", "precision"]), did_you_mean("x", ["weights"])
    ("; did you mean 'precision'?", ';')
    """
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]!r}?" if close else ";"


def read(file: Path, do: str = "Run from the project's folder, or set LUIGI_CONFIG_PATH.") -> SettingsFile:
    """Read a file as Luigi does, but for its interpolation.

    Raises ConfigError, which names the line, for what cannot be read; `do`: what to do where there is no such file.
    """
    lines = _Lines(file, _text(file, do))
    # No [DEFAULT]: its keys would stand in all sections.
    cfg = ConfigParser(interpolation=None, default_section="")
    cfg.optionxform = lines.note  # type: ignore[assignment, method-assign]
    try:
        cfg.read_file(lines, source=str(file))
    except Error as error:
        raise lines.told(error) from error
    numbers = iter([number for _, number in lines.keys])
    cfg.optionxform = str  # type: ignore[assignment, method-assign]
    sections = {
        name: {key: Text.at(cfg.get(name, key), next(numbers)) for key in cfg.options(name)} for name in cfg.sections()
    }
    return SettingsFile(file, sections, {name: lines.header(name) for name in sections})


def _text(file: Path, do: str) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{file.resolve()}: there is no such file. {do}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{file}, line {line}: expected text in UTF-8, found the byte {data[error.start]:#04x}"
        ) from error


class _Lines:
    """The lines of a file, counted while the parser takes them: it tells the numbers of mistakes only."""

    def __init__(self, file: Path, text: str) -> None:
        self.keys: list[tuple[str, int]] = []  # as they come
        self._file, self._text, self._number = file, list(io.StringIO(text, newline=None)), 0

    def __iter__(self) -> Iterator[str]:
        for self._number, line in enumerate(self._text, start=1):  # noqa: B020 - it is what `note` looks at
            yield line

    def note(self, key: str) -> str:
        """The parser has found a key in the line that it has taken last. Its letters stay as they are, as in Luigi."""
        self.keys.append((key, self._number))
        return key

    def header(self, section: str) -> int:
        """The line that begins a section."""
        lines = enumerate(self._text, start=1)
        return next((n for n, line in lines if line.strip().startswith(f"[{section}]")), 0)

    def told(self, error: Error) -> ConfigError:
        """A parser's error in our words."""
        if isinstance(error, DuplicateSectionError):
            first = self.header(error.section)
            at, what = error.lineno, f" [{error.section}]: this section stands in line {first} already: keep one"
        elif isinstance(error, DuplicateOptionError):
            begun = self.header(error.section)
            first = next((n for key, n in self.keys if key == error.option and n >= begun), 0)
            at, what = error.lineno, f" [{error.section}] {error.option}: stands in line {first} already: keep one"
        elif isinstance(error, MissingSectionHeaderError):
            at = error.lineno
            what = f": expected a section, as [paths], before anything else, found {self._found(at)}"
        elif isinstance(error, ParsingError) and error.errors:
            at = error.errors[0][0]
            what = f": expected key = value, or [section], found {self._found(at)}"
        else:
            return ConfigError(f"{self._file}: {error.message}")
        return ConfigError(f"{self._file}, line {at}{what}")

    def _found(self, number: int) -> str:
        return repr(self._text[number - 1].strip()[:60])
