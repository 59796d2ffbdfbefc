"""`python -m tasks config`: every setting as it holds, and where it comes from. Writes nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.console import err, out, plain
from pipeline.commands import config
from pipeline.commands.settings.file import LUIGI, did_you_mean, line_of, settings_file
from pipeline.commands.settings.schema import TYPES, Features
from pipeline.commands.settings.sections import Settings
from pipeline.commands.settings.targets import absent, by_settings
from pipeline.errors import ConfigError
from tasks.luigi_command import luigi_defaults
from tasks.settings import (
    EMBEDDED,
    MPOSER,
    PR_VIPE,
    SET_ELSEWHERE,
    UNLESS_SET,
    VIBE,
    WhichRuns,
    check_inputs,
    is_fixed,
    load,
    model_settings,
    other_settings,
    preset_of,
    which_runs,
)
from vibe_model import models
from vibe_model.models import Model
from vibe_model.settings.run_config import RunConfig

HELP: Final = config.HELP
DEFAULT: Final = "default"

options = config.options


@dataclass(frozen=True, slots=True)
class Setting:
    """One key, its value in our types, and where that comes from."""

    section: str
    key: str
    value: Any
    origin: str  # default, luigi.cfg line 23, preset embedded, variant concat, ...
    line: int = 0  # of luigi.cfg; 0: it is not there

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def run(args: argparse.Namespace) -> int:
    """Read, check and show luigi.cfg. What only training would refuse is shown below it; with --check, exit 1."""
    s = load(args.config or settings_file())
    chosen = choose(list(effective(s)), args.names)
    if args.json:
        rows = [{**{f.name: getattr(one, f.name) for f in fields(one)}, "line": one.line or None} for one in chosen]
        console.show_json({"file": str(s.file.resolve()), "settings": rows})
    elif not args.check:
        by = "environment: LUIGI_CONFIG_PATH" if "LUIGI_CONFIG_PATH" in os.environ else "./luigi.cfg"
        out.print(f"[dim]{plain(str(s.file.resolve()))} ({'--config' if args.config else by})[/dim]")
        table = console.table()
        table.show_header = False
        for style in ("bold", "", "dim"):
            table.add_column(overflow="fold", style=style)
        for one in chosen:
            table.add_row(one.name, plain(text_of(one.value)), plain(one.origin))
        console.show(table)
    try:
        for model in models.every():
            if model.section == VIBE.section or model.section in s.source.sections:
                check_inputs(s, model_settings(s, model))
    except ConfigError as error:
        err.print(f"{console.DOUBT} {plain(f'{error} Until then, training is refused; `Data` is not.')}")
        return 1 if args.check else 0
    if args.check and (lacking := absent(by_settings(s.file))):
        for text in lacking:
            err.print(f"{console.DOUBT} {plain(text)}")
        return 1
    if args.check and not args.json:
        out.print(f"{console.DONE} {plain(str(s.file))}: no mistakes, and training may begin")
    return 0


def choose(every: Sequence[Setting], names: Sequence[str]) -> list[Setting]:
    """Those that SECTION or SECTION.KEY names, in their order. Raises ConfigError for a name that there is not."""
    sections = list(dict.fromkeys(one.section for one in every))
    for name in names:
        section, dot, key = name.partition(".")
        if section not in sections:
            known = ", ".join(sections)
            raise ConfigError(f"there is no section {section!r}{did_you_mean(section, sections)} known: {known}")
        keys = [one.key for one in every if one.section == section]
        if dot and key not in keys:
            raise ConfigError(f"[{section}] has no key {key!r}{did_you_mean(key, keys)} known: {', '.join(keys)}")
    return [one for one in every if not names or {one.section, one.name} & set(names)]


def text_of(value: Any) -> str:
    """A value as luigi.cfg would set it.

    >>> text_of(True), text_of(None), text_of(("a/b", "c/d")), text_of({"a/b": 4}), text_of(())
    ('true', 'none', 'a/b c/d', 'a/b:4', '(empty)')
    """
    if isinstance(value, Mapping):
        value = [f"{name}:{one}" for name, one in value.items()]
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "(empty)"
    return (
        {True: "true", False: "false", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def settable(config: RunConfig | type[RunConfig], section: str, elsewhere: Collection[str]) -> list[str]:
    """The settings of a run that its section may set."""
    names = [field.name for field in fields(config) if field.name not in elsewhere]
    return [name for name in names if not is_fixed(section, name)]


def effective(s: Settings) -> Iterator[Setting]:
    """Section by section, in the order of docs/settings.md. What the sections lack is there with its default."""

    def setting(section: str, key: str, value: Any, otherwise: str = DEFAULT) -> Setting:
        given = s.source.section(section)
        if key not in given:
            return Setting(section, key, value, otherwise)
        line = 0 if key in given.by_set else line_of(s.file, section, key)
        return Setting(section, key, value, f"luigi.cfg line {line}" if line else "--set", line)

    def of(section: str, values: Any) -> Iterator[Setting]:
        return (setting(section, field.name, getattr(values, field.name)) for field in fields(values))

    for section in TYPES:
        yield from of(section, getattr(s, section))
        if section == "features":  # options of other kinds of streams have a section of their own
            kinds = {spec.stream.kind: spec.stream for spec in (s.stream, s.crops) if spec is not None}
            kinds |= {spec.name: spec.stream for spec in s.also}
            every = (one for kind, stream in kinds.items() for one in of(kind, stream))
            yield from (one for one in every if one.key not in {field.name for field in fields(Features)})
    shown = [name for name in datasets.names() if name in s.data.datasets or name in s.source.sections]
    for name in (name for name in shown if name not in datasets.broken(shown)):
        yield from of(name, s.dataset(name))

    for model in models.every():
        yield from _of_model(s, model, setting)
    train = model_settings(s, VIBE)
    as_train = "[train] preset" if which_runs(s).preset == EMBEDDED else DEFAULT
    for other in (MPOSER, PR_VIPE):
        config, chosen, section = other_settings(s, other), preset_of(s, other), other.section
        yield setting(section, "preset", chosen, as_train)
        otherwise = of_preset(other.presets, chosen)
        for key in settable(config, section, other.elsewhere):
            if other is MPOSER and key in UNLESS_SET and key not in s.source.section(section):
                yield Setting(section, key, getattr(train, key), f"[train] {key}")
            else:
                yield setting(section, key, getattr(config, key), otherwise(key))

    ours = luigi_defaults(s.file)
    for name in sorted(LUIGI):  # Luigi has more keys
        texts = {key: text for (section, key), text in ours.items() if section == name} | s.source.section(name)
        yield from (setting(name, key, str(text)) for key, text in texts.items())


def _of_model(s: Settings, model: Model, setting: Callable[..., Setting]) -> Iterator[Setting]:
    """A model's section."""
    runs, config, section = which_runs(s, model), model_settings(s, model), model.section
    usual = WhichRuns(preset=model.preset, report=model is VIBE)
    for field in fields(runs):
        value, derived = getattr(runs, field.name), "demo data"
        if field.name == "preset" and model is not VIBE:
            derived = "[train] preset"
        yield setting(section, field.name, value, DEFAULT if value == getattr(usual, field.name) else derived)
    changed = {key: part for part in (runs.variant or "").split("+") for key in model.variants.get(part, {})}
    otherwise = of_preset(model.presets, runs.preset)
    for key in settable(config, section, SET_ELSEWHERE):
        one = setting(section, key, getattr(config, key), otherwise(key))
        if key in changed:
            one = Setting(section, key, one.value, f"variant {changed[key]}")
        elif key == "name" and runs.variant:
            one = Setting(section, key, one.value, f"{one.origin}, variant {runs.variant}")
        yield one


def of_preset(presets: Mapping[str, Callable[..., Any]], chosen: str) -> Callable[[str], str]:
    """A function of a key: where its value is from, unless luigi.cfg sets it."""
    preset = presets[chosen]()
    usual = type(preset)()
    return lambda key: DEFAULT if getattr(preset, key) == getattr(usual, key) else f"preset {chosen}"
