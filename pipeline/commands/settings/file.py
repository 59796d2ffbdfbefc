"""luigi.cfg: section -> key -> text, which knows its line, and the texts as typed values.  [raw] -> tracks -> features

Over the file comes what `--set` sets, under a section the preset of one's own that it names. What a key means is not
known here: `pipeline.commands.settings.sections` and `tasks.settings` hold the types:

epochs = 30                                     int, float, str
strict = true                                   bool
precision = exact                               Literal: one of some words
raw = data/raw                                  Path, below the folder of luigi.cfg
cache = s3://bucket/cache                       cache.Root: a URL, or a path as above
pretrained = none                               X | None
motion = amass/train bmlmovi/train              tuple: words; empty: none
strides = 3dpw/train:4 penn_action/train:4      Mapping: name:value; empty: none
weights = file:vit_b_16.pt                      WeightsSpec: a kind and its argument, a path as above
crop = size:256 region:256x192                  CropPolicy: name:value; empty: the usual crop
"""

from __future__ import annotations

import difflib
import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import (
    ConfigParser,
    DuplicateOptionError,
    DuplicateSectionError,
    MissingSectionHeaderError,
    ParsingError,
)
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, Self, get_args, get_origin, get_type_hints

import cache
from pipeline.cli.options import SET
from pipeline.errors import ConfigError
from pipeline.features.weights import WeightsSpec

# Sections that Luigi reads itself.
LUIGI: Final = frozenset(
    {"core", "scheduler", "worker", "retcode", "logging", "email", "smtp", "resources", "task_history", "task"}
)

# Fields of models' configurations that are no settings, since they follow from others, by section; "": of every model.
FIXED: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset(
        {"feature_size", "leave_out", "eval_batch", "threads", "max_non_finite", "discriminator_weight"}
        | {"least_scale", "largest_scale"}
    ),
    "pose_embedding": frozenset(
        {"seqlen", "strides", "window_weights", "tail", "plateau_factor", "plateau_patience", "size"}
    ),
}

_EXPECTED: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    str: "a word",
    cache.Root: "a path, or a URL as s3://bucket/prefix",
}


class Text(str):
    """A key or a value, with the line of luigi.cfg that the key is in."""

    line: int = 0  # from 1 on; 0: not from a file
    file: Path | None = None  # that it is in, where that is not luigi.cfg; of a command's option, Path("--set")

    @classmethod
    def at(cls, text: str, line: int, file: Path | None = None) -> Self:
        """A text of the file."""
        made = cls(text)
        made.line, made.file = line, file
        return made


class Section(dict[str, Text]):
    """Key -> value of one section; empty where the file does not have it."""

    def __init__(self, file: Path, name: str, values: Mapping[str, str] | None = None, line: int = 0) -> None:
        super().__init__({key: text if isinstance(text, Text) else Text(text) for key, text in (values or {}).items()})
        self.file, self.name, self.line = file, name, line

    def where(self, key: str = "") -> str:
        """`luigi.cfg, line 23 [features] precision`: the key's line, or the section's where there is no such key."""
        return self._at(key) + (f" {key}" if key else "")

    def located(self, message: str) -> str:
        """The error message of a section's dataclass, with the line of the first key that it mentions.

        >>> given = Section(Path("luigi.cfg"), "train", {"seed": Text.at("0", 7), "epochs": Text.at("0", 8)})
        >>> given.located("epochs: expected more than 0, found 0")
        'luigi.cfg, line 8 [train] epochs: expected more than 0, found 0'
        """
        words = re.findall(r"\w+", message)
        return f"{self._at(next((word for word in words if word in self), ''))} {message}"

    def origin(self, key: str) -> str:
        """`luigi.cfg line 23`, or `--set`."""
        text = self[key]
        return f"{(text.file or self.file).name}{f' line {text.line}' if text.line else ''}"

    def check_keys(self, known: Iterable[str], *, of_training: bool = False) -> None:
        """Raise ConfigError for the first key that is not known, with the one that may be meant."""
        names = [key for key in known if not (of_training and is_fixed(self.name, key))]
        for key in self:
            if key not in names:
                close = did_you_mean(key, names)
                known = "" if close != ";" else f" known: {', '.join(names) or 'none'}"
                raise ConfigError(f"{self.where(key)}: unknown key{close}{known}")

    def typed(self, spec: type[Any]) -> dict[str, Any]:
        """The values of the keys that are fields of `spec`, as their types. Paths are below the file's folder.

        Raises ConfigError, with its line, for a value of another type.
        """
        hints, values = get_type_hints(spec, include_extras=True), {}
        names = {field.name for field in fields(spec)}
        for key, text in self.items():
            if key in names:
                read, expected = reader(hints[key], self.file.resolve().parent)
                try:
                    values[key] = read(text)
                except (ValueError, KeyError) as error:
                    found = f"{self.where(key)} = {' '.join(text.split())}"
                    raise ConfigError(f"{found}: expected {expected}") from error
        return values

    def _at(self, key: str) -> str:
        of_command_line = not self.line and next((text.file for text in self.values()), None)
        file, line = of_command_line or self.file, self.line
        if key in self:
            file, line = self[key].file or self.file, self[key].line
        return f"{file}{f', line {line}' if line else ''} [{self.name}]"


