"""The text of a setting in luigi.cfg -> the type that a dataclass's field asks for.

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

import functools
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import cache
from pipeline.features.weights import WeightsSpec

_EXPECTED: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    str: "a word",
    cache.Root: "a path, or a URL as s3://bucket/prefix",
}


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
