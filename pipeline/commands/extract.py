"""`python -m pipeline extract`: tracks -> feature streams, for one split."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

import cache
from pipeline.cli.command_line import Command, named_values
from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, WRONG, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.conversion.committed import why_empty
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract, streams
from pipeline.features.plan import IMPORTED, plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Stream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import KINDS
from pipeline.settings.arguments import cache_option, part_option, setting_options, split_arguments
from pipeline.settings.file import BY_SET, PATH, Section, parse_overrides
from pipeline.settings.sections import KIND, configure, stream_of


def _options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub)
    weights = "; ".join(KINDS.values())
    add = sub.add_argument
    add("--stream", help="Name of the stream in the cache (default: [features] streams)")
    kinds = ", ".join(streams.names())
    add(
        "--kind",
        help=f"Kind of the stream: {kinds} (default: as recorded, else from its section or name)",
    )
    add(
        "--weights",
        help=f"Weights of the network: {weights} (default: as recorded, else from its section)",
    )
    help_ = "Arithmetic: exact is plain fp32 (default: as recorded, else from its section)"
    add("--precision", choices=["exact", "fast"], help=help_)
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Set an option of the stream (repeatable)",
    )
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

    Returns 1 if it has no rows, lost videos, a crashed decoder, or not the columns of a stream.
    """
    name = f"{args.dataset}/{args.split}"
    committed = cache.open(args.cache)[name]
    if problems := why_empty(committed):
        for problem in problems:
            out.print(f"{WRONG} {plain(problem)}")
        return 1
    specs = specs_of(args, name, committed, stand_in=bool(committed.manifest.get("stand_in")))
    refusals = {spec.name: text for spec in specs if (text := spec.missing_columns(committed))}
    for text in refusals.values():
        out.print(f"{WRONG} {plain(text)}")
    specs = [spec for spec in specs if spec.name not in refusals]
    plans = [plan_extraction(args.cache, name, spec, replace=args.replace) for spec in specs]
    for plan in plans:
        if plan.up_to_date:
            has_columns = committed.known_columns.issuperset(plan.spec.stream.needs)
            state = "motion only, without images"
            if has_columns:
                state = f"{plan.spec.name} is up to date"
            out.print(f"{name}: {state}")
    todo = [plan for plan in plans if not plan.up_to_date]
    if not todo:
        return int(bool(refusals))
    with bar(f"extract {name}", err) as progress:
        every = extract.extract_together(
            todo, args.cfg.features, dask=args.cfg.dask, part=args.part, progress=progress
        )
    problems = [extraction.problem for extraction in every if extraction.problem]
    for extraction in every:
        if extraction.problem and not extraction.shards:
            continue
        stream = f"{extraction.plan.spec.name} " if len(specs) > 1 else ""
        did = (
            f"{count(extraction.computed, 'row')} computed ({extraction.meter}), "
            f"{extraction.carried:,} carried over"
        )
        did += (
            f", {extraction.kept:,} kept of an earlier run or of parts" if extraction.kept else ""
        )
        done = (
            "extracted"
            if args.part is None
            else f"{count(extraction.shards, 'shard')} staged, not committed"
        )
        out.print(plain(f"{name}: {stream}{done}, {did} (why: {extraction.plan.why})"))
        if extraction.plan.spec.stream.stand_in:
            file = extraction.plan.spec.stream.weights_file
            what = (
                "a network with random weights"
                if file is None
                else f"{file.name} comes from demo data"
            )
            mark = UNTRAINED if file is None else STAND_IN
            out.print(f"  {mark} {plain(what)}: only for trial runs")
        for kind, rows in extraction.problems.items():
            out.print(f"  {DOUBT} {count(rows, 'row')} without features: {kind}")
        for example in extraction.examples:
            out.print(f"    {plain(example)}")
        if args.part is not None:
            for video, why in extraction.lost.items():
                out.print(f"  {DOUBT} {plain(f'{video} is left to a later run: {why}')}")
    for problem in problems:
        out.print(f"{WRONG} {plain(problem)}")
    has_crashed = any(extraction.n_crashed for extraction in every)
    return int(bool(refusals or problems or has_crashed))


def reads(args: argparse.Namespace) -> list[str]:
    """[features] and the sections of the streams and of their kinds, also as recorded."""
    names = [name for name in (args.stream, args.kind) if name] or args.cfg.features.streams
    splits = []
    if args.cache:
        opened = cache.FeatureCache(args.cache)
        of_dataset = [name for name in opened if name.startswith(f"{args.dataset}/")]
        splits = [opened[name] for name in of_dataset if opened.is_committed(name)]
    kinds = [args.cfg.source.section(name).get(KIND, name) for name in names]
    kinds += [
        kind
        for name in names
        for split in splits
        if (kind := _recorded_kind(split, name)) in streams.names()
    ]
    return ["features", *dict.fromkeys([*names, *kinds])]


