"""Options of the commands about a cache."""

from __future__ import annotations

import argparse

from pipeline.cli.command_line import json_option, whole
from pipeline.settings.options import (
    cache_option,
    from_settings,
    path,
    root,
    splits_argument,
)


def copy(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument("--to", type=root, required=True, help="Folder or URL of the new cache")
    help_ = "Comma-separated streams to copy; '' for none (default: all)"
    sub.add_argument("--streams", metavar="NAMES", help=help_)
    help_ = "Leave out folders, hosts and processes, and write a card, README.md, with the licences"
    sub.add_argument("--share", action="store_true", help=help_)


def gc(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    cache_option(sub)
    from_settings(sub, runs="paths.runs")  # no option
    add("--dry-run", action="store_true", help="List what would be deleted, and stop")
    add("--unfinished", action="store_true", help="Also delete checkpoints of unfinished runs")
    help_ = "Also erase rows of removed and replaced videos and tracks; implies --unfinished"
    add("--erase", action="store_true", help=help_)
    help_ = "Leave younger files (default: 0; in an object store, one day)"
    add("--older-than", type=whole(0), metavar="SECONDS", help=help_)
    help_ = (
        "Delete only what gc with this option has found unused, without a break, for DAYS days "
        "(default: 0)"
    )
    add("--unused-for", type=whole(0), default=0, metavar="DAYS", help=help_)
    json_option(sub)


def leaks(sub: argparse.ArgumentParser) -> None:
    cache_option(sub)
    sub.add_argument("--all", action="store_true", help="List everything that is shared or unknown")
    json_option(sub, ", with everything")


def status(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument(
        "--all",
        action="store_true",
        help="List every video that was rejected, lost frames, or has notes",
    )
    help_ = "Exit with 1 if more of a split's videos are rejected: 0%% to 100%% (default: 100%%)"
    sub.add_argument("--max-rejected", type=_percent, default=100.0, metavar="N%", help=help_)
    instead = sub.add_mutually_exclusive_group()  # of the table
    help_ = "Show bytes and commit times by split and stream, and what gc would free"
    instead.add_argument("--sizes", action="store_true", help=help_)
    help_ = "Print CSV with one line per video: its state, frames and grades"
    instead.add_argument("--csv", action="store_true", help=help_)
    help_ = "Print CSV with one line per track: its rows and grade"
    instead.add_argument("--tracks", action="store_true", help=help_)
    help_ = "Print digests of labels and streams, which are equal on any machine"
    instead.add_argument("--digest", action="store_true", help=help_)
    help_ = "Also write the states of the last runs, for node_exporter's textfile collector"
    sub.add_argument("--prometheus", type=path, metavar="FILE", help=help_)
    json_option(sub, ", with all videos")


def _percent(text: str) -> float:
    expected = f"expected a percentage such as 2%, found {text!r}"
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(expected) from None
    is_fraction = 0 < number < 1 and not text.endswith("%")
    if not 0 <= number <= 100 or is_fraction:
        raise argparse.ArgumentTypeError(expected)
    return number


def tag(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", help="Name of the tag")
    cache_option(sub)
    help_ = "Delete the tag; `gc` then deletes the files that only it needs"
    sub.add_argument("--delete", action="store_true", help=help_)


def verify(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "splits", nargs="*", metavar="SPLIT", help="DATASET/SPLIT, or all of DATASET (default: all)"
    )
    cache_option(sub)
    add("--fast", action="store_true", help="Check sizes, indexes and small files only (seconds)")
    add(
        "--repair",
        action="store_true",
        help="Drop damaged shards, and print the commands that fill them again",
    )
    help_ = "Compare with a list of digests, as status --digest prints it"
    add("--digest", type=path, metavar="FILE", help=help_)
    json_option(sub)
