"""`python -m pipeline extract`: tracks -> a feature stream, for one split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain
from pipeline.cli.options import scheduler_option, shards_kept, whole, workers_option
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract, streams
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS
from pipeline.settings.arguments import split_options
from pipeline.settings.targets import stream_named

HELP: Final = "Compute a feature stream for the rows that lack it."
kept = shards_kept


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub)
    weights = "; ".join(f"{kind}:... {what}" for kind, what in KINDS.items())
    add = sub.add_argument
    add("--stream", help="the stream's name in the cache; default: its kind")
    add("--kind", default=ResNet50.kind, help=f"{', '.join(streams.names())} (default {ResNet50.kind})")
    add("--weights", help=f"{weights}. Must be given for real data")
    add("--precision", choices=["exact", "fast"], help="exact: plain fp32 (default fast)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of a kind other than resnet50")
    add("--crops", default="", metavar="STREAM", help="compute from this stream of crops, not from the pictures")
    add("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1, ...")
    add("--batch-size", type=whole(0), default=0, help="crops at once; 0: the best for the device (default)")
    add("--compile", action="store_true", help="torch.compile, on CUDA")
    workers_option(sub, "processes that decode pictures")
    add("--timeout", type=whole(1), default=60, help="seconds without progress after which a decoder is ended")
    scheduler_option(sub)
    add("--raw", type=Path, help="the dataset's own raw folder, when it has moved")
    add("--replace", action="store_true", help="delete the stream of that name and extract it again")


def run(args: argparse.Namespace) -> int:
    """Tracks -> a feature stream, for one split."""
    name = f"{args.dataset}/{args.split}"
    plan = plan_extraction(args.cache, name, spec_of(args, name), replace=args.replace)
    stream = plan.spec.name
    if plan.up_to_date:
        has_pixels = "bbox" in cache.open(args.cache)[name].columns
        out.print(f"{name}: {stream} is up to date" if has_pixels else f"{name}: motion only, without pictures")
        return 0
    with bar(f"extract {name}", err) as progress:
        done = extract.extract(plan, scheduler=args.scheduler, progress=progress)
    did = f"{count(done.computed, 'row')} computed ({done.meter}), {done.carried:,} carried over"
    out.print(plain(f"{name}: extracted, {did} (why: {plan.why})"))
    if plan.spec.stream.stand_in:
        out.print(f"  {STAND_IN} an untrained network: features for trying the pipeline only")
    for kind, rows in done.problems.items():
        out.print(f"  {DOUBT} {count(rows, 'row')} without features: {kind}")
    for example in done.examples:
        out.print(f"    {plain(example)}")
    return 0


def spec_of(args: argparse.Namespace, name: str) -> StreamSpec:
    """What the arguments ask for. Raises PipelineError where they name no weights for real data."""
    weights = args.weights
    if args.kind == ResNet50.kind and weights is None:
        if not cache.open(args.cache)[name].manifest["stand_in"]:
            raise PipelineError(f"{name} is real data: name the network's weights, for example --weights spin:FILE")
        weights = "untrained:0"
    options: dict[str, str] = {}
    for pair in args.set:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set {pair}: expected NAME=VALUE, as in --set quality=95")
        if key in options:
            raise ConfigError(f"--set {pair}: {key} is set to {options[key]!r} already")
        options[key] = value
    stream = stream_named(args.kind, weights, args.precision, options)
    resources = Resources(Machine(args.device, args.batch_size, compile=args.compile), args.workers, args.timeout)
    return StreamSpec(args.stream or args.kind, stream, args.crops, resources, args.raw)
