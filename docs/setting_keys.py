"""The keys of luigi.cfg as in the code: defaults, values of presets, and descriptions."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast, get_args, get_origin, get_type_hints

from cache import CropPolicy, Jitter
from pipeline import datasets
from pipeline.cli.text import text_of
from pipeline.clips import detectors
from pipeline.commands.config import EMPTY
from pipeline.features import streams
from pipeline.settings.schema import SECTION_TYPES
from vibe_model import models
from vibe_model.models import Model, Training
from vibe_model.part_dynamics.pr_vipe.config import PR_VIPE
from vibe_model.sections import RunChoice
from vibe_model.vibe.config import MPOSER


class Field(NamedTuple):
    """A field as its class's source declares it."""

    name: str
    type: str
    default: str  # "" without one
    about: str  # the comments right above it and behind it
    heading: str  # a comment above it, with an empty line between: the heading of a group of fields


class Key(NamedTuple):
    """A key of a section, with values as in luigi.cfg."""

    name: str
    default: str
    about: str
    choices: tuple[str, ...] = ()
    presets: Mapping[str, str] = {}  # other presets -> their values
    limits: str = ""  # of a number, as "at least 0"
    decides: bool = True  # whether a training's fingerprint has its value


@functools.cache
def fields(cls: type[Any]) -> tuple[Field, ...]:
    """The fields that a class declares, without those of its bases."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines, body = source.splitlines(), cast(ast.ClassDef, ast.parse(source).body[0]).body
    return tuple(
        _field(source, lines, node)
        for node in body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and not node.target.id.startswith("_")
    )


def _field(source: str, lines: list[str], node: ast.AnnAssign) -> Field:
    first, above = _comment_above(lines, node.lineno - 1)
    heading = ""
    if not lines[first - 1]:
        heading = _comment_above(lines, first - 1)[1]
    behind = lines[cast(int, node.end_lineno) - 1].encode()[node.end_col_offset :].decode()
    comments = [text.strip() for text in behind.split("# ")]
    comments = [text for text in comments if text and not text.startswith(("noqa", "type:"))]
    return Field(
        cast(ast.Name, node.target).id,
        ast.get_source_segment(source, node.annotation) or "",
        ast.get_source_segment(source, node.value) or "" if node.value else "",
        " ".join(filter(None, (above, *comments))),
        heading,
    )


def _comment_above(lines: list[str], number: int) -> tuple[int, str]:
    """Of the comment that ends right above a line: the number of its first line, and its words."""
    first = number
    while lines[first - 1].startswith("    # "):
        first -= 1
    return first, " ".join(line.removeprefix("    # ") for line in lines[first:number])


def about(cls: type[Any], name: str) -> str:
    """The description in the field's type, else its comment in the class or in a base, else ""."""
    hint = get_type_hints(cls, include_extras=True)[name]
    described = (item for item in getattr(hint, "__metadata__", ()) if isinstance(item, str))
    classes = (base for base in cls.__mro__ if base is not object)
    comments = (field.about for base in classes for field in fields(base) if field.name == name)
    kinds = "; ".join(kind.form for kind in getattr(hint, "kinds", {}).values())  # of weights
    return ". ".join(filter(None, (next(filter(None, (*described, *comments)), ""), kinds)))


NO_VALUES: Final = ("required", EMPTY)  # what stands in the place of a default
_LIMITS: Final = {"gt": "over", "ge": "at least", "lt": "under", "le": "at most"}


def _limits(hint: Any) -> str:
    """The limits of a number by its type, or of the numbers in it; "" without any."""
    found = [
        f"{words} {getattr(limit, name)}"
        for item in getattr(hint, "__metadata__", ())
        for limit in getattr(item, "metadata", [item])
        for name, words in _LIMITS.items()
        if hasattr(limit, name)
    ]
    return ", ".join(found) or next(filter(None, map(_limits, get_args(hint))), "")


def keys_of(
    cls: type[Any], names: Iterable[str] | None = None, defaults: Any = None
) -> Iterator[Key]:
    """The keys of a record, or those of `names`. defaults: a record with the default values."""
    hints = get_type_hints(cls)
    limited = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if names is None or field.name in names:
            value = field.default if defaults is None else getattr(defaults, field.name)
            meaning = about(cls, field.name)
            may_be_empty = "empty:" in meaning
            required = value is dataclasses.MISSING or (value in ("", Path()) and not may_be_empty)
            choices = (
                get_args(hints[field.name]) if get_origin(hints[field.name]) is Literal else ()
            )
            default = "required" if required else _shown(value)
            limits = _limits(limited[field.name])
            yield Key(field.name, default, meaning, choices, limits=limits)


def _shown(value: Any) -> str:
    return text_of(value) or EMPTY


def _trained(training: Training[Any]) -> Iterator[Key]:
    choice = RunChoice(preset=training.preset)
    names = ["preset"]
    if isinstance(training, Model):
        choice = RunChoice.default(training)
        names = [field.name for field in dataclasses.fields(choice)]
    choices = {
        "preset": tuple(training.presets),
        "variant": tuple(getattr(training, "variants", ())),
    }
    for key in keys_of(RunChoice, names, choice):
        yield key._replace(choices=choices.get(key.name, ()))
    configs = {name: preset() for name, preset in training.presets.items()}
    for key in keys_of(training.config, training.settable, configs[training.preset]):
        values = {name: _shown(getattr(config, key.name)) for name, config in configs.items()}
        others = {name: value for name, value in values.items() if value != key.default}
        yield key._replace(presets=others, decides=key.name not in training.config.NEUTRAL)


@functools.cache
def sections() -> dict[str, tuple[Key, ...]]:
    """Section -> its keys, if it has any."""
    options: dict[str, type[Any]] = {
        **SECTION_TYPES,
        **{name: type(datasets.get(name)) for name in datasets.names()},
        **{name: streams.find(name) for name in streams.names()},
        **{name: detectors.find(name) for name in detectors.names()},
    }
    trainings: list[Training[Any]] = [*models.every(), MPOSER, PR_VIPE]
    keys = {name: tuple(keys_of(cls)) for name, cls in options.items()}
    return {name: listed for name, listed in keys.items() if listed} | {
        training.section: tuple(_trained(training)) for training in trainings
    }


def crop_words() -> tuple[Key, ...]:
    """The words in a stream's `crop`."""
    policy, (copy, *jitter) = keys_of(CropPolicy), keys_of(Jitter)
    return (
        *(
            key if key.name != "jitter" else copy._replace(name="jitter", default="none")
            for key in policy
        ),
        *jitter,
    )
