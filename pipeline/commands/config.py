"""`python -m pipeline config`: the settings that hold. Writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline import datasets
from pipeline.cli import console
from pipeline.cli.console import err, out, plain
from pipeline.cli.options import json_option
from pipeline.errors import ConfigError, did_you_mean
from pipeline.recipe.recipe import by_settings, missing_files
from pipeline.settings import sections
from pipeline.settings.file import LUIGI, settings_file
from pipeline.settings.schema import TYPES
from pipeline.settings.sections import SectionValues, Settings

REQUIRED: Final = "(required)"


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("names", nargs="*", metavar="SECTION[.KEY]", help="only these, whole: as features or resnet50.precision")
    add("--all", action="store_true", help="those that are as they would be unless set, too")
    json_option(sub)
    add("--check", action="store_true", help="only whether the file is right; exit 1 where training is refused")
    help_ = "another luigi.cfg than LUIGI_CONFIG_PATH or ./luigi.cfg"
    add("--config", type=Path, metavar="FILE", help=help_)
    sub.set_defaults(complete=complete)


def complete(_: argparse.Namespace) -> None:
    """Every `--set` is read, and checked, by `run`."""


class Setting(NamedTuple):
    """One key, its value, and what it would be unless set, in our types."""

    section: str
    key: str
    value: Any
    default: Any

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def run(args: argparse.Namespace) -> int:
    """Read, check and show luigi.cfg. What only training would refuse is shown below it; with --check, exit 1."""
    file = args.config or settings_file()
    s, packages = sections.load(file), sections.declared()
    for package in packages:
        package.check(s)
    chosen = choose(list(effective(s)), args.names)
    if not (args.all or args.names):
        chosen = [setting for setting in chosen if setting.value != setting.default]
    if args.json:
        console.show_json({"file": str(file.resolve()), "settings": [setting._asdict() for setting in chosen]})
    elif not args.check:
        _show(file, chosen)
    try:
        for package in packages:
            package.check_inputs(s)
    except ConfigError as error:
        err.print(f"{console.DOUBT} {plain(f'{error} Until then, training is refused; `Data` is not.')}")
        return 1 if args.check else 0
    if args.check and (missing := missing_files(by_settings(s))):
        for text in missing:
            err.print(f"{console.DOUBT} {plain(text)}")
        return 1
    if args.check and not args.json:
        out.print(f"{console.DONE} {plain(str(file))}: no mistakes, and training may begin")
    return 0


def _show(file: Path, settings: Sequence[Setting]) -> None:
    out.print(f"[dim]{plain(str(file.resolve()))}[/dim]")
    table = console.table()
    table.show_header = False
    for style in ("bold", "", "dim"):
        table.add_column(overflow="fold", style=style)
    for setting in settings:
        value, default = text_of(setting.value), text_of(setting.default)
        table.add_row(setting.name, plain(value), plain("" if value == default else f"unless set: {default}"))
    console.show(table)


def choose(settings: Sequence[Setting], names: Sequence[str]) -> list[Setting]:
    """Those that SECTION or SECTION.KEY names, in their order. Raises ConfigError for a name that there is not."""
    sections = list(dict.fromkeys(setting.section for setting in settings))
    for name in names:
        section, dot, key = name.partition(".")
        if section not in sections:
            close = did_you_mean(section, sections)
            raise ConfigError(f"there is no section {section!r}{close} known: {', '.join(sections)}")
        keys = [setting.key for setting in settings if setting.section == section]
        if dot and key not in keys:
            raise ConfigError(f"[{section}] has no key {key!r}{did_you_mean(key, keys)} known: {', '.join(keys)}")
    return [setting for setting in settings if not names or {setting.section, setting.name} & set(names)]


def text_of(value: Any) -> str:
    """A value as luigi.cfg would set it.

    >>> text_of(True), text_of(None), text_of(("a/b", "c/d")), text_of({"a/b": 4}), text_of(())
    ('true', 'none', 'a/b c/d', 'a/b:4', '(empty)')
    """
    if isinstance(value, Mapping):
        value = [f"{name}:{number}" for name, number in value.items()]
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "(empty)"
    words = {True: "true", False: "false", None: "none"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def effective(s: Settings) -> Iterator[Setting]:
    """Section by section, in the order of docs/settings.md."""
    for section, values, unset in _sections(s):
        for key, value in values.items():
            yield Setting(section, key, value, unset[key])


def _sections(s: Settings) -> Iterator[SectionValues]:
    for section in TYPES:
        yield _of(section, getattr(s, section))
        if section == "features":
            yield from (_of(spec.name, spec.stream) for spec in s.streams)
        if section == "detect" and s.detector is not None:
            yield _of(s.detector.name, s.detector)
    shown = [name for name in datasets.names() if name in s.data.datasets or name in s.source.sections]
    yield from (_of(name, s.dataset(name)) for name in shown if name not in datasets.broken(shown))
    for package in sections.declared():
        yield from package.values(s)
    for name in sorted(LUIGI & s.source.sections.keys()):  # Luigi has more keys, and defaults
        texts = s.source.section(name)
        yield SectionValues(name, texts, dict.fromkeys(texts, "Luigi's own"))


def _of(section: str, record: Any) -> SectionValues:
    """A section whose keys are the fields of a record."""
    unset = {field.name: REQUIRED if field.default is MISSING else field.default for field in fields(record)}
    return SectionValues(section, {field.name: getattr(record, field.name) for field in fields(record)}, unset)
