"""Read luigi.cfg (section -> key -> text), and parse texts as typed values.  [raw] -> tracks ->
features

`--set` overrides the file. Types are those of the dataclass fields that keys fill, and pydantic
checks them:

strict = true                                   bool; int, float, str, Literal likewise
raw = data/raw                                  Path, below the folder of luigi.cfg
cache = s3://bucket/cache                       cache.Root: a URL, or a path as above
pretrained = none                               X | None
motion = amass/train bmlmovi/train              tuple: words; empty: none
strides = 3dpw/train:4 penn_action/train:4      Mapping: name:value; empty: none
weights = file:vit_b_16.pt                      a class with `parse`, as WeightsSpec: a kind and its
                                                argument
device = cuda:1                                 Annotated[str, a function that parses the text]
crop = size:256 region:256x192                  CropPolicy: name:value; empty: the usual crop
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser, DuplicateOptionError, DuplicateSectionError, ParsingError
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    get_args,
    get_origin,
    get_type_hints,
)

import cache
from cache.storage import SCHEMES
from pipeline.cli.command_line import SET
from pipeline.cli.text import text_of
from pipeline.errors import ConfigError, did_you_mean, why_refused

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Sections that Luigi reads itself.
LUIGI: Final = frozenset(
    {
        "core",
        "scheduler",
        "worker",
        "retcode",
        "logging",
        "email",
        "smtp",
        "resources",
        "task_history",
        "task",
    }
)
BY_SET: Final = "--set"
# settings of which only one is set: an option replaces the file's value of the other one
EXCLUSIVE: Final = {"device": "devices", "devices": "device"}
# section and another name of a key -> the key
OTHER_NAMES: Final = {("convert", "leave_out"): "corrections"}
# texts of shells, of luigi.cfg and of Windows that are no paths here
_OTHER_TEXT: Final = re.compile(r"""["']|.*\$(\w+|\{)|.*%\(\w+\)s|[A-Za-z]:([\\/]|$)|\\\\|file:""")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")
NO_FILE: Final = "Run from the project's folder, or set LUIGI_CONFIG_PATH."


