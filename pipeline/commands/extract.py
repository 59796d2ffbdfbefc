"""`python -m pipeline extract`: tracks -> a feature stream, for one split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline.cli.console import DOUBT, UNTRAINED, err, out, plain
from pipeline.cli.options import named_values, scheduler_option, shards_kept, whole, workers_option
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import extract, streams
from pipeline.features.plan import plan_extraction
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import LabelStream, Machine
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS
from pipeline.processes.devices import device_names
from pipeline.settings.arguments import split_options
from pipeline.settings.targets import stream_named

HELP: Final = "Compute feature streams for the rows that lack them."
QUALITY: Final = "quality=95"  # an example of an option
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
    add(
        "--also",
        action="append",
        default=[],
        metavar="'NAME[=KIND] [OPTION=VALUE ...]'",
        help="another stream, in the same pass over the pixels, as in --also homography --also 'j1=resnet50 "
        "crop=jitter:1,seed:0'; a resnet50 has --weights and --precision",
    )
    add("--crops", default="", metavar="STREAM", help="compute from this stream of crops, not from the pictures")
    add("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1, ...")
    add("--devices", default="", metavar="0,1,...", help="several GPUs of this machine, a process for each")
    add("--batch-size", type=whole(0), default=0, help="crops at once; 0: the best for the device (default)")
    add("--compile", action="store_true", help="torch.compile, on CUDA")
    workers_option(sub, "processes that decode pictures")
    add("--timeout", type=whole(1), default=60, help="seconds without progress after which a decoder is ended")
    scheduler_option(sub)
    add("--raw", type=Path, help="the dataset's own raw folder, when it has moved")
    add("--replace", action="store_true", help="delete the stream of that name and extract it again")


def run(args: argparse.Namespace) -> int:
    """Tracks -> feature streams, for one split."""
    name = f"{args.dataset}/{args.split}"
    specs = specs_of(args, name)
    plans = [plan_extraction(args.cache, name, spec, replace=args.replace) for spec in specs]
    committed = cache.open(args.cache)[name]
    for plan in plans:
        if plan.up_to_date:
            lacks = sorted(set(plan.spec.stream.needs) - set(committed.columns))
            motion = "motion only, without pictures" if "bbox" in lacks else f"{plan.spec.name}: no {', '.join(lacks)}"
            out.print(f"{name}: {motion if lacks else f'{plan.spec.name} is up to date'}")
    todo = [plan for plan in plans if not plan.up_to_date]
    if not todo:
        return 0
    with bar(f"extract {name}", err) as progress:
        every = extract.extract_together(todo, scheduler=args.scheduler, progress=progress)
    for done in every:
        stream = f"{done.plan.spec.name} " if len(specs) > 1 else ""
        did = f"{count(done.computed, 'row')} computed ({done.meter}), {done.carried:,} carried over"
        out.print(plain(f"{name}: {stream}extracted, {did} (why: {done.plan.why})"))
        if done.plan.spec.stream.stand_in:
            out.print(f"  {UNTRAINED} a network with random weights: features for trying the pipeline only")
        for kind, rows in done.problems.items():
            out.print(f"  {DOUBT} {count(rows, 'row')} without features: {kind}")
        for example in done.examples:
            out.print(f"    {plain(example)}")
    return 0


def specs_of(args: argparse.Namespace, name: str) -> list[StreamSpec]:
    """What the arguments ask for. Raises PipelineError where they name no weights for real data."""
    options = named_values("--set", args.set, QUALITY)
    asked = [(args.stream or args.kind, args.kind, options)]
    for text in args.also:
        first, *words = text.split()
        stream, _, kind = first.partition("=")
        asked.append((stream, kind or stream, named_values("--also", words, QUALITY)))
    if len(names := [stream for stream, _, _ in asked]) > len(set(names)):
        raise ConfigError(f"--also: expected streams of different names, found {', '.join(names)}")
    weights, has_resnet = args.weights, ResNet50.kind in [kind for _, kind, _ in asked]
    if weights is None and has_resnet:
        if not cache.open(args.cache)[name].manifest["stand_in"]:
            raise PipelineError(
                f"{name} is real data: name the network's weights, for example --weights spin:FILE; to try it without, "
                "--weights untrained:0, whose features are marked as of an untrained network"
            )
        weights = "untrained:0"
    machine = Machine(args.device, args.batch_size, compile=args.compile)
    resources = Resources(machine, args.workers, args.timeout, device_names(args.devices, args.device))
    specs = []
    for number, (stream, kind, given) in enumerate(asked):
        takes_weights = kind == ResNet50.kind or not (has_resnet or number)  # others refuse them
        made = stream_named(kind, weights if takes_weights else None, args.precision if takes_weights else None, given)
        crops = "" if isinstance(made, LabelStream) and number else args.crops
        specs.append(StreamSpec(stream, made, crops, resources, args.raw))
    return specs
