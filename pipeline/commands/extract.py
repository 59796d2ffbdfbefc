"""`python -m pipeline extract`: tracks -> feature streams, for one split.

`specs_of` tells which streams to compute, with which kinds and options. `prepare` uses it, too.

A stream's kind is that of `--kind`; else of the existing stream, as the cache has recorded it,
unless this kind is not installed or `--replace` computes an imported stream; else the key `kind` of
the stream's section in luigi.cfg; else the stream's name.

Each option of a stream comes from the first of these that has it:

1. `--weights` or `--precision`, or `--set NAME=VALUE`; having both is an error;
2. `--set SECTION.KEY=VALUE` of the stream's section;
3. for a key that the stream's section in luigi.cfg lacks, `--set` of the section of its kind;
4. for an existing stream of the same kind without `--replace`, the cache, as recorded, if its file
   of weights still exists; for any other, luigi.cfg: the stream's section, else that of its kind.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Collection, Mapping
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
from pipeline.features.plan import IMPORTED, ExtractionPlan, plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Stream
from pipeline.features.streams.network import ResNet50
from pipeline.features.weights import KINDS
from pipeline.settings.arguments import (
    MEANWHILE,
    cache_option,
    part_option,
    setting_options,
    split_arguments,
)
from pipeline.settings.file import BY_SET, PATH, Section, SettingsFile, parse_overrides
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

    Returns 1 if the split has no rows or lacks columns that a stream reads, if videos are missing,
    or if a decoder crashed.
    """
    name = f"{args.dataset}/{args.split}"
    committed = cache.open(args.cache)[name]
    empty = why_empty(committed)
    for problem in empty:
        out.show_line(problem, WRONG)
    if empty:
        return 1

    stand_in = bool(committed.manifest.get("stand_in"))
    requested = specs_of(args, name, committed, stand_in=stand_in)
    specs = [spec for spec in requested if _has_columns(spec, committed)]
    failed = len(specs) < len(requested)
    plans = [plan_extraction(args.cache, name, spec, replace=args.replace) for spec in specs]
    upcoming = [plan for plan in plans if not plan.up_to_date]
    for plan in plans:
        if plan.up_to_date:
            _print_up_to_date(plan, committed)
    if not upcoming:
        return int(failed)

    with bar(f"extract {name}", err) as progress:
        extractions = extract.extract_together(
            upcoming, args.cfg.features, dask=args.cfg.dask, part=args.part, progress=progress
        )

    for extraction in extractions:
        if extraction.shards or not extraction.problem:
            _print_extraction(args, extraction, named=len(specs) > 1)
    for extraction in extractions:
        if extraction.problem:
            out.show_line(extraction.problem, WRONG)
        if extraction.problem or extraction.problems:
            failed = True
    return int(failed)


def _has_columns(spec: StreamSpec, committed: cache.Split) -> bool:
    """Whether the split has all that the stream reads; prints what is missing."""
    refusal = spec.missing_columns(committed)
    if refusal:
        out.show_line(refusal, WRONG)
    return not refusal


def _print_up_to_date(plan: ExtractionPlan, committed: cache.Split) -> None:
    spec = plan.spec
    if committed.known_columns.issuperset(spec.stream.needs):
        out.print(f"{plan.split}: {spec.name} is up to date (verify checks its shards)")
    else:
        out.print(f"{plan.split}: motion only, without images")


