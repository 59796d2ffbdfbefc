"""`python -m pipeline extract`: tracks -> a feature stream, for one split."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import cache
from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, WRONG, err, out, plain
from pipeline.cli.options import named_values
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.commands.settings.arguments import split_options
from pipeline.commands.settings.commands import setting_options, value
from pipeline.commands.settings.file import of_command_line
from pipeline.commands.settings.schema import Features
from pipeline.commands.settings.sections import IN_FEATURES, KIND, dataclass_of
from pipeline.commands.settings.targets import stream_named
from pipeline.conversion.committed import why_empty
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract, streams
from pipeline.features.plan import plan_extraction, recorded_spec
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Stream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS, WeightsSpec

TAKES: Final = [field.name for field in fields(Resources)]  # settings that are options, too
QUALITY: Final = "quality=95"  # an example of an option
KEPT: Final = "computed rows are kept; the same command continues from there"
KEPT_ELSEWHERE: Final = "rows computed until a minute ago are kept; the same command continues from there"


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub)
    weights = "; ".join(f"{kind}:... {what}" for kind, what in KINDS.items())
    add = sub.add_argument
    add("--stream", help="the stream's name in the cache; without it and --kind, the streams of [features]")
    kinds = ", ".join(streams.names())
    add("--kind", help=f"{kinds}; default: what the stream is, what its name says, or [features] kind")
    add("--weights", help=f"{weights}. Default: the stream's own, or [features] weights; untrained ones only for demos")
    add("--precision", choices=["exact", "fast"], help="exact: plain fp32. Default: the stream's own, or [features]'")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the stream")
    add("--crops", metavar="STREAM", help="compute from this stream of crops, not from the pictures")
    setting_options(sub, "features", *TAKES)
    setting_options(sub, "dask", "scheduler")
    add("--raw", type=Path, help="the dataset's own raw folder, when it has moved")
    add("--replace", action="store_true", help="delete the stream of that name and extract it again")


def kept(args: argparse.Namespace) -> str:
    """What of an interrupted extraction is kept: other processes write a checkpoint twice a minute."""
    return KEPT_ELSEWHERE if args.devices or args.scheduler else KEPT


def run(args: argparse.Namespace) -> int:
    """Tracks -> feature streams, for one split."""
    name = f"{args.dataset}/{args.split}"
    committed = cache.open(args.cache)[name]
    if problems := why_empty(committed):
        for problem in problems:
            out.print(f"{WRONG} {plain(problem)}")
        return 1
    specs = specs_of(args, name, committed, stand_in=bool(committed.manifest["stand_in"]))
    plans = [plan_extraction(args.cache, name, spec, replace=args.replace) for spec in specs]
    for plan in plans:
        if plan.up_to_date:
            lacks = sorted(set(plan.spec.stream.needs) - set(committed.columns))
            motion = "motion only, without pictures" if "bbox" in lacks else f"{plan.spec.name}: no {', '.join(lacks)}"
            out.print(f"{name}: {motion if lacks else f'{plan.spec.name} is up to date'}")
    todo = [plan for plan in plans if not plan.up_to_date]
    if not todo:
        return 0
    resources = Resources(**{key: getattr(args, key) for key in TAKES})
    with bar(f"extract {name}", err) as progress:
        every = extract.extract_together(todo, resources, scheduler=args.scheduler, progress=progress)
    for extraction in every:
        stream = f"{extraction.plan.spec.name} " if len(specs) > 1 else ""
        did = f"{count(extraction.computed, 'row')} computed ({extraction.meter}), {extraction.carried:,} carried over"
        did += f", {extraction.kept:,} kept of an interrupted run" if extraction.kept else ""
        out.print(plain(f"{name}: {stream}extracted, {did} (why: {extraction.plan.why})"))
        if extraction.plan.spec.stream.stand_in:
            file = extraction.plan.spec.stream.weights_file
            what = "a network with random weights" if file is None else f"{file.name} is of demo data"
            mark = UNTRAINED if file is None else STAND_IN
            out.print(f"  {mark} {plain(what)}: features for trying the pipeline only")
        for kind, rows in extraction.problems.items():
            out.print(f"  {DOUBT} {count(rows, 'row')} without features: {kind}")
        for example in extraction.examples:
            out.print(f"    {plain(example)}")
    return 0


def reads(args: argparse.Namespace) -> list[str]:
    """[features], and the sections of streams."""
    features, single = dataclass_of(args.source.section("features"), Features), bool(args.stream or args.kind)
    keys = [f"features.{field.name}" for field in fields(features) if not (single and field.name in ("stream", "also"))]
    names = [args.stream, args.kind, features.kind, *(() if single else (features.stream, *features.also))]
    return [*keys, *dict.fromkeys(filter(None, names))]


class RequestedStream(NamedTuple):
    """A stream that the arguments or luigi.cfg name."""

    name: str
    kind: str
    options: Mapping[str, str]


class NoWeights(PipelineError):
    """Nothing names a network's weights, and an untrained one is for demo data."""


