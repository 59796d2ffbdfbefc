"""Arguments that several commands share: splits, cache, settings.  [raw -> tracks] ->
features

A setting comes from the command's option, else from `--set`, else from luigi.cfg, else it has its
default. luigi.cfg is the file named by LUIGI_CONFIG_PATH, else ./luigi.cfg, which may
be missing.

The functions of `options` note in the parser which option defaults to which setting. After parsing,
`command_line` calls `complete`, which loads the settings and fills in these options. It knows the
command by attributes of the parsed arguments:

    from_settings  option -> its setting, such as {"workers": "convert.workers"}; may be absent
    adds_rows      whether the command adds rows to --cache (`cache_option`); may be absent
    reads          `command_line.Command.reads`: a function, or None
    settings       words SECTION.KEY=VALUE of `--set`
    command        the command's name, for messages
    cfg            set by `complete`: the `Settings`
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from cache.write.parts import Part
from pipeline import datasets
from pipeline.cli.console import err, plain
from pipeline.cli.text import from_here
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from pipeline.plug_ins import PlugInError
from pipeline.settings.file import (
    LUIGI,
    SettingsFile,
    parse_overrides,
    settings_file,
)
from pipeline.settings.new_cache import check_new_cache


def choose_splits(names: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Choose the splits that `names` name, in the cache's order; without names, all of them.

    A name is DATASET/SPLIT, or DATASET for all its splits. Raises PipelineError for another name.

    >>> choose_splits(["3dpw"], ["3dpw/test", "amass/train"])
    ['3dpw/test']
    """
    dataset_of = {split: split.partition("/")[0] for split in splits}
    for name in names:
        if name in dataset_of or name in dataset_of.values():
            continue
        similar = did_you_mean(name, [*splits, *dataset_of.values()])
        existing = ", ".join(splits) or "none"
        raise PipelineError(f"no split {name!r} in the cache{similar or ';'} there are: {existing}")
    if not names:
        return list(splits)
    return [split for split in splits if split in names or dataset_of[split] in names]


def warn_of_broken(names: Iterable[str]) -> dict[str, PlugInError]:
    """Print a warning about each dataset that cannot be loaded. Returns their errors by name."""
    broken = datasets.load_all(names).broken
    for error in broken.values():
        err.warn(f"{error}: skipped")
    return broken


# what a part says that ends after the commit
MEANWHILE: Final = (
    "another command has saved its work meanwhile: what this share finished is not in it. Run the "
    "command without --part, or remove it with gc --unfinished (object store: gc --older-than 0)"
)


def part_text(part: Part | None) -> str:
    """How lines of progress name a part: " part 2/3"; "" without one."""
    return "" if part is None else f" part {part}"


def complete(args: argparse.Namespace) -> None:
    """Load the settings as `args.cfg`, and fill in options that were not given.

    The module docstring has the attributes of `args`.

    Options that default to a setting override that setting if they are given, and get its value if
    not. Without any setting to read, no file is loaded, and `args.cfg` is not set.

    Raises ConfigError for invalid settings (`sections.load`), for a `--set` that the command does
    not read, and for a cache that is not named, or is new where none may be created.
    """
    options: dict[str, str] = getattr(args, "from_settings", {})
    overrides = {}  # SECTION.KEY -> value of its option
    for name, setting in options.items():
        value = getattr(args, name)
        if value is not None:
            overrides[setting] = value
    adds_rows = getattr(args, "adds_rows", False)
    is_complete = overrides.keys() == set(options.values())
    reads_more = args.settings or args.reads or adds_rows
    if is_complete and not reads_more:
        return

    from pipeline.settings import sections  # imports pydantic

    file = settings_file()
    source = SettingsFile.read(file, optional=file == sections.FILE).apply_overrides()
    for name, setting in options.items():
        section, _, key = setting.partition(".")
        if setting in overrides and section != "paths":  # --cache is compared with [paths] cache
            option = f"--{name.replace('_', '-')}"
            source = source.override(section, key, str(overrides[setting]), option)
    args.cfg = sections.Settings(source, tolerant=True)
    for name, setting in options.items():
        if setting not in overrides:
            section, _, key = setting.partition(".")
            record = args.cfg.named_paths  # None without luigi.cfg
            if section != "paths":
                record = getattr(args.cfg, section)
            setattr(args, name, getattr(record, key, None))

    reads = _settings_to_read(args, options)
    if adds_rows:
        check_new_cache(args.cfg, args.cache)
    _refuse_unread(args, reads)
    if "cache" in options and options["cache"] not in overrides:
        _print_cache_of_settings(args, file)


def _settings_to_read(args: argparse.Namespace, options: dict[str, str]) -> list[str] | None:
    """The sections and settings that the command reads; None: all except those of training.

    options: option -> its setting.
    """
    reads = [*options.values()]
    if args.reads:
        reads_besides = args.reads(args)
        if reads_besides is None:
            return None
        reads += reads_besides
    if getattr(args, "adds_rows", False):
        reads.append("paths.new_cache")
    return reads


def _print_cache_of_settings(args: argparse.Namespace, file: Path) -> None:
    """Print which cache the settings name. Raises ConfigError if they name none."""
    if args.cache is None:
        do = "Run from the project's folder, or name the cache: --cache DIR."
        raise ConfigError(f"{file.resolve()}: file not found. {do}")
    is_set = "cache" in args.cfg.source.section("paths").options
    origin = "--set" if is_set else file.name
    err.print(plain(f"cache      {from_here(args.cache)} ({origin}, [paths] cache)"))


def _refuse_unread(args: argparse.Namespace, reads: Collection[str] | None) -> None:
    """Raise ConfigError for a `--set` that this command does not read.

    reads: The sections and settings that it reads; None: all except those of training.
    """
    from pipeline.settings.sections import training_sections

    for section, key, _ in parse_overrides(args.settings):
        if reads is None:
            is_read = section not in (*LUIGI, *training_sections())
            every = "all settings but those of training and Luigi"
        else:
            is_read = section in reads or f"{section}.{key}" in reads
            every = ", ".join(dict.fromkeys(reads)) or "no settings"
        if not is_read:
            problem = f"`{args.command}` does not read it with these arguments. It reads {every}"
            raise ConfigError(f"--set {section}.{key}: {problem}")