def _print_extraction(
    args: argparse.Namespace, extraction: extract.Extraction, *, named: bool
) -> None:
    """Print what was computed, and what could not be. named: print the stream's name, too."""
    plan = extraction.plan
    stream = plan.spec.stream
    name = f"{plan.spec.name} " if named else ""
    text = f"{plan.split}: {name}extracted"
    if args.part is not None:
        text = f"{plan.split}: {name}{count(extraction.shards, 'shard')} staged, not committed"
    text += f", {count(extraction.computed, 'row')} computed ({extraction.meter})"
    text += f", {extraction.carried:,} carried over"
    if extraction.kept:
        text += f", {extraction.kept:,} kept of an earlier run or of parts"
    out.show_line(f"{text} (why: {plan.why})")

    if stream.stand_in and stream.weights_file:
        file = plain(stream.weights_file.name)
        out.print(f"  {STAND_IN} {file} comes from demo data: only for trial runs")
    elif stream.stand_in:
        out.print(f"  {UNTRAINED} a network with random weights: only for trial runs")
    for kind, rows in extraction.problems.items():
        out.print(f"  {DOUBT} {count(rows, 'row')} without features: {kind}")
    for example in extraction.examples:
        out.show_line(example, indent=4)
    if args.part is not None:
        for video, why in extraction.lost.items():
            out.show_line(f"{video} is left to a later run: {why}", DOUBT, 2)
        if _is_committed_since(plan):
            out.show_line(MEANWHILE, DOUBT, 2)


def _is_committed_since(plan: ExtractionPlan) -> bool:
    """Whether another command has committed shards of the stream since it was planned."""
    split = cache.open(plan.root)[plan.split]
    if plan.missing is None or plan.spec.name not in split.streams:
        return False
    return not set(plan.missing.shards).isdisjoint(split.stream_shards(plan.spec.name))


def reads(args: argparse.Namespace) -> list[str]:
    """Sections that the command reads: [features], and those of the streams and of their kinds.

    Kinds are those of luigi.cfg, and those with which the cache's streams were computed.
    """
    names = [name for name in (args.stream, args.kind) if name] or args.cfg.features.streams
    sections = dict.fromkeys(["features", *names])
    for name in names:
        sections[args.cfg.source.section(name).get(KIND, name)] = None
    if not args.cache:
        return [*sections]

    opened = cache.FeatureCache(args.cache)
    # `prepare` extracts all splits of the dataset, which may have recorded different kinds
    for split in opened:
        if split.startswith(f"{args.dataset}/") and opened.is_committed(split):
            kinds = {_recorded_kind(opened[split], name) for name in names}
            sections |= dict.fromkeys(kind for kind in kinds if kind in streams.names())
    return [*sections]


class NoWeights(PipelineError):
    """The data are real, but neither the command nor luigi.cfg names weights."""


def specs_of(
    args: argparse.Namespace, name: str, committed: cache.Split | None, *, stand_in: bool
) -> list[StreamSpec]:
    """The streams that the arguments name, else those of [features].

    Args:
        committed: The split in the cache; None if it is not converted yet.
        stand_in: Whether the split is demo data.

    Raises NoWeights if no weights are named for real data, ConfigError for options that none of the
    streams has.
    """
    names = args.cfg.features.streams
    if args.stream or args.kind:
        names = [args.stream or args.kind]
    kinds = {stream_name: _kind(args, committed, stream_name) for stream_name in names}
    # --weights and --precision are for the streams of one kind, --set NAME=VALUE is for one stream
    by_option = {key: getattr(args, key) for key in ("weights", "precision") if getattr(args, key)}
    kind_of_options = ""
    if by_option:
        kind_of_options = _first_kind_with(by_option, kinds)
    by_set = named_values(args.set, "crop=size:256")
    first_stream = names[0]

    source = args.cfg.source
    specs = []
    for stream_name, kind in kinds.items():
        options = _command_options(
            args,
            stream_name,
            kind,
            by_set=by_set if stream_name == first_stream else {},
            by_option=by_option if kind == kind_of_options else {},
        )
        is_continued = not args.replace and _recorded_kind(committed, stream_name) == kind
        if committed is not None and is_continued:
            spec = _continued_spec(source, committed, stream_name, options)
        else:
            spec = stream_of(source, stream_name, kind, options)
            if not stand_in and "weights" not in options:
                _refuse_random_weights(name, spec.stream)
        specs.append(replace(spec, raw=args.raw))
    return specs


def _recorded_kind(committed: cache.Split | None, stream_name: str) -> Any:
    """The kind in a stream's manifest; None without such a stream or split."""
    if committed is None or stream_name not in committed.streams:
        return None
    return committed.stream_manifest(stream_name).get("identity", {}).get("kind")


