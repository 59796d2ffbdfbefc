"""Settings of commands: an option, else `--set`, else luigi.cfg, else the default.  [raw -> tracks] -> features

luigi.cfg is LUIGI_CONFIG_PATH, `--config` or ./luigi.cfg, which is optional.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.text import from_here
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, expected
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.settings import sections
from pipeline.settings.file import LUIGI, parse_overrides, settings_file, value_of
from pipeline.settings.schema import TYPES
from pipeline.settings.sections import FORMERLY, declared_names


def from_settings(sub: argparse.ArgumentParser, **options: str) -> None:
    """Let options default to settings, such as workers="convert.workers", and add that to --help without a default."""
    before = sub.get_default("from_settings") or {}
    sub.set_defaults(from_settings=before | options, **dict.fromkeys(options))
    for action in sub._actions:
        if action.dest in options and "(default: " not in str(action.help):
            section, _, key = options[action.dest].partition(".")
            action.help = f"{action.help} (default: [{section}] {key})"


def setting_options(sub: argparse.ArgumentParser, section: str, *keys: str, group: Any = None) -> None:
    """Add `--KEY` for keys of a section of TYPES, with the type and description of the setting.

    group: add them to this group of mutually exclusive options.
    """
    hints = get_type_hints(TYPES[section], include_extras=True)
    for key in keys:
        about: dict[str, Any] = {"help": TYPES[section].__pydantic_fields__[key].description.replace("%", "%%")}
        if hints[key] is bool or bool in get_args(hints[key]):
            about["action"] = "store_true"
        else:
            about |= {"type": option_type(hints[key]), "metavar": key.split("_")[-1].upper()}
        (group or sub).add_argument(f"--{key.replace('_', '-')}", **about)
    from_settings(sub, **{key: f"{section}.{key}" for key in keys})


def option_type(hint: Any) -> Callable[[str], Any]:
    """Type for argparse: text as a setting of this type."""

    def parse(text: str) -> Any:
        try:
            return value_of(hint, text, Path())
        except (ValueError, ConfigError) as error:
            raise argparse.ArgumentTypeError(f"{expected(error)}, found {text!r}") from error

    return parse


def complete(args: argparse.Namespace) -> None:
    """Load the settings as `args.cfg`, and fill in the options of `from_settings` that were not given.

    Raises ConfigError as `sections.load`, for a `--set` that the command does not read, and if no cache is named.
    """
    options: dict[str, str] = getattr(args, "from_settings", {})
    absent = [name for name in options if getattr(args, name) is None]
    if not (absent or args.settings or args.reads):
        return
    file = getattr(args, "config", None) or settings_file()
    args.cfg = sections.load(file, tolerant=True, optional=file == sections.FILE)
    for name in absent:
        setattr(args, name, args.cfg.value(options[name]))
    for named, sibling in (("device", "devices"), ("devices", "device")):  # one overrides both settings
        if sibling in absent and named in options.keys() - absent:
            setattr(args, sibling, "auto" if sibling == "device" else None)
    reads = args.reads(args) if args.reads else ()
    _refuse_unread(args, None if reads is None else [*options.values(), *reads])
    if "cache" in absent:
        if args.cache is None:
            do = "Run from the project's folder, or name the cache: --cache DIR."
            raise ConfigError(f"{file.resolve()}: file not found. {do}")
        name = "--set" if "cache" in args.cfg.source.section("paths").by_set else file.name
        err.print(plain(f"cache      {from_here(args.cache)} ({name}, [paths] cache)"))


def _refuse_unread(args: argparse.Namespace, reads: Collection[str] | None) -> None:
    """Raise ConfigError for a `--set` that this command does not read. reads: None: all but those of training."""
    for old, key, _ in parse_overrides(args.settings):
        section = FORMERLY.get(old, old)
        if reads is None and section not in (*LUIGI, *declared_names()):
            continue
        if reads is None or not {section, f"{section}.{key}"} & set(reads):
            every = "all settings but those of training and Luigi" if reads is None else ", ".join(dict.fromkeys(reads))
            problem = f"`{args.command}` does not read it with these arguments. It reads {every or 'no settings'}"
            raise ConfigError(f"--set {section}.{key}: {problem}")


def dataset_of(args: argparse.Namespace, name: str) -> Dataset:
    """A dataset with the options of its section. Raises ConfigError and what `datasets.get` raises."""
    dataset: Dataset = args.cfg.dataset(name)
    return dataset


def body_of(args: argparse.Namespace, dataset: Dataset, *, demo: bool, needed: bool | None = None) -> Path | None:
    """`--body`; else, if needed, [paths] body if both it and the raw data are real, or both are demo data.

    Args:
        demo: the raw data are demo data. If the body is of the other kind, print a warning and return None.
        needed: None: if conversion needs a body.
    """
    named: Path | None = args.body
    body: Path | None = args.cfg.value("paths.body")
    if named is not None or body is None or not (dataset.uses_body if needed is None else needed):
        return named
    not_made = args.cfg.embedded.enabled and not body.is_dir()
    if is_stand_in(body) == demo and not not_made:
        return body
    kinds = {True: "demo", False: "real"}
    why = f"it is a {kinds[not demo]} body, and these are {kinds[demo]} data" if body.is_dir() else "folder not found"
    err.print(f"{DOUBT} {plain(f'[paths] body = {from_here(body)} is not used for {dataset.name}: {why}')}")
    return None
