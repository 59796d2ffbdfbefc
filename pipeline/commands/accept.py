"""`python -m pipeline accept`: a user decides that what differs of a stream does not matter: recorded in its manifest.

The committed features stay as they are and count as made with what is there now, as another file of the same weights.
What changes their meaning cannot be accepted: another network, untrained weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import cache
from cache import fingerprint
from pipeline.cli.options import json_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, count
from pipeline.commands.maintenance.overview import plan_split
from pipeline.commands.plan import as_dict, lines, target_options, targets_of
from pipeline.commands.settings.targets import Target
from pipeline.conversion.identity import Difference, accepted, accepted_entry, differing
from pipeline.conversion.plan import committed_split
from pipeline.errors import PipelineError
from pipeline.features.plan import recorded_identity
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


def acceptable(split: cache.Split, spec: StreamSpec) -> list[Difference]:
    """What differs between the committed stream and `spec`.

    Raises PipelineError where there is no such stream, and for another network or untrained weights: features of two
    networks have nothing in common.
    """
    before = recorded_identity(split, spec.name)
    if before.get("kind") == "imported":
        raise PipelineError(f"{split.name}: stream {spec.name!r} was imported: name another stream, or --replace it.")
    untrained = spec.stream.stand_in or bool(split.stream_manifest(spec.name)["backbone"].get("stand_in"))
    differences = differing(before, spec.identity(split))
    for difference in differences:
        if difference.part == "kind" or (untrained and difference.part.partition(".")[0] == "weights"):
            raise PipelineError(
                f"{split.name}: stream {spec.name!r}: {difference}: that is another network, whose features mean "
                "something else. Extract them into a stream of another name, or --replace this one."
            )
    return differences


def accept(split: cache.Split, spec: StreamSpec, differences: Sequence[Difference], because: str) -> None:
    """Commit the stream with its new identity and a record of each difference. What a killed run finished is kept.

    Raises PipelineError without a reason, where nothing differs, and when there has been a commit since `split` was
    opened.
    """
    if not differences:
        raise PipelineError(f"{split.name}: nothing of the stream {spec.name!r} differs that could be accepted")
    if not (because := " ".join(because.split())):
        raise PipelineError("why does the difference not matter? --because TEXT")
    manifest = split.stream_manifest(spec.name)
    plan = fingerprint(dict(manifest["identity"]))  # that of a killed run: its journal is taken over
    form = {"dim": manifest["dim"], "dtype": manifest["dtype"]}
    with cache.StreamWriter(split.root, split.name, spec.name, **form, plan=plan) as writer:
        now = cache.open(split.root)[split.name].stream_manifest(spec.name)
        if now["digest"] != manifest["digest"]:
            raise PipelineError(f"{split.name}: another run has committed in the meantime: look again with `plan`")
        new = [{**difference.as_dict(), "because": because} for difference in differences]
        records = accepted_entry([*accepted(manifest), *new])
        writer.commit({**writer.entries, "identity": spec.identity(split), **records})
