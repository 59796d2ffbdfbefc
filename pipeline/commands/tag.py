"""`python -m pipeline tag`: tag the current state of splits, or list tags."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import cache
from pipeline.cli.command_line import json_option
from pipeline.cli.console import DONE, IDLE, CommandResult, plain, print_result, size, table
from pipeline.cli.text import command, count
from pipeline.errors import PipelineError
from pipeline.settings.arguments import cache_option, choose_splits


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("name", nargs="?", metavar="NAME", help="Name of the tag: letters, digits and _ . + - (default: list tags)")
    add("splits", nargs="*", metavar="SPLIT", help="DATASET/SPLIT, or DATASET for all its splits (default: all splits)")
    cache_option(sub)
    add("--delete", action="store_true", help="Delete the tag, and rows that only this tag references")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Add a tag, delete a tag, or list tags with a line for each split."""
    if args.delete:
        if args.name is None or args.splits:
            raise PipelineError("--delete needs the name of one tag, and no splits")
        cache.delete_tag(args.cache, args.name)
        return print_result(_line(f"tag {args.name}: deleted", []), as_json=args.json)
    if args.name is not None:
        names = choose_splits(args.splits, cache.open(args.cache).splits)
        is_new = args.name not in [tag.name for tag in cache.tags(args.cache)]
        tag = cache.tag(args.cache, args.name, names)
        result = _line(f"tag {tag.name}: {summary(tag) if is_new else 'up to date'}", [tag])
        return print_result(result, as_json=args.json)
    tags = cache.tags(args.cache)
    result, shown = CommandResult(tags), table("tag", "made", "split", "rows", "streams")
    for tag in tags:
        for split, state in tag.splits.items():
            streams = plain(", ".join(state["streams"])) or "-"
            shown.add_row(plain(tag.name), tag.created or "not known", plain(split), f"{state['rows']:,}", streams)
    result.text += [shown] if tags else ["no tags"]
    result.lines(removed_data_lines(tags, str(args.cache)), IDLE)
    return print_result(result, as_json=args.json)


def _line(text: str, tags: list[cache.Tag]) -> CommandResult:
    result = CommandResult(tags)
    result.line(text, DONE)
    return result


def summary(tag: cache.Tag) -> str:
    """Splits, rows and streams of a tag."""
    states = tag.splits.values()
    rows, streams = sum(state["rows"] for state in states), {name for state in states for name in state["streams"]}
    return f"{count(len(states), 'split')}, {count(rows, 'row')}, {', '.join(sorted(streams)) or 'no streams'}"


def lines(root: cache.Root) -> Iterator[str]:
    """A line for each tag and for its removed data. Raises CacheError for a damaged tag."""
    tags = cache.tags(root)
    yield from (f"tag {tag.name}: {summary(tag)}, made {tag.created or 'at an unknown time'}" for tag in tags)
    yield from removed_data_lines(tags, str(root))


def removed_data_lines(tags: Sequence[cache.Tag], root: str) -> Iterator[str]:
    """A line for each tag with removed data, and how to free it."""
    for tag in tags:
        if tag.held:
            free = command("tag", tag.name, "--delete", "--cache", root)
            yield f"tag {tag.name} keeps {size(tag.held)} of removed data. To free it: {free}"
