"""`python -m pipeline tag`: a name for what is committed now, to read exactly that later; the names that there are."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import cache
from pipeline.cli.console import DONE, IDLE, plain, size, table
from pipeline.cli.options import json_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import command, count
from pipeline.errors import PipelineError
from pipeline.settings.arguments import cache_option, chosen, joined


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("name", nargs="?", metavar="NAME", help="letters, digits and _ . + -; default: list the tags")
    add("splits", nargs="*", metavar="SPLIT", help="DATASET/SPLIT, or all of DATASET; default: all of the cache")
    cache_option(sub)
    add("--delete", action="store_true", help="delete the tag, and what only it held of removed data")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Name a state, delete a name, or list the tags: a line for each split."""
    if args.delete:
        if args.name is None or args.splits:
            raise PipelineError("--delete goes with the name of one tag, and no splits")
        cache.delete_tag(args.cache, args.name)
        return print_result(_line(f"tag {args.name}: deleted", []), as_json=args.json)
    if args.name is not None:
        names = chosen(joined(args.splits), cache.open(args.cache).splits)
        is_new = args.name not in [tag.name for tag in cache.tags(args.cache)]
        tag = cache.tag(args.cache, args.name, names)
        result = _line(f"tag {tag.name}: {summary(tag) if is_new else 'up to date'}", [tag])
        return print_result(result, as_json=args.json)
    tags = cache.tags(args.cache)
    result, shown = CommandResult(tags), table("tag", "made", "split", "rows", "streams")
    for tag in tags:
        for split, state in tag.splits.items():
            streams = ", ".join(state["streams"]) or "-"
            shown.add_row(
                plain(tag.name), tag.created or "not known", plain(split), f"{state['rows']:,}", plain(streams)
            )
    result.text += [shown] if tags else ["no tags"]
    result.lines(held_back(tags, str(args.cache)), IDLE)
    return print_result(result, as_json=args.json)


def _line(text: str, tags: list[cache.Tag]) -> CommandResult:
    result = CommandResult(tags)
    result.line(text, DONE)
    return result


def summary(tag: cache.Tag) -> str:
    """What a tag names: splits, rows, streams."""
    states = tag.splits.values()
    rows, streams = sum(state["rows"] for state in states), {name for state in states for name in state["streams"]}
    return f"{count(len(states), 'split')}, {count(rows, 'row')}, {', '.join(sorted(streams)) or 'no streams'}"


def lines(root: cache.Root) -> Iterator[str]:
    """A line for each tag, and what they hold back. Raises CacheError for a damaged one."""
    tags = cache.tags(root)
    yield from (f"tag {tag.name}: {summary(tag)}, made {tag.created or 'at an unknown time'}" for tag in tags)
    yield from held_back(tags, str(root))


def held_back(tags: Sequence[cache.Tag], root: str) -> Iterator[str]:
    """A line for each tag that names shards which the cache has removed, and how to free them."""
    for tag in tags:
        if tag.held:
            free = command("tag", tag.name, "--delete", "--cache", root)
            yield f"tag {tag.name} keeps {size(tag.held)} that the cache itself has removed. To free it: {free}"