def specs_of(args: argparse.Namespace, name: str, committed: cache.Split | None, *, stand_in: bool) -> list[StreamSpec]:
    """What the arguments ask for of a split, which need not be committed yet. stand_in: of demo data.

    Raises NoWeights where they name none for real data.
    """
    requested = _requested(args, committed)
    has_resnet = ResNet50.kind in [stream.kind for stream in requested]
    specs = []
    for number, stream in enumerate(requested):
        if stream.kind == ResNet50.kind or not (has_resnet or number):
            of_network = _network_options(args)
            if twice := sorted(stream.options.keys() & of_network.keys()):
                raise ConfigError(f"{stream.name}: {twice[0]} is set twice, by --{twice[0]} or [features] and by --set")
            stream = stream._replace(options={**stream.options, **of_network})
        spec = _spec(args, name, committed, stream, stand_in=stand_in)
        if args.crops is not None:
            spec = replace(spec, crops=args.crops if spec.stream.reads.crops or not number else "")
        specs.append(spec.at(args.raw))
    return specs


def _requested(args: argparse.Namespace, committed: cache.Split | None) -> list[RequestedStream]:
    """--stream and --kind; all that [features] names where neither is given."""
    features = dataclass_of(args.source.section("features"), Features)
    options = named_values("--set", args.set, QUALITY)
    if name := args.stream or args.kind:
        return [RequestedStream(name, args.kind or _kind(args, committed, name, features.kind), options)]
    also = [RequestedStream(stream, _kind(args, committed, stream), {}) for stream in features.also]
    return [RequestedStream(features.stream, features.kind, options), *also]


def _recorded(committed: cache.Split | None, stream: str) -> Mapping[str, Any]:
    """A stream's manifest; empty where there is no such stream, or no split yet."""
    return committed.stream_manifest(stream) if committed is not None and stream in committed.streams else {}


def _kind(args: argparse.Namespace, committed: cache.Split | None, stream: str, otherwise: str = "") -> str:
    """What a stream is: what it was extracted as, by its section of luigi.cfg, or by its name, which may be a kind."""
    recorded = _recorded(committed, stream).get("identity", {}).get("kind")
    kinds = (recorded, args.source.section(stream).get(KIND), stream, otherwise)
    return next((str(kind) for kind in kinds if kind in streams.names()), stream)


def _network_options(args: argparse.Namespace) -> dict[str, str]:
    """Weights and precision that the command names, by options or by its own `--set`."""
    options = {key: text for section, key, text in of_command_line(args.settings) if section == "features"}
    if "weights" in options:
        options["weights"] = str(WeightsSpec.parse(options["weights"]).below(args.source.path.resolve().parent))
    return {key: text for key in IN_FEATURES if (text := getattr(args, key) or options.get(key))}


def _spec(
    args: argparse.Namespace, name: str, committed: cache.Split | None, stream: RequestedStream, *, stand_in: bool
) -> StreamSpec:
    """A stream that is there as it was extracted; another one by luigi.cfg; over both, what the arguments say.

    Raises PipelineError where its weights are not at hand, NoWeights for untrained ones that no argument names for real
    data.
    """
    of_kind = not args.replace and _recorded(committed, stream.name).get("identity", {}).get("kind") == stream.kind
    before = committed if of_kind else None
    if before is not None and (recorded := recorded_spec(before, stream.name)) is not None:
        made = stream_named(stream.kind, stream.options, recorded.stream)
        return replace(recorded, stream=made)
    made = stream_named(stream.kind, stream.options, args.source, stream.name)
    if before is not None and not {"weights", "checkpoint"} & stream.options.keys():
        _refuse_other_file(before, stream, made)
    if isinstance(made, ResNet50) and made.stand_in and "weights" not in stream.options and not stand_in:
        raise NoWeights(
            f"{name} is real data: name the network's weights, for example --weights spin:FILE; to try it "
            "without, --weights untrained:0, whose features are marked as of an untrained network"
        )
    crops = value(args.source, "features.crops") or ""
    by_crops = made.reads.crops and made.kind != Crops.kind and stream.name != crops
    return StreamSpec(stream.name, made, crops if by_crops else "")


def _refuse_other_file(committed: cache.Split, stream: RequestedStream, made: Stream) -> None:
    """Raise PipelineError where a stream was computed with a file of weights, and `made` has others."""
    weights: Mapping[str, str] = committed.stream_manifest(stream.name)["identity"].get("weights") or {}
    digest = weights.get("file_sha256") if isinstance(weights, Mapping) else None
    if digest and (made.identity().get("weights") or {}).get("file_sha256") != digest:
        was = committed.stream_provenance(stream.name).get("weights_file", "a file that is not recorded")
        option = "--weights " if stream.kind == ResNet50.kind else "--set weights="
        raise PipelineError(
            f"{committed.name}: the stream {stream.name!r} was computed with the weights of {was} (sha256 "
            f"{digest[:12]}), which is not there as it was. Name that file: {option}{weights['kind']}:FILE"
        )
