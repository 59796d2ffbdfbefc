"""`python -m pipeline export`: tracks and features -> files for other programs.

`pipeline.extras.exchange.formats` has the table of formats. Each is a function (cache, split, out)
whose other arguments are options of this command, and whose argument `options` is a dataclass:
`--option` sets its fields, as do `--body` and `--raw` the fields of these names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.command_line import Command
from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.datasets import find_installed
from pipeline.errors import ConfigError
from pipeline.extras.exchange.formats import FORMATS
from pipeline.people.estimates import estimates_of
from pipeline.settings.arguments import choose_splits
from pipeline.settings.file import Section
from pipeline.settings.folders import BODY, body_of
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.sharing import licences_of, private_lines


def _run(args: argparse.Namespace) -> int:
    """Write the splits in the chosen format."""
    opened = cache.open(args.cache)
    names = choose_splits(_join_names(args.splits, opened.splits), opened.splits)
    name = ", ".join(names)
    export_format = FORMATS.find(args.format)
    export = export_format.function()
    root = cache.local_folder(args.cache)
    if root is not None and args.out.resolve().is_relative_to(root.resolve()):
        do = "Choose a folder outside: `gc` deletes foreign files from a cache."
        raise ConfigError(f"--out {args.out}: is inside the cache {args.cache}. {do}")
    arguments = _format_options(args, names[0], export_format.options_class())
    if export_format.has_card:
        arguments |= {"more": names[1:], "public": args.public}
    elif args.public or len(names) > 1:
        takes = "takes one DATASET/SPLIT, without --public"
        raise ConfigError(f"the format {args.format} {takes}, found {name}")
    if args.stream is not None:
        arguments["stream"] = args.stream
    with bar(f"export {name}", err, unit="row") as progress:
        exported = export(args.cache, names[0], args.out, progress=progress, **arguments)

    out.print(plain(f"{name}: {exported.summary} in {exported.file}"))
    for field, why in exported.absent.items():
        out.print(f"  {DOUBT} {plain(f'without {field}: {why}')}")
    for value, n_rows in exported.left_out.items():
        out.print(f"  {DOUBT} {count(n_rows, 'row')} not exported: {plain(value)}")
    splits = [opened[name] for name in names]
    for estimates in dict.fromkeys(filter(None, map(estimates_of, splits))):
        out.print(f"  {DOUBT} bodies are {plain(estimates)}, no ground truth")
    if exported.stand_in:
        content = f"{UNTRAINED} of the features' network"
        if ConversionRecord(splits[0]).is_stand_in:
            content = f"{STAND_IN} demo data"
        out.print(f"  {content}: use only to try the pipeline")
    if export_format.has_card:
        for line in private_lines(licences_of(splits), public=args.public):
            out.warn(line)
    return 0


def _join_names(words: Sequence[str], splits: Sequence[str]) -> Sequence[str]:
    """The names of splits or datasets; DATASET SPLIT is one name in two words."""
    datasets = {split.partition("/")[0] for split in splits}
    if len(words) == 2 and "/" not in "".join(words) and words[1] not in datasets:
        return ["/".join(words)]
    return words


def _format_options(
    args: argparse.Namespace, name: str, options_class: type[Any] | None
) -> dict[str, Any]:
    """The argument `options` of the format's function, if it has one: from `--option`, `--body` and
    `--raw`, and for formats with bodies from [paths] body. Raises ConfigError for an unknown
    option.
    """
    names = []
    if options_class is not None:
        names = [field.name for field in fields(options_class)]
    folders = _named_folders(args, names)
    values = _named_values(args.option) | folders
    if "body" in names and "body" not in values:
        values |= _default_body(args, name)

    options = {key: f"--option {key}" for key in values}
    section = Section(Path("--option"), args.format, values, options)
    section.check_keys(names)
    if options_class is None:
        return {}
    return {"options": options_class(**section.parse(options_class))}


def _named_values(words: Sequence[str]) -> dict[str, str]:
    """Parse the NAME=VALUE words of `--option`. Raises ConfigError for other words."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"--option {word}: expected NAME=VALUE")
        if name in values:
            raise ConfigError(f"--option {word}: {name} is set to {values[name]!r} already")
        values[name] = value
    return values


def _named_folders(args: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    """Folders that `--body` and `--raw` name. Raises ConfigError if the format's options, `names`,
    lack one.
    """
    folders = {}
    for key, folder in (("body", args.body), ("raw", args.raw)):
        if folder is None:
            continue
        if key not in names:
            raise ConfigError(
                f"--{key}: the format {args.format} does not read this folder. Leave the "
                "option out."
            )
        folders[key] = str(folder)
    return folders


def _default_body(args: argparse.Namespace, name: str) -> dict[str, str]:
    """The option `body` from [paths] body; {} if the split has no poses, or there is no body."""
    dataset = find_installed(name.partition("/")[0])
    if dataset is None:
        return {}
    split = cache.open(args.cache)[name]
    demo = ConversionRecord(split).is_stand_in
    body = body_of(args.cfg, args.body, dataset, demo=demo, needed="pose" in split.columns)
    if body is None or not body.is_dir():
        return {}
    return {"body": str(body)}


COMMAND: Final = Command(_run, reads=lambda _: BODY)  # the settings of `_default_body`
