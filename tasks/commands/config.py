"""`python -m pipeline config`: every setting as it holds, and where it comes from. Writes nothing."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.cli import console
from pipeline.cli.console import err, out, plain
from pipeline.cli.options import json_option
from pipeline.errors import ConfigError
from pipeline.settings.file import did_you_mean, settings_file
from tasks.effective import Setting, effective
from tasks.settings import Settings, check_what_it_reads, load, own_config

HELP: Final = "The effective settings, and where each comes from."

SHORT: Final = 40  # characters; the columns of lines are not held open for longer values


def options(sub: argparse.ArgumentParser) -> None:
    """What of them, and how it is shown."""
    sub.add_argument(
        "names", nargs="*", metavar="SECTION[.KEY]", help="only these, as features or features.precision; default: all"
    )
    json_option(sub)
    sub.add_argument(
        "--check", action="store_true", help="print nothing where the file is right; exit 1 where training is refused"
    )
    help_ = "another luigi.cfg than LUIGI_CONFIG_PATH or ./luigi.cfg"
    sub.add_argument("--config", type=Path, metavar="FILE", help=help_)


def run(args: argparse.Namespace) -> int:
    """Read, check and show luigi.cfg. What only training would refuse is told below: with --check, exit 1."""
    s = load(args.config or settings_file())
    chosen = choose(list(effective(s)), args.names)
    if args.json:
        console.show_json({"file": str(s.file.resolve()), "settings": [one.as_dict() for one in chosen]})
    elif not args.check:
        out.print(f"[dim]{plain(where_from(s.file, args.config))}[/dim]")
        show(chosen)
    refused = doubts(s)
    for text in refused:
        err.print(f"{console.DOUBT} {plain(text)}")
    return 1 if refused and args.check else 0


def choose(every: Sequence[Setting], names: Sequence[str]) -> list[Setting]:
    """Those that SECTION or SECTION.KEY names, in their order. Raises ConfigError for a name that there is not."""
    sections = list(dict.fromkeys(one.section for one in every))
    for name in names:
        section, dot, key = name.partition(".")
        if section not in sections:
            known = ", ".join(sections)
            raise ConfigError(f"there is no section {section!r}{did_you_mean(section, sections)} known: {known}")
        keys = [one.key for one in every if one.section == section]
        if dot and key not in keys:
            raise ConfigError(f"[{section}] has no key {key!r}{did_you_mean(key, keys)} known: {', '.join(keys)}")
    return [one for one in every if not names or {one.section, f"{one.section}.{one.key}"} & set(names)]


def where_from(file: Path, named: Path | None) -> str:
    """Which file it is, and why that one."""
    if named is not None:
        return f"{file.resolve()} (--config)"
    why = "environment: LUIGI_CONFIG_PATH" if "LUIGI_CONFIG_PATH" in os.environ else "./luigi.cfg"
    return f"{file.resolve()} ({why})"


def show(chosen: Sequence[Setting]) -> None:
    """A table a section on a terminal; else lines that `grep` and `awk` take apart: section.key, value, origin."""
    values = max((len(one.text) for one in chosen if len(one.text) <= SHORT), default=0)
    if not out.is_terminal:
        wide = max(len(f"{one.section}.{one.key}") for one in chosen)
        for one in chosen:
            out.print(f"{one.section + '.' + one.key:<{wide}}  {plain(one.text):<{values}}  {plain(one.origin)}")
        return
    for section, settings in itertools.groupby(chosen, key=lambda one: one.section):
        table = console.table()
        table.show_header = False
        table.add_column(min_width=26, style="bold")
        table.add_column(overflow="fold", min_width=values)
        table.add_column(overflow="fold")
        for one in settings:
            style = "dim" if one.origin == "default" else ""
            table.add_row(one.key, plain(one.text), f"[dim]{plain(one.origin)}[/dim]", style=style)
        out.print(f"\n[cyan]\\[{section}][/cyan]")
        console.show(table)


def doubts(s: Settings) -> list[str]:
    """What is no mistake until somebody trains."""
    try:
        check_what_it_reads(s, own_config(s))
    except ConfigError as error:
        return [f"{error} Until then, training is refused; `Data` is not."]
    return []