class NoWeights(PipelineError):
    """No weights are named for real data."""


def specs_of(
    args: argparse.Namespace, name: str, committed: cache.Split | None, *, stand_in: bool
) -> list[StreamSpec]:
    """The streams that the arguments name, else those of [features].

    Args:
        committed: the split; None if it is not converted yet.
        stand_in: the split is demo data.

    Raises NoWeights if no weights are named for real data, ConfigError for options that no stream
    has.
    """
    names = (
        [args.stream or args.kind] if args.stream or args.kind else list(args.cfg.features.streams)
    )
    kinds = [_kind(args, committed, stream) for stream in names]
    for_first = named_values("--set", args.set, "crop=size:256")
    by_section = {
        (section, key): text for section, key, text in parse_overrides(args.settings) if key != KIND
    }
    of_network = {key: text for key in ("weights", "precision") if (text := getattr(args, key))}
    network = next(
        (
            kind
            for kind in kinds
            if of_network.keys() <= {f.name for f in fields(streams.find(kind))}
        ),
        None,
    )
    if network is None:
        raise ConfigError(
            f"--{next(iter(of_network))}: none of these streams has this option: {', '.join(names)}"
        )
    specs = []
    for number, (stream, kind) in enumerate(zip(names, kinds, strict=True)):
        options = {
            key: text for (section, key), text in by_section.items() if section in (stream, kind)
        }
        options |= {} if number else for_first
        if kind == network and (twice := sorted(for_first.keys() & of_network.keys())):
            raise ConfigError(
                f"{stream}: {twice[0]} is set by --{twice[0]} and by --set. Delete one."
            )
        options |= of_network if kind == network else {}
        requested = Section(BY_SET, kind, options)
        requested.options = of_network
        specs.append(
            replace(
                _spec(args, name, committed, stream, requested, stand_in=stand_in), raw=args.raw
            )
        )
    return specs


def _recorded_kind(committed: cache.Split | None, stream: str) -> Any:
    """The kind in a stream's manifest; None without such a stream or split."""
    has = (
        committed.stream_manifest(stream)
        if committed is not None and stream in committed.streams
        else {}
    )
    return has.get("identity", {}).get("kind")


def _kind(args: argparse.Namespace, committed: cache.Split | None, stream: str) -> str:
    """A stream's kind: of the command, as recorded, of its section, or its name. Raises
    PipelineError if unknown.
    """
    recorded = _recorded_kind(committed, stream)
    by_section = args.cfg.source.section(stream).get(KIND, stream)
    is_kept = recorded in streams.names() and not (args.replace and recorded == IMPORTED)
    kind = args.kind or (recorded if is_kept else by_section)
    return streams.find(str(kind)).kind


def _spec(
    args: argparse.Namespace,
    name: str,
    committed: cache.Split | None,
    stream: str,
    options: Section,
    *,
    stand_in: bool,
) -> StreamSpec:
    """An existing stream as recorded, a new one by luigi.cfg, with the command's options for a
    stream of its kind.

    Raises PipelineError if its weights are missing, NoWeights if no weights are named for real
    data.
    """
    kind = options.name
    before = committed if _recorded_kind(committed, stream) == kind and not args.replace else None
    if before is not None and (recorded := StreamSpec.from_manifest(before, stream)) is not None:
        found = streams.find(kind)
        return replace(
            recorded,
            stream=configure([options], found, functools.partial(replace, recorded.stream)),
        )
    spec = stream_of(args.cfg.source, stream, kind, options)
    if before is not None and not {"weights", "checkpoint"} & options.keys():
        _refuse_other_file(before, stream, spec.stream)
    if (
        isinstance(spec.stream, ResNet50)
        and spec.stream.stand_in
        and "weights" not in options
        and not stand_in
    ):
        raise NoWeights(
            f"{name} is real data: name the network's weights, for example --weights "
            "spin:FILE, or --weights untrained:0 for a trial run with random weights"
        )
    return spec


def _refuse_other_file(committed: cache.Split, stream: str, made: Stream) -> None:
    """Raise PipelineError if a stream was computed with another file of weights than `made`."""
    weights: Mapping[str, str] = committed.stream_manifest(stream)["identity"].get("weights") or {}
    digest = weights.get("file_sha256") if isinstance(weights, Mapping) else None
    if digest and (made.identity().get("weights") or {}).get("file_sha256") != digest:
        was = committed.stream_provenance(stream).get("weights_file", "an unrecorded file")
        raise PipelineError(
            f"{committed.name}: stream {stream!r} was computed with the weights {was} (sha256 "
            f"{digest[:12]}), which are missing or changed. Name the original file: --weights "
            f"{weights['kind']}:FILE"
        )


KEPT: Final = (
    "computed rows are kept (other processes lose up to a minute); the same command "
    "continues from there"
)
COMMAND: Final = Command(_options, _run, reads=reads, kept=KEPT)
