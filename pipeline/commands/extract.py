"""`python -m pipeline extract`: tracks -> a feature stream, for one split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline import features
from pipeline.commands.console import count, err, out, plain, split_options, whole
from pipeline.errors import PipelineError
from pipeline.progress import bar
from pipeline.weights import KINDS, WeightsSpec

HELP: Final = "Compute a feature stream for the rows that lack it."


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub)
    sub.add_argument("--stream", default="resnet50", help="the stream's name in the cache")
    sub.add_argument("--kind", default=features.KIND, choices=[features.KIND], help="the network")
    sub.add_argument(
        "--weights",
        help="; ".join(f"{kind}:... {what}" for kind, what in KINDS.items()) + ". Must be named for real data",
    )
    sub.add_argument("--precision", default="fast", choices=["exact", "fast"], help="exact: plain fp32")
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: cuda when there is one")
    sub.add_argument("--batch-size", type=whole(1), default=32, help="crops at once through the network")
    sub.add_argument("--raw", type=Path, help="where the dataset's raw folder lies now, when it has moved")
    sub.add_argument("--replace", action="store_true", help="discard the stream of that name and extract it anew")


def run(args: argparse.Namespace) -> int:
    """Tracks -> a feature stream, for one split."""
    name = f"{args.dataset}/{args.split}"
    weights = WeightsSpec.parse(args.weights or default_weights(args.cache, name))
    spec = features.StreamSpec(args.stream, weights, args.precision, args.device, args.batch_size, args.raw)
    plan = features.plan_extraction(args.cache, name, spec, replace=args.replace)
    if plan.up_to_date:
        has_pixels = "bbox" in cache.open(args.cache)[name].columns
        out.print(f"{name}: {args.stream} is up to date" if has_pixels else f"{name}: motion alone, without pictures")
        return 0
    with bar(f"extract {name}", err) as progress:
        done = features.extract(plan, progress=progress)
    rate = done.computed / max(done.seconds, 1e-3)
    did = f"{count(done.computed, 'row')} computed ({rate:.0f} a second), {done.carried:,} carried over"
    out.print(plain(f"{name}: extracted, {did} (why: {plan.why})"))
    if weights.stand_in:
        out.print("  [yellow]STAND-IN[/yellow] an untrained network: these features are for trying the pipeline only")
    for kind, rows in done.problems.items():
        out.print(f"  [yellow]![/yellow] {count(rows, 'row')} without features: {kind}")
    for example in done.examples:
        out.print(f"    {plain(example)}")
    return 0


def default_weights(root: Path, name: str) -> str:
    """What `extract` takes when no weights are named. Raises PipelineError for real data: those must be named."""
    if not cache.open(root)[name].manifest["stand_in"]:
        raise PipelineError(f"{name} is real data: name the network's weights, for example --weights spin:FILE")
    return "untrained:0"