def is_fixed(section: str, key: str) -> bool:
    """Whether a field of a model's configuration is no setting."""
    return key in FIXED[""] or key in FIXED.get(section, ())


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The sections of a file, in its order."""

    path: Path
    sections: Mapping[str, Section]

    def section(self, name: str) -> Section:
        """Empty where the file does not have it."""
        return self.sections.get(name, Section(self.path, name))

    def where(self, section: str, key: str = "") -> str:
        """As `Section.where`."""
        return self.section(section).where(key)


def settings_file() -> Path:
    """The file in LUIGI_CONFIG_PATH, or ./luigi.cfg."""
    return Path(os.environ.get("LUIGI_CONFIG_PATH", "luigi.cfg"))


def layered(source: SettingsFile, of_presets: Iterable[str]) -> SettingsFile:
    """The file with what `--set` sets over it; below the sections `of_presets`, the preset's file that they name.

    Raises ConfigError for a preset that is no such file, and for what `--set` cannot set.
    """
    sections = dict(source.sections)
    for name, key, text in of_command_line():
        old = sections.get(name, Section(source.path, name))
        sections[name] = Section(source.path, name, {**old, key: text}, old.line)
    for name in of_presets:
        if name in sections and sections[name].get("preset", "").endswith(".cfg"):
            sections[name] = _on_preset(sections[name], set(of_presets))
    return SettingsFile(source.path, sections)


def of_command_line(lines: Sequence[str] | None = None) -> Iterator[tuple[str, str, Text]]:
    """(section, key, value) of each `--set`; None: those of the environment, too. Raises ConfigError."""
    for line in os.environ.get(SET, "").splitlines() if lines is None else lines:
        name, value = line.partition("=")[::2]
        section, _, key = name.strip().rpartition(".")
        if not (section and key and "=" in line):
            raise ConfigError(f"--set {line}: expected SECTION.KEY=VALUE, as in --set train.epochs=5")
        yield section, key, Text.at(value.strip(), 0, Path("--set"))


def _on_preset(section: Section, allowed: set[str]) -> Section:
    """A section over the same one of the file that its `preset` names, whose own preset is one of ours."""
    at = section.where("preset")
    file = section.file.resolve().parent / Path(section["preset"]).expanduser()
    found = read(file, f"{at}: name a file of your own, or one of our presets (docs/settings.md).").sections
    if section.name not in found or not allowed.issuperset(found):
        names, others = (
            ", ".join(f"[{name}]" for name in some) for some in (found, [n for n in found if n not in allowed])
        )
        do = f"Move {others} into {section.file.name}." if others else "Name a file that has it."
        raise ConfigError(
            f"{at} = {file}: expected a section [{section.name}], and none but models', found {names or 'none'}. {do}"
        )
    below = {key: Text.at(text, text.line, file) for key, text in found[section.name].items()}
    own = {key: text for key, text in section.items() if key != "preset"}
    return Section(section.file, section.name, {**below, **own}, section.line)


class _Parser(ConfigParser):
    """Reads as Luigi does, but for its interpolation; and keys know the line that they are in."""

    def __init__(self) -> None:
        super().__init__(interpolation=None, default_section="")  # no [DEFAULT]: its keys would be in all sections
        self.line = 0

    def numbered(self, lines: Iterable[str]) -> Iterator[str]:
        for self.line, line in enumerate(lines, start=1):  # ConfigParser takes them one by one
            yield line

    def optionxform(self, optionstr: str) -> str:
        return Text.at(optionstr, self.line)  # letters keep their case, as in Luigi


def read(file: Path, do: str = "Run from the project's folder, or set LUIGI_CONFIG_PATH.") -> SettingsFile:
    """The file's sections.

    Raises ConfigError, which names the line, for a file that is not in this format; `do`: what to do where there is no
    such file.
    """
    lines = list(io.StringIO(_text(file, do), newline=None))
    headers: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if heading := ConfigParser.SECTCRE.match(line):
            headers.setdefault(heading["header"], number)
    parser = _Parser()
    try:
        parser.read_file(parser.numbered(lines), source=str(file))
    except (ParsingError, DuplicateSectionError, DuplicateOptionError) as error:
        raise _located(error, file, lines, headers, parser) from error
    return SettingsFile(
        file,
        {
            name: Section(
                file,
                name,
                {key: Text.at(text, getattr(key, "line", 0)) for key, text in parser.items(name)},
                headers.get(name, 0),
            )
            for name in parser.sections()
        },
    )


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


def _located(
    error: ParsingError | DuplicateSectionError | DuplicateOptionError,
    file: Path,
    lines: Sequence[str],
    headers: Mapping[str, int],
    parser: _Parser,
) -> ConfigError:
    """A parser's error as one line, with the file's line."""
    at: int = getattr(error, "lineno", 0) or getattr(error, "errors", [(0, "")])[0][0]
    if isinstance(error, DuplicateSectionError):
        what = f" [{error.section}]: this section is in line {headers.get(error.section, 0)} already: keep one"
    elif isinstance(error, DuplicateOptionError):
        first = next(getattr(key, "line", 0) for key in parser.options(error.section) if key == error.option)
        what = f" [{error.section}] {error.option}: is in line {first} already: keep one"
    else:
        form = "a section, as [paths], before anything else" if isinstance(error, MissingSectionHeaderError) else ""
        what = f": expected {form or 'key = value, or [section]'}, found {lines[at - 1].strip()[:60]!r}"
    return ConfigError(f"{file}, line {at}{what}")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """
    >>> did_you_mean("precison", ["weights", "precision"]), did_you_mean("x", ["weights"])
    ("; did you mean 'precision'?", ';')
    """
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {lower[close[0]]!r}?" if close else ";"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`Annotated[int, AtLeast(0)]`: smaller numbers are refused."""

    least: int


