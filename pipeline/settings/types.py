"""The text of a setting in luigi.cfg -> the type that a dataclass's field asks for.

epochs = 30                                     int, float, str
strict = true                                   bool
precision = exact                               Literal: one of some words
raw = data/raw                                  Path, below the folder of luigi.cfg
cache = s3://bucket/cache                       cache.Root: a URL, or a path as above
pretrained = none                               X | None
motion = amass/train bmlmovi/train              tuple: words; empty: none
strides = 3dpw/train:4 penn_action/train:4      Mapping: name:value; empty: none
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from configparser import ConfigParser
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import cache
from cache import Root
from pipeline.errors import ConfigError
from pipeline.settings.file import unknown, where

_EXPECTED: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    str: "a word",
    Root: "a path, or a URL as s3://bucket/prefix",
}


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`Annotated[int, AtLeast(0)]`: smaller numbers are refused."""

    least: int


def typed(file: Path, section: str, given: Mapping[str, str], spec: type[Any]) -> dict[str, Any]:
    """The texts of one section as the types of spec's fields. Paths are taken from the folder of `file`.

    Raises ConfigError for an unknown key or an unfit value, with its line where the text knows it.
    """
    every = get_type_hints(spec, include_extras=True)
    hints = {f.name: every[f.name] for f in fields(spec)}
    check_keys(file, section, given, hints)
    values = {}
    for key, text in given.items():
        try:
            values[key] = _parse(text, hints[key], file.resolve().parent)
        except ValueError as error:
            found = f"{where(file, section, key, text)} = {' '.join(text.split())}"
            raise ConfigError(f"{found}: expected {_expected(hints[key])}") from error
    return values


def check_keys(file: Path, section: str, given: Mapping[str, str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first key that is not known."""
    names = list(known)
    for key, text in given.items():
        if key not in names:
            raise unknown(file, section, key, text, names)


def _parse(text: str, hint: Any, base: Path) -> Any:
    """Raise ValueError for what is not of that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        number = _parse(text, arguments[0], base)
        if number < arguments[1].least:
            raise ValueError(text)
        return number
    if origin is Literal:
        return arguments[arguments.index(text)]
    if origin is tuple:
        return tuple(_parse(word, arguments[0], base) for word in text.split())
    if origin is Mapping:
        pairs = [word.partition(":") for word in text.split()]
        if not all(name and colon for name, colon, _ in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
            raise ValueError(text)
        return {name: _parse(value, arguments[1], base) for name, _, value in pairs}
    if hint == Root and text:
        place = cache.place_of(text)
        return place if isinstance(place, str) else base / place.expanduser()
    if NoneType in arguments:
        return None if text in ("", "none") else _parse(text, _without_none(arguments), base)
    if hint is bool:
        if text.lower() not in ConfigParser.BOOLEAN_STATES:
            raise ValueError(text)
        return ConfigParser.BOOLEAN_STATES[text.lower()]
    if text == "":
        raise ValueError("empty")
    return base / Path(text).expanduser() if hint is Path else hint(text)


def _without_none(arguments: tuple[Any, ...]) -> Any:
    return next(hint for hint in arguments if hint is not NoneType)


def _expected(hint: Any) -> str:
    """A type, for a message.

    >>> _expected(tuple[str, ...])
    'words with spaces between'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _EXPECTED:
        return _EXPECTED[hint]
    if origin is Annotated:
        return f"{_expected(arguments[0])}, {arguments[1].least} or more"
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        return f"{_expected(arguments[0]).removeprefix('a ')}s with spaces between"
    if origin is Mapping:
        return f"name:value pairs with spaces between, each name once, each value {_expected(arguments[1])}"
    return f"{_expected(_without_none(arguments))}, or none"
