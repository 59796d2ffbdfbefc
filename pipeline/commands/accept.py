"""`python -m pipeline accept`: what differs of a stream does not matter. Recorded in its manifest."""

from __future__ import annotations

import argparse
from dataclasses import replace

import cache
from pipeline.cli.options import json_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, count
from pipeline.commands.maintenance.accept import accept, acceptable
from pipeline.commands.maintenance.overview import plan_split
from pipeline.commands.plan import as_dict, lines, target_options, targets_of
from pipeline.commands.settings.targets import Target
from pipeline.conversion.identity import accepted
from pipeline.conversion.plan import committed_split
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("names", nargs="+", metavar="DATASET/SPLIT", help="the split; its stream is --stream or [features] stream")
    add("--because", metavar="TEXT", help="why it does not matter; without it, the differences are shown")
    json_option(sub)
    target_options(sub)


def run(args: argparse.Namespace) -> int:
    """Show what would be accepted; with a reason, accept it, and show what is still to be done."""
    target, spec = _target(args)
    split = committed_split(target.root, target.name)
    if split is None:
        raise PipelineError(f"{target.root}: {target.name} is not converted yet: there is nothing to accept")
    differences = acceptable(split, spec)
    differs = [f"{split.name}, stream {spec.name}: {difference}" for difference in differences]
    records, did = [], "nothing was accepted; to accept this, give the reason: --because TEXT"
    if args.because is not None or not differences:
        accept(split, spec, differences, args.because or "")
        records = accepted(cache.open(target.root)[target.name].stream_manifest(spec.name))
        did = f"accepted: {count(len(records), 'record')} in the manifest"
    plan = plan_split(target)
    result = CommandResult({"differs": differs, "accepted": records, "plan": as_dict(plan)})
    result.lines([*differs, did])
    result.text += lines(plan, FEW)
    return print_result(result, as_json=args.json)


def _target(args: argparse.Namespace) -> tuple[Target, StreamSpec]:
    """The split that the arguments name, and its stream. Raises PipelineError."""
    named = argparse.Namespace(**{**vars(args), "stream": args.stream if args.raw is not None else None})
    targets = targets_of(named, args.names)
    if len(targets) != 1:
        raise PipelineError(f"name one split, as in {targets[0].name}: each has differences of its own")
    (target,) = targets
    specs = {spec.name: spec for spec in target.streams}
    if target.stream is None:
        raise PipelineError(f"{target.name}: name the weights that the stream counts as made with: --weights")
    if args.stream is None or args.stream in specs:
        return target, specs[args.stream or target.stream.name]
    spec = replace(target.stream, name=args.stream)
    return replace(target, stream=spec), spec
