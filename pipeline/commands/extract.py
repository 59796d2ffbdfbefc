"""`python -m pipeline extract`: tracks -> a feature stream, for one split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline.cli.console import DOUBT, STAND_IN
from pipeline.cli.progress import bar
from pipeline.commands.options import count, err, out, plain, scheduler_option, shards_kept, split_options, whole
from pipeline.errors import PipelineError
from pipeline.features import extract, streams
from pipeline.features.engine import Resources
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Machine
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS
from pipeline.settings.features import given_options, stream_named

HELP: Final = "Compute a feature stream for the rows that lack it."
kept = shards_kept


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub)
    sub.add_argument("--stream", help="the stream's name in the cache; its kind's, where none is given")
    kind_options(sub)
    sub.add_argument("--crops", default="", metavar="STREAM", help="compute from a stream of crops, not the pictures")
    sub.add_argument("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1, ...")
    sub.add_argument("--batch-size", type=whole(0), default=0, help="crops at once; 0: what the device does best")
    sub.add_argument("--compile", action="store_true", help="torch.compile, on CUDA")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes that decode pictures; 0: one a core")
    sub.add_argument("--timeout", type=whole(1), default=60, help="s after which a decoder counts as hanging")
    scheduler_option(sub)
    sub.add_argument("--raw", type=Path, help="where the dataset's raw folder lies now, when it has moved")
    sub.add_argument("--replace", action="store_true", help="discard the stream of that name and extract it anew")


def kind_options(sub: argparse.ArgumentParser) -> None:
    """What a stream is."""
    sub.add_argument("--kind", default=ResNet50.kind, help=f"{', '.join(streams.names())}; default: {ResNet50.kind}")
    sub.add_argument(
        "--weights",
        help="; ".join(f"{kind}:... {what}" for kind, what in KINDS.items()) + ". Must be named for real data",
    )
    sub.add_argument("--precision", choices=["exact", "fast"], help="exact: plain fp32. Default: fast")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of another kind")


def run(args: argparse.Namespace) -> int:
    """Tracks -> a feature stream, for one split."""
    name = f"{args.dataset}/{args.split}"
    plan = extract.plan_extraction(args.cache, name, spec_of(args, name), replace=args.replace)
    stream = plan.spec.name
    if plan.up_to_date:
        has_pixels = "bbox" in cache.open(args.cache)[name].columns
        out.print(f"{name}: {stream} is up to date" if has_pixels else f"{name}: motion alone, without pictures")
        return 0
    with bar(f"extract {name}", err) as progress:
        done = extract.extract(plan, scheduler=args.scheduler, progress=progress)
    did = f"{count(done.computed, 'row')} computed ({done.meter}), {done.carried:,} carried over"
    out.print(plain(f"{name}: extracted, {did} (why: {plan.why})"))
    if plan.spec.stream.stand_in:
        out.print(f"  {STAND_IN} an untrained network: these features are for trying the pipeline only")
    for kind, rows in done.problems.items():
        out.print(f"  {DOUBT} {count(rows, 'row')} without features: {kind}")
    for example in done.examples:
        out.print(f"    {plain(example)}")
    return 0


def spec_of(args: argparse.Namespace, name: str) -> StreamSpec:
    """What the arguments ask for. Raises PipelineError where they name no weights for real data."""
    given = given_options(args.set)
    weights = args.weights
    if args.kind == ResNet50.kind and weights is None:
        weights = default_weights(args.cache, name)
    stream = stream_named(args.kind, weights, args.precision, given)
    resources = Resources(Machine(args.device, args.batch_size, compile=args.compile), args.workers, args.timeout)
    return StreamSpec(args.stream or args.kind, stream, args.crops, resources, args.raw)


def default_weights(root: cache.Root, name: str) -> str:
    """What `extract` takes when no weights are named. Raises PipelineError for real data: those must be named."""
    if not cache.open(root)[name].manifest["stand_in"]:
        raise PipelineError(f"{name} is real data: name the network's weights, for example --weights spin:FILE")
    return "untrained:0"
