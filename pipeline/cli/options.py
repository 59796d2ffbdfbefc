"""Options that commands of `python -m pipeline` and `python -m tasks` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.errors import ConfigError

SET: Final = "PIPELINE_SET"  # environment variable for child processes: a line SECTION.KEY=VALUE for each --set
SHARDS_KEPT: Final = "finished shards (8,192 rows each) are kept; the same command continues from there"


def whole(least: int) -> Callable[[str], int]:
    """Type of an option: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return int(text)

    return parse


def json_option(sub: argparse.ArgumentParser, more: str = "") -> None:
    """Add `--json`."""
    sub.add_argument("--json", action="store_true", help=f"Print one JSON document, for scripts{more}")


def workers_option(sub: argparse.ArgumentParser, what: str = "processes") -> None:
    """Add `--workers`."""
    sub.add_argument("--workers", type=whole(0), default=0, help=f"Number of {what} (default: one per core)")


def cores(workers: int) -> int:
    """Number of processes; 0 means one per core."""
    return workers or len(os.sched_getaffinity(0))


def every_option(sub: argparse.ArgumentParser) -> None:
    """Add --every."""
    help_ = "Find people in every N-th frame, and follow them by their joints in between (rtmpose; default: 1)"
    sub.add_argument("--every", type=whole(1), metavar="N", help=help_)


def named_values(option: str, words: Iterable[str], example: str) -> dict[str, str]:
    """Parse the NAME=VALUE words of a repeatable option. Raises ConfigError for other words."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"{option} {word}: expected NAME=VALUE, as in {option} {example}")
        if name in values:
            raise ConfigError(f"{option} {word}: {name} is set to {values[name]!r} already")
        values[name] = value
    return values


def set_option(sub: argparse.ArgumentParser) -> None:
    """Add `--set SECTION.KEY=VALUE`, unless the command has its own `--set NAME=VALUE`, which takes both."""
    if "--set" not in sub._option_string_actions:
        help_ = "Override a luigi.cfg setting for this run (repeatable)"
        sub.add_argument("--set", action="append", default=[], type=_setting, metavar="SECTION.KEY=VALUE", help=help_)


def _setting(text: str) -> str:
    if not _is_setting(text):
        raise argparse.ArgumentTypeError(f"expected SECTION.KEY=VALUE, such as vibe.epochs=5, found {text!r}")
    return text


def _is_setting(text: str) -> bool:
    name, equals, _ = text.partition("=")
    return bool(equals) and "." in name


@contextmanager
def override_settings(args: argparse.Namespace) -> Iterator[None]:
    """Within the block, let `--set SECTION.KEY=VALUE` (`args.settings`) override luigi.cfg, in child processes, too.

    `args.set` keeps the command's own NAME=VALUE.
    """
    given: list[str] = getattr(args, "set", [])
    args.settings, args.set = list(filter(_is_setting, given)), [text for text in given if not _is_setting(text)]
    before = os.environ.get(SET)
    os.environ[SET] = "\n".join([*filter(None, [before]), *args.settings])
    try:
        yield
    finally:
        del os.environ[SET]
        if before is not None:
            os.environ[SET] = before
