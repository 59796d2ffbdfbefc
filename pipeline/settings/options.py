"""Options that several commands share.  [raw -> tracks] -> features

A command's function of options adds them by `cache_option`, `setting_options` and others, which
note in the parser which option defaults to which setting (`from_settings`). `arguments.complete`
fills these in.

--help needs only this module: what parses a value is imported when there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from pipeline.plug_ins import DATASETS, list_names

if TYPE_CHECKING:
    from cache import Root
    from cache.write.parts import Part

DROP: Final = "--drop-removed"
CACHE: Final = "Folder or URL (s3://bucket/prefix) of the cache"


def path(text: str) -> Path:
    """Type of an option that names a file or folder."""
    from pipeline.settings import file

    folder: Path = file.PATH(text)
    return folder


def root(text: str) -> Root:
    """Type of an option that names a folder, or the URL of an object store."""
    from pipeline.settings import file

    place: Root = file.ROOT(text)
    return place


class _DatasetName(argparse.Action):
    """Parse DATASET/SPLIT as the arguments `dataset` and `split`, or DATASET, before SPLIT."""

    def __call__(self, _parser: Any, args: argparse.Namespace, value: Any, *_: Any) -> None:
        args.dataset, _, args.split = value.partition("/")
        if args.dataset not in list_names(DATASETS):
            from pipeline import datasets

            raise argparse.ArgumentError(self, str(datasets.unknown(args.dataset)))


class _SplitName(argparse.Action):
    """Parse SPLIT, or None if it stands in the word before."""

    def __call__(self, _parser: Any, args: argparse.Namespace, value: Any, *_: Any) -> None:
        if bool(args.split) == bool(value):
            words = " ".join(filter(None, (args.dataset, args.split, value)))
            raise argparse.ArgumentError(None, f"expected DATASET/SPLIT, found {words!r}")
        args.split = value or args.split


def split_arguments(sub: argparse.ArgumentParser) -> None:
    """Add DATASET/SPLIT, in one word or two."""
    help_ = f"A split of {', '.join(list_names(DATASETS))}: train, val, test, ..."
    sub.add_argument("dataset", action=_DatasetName, metavar="DATASET/SPLIT", help=help_)
    sub.add_argument("split", action=_SplitName, nargs="?", help=argparse.SUPPRESS)


def cache_option(sub: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add `--cache`, whose default is [paths] cache.

    required: for commands that add rows. They need the option, since [paths] cache is meant for the
    datasets of luigi.cfg.
    """
    sub.add_argument("--cache", type=root, required=required, help=CACHE)
    sub.set_defaults(adds_rows=required)
    if not required:
        from_settings(sub, cache="paths.cache")


def splits_argument(sub: argparse.ArgumentParser) -> None:
    """Add SPLIT..., for `choose_splits`."""
    help_ = "DATASET/SPLIT, or DATASET for all its splits (default: all splits)"
    sub.add_argument("splits", nargs="*", metavar="SPLIT", help=help_)


def from_settings(sub: argparse.ArgumentParser, **options: str) -> None:
    """Let options default to settings, such as workers="convert.workers".

    Adds the default to the option's --help, unless a default stands there.
    """
    before = sub.get_default("from_settings") or {}
    sub.set_defaults(from_settings=before | options, **dict.fromkeys(options))
    for action in sub._actions:
        if action.dest in options and "(default: " not in str(action.help):
            section, _, key = options[action.dest].partition(".")
            action.help = f"{action.help} (default: [{section}] {key})"


def setting_options(
    sub: argparse.ArgumentParser, section: str, *keys: str, group: Any = None, set_only: str = ""
) -> None:
    """Add `--KEY` for keys of a section of SECTION_TYPES, with the setting's type and description.

    group: Add them to this group of mutually exclusive options. set_only: Keys (separated by
    blanks) that the command reads, but for which it has no option.
    """
    from pipeline.settings.schema import SECTION_TYPES

    hints = get_type_hints(SECTION_TYPES[section], include_extras=True)
    for key in keys:
        *_, description = hints[key].__metadata__
        options: dict[str, Any] = {"help": description.replace("%", "%%")}  # of `add_argument`
        if hints[key] is bool or bool in get_args(hints[key]):
            options["action"] = "store_true"
        else:
            options |= {"type": checked_text(hints[key]), "metavar": key.split("_")[-1].upper()}
        (group or sub).add_argument(f"--{key.replace('_', '-')}", **options)
    from_settings(sub, **{key: f"{section}.{key}" for key in (*keys, *set_only.split())})


def checked_text(hint: Any) -> Callable[[str], str]:
    """Type for argparse: a text that a setting of this type can be set to, such as none."""

    def check(text: str) -> str:
        from pipeline.settings.file import option_type

        option_type(hint)(text)
        return text

    return check


def part_option(sub: Any, items: str) -> None:
    """Add --part to a parser or to a group of mutually exclusive options."""
    help_ = (
        f"Process share K of N of the {items}, K from 1 to N, as one process of an array job. The "
        "command without --part saves the shares in the cache"
    )
    sub.add_argument("--part", type=_part, metavar="K/N", help=help_)


def _part(text: str) -> Part:
    from cache.write.parts import Part

    number, _, n_parts = text.partition("/")
    are_numbers = number.isdecimal() and n_parts.isdecimal()
    if not are_numbers or not 1 <= int(number) <= int(n_parts):
        expected = "K/N with K from 1 to N, such as 3/8 (to a K that counts from 0, add 1)"
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
    return Part(int(number), int(n_parts))
