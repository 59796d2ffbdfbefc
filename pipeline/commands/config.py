"""`python -m pipeline config`: effective settings. Writes nothing."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import cache
from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out, plain, print_json
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import text_of
from pipeline.commands.preparation import load_networks
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from pipeline.files.places import require_writable
from pipeline.plug_ins import load
from pipeline.settings import sections
from pipeline.settings.file import LUIGI, settings_file
from pipeline.settings.new_cache import check_new_cache
from pipeline.settings.schema import SECTION_TYPES
from pipeline.settings.sections import Settings, SettingValue
from pipeline.steps.recipe import Recipe, missing_files

REQUIRED: Final = "(required)"
EMPTY: Final = "(empty)"
TRAININGS: Final = (
    "vibe_model.sections:ModelSections"  # by name, since models build on the pipeline
)


def _run(args: argparse.Namespace) -> int:
    """Read, check and show luigi.cfg.

    Problems that concern only training are warnings. Returns 1 if files are missing that training
    needs, and with --check for settings that training refuses.
    """
    file = settings_file()
    settings = sections.load(file)
    load(TRAININGS)(settings).check()

    chosen = _choose(list(effective(settings)), args.names)
    if not (args.all or args.names):
        chosen = [setting for setting in chosen if setting.value != setting.default]
    if args.json:
        print_json({"file": str(file.resolve()), "settings": chosen})
    elif not args.check:
        _show(file, chosen)

    problems = list[str]()
    try:
        for doubt in load(TRAININGS)(settings).check_all_inputs():
            err.warn(doubt)
    except ConfigError as error:
        message = str(error).removesuffix(".")
        problems.append(f"{message}. This is needed for training, not for `Data`.")
    if args.check:
        problems += _problems(settings)
    show = err.show_problem if args.check else err.warn
    for text in problems:
        show(text)
    if args.check and not (problems or args.json):
        out.print(f"{console.DONE} {plain(str(file))}: correct, training can start")
    return int(args.check and bool(problems))


def _problems(settings: Settings) -> list[str]:
    """Messages about what `Data` or training would refuse: the checks that they make themselves."""
    recipes = Recipe.by_settings(settings)
    problems = missing_files(recipes)
    checks: list[Callable[[], object]] = [
        partial(check_new_cache, settings, settings.paths.cache),
        partial(require_writable, settings.paths.runs, "Name another folder: [paths] runs"),
        *(partial(recipe.refuse_random_weights, recipe.streams) for recipe in recipes),
    ]
    for check in checks:
        try:
            check()
        except (PipelineError, cache.CacheError, OSError) as error:
            problems.append(error_text(error))
    streams = {spec.name: spec for recipe in recipes for spec in recipe.streams}
    problems += load_networks(settings, [*streams.values()], downloads=False)
    return [*dict.fromkeys(problems)]


def _show(file: Path, values: Sequence[SettingValue]) -> None:
    out.print(f"[dim]{plain(str(file.resolve()))}[/dim]")
    table = console.new_table()
    table.show_header = False
    for style in ("bold", "", "dim"):
        table.add_column(overflow="fold", style=style)
    for setting in values:
        value = text_of(setting.value) or EMPTY
        default = text_of(setting.default) or EMPTY
        about = f"default: {default}"
        if default == REQUIRED:
            about = "required"
        elif default == value:
            about = ""
        table.add_row(setting.name, plain(value), plain(about))
    console.print_table(table)


def _choose(values: Sequence[SettingValue], names: Sequence[str]) -> list[SettingValue]:
    """Choose the values that the names (SECTION or SECTION.KEY) name; without names, all.

    Raises ConfigError for an unknown name.
    """
    if not names:
        return [*values]
    keys_of = defaultdict[str, list[str]](list)
    for setting in values:
        keys_of[setting.section].append(setting.key)

    for name in names:
        section, _, key = name.rpartition(".")
        if name in keys_of or not section:
            section = name
            key = ""
        if section not in keys_of:
            close = did_you_mean(section, [*keys_of])
            raise ConfigError(f"no section {section!r}{close or ';'} known: {', '.join(keys_of)}")
        keys = keys_of[section]
        if key and key not in keys:
            close = did_you_mean(key, keys)
            raise ConfigError(
                f"[{section}] has no key {key!r}{close or ';'} known: {', '.join(keys)}"
            )
    return [setting for setting in values if {setting.section, setting.name} & set(names)]


def effective(settings: Settings) -> Iterator[SettingValue]:
    """Yield all settings with their effective values, in the order of docs/settings.md."""
    for section in SECTION_TYPES:
        yield from _values_of(section, getattr(settings, section))
        if section == "features":
            for spec in settings.streams:
                yield from _values_of(spec.name, spec.stream)
        if section == "detect" and settings.detector is not None:
            yield from _values_of(settings.detector.name, settings.detector)

    enabled = {*settings.data.datasets, *settings.source.sections}
    named = [name for name in datasets.names() if name in enabled]
    for name in datasets.load_all(named).records:
        yield from _values_of(name, settings.dataset(name))

    yield from load(TRAININGS)(settings).values()
    # Luigi has more keys, and their defaults
    for name in sorted(LUIGI & settings.source.sections.keys()):
        for key, text in settings.source.section(name).items():
            yield SettingValue(name, key, text, "Luigi's own")


def _values_of(section: str, record: Any) -> Iterator[SettingValue]:
    for field in fields(record):
        default = field.default
        if default is MISSING:
            default = REQUIRED
        yield SettingValue(section, field.name, getattr(record, field.name), default)


COMMAND: Final = Command(_run)
