"""How commands take settings: an option, else `--set`, else luigi.cfg, else the default.  [raw -> tracks] -> features

luigi.cfg is that of the working folder, or what LUIGI_CONFIG_PATH or `--config` names. There need not be one.
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
from pipeline.settings.file import LUIGI, of_command_line, settings_file, value_of
from pipeline.settings.schema import TYPES
from pipeline.settings.sections import FORMERLY, declared_names


def from_settings(sub: argparse.ArgumentParser, **options: str) -> None:
    """Where these options are not given, they are settings, as workers="convert.workers"; their --help says so."""
    before = sub.get_default("from_settings") or {}
    sub.set_defaults(from_settings=before | options, **dict.fromkeys(options))
    for action in sub._actions:
        if action.dest in options:
            section, _, key = options[action.dest].partition(".")
            action.help = f"{action.help}; default: [{section}] {key} of luigi.cfg"


def setting_options(sub: argparse.ArgumentParser, section: str, *keys: str, group: Any = None) -> None:
    """`--KEY` for keys of a section of TYPES: of the type, and with the description, that the setting has.

    `group`: of options that exclude one another, which the options belong to.
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
    """For argparse: text as a setting of this type."""

    def parse(text: str) -> Any:
        try:
            return value_of(hint, text, Path())
        except (ValueError, ConfigError) as error:
            raise argparse.ArgumentTypeError(f"{expected(error)}, found {text!r}") from error

    return parse


def complete(args: argparse.Namespace) -> None:
    """Fill in the options of `from_settings` that were not given. `args.cfg` are the settings, for `Command.reads`.

    Raises ConfigError as `sections.load`, for a `--set` that the command does not read, and where no cache is named.
    """
    options: dict[str, str] = getattr(args, "from_settings", {})
    absent = [name for name in options if getattr(args, name) is None]
    if not (absent or args.settings or args.reads):
        return
    file = getattr(args, "config", None) or settings_file()
    args.cfg = sections.load(file, tolerant=True, optional=file == sections.FILE)
    for name in absent:
        setattr(args, name, args.cfg.value(options[name]))
    for named, sibling in (("device", "devices"), ("devices", "device")):  # each stands for both
        if sibling in absent and named in options.keys() - absent:
            setattr(args, sibling, "auto" if sibling == "device" else None)
    reads = args.reads(args) if args.reads else ()
    _refuse_unread(args, None if reads is None else [*options.values(), *reads])
    if "cache" in absent:
        if args.cache is None:
            do = "Run from the project's folder, or name the cache: --cache DIR."
            raise ConfigError(f"{file.resolve()}: there is no such file. {do}")
        name = "--set" if "cache" in args.cfg.source.section("paths").by_set else file.name
        err.print(plain(f"cache      {from_here(args.cache)} ({name}, [paths] cache)"))


def _refuse_unread(args: argparse.Namespace, reads: Collection[str] | None) -> None:
    """Raise ConfigError for a `--set` of this command that is not among what it reads; None: all but training's."""
    for old, key, _ in of_command_line(args.settings):
        section = FORMERLY.get(old, old)
        if reads is None and section not in (*LUIGI, *declared_names()):
            continue
        if reads is None or not {section, f"{section}.{key}"} & set(reads):
            which = "all but settings of training and of Luigi" if reads is None else ", ".join(dict.fromkeys(reads))
            do = f"`{args.command}` does not read it with these arguments. It reads {which or 'no settings'}"
            raise ConfigError(f"--set {section}.{key}: {do}")


def dataset_of(args: argparse.Namespace, name: str) -> Dataset:
    """A dataset with the options of its section. Raises ConfigError, and as `datasets.get`."""
    dataset: Dataset = args.cfg.dataset(name)
    return dataset


def body_of(args: argparse.Namespace, dataset: Dataset, *, demo: bool, needed: bool | None = None) -> Path | None:
    """`--body`; else, where it is needed, [paths] body where it is of the same kind as the raw data.

    `demo`: these are demo data. Of the other kind, a line says so, and there is none. needed: None: to convert.
    """
    named: Path | None = args.body
    body: Path | None = args.cfg.value("paths.body")
    if named is not None or body is None or not (dataset.uses_body if needed is None else needed):
        return named
    not_made = args.cfg.embedded.enabled and not body.is_dir()
    if is_stand_in(body) == demo and not not_made:
        return body
    kinds = {True: "demo", False: "real"}
    is_ = f"a {kinds[not demo]} one, and these are {kinds[demo]} data" if body.is_dir() else "not there"
    err.print(f"{DOUBT} {plain(f'[paths] body = {from_here(body)} is not used for {dataset.name}: it is {is_}')}")
    return None
