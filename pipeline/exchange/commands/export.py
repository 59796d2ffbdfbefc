"""`python -m pipeline export`: tracks and features -> files for other programs."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.command_line import Command, named_values
from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, err, out, plain, size
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.datasets import find_installed
from pipeline.errors import ConfigError
from pipeline.exchange.formats import export_formats
from pipeline.settings.arguments import BODY, body_of, cache_option, split_arguments
from pipeline.settings.file import BY_SET, PATH, Section


def _options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    split_arguments(sub)
    cache_option(sub)
    formats = export_formats()
    about = "; ".join(f"{name}: {form.about}" for name, form in formats.items())
    add("--format", required=True, choices=formats, help=about)
    add(
        "--out",
        type=PATH,
        required=True,
        help="output file, or a folder for a file with its usual name",
    )
    add("--stream", help="feature stream (default: resnet50)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the format (repeatable)",
    )
    add(
        "--raw",
        type=PATH,
        help="the dataset's raw folder, if it has moved; for formats with images",
    )
    add(
        "--body",
        type=PATH,
        help="folder of SMPL's files, for formats with bodies (default: [paths] body)",
    )
    add("--replace", action="store_true", help="overwrite existing output")


def _run(args: argparse.Namespace) -> int:
    """Write the split in the chosen format."""
    name = f"{args.dataset}/{args.split}"
    export_format = export_formats()[args.format]
    export = export_format.function()
    if isinstance(args.cache, Path) and args.out.resolve().is_relative_to(args.cache.resolve()):
        do = "Choose a folder outside: `gc` deletes foreign files from a cache."
        raise ConfigError(f"--out {args.out}: is inside the cache {args.cache}. {do}")
    options_class = export_format.options_class()
    dataset = find_installed(args.dataset)
    folders = {
        key: str(getattr(args, key)) for key in ("raw", "body") if getattr(args, key) is not None
    }
    if unread := sorted(folders.keys() - _names(options_class)):
        raise ConfigError(
            f"--{unread[0]}: the format {args.format} does not read this folder. Leave the "
            "option out."
        )
    texts = named_values("--set", args.set, "NAME=VALUE") | folders
    if "body" not in texts and dataset is not None and "body" in _names(options_class):
        split = cache.open(args.cache)[name]
        body = body_of(
            args, dataset, demo=bool(split.manifest.get("stand_in")), needed="pose" in split.columns
        )
        texts |= {"body": str(body)} if body is not None and body.is_dir() else {}
    format_options = _format_options(args.format, texts, options_class)
    stream = {} if args.stream is None else {"stream": args.stream}
    with bar(f"export {name}", err, unit="row") as progress:
        exported = export(
            args.cache,
            name,
            args.out,
            replace=args.replace,
            progress=progress,
            **stream,
            **format_options,
        )
    out.print(plain(f"{name}: {exported.summary} in {exported.file} ({size(exported.n_bytes)})"))
    for field, why in exported.absent.items():
        out.print(f"  {DOUBT} {plain(f'without {field}: {why}')}")
    for what, rows in exported.left_out.items():
        out.print(f"  {DOUBT} {count(rows, 'row')} not exported: {plain(what)}")
    if exported.stand_in:
        demo = bool(cache.open(args.cache)[name].manifest.get("stand_in"))
        what = f"{STAND_IN} demo data" if demo else f"{UNTRAINED} features of random weights"
        out.print(f"  {what}: use only to try the pipeline")
    return 0


def _names(options_class: type[Any] | None) -> list[str]:
    return [] if options_class is None else [field.name for field in fields(options_class)]


def _format_options(
    name: str, texts: dict[str, str], options_class: type[Any] | None
) -> dict[str, Any]:
    """The argument `options` of the format's function, if it has one. Raises ConfigError for an
    unknown option.
    """
    section = Section(BY_SET, name, texts, texts)
    section.check_keys(_names(options_class))
    return (
        {} if options_class is None else {"options": options_class(**section.parse(options_class))}
    )


COMMAND: Final = Command(_options, _run, reads=lambda _: BODY)