def _kind(args: argparse.Namespace, committed: cache.Split | None, stream_name: str) -> str:
    """A stream's kind: by --kind, else as recorded, else by its section, else its name.

    Raises PipelineError for an unknown kind.
    """
    kind = args.kind
    if not kind:
        kind = _recorded_kind(committed, stream_name)
        is_replaced = args.replace and kind == IMPORTED  # by a stream that can be computed
        if is_replaced or kind not in streams.names():
            kind = args.cfg.source.section(stream_name).get(KIND, stream_name)
    return streams.find(kind).kind


def _first_kind_with(options: Collection[str], kinds: Mapping[str, str]) -> str:
    """The first kind of stream that has all these options.

    kinds: Stream -> kind. Raises ConfigError if no kind has the options.
    """
    for kind in kinds.values():
        names = {field.name for field in fields(streams.find(kind))}
        if names.issuperset(options):
            return kind
    first = next(iter(options))
    raise ConfigError(f"--{first}: none of these streams has this option: {', '.join(kinds)}")


def _command_options(
    args: argparse.Namespace,
    stream_name: str,
    kind: str,
    *,
    by_set: Mapping[str, str],
    by_option: Mapping[str, str],
) -> Section:
    """The options that the command sets for a stream: 1 to 3 of the module's list.

    by_set: From `--set NAME=VALUE`. by_option: From --weights and --precision. Raises ConfigError
    for an option in both.
    """
    both = sorted(by_set.keys() & by_option.keys())
    if both:
        key = both[0]
        raise ConfigError(f"{stream_name}: {key} is set by --{key} and by --set. Delete one.")
    own_keys = args.cfg.source.section(stream_name).keys()  # with those that `--set` added
    overrides = {}
    for section, key, text in parse_overrides(args.settings):
        is_inherited = section == kind and key not in own_keys
        if key != KIND and (section == stream_name or is_inherited):
            overrides[key] = text
    values = {**overrides, **by_set, **by_option}
    return Section(BY_SET, kind, values, by_option=by_option)


def _continued_spec(
    source: SettingsFile, committed: cache.Split, stream_name: str, options: Section
) -> StreamSpec:
    """The spec of an existing stream as recorded, with the command's options.

    If its file of weights is missing, the spec is that of luigi.cfg, which may name the same file
    at another path. Raises PipelineError if neither names the file with which the stream was
    computed.
    """
    recorded = StreamSpec.from_manifest(committed, stream_name)
    if recorded is not None:
        change = functools.partial(replace, recorded.stream)
        stream_class = streams.find(options.name)
        return replace(recorded, stream=configure([options], stream_class, change))

    spec = stream_of(source, stream_name, options.name, options)
    if not {"weights", "checkpoint"} & options.keys():
        _refuse_other_file(committed, stream_name, spec.stream)
    return spec


def _refuse_other_file(committed: cache.Split, stream_name: str, configured: Stream) -> None:
    """Raise PipelineError if a stream was computed with another file of weights."""
    weights: Any = committed.stream_manifest(stream_name)["identity"].get("weights")
    if not isinstance(weights, Mapping) or not weights.get("file_sha256"):
        return
    digest = weights["file_sha256"]
    now = configured.identity().get("weights") or {}
    if now.get("file_sha256") != digest:
        file = committed.stream_provenance(stream_name).get("weights_file", "an unrecorded file")
        raise PipelineError(
            f"{committed.name}: stream {stream_name!r} was computed with the weights {file} "
            f"(sha256 {digest[:12]}), which are missing or changed. Name the original file: "
            f"--weights {weights['kind']}:FILE"
        )


def _refuse_random_weights(name: str, stream: Stream) -> None:
    """Raise NoWeights for a network with random weights. name: of a split with real data."""
    if isinstance(stream, ResNet50) and stream.stand_in:
        raise NoWeights(
            f"{name} is real data: name the network's weights, for example --weights "
            "spin:FILE, or --weights untrained:0 for a trial run with random weights"
        )


KEPT: Final = (
    "computed rows are kept (other processes lose up to a minute); the same command "
    "continues from there"
)
COMMAND: Final = Command(_options, _run, reads=reads, kept=KEPT)
