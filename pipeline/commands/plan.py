"""`python -m pipeline plan`: what would run, how much, and why. Writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline import datasets
from pipeline.cli.console import DONE, DOUBT, WRONG, show_json, size
from pipeline.commands.options import FEW, check_own_folder, command, count, err, few, joined, json_option, out, plain
from pipeline.conversion.plan import ConversionPlan
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS
from pipeline.maintenance.overview import SplitPlan, StreamPlan, plan_split
from pipeline.raw.changes import what_differs
from pipeline.settings.features import stream_named
from pipeline.settings.places import settings_file
from pipeline.settings.targets import Wanted, broken_in, by_folders, by_settings

HELP: Final = (
    "What conversion and extraction would do, how much, and why: `make data` by luigi.cfg, or one split with --raw and "
    "--cache. Training is not looked at."
)


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "names", nargs="*", metavar="DATASET[/SPLIT]", help="only these; with --raw, the one split that it is"
    )
    sub.add_argument("--all", action="store_true", help="name every video, not the first few")
    json_option(sub, "; always names them all")
    where_options(sub)


def where_options(sub: argparse.ArgumentParser) -> None:
    """What the commands share that look at luigi.cfg, or at one raw folder and one cache."""
    sub.add_argument("--config", type=Path, help="another luigi.cfg than LUIGI_CONFIG_PATH or ./luigi.cfg")
    sub.add_argument("--cache", type=cache.place_of, help="the cache's folder or URL; else [paths] cache of luigi.cfg")
    sub.add_argument("--raw", type=Path, help="a dataset's own raw folder: then luigi.cfg is not read")
    sub.add_argument("--body", type=Path, help="with --raw: SMPL's files, for datasets whose labels come from them")
    sub.add_argument("--stream", help="with --raw: the stream's name, with --weights; else every stream there is")
    sub.add_argument("--weights", help=f"with --raw: the network's, {', '.join(f'{kind}:...' for kind in KINDS)}")
    sub.add_argument("--precision", choices=["exact", "fast"], help="with --raw and --weights; fast by default")


def run(args: argparse.Namespace) -> int:
    """Split by split what would run; one that cannot be told says why, and the others go on. Exit 2 then."""
    plans = [plan_split(wanted) for wanted in wanted_of(args, args.names)]
    broken = [] if args.raw is not None or args.names else broken_in(args.config or settings_file())
    for text in broken:
        err.print(f"{DOUBT} {plain(text)}: left out")
    if args.json:
        show_json([as_dict(plan) for plan in plans])
    else:
        most = None if args.all else FEW
        for plan in plans:
            for line in lines(plan, most):
                out.print(line)
        if plans and all(plan.nothing_to_do for plan in plans):
            done = f"{count(len(plans), 'split')} converted and extracted"
            out.print(f"nothing to do: {done} (training is not looked at)")
    return 2 if broken or any(plan.problems for plan in plans) else 0


def wanted_of(args: argparse.Namespace, names: Sequence[str]) -> list[Wanted]:
    """What the arguments ask for. Raises PipelineError where they do not fit together, ConfigError of luigi.cfg."""
    if args.raw is None:
        if alone := [f"--{name}" for name in ("body", "stream", "weights", "precision") if getattr(args, name)]:
            raise PipelineError(f"{alone[0]} goes with --raw DIR; without it, luigi.cfg says everything but --cache")
        return by_settings(args.config or settings_file(), joined(names), args.cache)
    if args.config is not None:
        raise PipelineError("--raw and --config: with --raw, no luigi.cfg is read. Leave one of them out")
    dataset, _, split = "/".join(names).partition("/")
    if args.cache is None or not split or "/" in split:
        raise PipelineError(
            "--raw is one dataset's own folder: name the split and --cache, as DATASET SPLIT --cache DIR"
        )
    if dataset not in datasets.names():
        raise PipelineError(f"no dataset is called {dataset!r}; known: {', '.join(datasets.names())}")
    check_own_folder(args.raw, datasets.get(dataset))
    spec = None
    if args.weights is not None:
        made = stream_named(ResNet50.kind, args.weights, args.precision, {})
        spec = StreamSpec(args.stream or made.kind, made)
    elif args.precision is not None:
        raise PipelineError("--precision goes with --weights")
    return [by_folders(dataset, split, raw=args.raw, root=args.cache, body=args.body, stream=spec)]


def lines(plan: SplitPlan, most: int | None) -> Iterator[str]:
    """A split's plans in words, ready to be printed. `most`: so many videos by name; None: all."""
    if plan.nothing_to_do:
        assert plan.conversion is not None
        has = "".join(f", {plain(stream.stream)}" for stream in plan.extractions)
        yield f"{DONE} {plain(plan.name)}: nothing to do ({count(plan.n_videos, 'video')}{has})"
        yield from (f"  {line}" for line in (*_touched(plan), *_behind(plan)))
        return
    yield f"[bold]{plain(plan.name)}[/bold]"
    if plan.wanted.to_be_made:
        yield "  convert  all of it, once the embedded data are made: there is nothing to look at yet"
        return
    if plan.conversion is not None and not plan.conversion.up_to_date:
        yield from (f"  {line}" for line in _conversion(plan, plan.conversion, most))
    yield from (f"  {line}" for line in (*_touched(plan), *_behind(plan)))
    for stream in plan.extractions:
        if stream.why or not (stream.differs or plan.conversion is None or plan.conversion.up_to_date):
            yield from (f"  {line}" for line in _extraction(plan, stream))
    if plan.committed is None and plan.wanted.stream is not None and not plan.problems:
        yield f"  extract  {plain(plan.wanted.stream.name)}: all that is converted then"
    for problem in plan.problems:
        yield f"  {WRONG} {plain(problem)}"


