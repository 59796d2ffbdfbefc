"""Parts of argparse that the commands of `python -m pipeline` and `python -m tasks` share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.errors import ConfigError

SET: Final = "PIPELINE_SET"  # environment variable: a line SECTION.KEY=VALUE for each --set, for child processes too
KEPT: Final = "finished shards (8,192 rows each) are kept; the same command continues from there"


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, found {text!r}")
        return int(text)

    return parse


def json_option(sub: argparse.ArgumentParser, more: str = "") -> None:
    """`--json`, for scripts."""
    sub.add_argument("--json", action="store_true", help=f"print one JSON document, for scripts{more}")


def workers_option(sub: argparse.ArgumentParser, what: str = "processes") -> None:
    """`--workers`: 0 is one a core."""
    sub.add_argument("--workers", type=whole(0), default=0, help=f"{what}; 0: one for each core (default)")


def cores(workers: int) -> int:
    """Processes that an option of 0 stands for: one a core."""
    return workers or len(os.sched_getaffinity(0))


def shards_kept(_: argparse.Namespace) -> str:
    """What of an interrupted conversion is kept."""
    return KEPT


def named_values(option: str, words: Iterable[str], example: str) -> dict[str, str]:
    """NAME=VALUE words of an option that may be repeated. Raises ConfigError, with an example, for any other."""
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
    """`--set SECTION.KEY=VALUE`, in place of luigi.cfg's. A command may have a `--set NAME=VALUE` of its own, too."""
    if "--set" not in sub._option_string_actions:
        help_ = "in place of what luigi.cfg sets, of what this command reads; any number of times"
        sub.add_argument("--set", action="append", default=[], type=_setting, metavar="SECTION.KEY=VALUE", help=help_)


def _setting(text: str) -> str:
    if not _is_setting(text):
        raise argparse.ArgumentTypeError(f"expected SECTION.KEY=VALUE, as vibe.epochs=5; found {text!r}")
    return text


def _is_setting(text: str) -> bool:
    name, equals, _ = text.partition("=")
    return bool(equals) and "." in name


@contextmanager
def settings_over(args: argparse.Namespace) -> Iterator[None]:
    """Within it, what `--set` sets of luigi.cfg holds, in child processes too: `args.settings`.

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
