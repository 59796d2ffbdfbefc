"""luigi.cfg as text: section -> key -> value, which knows its line.  [raw] -> tracks -> features

What a key means is not known here: `pipeline.settings.sections` and `tasks.settings` hold the types.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
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

# Sections that Luigi reads itself.
LUIGI: Final = frozenset(
    {"core", "scheduler", "worker", "retcode", "logging", "email", "resources", "task_history", "task"}
)

# Keys of earlier versions: (section, key) -> what to do instead. Key "": the whole section.
GONE: Final[Mapping[tuple[str, str], str]] = {
    ("features", "decode"): "Pictures are decoded at their full size: delete this line.",
    ("machine", ""): "Set the keys that a preset set: workers, device, timeout, hold, read_workers (docs/settings.md).",
}


class Text(str):
    """A value, with the line of luigi.cfg that its key is in."""

    line: int = 0  # from 1 on; 0: not from a file

    @classmethod
    def at(cls, text: str, line: int) -> Self:
        """A value of the file."""
        made = cls(text)
        made.line = line
        return made


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The sections of a file, in its order."""

    path: Path
    sections: Mapping[str, Mapping[str, Text]]
    headers: Mapping[str, int]  # section -> its line

    def section(self, name: str) -> dict[str, Text]:
        """The section's keys; empty where the file does not have it."""
        return dict(self.sections.get(name, {}))

    def where(self, section: str, key: str = "") -> str:
        """`luigi.cfg, line 23 [features] precision`: the key's line, or the section's where there is no such key."""
        line = getattr(self.section(section).get(key), "line", 0) or self.headers.get(section, 0)
        return _where(self.path, line, section, key)


def settings_file() -> Path:
    """The file in LUIGI_CONFIG_PATH, or ./luigi.cfg."""
    return Path(os.environ.get("LUIGI_CONFIG_PATH", "luigi.cfg"))


def read(file: Path, do: str = "Run from the project's folder, or set LUIGI_CONFIG_PATH.") -> SettingsFile:
    """Read a file as Luigi does, but for its interpolation.

    Raises ConfigError, which names the line, for a file that is not in this format; `do`: what to do where there is no
    such file.
    """
    lines = list(io.StringIO(_text(file, do), newline=None))
    cfg = ConfigParser(interpolation=None, default_section="")  # no [DEFAULT]: its keys would be in all sections
    cfg.optionxform = str  # type: ignore[assignment, method-assign]  # letters keep their case, as in Luigi
    headers, keys = _line_numbers(lines)
    try:
        cfg.read_file(lines, source=str(file))
    except Error as error:
        raise _located(error, file, lines, headers, keys) from error
    sections = {
        name: {key: Text.at(cfg.get(name, key), keys[name, key]) for key in cfg.options(name)}
        for name in cfg.sections()
    }
    return SettingsFile(file, sections, headers)


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


def _line_numbers(lines: Sequence[str]) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """The line of each section, and of each key in it, from 1 on: ConfigParser does not keep them."""
    headers: dict[str, int] = {}
    keys: dict[tuple[str, str], int] = {}
    section, indent, in_value = "", 0, False
    for number, line in enumerate(lines, start=1):
        text, this_indent = line.strip(), len(line) - len(line.lstrip())
        if not text or text.startswith(("#", ";")) or (in_value and this_indent > indent):
            continue
        indent, in_value = this_indent, False
        if heading := ConfigParser.SECTCRE.match(text):
            section = heading["header"]
            headers.setdefault(section, number)
        elif pair := ConfigParser.OPTCRE.match(text):
            in_value = True
            keys.setdefault((section, pair["option"].rstrip()), number)
    return headers, keys


def _located(
    error: Error,
    file: Path,
    lines: Sequence[str],
    headers: Mapping[str, int],
    keys: Mapping[tuple[str, str], int],
) -> ConfigError:
    """A parser's error as one line, with the file's line."""

    def found(number: int) -> str:
        return repr(lines[number - 1].strip()[:60])

    if isinstance(error, DuplicateSectionError):
        at, first = error.lineno, headers.get(error.section, 0)
        what = f" [{error.section}]: this section is in line {first} already: keep one"
    elif isinstance(error, DuplicateOptionError):
        at, first = error.lineno, keys.get((error.section, error.option), 0)
        what = f" [{error.section}] {error.option}: is in line {first} already: keep one"
    elif isinstance(error, MissingSectionHeaderError):
        at = error.lineno
        what = f": expected a section, as [paths], before anything else, found {found(at)}"
    elif isinstance(error, ParsingError) and error.errors:
        at = error.errors[0][0]
        what = f": expected key = value, or [section], found {found(at)}"
    else:
        return ConfigError(f"{file}: {error.message}")
    return ConfigError(f"{file}, line {at}{what}")


# ------------------------------------------------------------------------------------------------------ messages


def where(file: Path, section: str, key: str, text: str) -> str:
    """`luigi.cfg, line 23 [features] precision`, for a value that may know its line."""
    return _where(file, getattr(text, "line", 0), section, key)


def _where(file: Path, line: int, section: str, key: str) -> str:
    return f"{file}{f', line {line}' if line else ''} [{section}]" + (f" {key}" if key else "")


def located(file: Path, section: str, given: Mapping[str, str], message: str) -> str:
    """The error message of a section's dataclass, with the line of the first key that it mentions.

    >>> given = {"seed": Text.at("0", 7), "epochs": Text.at("0", 8)}
    >>> located(Path("luigi.cfg"), "train", given, "epochs: expected more than 0, found 0")
    'luigi.cfg, line 8 [train] epochs: expected more than 0, found 0'
    """
    words = re.findall(r"\w+", message)
    mentioned = [key for key in given if key in words]
    first = min(mentioned, key=words.index, default="")
    return f"{where(file, section, '', given.get(first, ''))} {message}"


def unknown(file: Path, section: str, key: str, text: str, known: Iterable[str]) -> ConfigError:
    """For a key that there is not: what to do where it is gone, else the key that may be meant, and all known ones."""
    if (section, key) in GONE:
        return ConfigError(f"{where(file, section, key, text)}: this key is gone. {GONE[section, key]}")
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