def reader(hint: Any, base: Path) -> tuple[Callable[[str], Any], str]:
    """What makes a text this type, and what a message calls the type.

    Paths are below `base`. It raises ValueError or KeyError for other texts.

    >>> read, expected = reader(tuple[str, ...], Path())
    >>> read("amass/train 3dpw/train"), expected
    (('amass/train', '3dpw/train'), 'words with spaces between')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _EXPECTED:
        return functools.partial(_plain, hint, base), _EXPECTED[hint]
    if isinstance(hint, type) and issubclass(hint, WeightsSpec):
        return lambda text: hint.parse(text).below(base), f"weights: {hint.forms}, or untrained:SEED for demo data"
    if hint is cache.CropPolicy:
        return cache.CropPolicy.parse, "a crop policy, as in size:256 region:256x192, or jitter:1 seed:0"
    if origin is Literal:
        return {word: word for word in arguments}.__getitem__, f"one of {', '.join(arguments)}"
    if origin is Annotated:
        read, expected = reader(arguments[0], base)
        least = arguments[1].least
        return functools.partial(_at_least, least, read), f"{expected}, {least} or more"
    if origin is tuple:
        read, expected = reader(arguments[0], base)
        return lambda text: tuple(map(read, text.split())), f"{expected.removeprefix('a ')}s with spaces between"
    if origin is Mapping:
        read, expected = reader(arguments[1], base)
        pairs = f"name:value pairs with spaces between, each name once, each value {expected}"
        return functools.partial(_mapping, read), pairs
    (inner,) = (argument for argument in arguments if argument is not NoneType)
    read, expected = reader(inner, base)
    return lambda text: None if text in ("", "none") else read(text), f"{expected}, or none"


def _plain(hint: Any, base: Path, text: str) -> Any:
    if not text:
        raise ValueError("empty")
    if hint is bool:
        return ConfigParser.BOOLEAN_STATES[text.lower()]
    if hint not in (Path, cache.Root):
        return hint(text)
    place = cache.place_of(text) if hint == cache.Root else Path(text)
    return place if isinstance(place, str) else base / place.expanduser()


def _at_least(least: int, read: Callable[[str], Any], text: str) -> Any:
    if (number := read(text)) < least:
        raise ValueError(text)
    return number


def _mapping(read: Callable[[str], Any], text: str) -> dict[str, Any]:
    pairs = [word.partition(":") for word in text.split()]
    values = {name: read(value) for name, colon, value in pairs if name and colon}
    if len(values) < len(pairs):
        raise ValueError(text)
    return values