class Section(dict[str, str]):
    """Key -> value of one section; empty if the file does not have it."""

    def __init__(
        self,
        file: Path,
        name: str,
        values: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """options: Keys set on the command line -> the option, such as --weights or --set."""
        super().__init__(values or {})
        self.file = file
        self.name = name
        self.options = options or {}

    def where(self, key: str = "") -> str:
        """Where a key is set, for messages.

        --precision                               by an option of a command
        --set [features] precision                by `--set`, as a key or as the whole section
        luigi.cfg, line 23 [features] precision   in the file; a missing key has the section's line
        luigi.cfg [features] precision            nowhere: the file does not have the section
        """
        option = self.options.get(key, BY_SET)
        if option != BY_SET:
            return option
        line = self.line(key if key in self else "")
        source = str(self.file)
        if key in self.options or (self.options and not line):
            source = BY_SET
        elif line:
            source += f", line {line}"
        return f"{source} [{self.name}] {key}".rstrip()

    def line(self, key: str) -> int:
        """Line number, from 1, of a key or, for "", of the heading; 0 if the file lacks it."""
        if not self.file.is_file():
            return 0
        heading = ""
        for number, line in enumerate(_lines(self.file), start=1):
            header = ConfigParser.SECTCRE.match(line.strip())
            if header:
                heading = header["header"]
                if heading == self.name and not key:
                    return number
            elif key and heading == self.name and re.match(rf"\s*{re.escape(key)}\s*[=:]", line):
                return number
        return 0

    def rewrite(self, key: str, old: str, new: str) -> None:
        """Replace the value `old` of a key in the file, if it stands there, by a shorter one.

        In place: a kill leaves the rest of the file as it is.
        """
        number = self.line(key)
        if not number:
            return
        *above, line = self.file.read_bytes().splitlines(keepends=True)[:number]
        value = re.search(rf"[=:]\s*{old}".encode(), line)
        if value is not None:
            with self.file.open("r+b") as file:
                file.seek(sum(map(len, above)) + value.end() - len(old))
                file.write(new.ljust(len(old)).encode())

    def drop_keys(self, *keys: str) -> Section:
        """The section without these keys."""
        values = {key: text for key, text in self.items() if key not in keys}
        return Section(self.file, self.name, values, self.options)

    def locate(self, error: ConfigError) -> ConfigError:
        """The error with the line of the first of its options that this section sets; without one,
        with the section's line.

        >>> section = Section(Path("luigi.cfg"), "vibe", {"epochs": "0"}, {"epochs": "--set"})
        >>> str(section.locate(ConfigError("epochs: expected 1", "epochs")))
        '--set [vibe] epochs: expected 1'
        """
        key = next((option for option in error.options if option in self), "")
        text = str(error).removeprefix(f"{self.name}: ")  # the line names the section, too
        return ConfigError(f"{self.where(key).removesuffix(f' {key}')} {text}")

    def check_keys(self, known: Iterable[str]) -> None:
        """Raise ConfigError for the first unknown key, with a suggestion."""
        names = list(known)
        for key in self:
            if key in names:
                continue
            hint = did_you_mean(key, names)
            if not names:
                hint = f"; {self.name} has none"
            elif not hint:
                hint = f"; known: {', '.join(names)}"
            raise ConfigError(f"{self.where(key)}: unknown key{hint}")

    def parse(self, spec: type[Any]) -> dict[str, Any]:
        """Parse the keys that are fields of `spec`. Paths are relative to the file's folder, on the
        command line to the working folder.

        Raises ConfigError, with the line, for an invalid value.
        """
        hints = get_type_hints(spec, include_extras=True)
        values = {}
        for field in fields(spec):
            key = field.name
            if key not in self:
                continue
            base = self.file.resolve().parent
            if key in self.options:
                base = Path.cwd()
            try:
                if key not in self.options:
                    _refuse_other_lines(self[key], base)
                values[key] = field.default
                is_number = type(field.default) in (bool, int, float)
                if not is_number or self[key] != text_of(field.default):  # without pydantic
                    values[key] = _value_of(hints[key], self[key], base)
            except (ValueError, ConfigError) as error:
                text = " ".join(self[key].split())
                raise ConfigError(f"{self.where(key)} = {text}: {why_refused(error)}") from error
        return values


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The sections of a file, in its order."""

    path: Path
    sections: Mapping[str, Section]

    def section(self, name: str) -> Section:
        return self.sections.get(name, Section(self.path, name))

    def where(self, section: str, key: str = "") -> str:
        return self.section(section).where(key)

    def names(self, setting: str) -> bool:
        """Whether SECTION.KEY is set. Raises ConfigError for an empty value, where none would end
        the one that holds.
        """
        section, _, key = setting.partition(".")
        text = self.section(section).get(key)
        if text == "":
            raise ConfigError(f"{self.where(section, key)}: is empty. Set a value, or none.")
        return text is not None

    @staticmethod
    def read(file: Path, do: str = NO_FILE, *, optional: bool = False) -> SettingsFile:
        """Read the file's sections. optional: A missing file has none.

        Raises ConfigError, with the line, for a file in another format, and with `do` for a missing
        file.
        """
        if optional and not file.exists():
            return SettingsFile(file, {})
        if not file.exists():
            raise ConfigError(f"{file.resolve()}: file not found. {do}")
        lines = _lines(file)
        # no [DEFAULT]: its keys would be in all sections
        parser = ConfigParser(interpolation=None, default_section="")
        parser.optionxform = str  # type: ignore[assignment, method-assign]  # letters keep their case, as in Luigi
        try:
            parser.read_file(lines, source=str(file))
        except (ParsingError, DuplicateSectionError, DuplicateOptionError) as error:
            # a ParsingError has `errors`, pairs of a line number and a text; the others, `lineno`
            number: int = getattr(error, "lineno", 0) or getattr(error, "errors", [(0, "")])[0][0]
            problem = "expected key = value, below a [section]"
            if isinstance(error, DuplicateSectionError | DuplicateOptionError):
                problem = "duplicate line, delete one"
            text = lines[number - 1].strip()[:60]
            raise ConfigError(f"{file}, line {number}: {problem}; found {text!r}") from error
        names = parser.sections()
        sections = {name: Section(file, name, dict(parser.items(name))) for name in names}
        for (name, other), key in OTHER_NAMES.items():
            if other not in sections.get(name, ()):
                continue
            where = sections[name].where(other)
            if key in sections[name]:
                raise ConfigError(
                    f"{where}: is another name of {key}, which is also set. Keep one."
                )
            sections[name][key] = sections[name].pop(other)
        return SettingsFile(file, sections)

    def apply_overrides(self) -> SettingsFile:
        """Override sections with `--set`. Raises ConfigError for an invalid one."""
        source = self
        for name, key, text in parse_overrides():
            source = source.override(name, key, text)
        return source

    def override(self, name: str, key: str, text: str, option: str = BY_SET) -> SettingsFile:
        """Set a key of the section `name`. option: The option of the command line that does so."""
        section = self.section(name)
        rival = EXCLUSIVE.get(key, "")
        if text not in ("", "none") and rival not in section.options:
            section = section.drop_keys(rival)
        options = {**section.options, key: option}
        section = Section(self.path, name, {**section, key: text}, options)
        return SettingsFile(self.path, {**self.sections, name: section})

    def override_keys(self, name: str, **values: object) -> SettingsFile:
        """Set keys of the section `name` for which a command has options of these names. None: the
        option is not given.
        """
        source = self
        for key, value in values.items():
            if value is not None:
                source = source.override(name, key, str(value), f"--{key}")
        return source


def _refuse_other_lines(text: str, base: Path) -> None:
    """Raise ValueError for a value that a comment, or an indented line with another key, is part of
    by mistake. A path below `base` that exists may have a # in its name.
    """
    comment = re.search(r"(^|\s)[#;].*", text)
    if comment and not (base / text).exists():
        raise ValueError(
            f"{comment[0].strip()!r} is part of the value here. Put a comment in a line of its own"
        )
    indented = re.search(r"\n\w+\s*=", text)
    if indented:
        key = indented[0].strip("\n =")
        raise ValueError(
            f"the indented line of {key!r} is part of this value. Begin it in the first column"
        )


def _value_of(hint: Any, text: str, base: Path) -> Any:
    """Parse a text as this type. Paths are relative to `base`. Raises ValueError for invalid texts.

    >>> splits = _value_of(tuple[str, ...], "amass/train 3dpw/train", Path())
    >>> splits, _value_of(int | None, "none", Path())
    (('amass/train', '3dpw/train'), None)
    """
    origin = get_origin(hint)
    arguments = get_args(hint)
    # First the types for which an empty text is a valid value.
    if hasattr(hint, "parse"):
        # a class of its own, such as WeightsSpec; `below` resolves the relative paths in it
        parsed = hint.parse(text)
        if hasattr(parsed, "below"):
            return parsed.below(base)
        return parsed
    if origin is Annotated and callable(arguments[1]):
        return arguments[1](text)
    if origin is tuple:
        return tuple(_value_of(arguments[0], word, base) for word in text.split())
    if origin is Mapping:
        return _parse_pairs(arguments[1], text, base)
    if origin is Annotated and get_args(arguments[0]):
        # Annotated[X | None, ...] or another type with parts: parse those. pydantic parses
        # Annotated[int, ...], since it checks the limits in it.
        return _value_of(arguments[0], text, base)
    if NoneType in arguments:
        if text in ("", "none"):
            return None
        inner, *_ = [argument for argument in arguments if argument is not NoneType]
        return _value_of(inner, text, base)
    if not text:
        raise ValueError("expected a value, found none")

    if hint is str or (origin is Literal and text in arguments):
        return text
    if hint == cache.Root and cache.local_folder(text) is None:
        return text  # a URL is not relative to a folder
    if hint in (Path, cache.Root):
        return base / _folder_of(text, or_url=hint == cache.Root)
    return _adapter(hint).validate_python(text)


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _folder_of(text: str, *, or_url: bool) -> Path:
    """Parse the path of a file or folder; `~` is the home folder. If the path exists as written, it
    is returned unchanged.

    Args:
        or_url: the caller also accepts URLs of an object store, which messages mention. Such a URL
            must not be passed to this function.

    Raises ValueError for a text that looks like a common mistake, such as a quoted path or a URL.
    """
    path = Path(text)
    if path.exists():
        return path
    if _OTHER_TEXT.match(text):
        raise ValueError(
            "expected a path of this system, without quotes, variables, a drive or file:"
        )
    url = _URL.match(text)
    if url and not or_url:
        raise ValueError("expected a path of this system, which this cannot be")
    if url and url[1] in SCHEMES:
        raise ValueError(f"expected a folder, or a URL with two slashes: {url[1]}://bucket/prefix")
    if url:
        urls = f"a URL that starts with one of {', '.join(SCHEMES)}"
        raise ValueError(f"expected a path of this system, or {urls}")

    try:
        return path.expanduser()
    except RuntimeError as error:
        user = text.partition("/")[0]
        raise ValueError(f"expected a path: there is no home folder of {user}") from error


def _parse_pairs(hint: Any, text: str, base: Path) -> dict[str, Any]:
    """Parse name:value pairs with values of this type. Raises ValueError."""
    values = {}
    for word in text.split():
        name, _, value = word.partition(":")
        if name in values or not (name and value):
            raise ValueError("expected name:value pairs with spaces between, each name once")
        values[name] = _value_of(hint, value, base)
    return values


def option_type(hint: Any) -> Callable[[str], Any]:
    """Type for argparse: text as a setting of this type."""

    def parse(text: str) -> Any:
        try:
            return _value_of(hint, text, Path())
        except (ValueError, ConfigError) as error:
            raise argparse.ArgumentTypeError(f"{why_refused(error)}, found {text!r}") from error

    return parse


PATH: Final = option_type(Path)  # type of an option that names a file or folder
ROOT: Final = option_type(cache.Root)  # the same, or the URL of an object store


def settings_file() -> Path:
    """The file in LUIGI_CONFIG_PATH, or ./luigi.cfg."""
    return Path(os.environ.get("LUIGI_CONFIG_PATH") or "luigi.cfg")


def parse_overrides(lines: Sequence[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield (section, key, value) of each `--set`. Raises ConfigError for an invalid one.

    lines: SECTION.KEY=VALUE each; None: those in the environment, which `--set` puts there.
    """
    if lines is None:
        lines = os.environ.get(SET, "").splitlines()
    for line in lines:
        name, value = line.partition("=")[::2]
        section, _, key = name.strip().rpartition(".")
        if not (section and key and "=" in line):
            raise ConfigError(f"--set {line}: expected SECTION.KEY=VALUE, such as vibe.epochs=5")
        yield section, OTHER_NAMES.get((section, key), key), value.strip()


def _lines(file: Path) -> list[str]:
    """The lines of a text file. Raises ConfigError if it is not UTF-8."""
    data = file.read_bytes()
    try:
        return list(io.StringIO(data.decode(), newline=None))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        byte = f"the byte {data[error.start]:#04x}"
        raise ConfigError(f"{file}, line {line}: expected text in UTF-8, found {byte}") from error
