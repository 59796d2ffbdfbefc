"""`python -m pipeline extract`: tracks -> feature streams, for one split.

`specs_of` tells which streams to compute, with which kinds and options. `prepare` uses it, too.
`--stream` names [features] streams; `--kind`, `--weights` and `--precision` name keys of the first
stream's section. An existing stream must have been extracted with the same options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Final

import cache
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out
from pipeline.cli.progress import bar
from pipeline.conversion.committed import why_empty
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.plan import advise_continuing, plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.weights import KINDS
from pipeline.recipe.steps import extract
from pipeline.settings.arguments import (
    cache_option,
    from_settings,
    part_option,
    setting_options,
    split_arguments,
)
from pipeline.settings.file import PATH, SettingsFile
from pipeline.settings.sections import kind_of, stream_of


def _options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub)
    weights = "; ".join(kind.form for kind in KINDS.values())
    add = sub.add_argument
    add("--stream", help="Name of the stream in the cache")
    from_settings(sub, stream="features.streams")
    kinds = ", ".join(streams.names())
    add("--kind", help=f"Kind of the stream: {kinds} (default: from its section, else its name)")
    add("--weights", help=f"Weights of the network: {weights} (default: from its section)")
    help_ = "Arithmetic: exact is plain fp32 (default: from its section)"
    add("--precision", choices=["exact", "fast"], help=help_)
    setting_options(sub, "features", *(field.name for field in fields(Resources)))
    setting_options(sub, "dask", "scheduler", set_only="patience")
    add("--raw", type=PATH, help="The dataset's raw folder, if it has moved")
    mode = sub.add_mutually_exclusive_group()
    mode.add_argument(
        "--replace", action="store_true", help="Recompute an existing stream from scratch"
    )
    part_option(mode, "missing shards")


def _run(args: argparse.Namespace) -> int:
    """Extract the streams of one split.

    Returns 1 if the split has no rows or lacks columns that a stream reads, if videos are missing,
    or if a decoder crashed.
    """
    name = f"{args.dataset}/{args.split}"
    committed = cache.open(args.cache)[name]
    empty = why_empty(committed)
    for problem in empty:
        out.show_problem(problem)
    if empty:
        return 1

    stand_in = bool(committed.manifest.get("stand_in"))
    requested = specs_of(args, name, committed, stand_in=stand_in)
    specs = [spec for spec in requested if _has_columns(spec, committed)]
    plans = [plan_extraction(args.cache, name, spec, replace=args.replace) for spec in specs]
    with bar(f"extract {name}", err) as progress:
        result = extract(plans, args.cfg, progress, args.part)
    return result.print("extract", name) or int(len(specs) < len(requested))


def _has_columns(spec: StreamSpec, committed: cache.Split) -> bool:
    """Whether the split has all that the stream reads; prints what is missing."""
    refusal = spec.missing_columns(committed)
    if refusal:
        out.show_problem(refusal)
    return not refusal


def reads(args: argparse.Namespace) -> list[str]:
    """Sections that the command reads: [features], and those of the streams and of their kinds."""
    names = _stream_names(args)
    source = _named_keys(args, names)
    return list(dict.fromkeys(["features", *names, *(kind_of(source, name) for name in names)]))


def specs_of(
    args: argparse.Namespace, name: str, committed: cache.Split | None, *, stand_in: bool
) -> list[StreamSpec]:
    """The streams that the arguments name, else those of [features].

    Args:
        committed: The split in the cache; None if it is not converted yet.
        stand_in: Whether the split is demo data.

    Raises RandomWeights for a new stream of real data with random weights that the command does not
    name, PipelineError for an existing stream whose kind no setting names.
    """
    names = _stream_names(args)
    source = _named_keys(args, names)
    specs = []
    for stream_name in names:
        exists = committed is not None and stream_name in committed.streams
        if committed is not None and exists:
            _refuse_unnamed(source, committed, stream_name)
        spec = stream_of(source, stream_name)
        is_new = args.replace or not exists
        if is_new and not stand_in and not _has_named_weights(source, spec):
            spec.refuse_random_weights(name, source.where(stream_name, "weights"))
        specs.append(replace(spec, raw=args.raw))
    return specs


def _stream_names(args: argparse.Namespace) -> tuple[str, ...]:
    """The names of the streams: of --stream, else of --kind, else of [features]."""
    is_named = "streams" in args.cfg.source.section("features").options
    if args.kind is not None and not is_named:
        return (args.kind,)
    names: tuple[str, ...] = args.cfg.stream_names
    return names


def _named_keys(args: argparse.Namespace, names: Sequence[str]) -> SettingsFile:
    """The settings with those keys of the first stream's section that options name."""
    source: SettingsFile = args.cfg.source
    return source.override_keys(
        names[0], kind=args.kind, weights=args.weights, precision=args.precision
    )


def _refuse_unnamed(source: SettingsFile, committed: cache.Split, stream_name: str) -> None:
    """Raise PipelineError for an existing stream whose kind neither a setting nor its name says."""
    if kind_of(source, stream_name) in streams.names():
        return
    advice = advise_continuing(committed, stream_name)
    raise PipelineError(
        f"{committed.name}: no setting names the kind of stream {stream_name!r}. {advice}"
    )


def _has_named_weights(source: SettingsFile, spec: StreamSpec) -> bool:
    """Whether an option of the command names the stream's weights."""
    sections = (source.section(spec.name), source.section(spec.stream.kind))
    return any("weights" in section.options for section in sections)


KEPT: Final = (
    "computed rows are kept (other processes lose up to a minute); the same command "
    "continues from there"
)
COMMAND: Final = Command(_options, _run, reads=reads, kept=KEPT)