def _conversion(plan: SplitPlan, todo: ConversionPlan, most: int | None) -> Iterator[str]:
    of = f"{count(len(todo.append), 'video')} to read of {len(todo.stamps):,}"
    yield f"convert  {of}, {size(plan.bytes_of_labels)} of labels and videos"
    yield f"  why    {plain(todo.why)}"
    if todo.differs or plan.committed is None:
        return
    told = [f"new      {name}" for name in todo.new]
    told += [
        f"changed  {name}: {'; '.join(what_differs(todo.was.get(name), todo.stamps[name]))}" for name in todo.changed
    ]
    told += [f"removed  {name}" for name in todo.removed]
    for line in few(told, len(told) if most is None else most, "plan --all, or --json"):
        yield f"  {plain(line)}"
    if plan.rows_again:
        yield f"  the changed ones have {count(plan.rows_again, 'row')} now, {size(plan.bytes_again)}"


def _extraction(plan: SplitPlan, todo: StreamPlan) -> Iterator[str]:
    lacks = todo.lacks
    if not todo.why:
        again = f", about {count(plan.rows_again, 'row')} of changed videos among it" if plan.rows_again else ""
        yield f"extract  {plain(todo.stream)}: what conversion brings{again}"
        return
    more = "" if plan.conversion is None or plan.conversion.up_to_date else ", and what conversion brings"
    of = plan.committed.manifest["rows"] if plan.committed is not None else 0
    shards = count(len(lacks.shards), "shard")
    yield f"extract  {plain(todo.stream)}: {lacks.rows:,} of {count(of, 'row')} in {shards}, {size(todo.n_bytes)}{more}"
    yield f"  why    {plain(todo.why)}"
    if lacks.carried_at_most:
        yield f"  at most {lacks.carried_at_most:,} of them are carried over from rows that were replaced"


def _touched(plan: SplitPlan) -> Iterator[str]:
    """That time is lost at every look, and how to save it."""
    touched = plan.conversion.touched if plan.conversion is not None else ()
    if touched:
        what = f"{count(len(touched), 'video')} of other times than at the commit, and the same content"
        yield f"{DOUBT} {what}, which is read at every look: `accept` remembers the times"


def _behind(plan: SplitPlan) -> Iterator[str]:
    """Streams that nobody extracts by itself."""
    for stream in plan.behind:
        split = command("extract", plan.wanted.dataset.name, plan.wanted.split, "--cache", str(plan.wanted.root))
        yield f"{DOUBT} " + plain(
            f"stream {stream.stream} lags behind by {count(stream.lacks.rows, 'row')}, and `make data` extracts "
            f"[features] stream alone: {split} --stream {stream.stream}, and its options as before"
        )


def as_dict(plan: SplitPlan) -> dict[str, Any]:
    """For a machine to read."""
    return {
        "split": plan.name,
        "nothing_to_do": plan.nothing_to_do,
        "to_be_made": plan.wanted.to_be_made,
        "convert": None if plan.conversion is None else _conversion_as_dict(plan, plan.conversion),
        "extract": [_extraction_as_dict(stream) for stream in plan.extractions],
        "problems": list(plan.problems),
        "behind": [{"stream": stream.stream, "rows": stream.lacks.rows} for stream in plan.behind],
    }


def _conversion_as_dict(plan: SplitPlan, todo: ConversionPlan) -> dict[str, Any]:
    by_video = not todo.differs and plan.committed is not None
    changed = {name: what_differs(todo.was.get(name), todo.stamps[name]) for name in todo.changed} if by_video else {}
    return {
        "why": todo.why,
        "reader": [difference.as_dict() for difference in todo.differs],
        "videos": {"read": len(todo.append), "of": len(todo.stamps), "kept": todo.kept, "touched": len(todo.touched)},
        "new": list(todo.new) if by_video else [],
        "changed": changed,
        "removed": list(todo.removed) if by_video else [],
        "bytes_to_read": plan.bytes_of_labels,
        "rows_again": plan.rows_again,
        "bytes_again": plan.bytes_again,
    }


def _extraction_as_dict(todo: StreamPlan) -> dict[str, Any]:
    return {
        "stream": todo.stream,
        "why": todo.why,
        "identity": [difference.as_dict() for difference in todo.differs],
        "shards": len(todo.lacks.shards),
        "rows": todo.lacks.rows,
        "carried_at_most": todo.lacks.carried_at_most,
        "bytes": todo.n_bytes,
    }
