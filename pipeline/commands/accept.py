"""`python -m pipeline accept`: a difference that `plan` shows does not matter. Recorded in the manifest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipeline.cli.console import DONE, DOUBT, out, plain, show_json
from pipeline.cli.options import json_option
from pipeline.cli.text import FEW, command, count, few
from pipeline.commands.plan import as_dict, lines, target_options, targets_of
from pipeline.conversion.plan import committed_split
from pipeline.errors import PipelineError
from pipeline.maintenance.accept import accept, propose, propose_for_stream
from pipeline.maintenance.overview import plan_split
from pipeline.settings.targets import Target

HELP: Final = (
    "Accept that what `plan` shows as different does not matter: the reason is recorded, nothing is recomputed. "
    "It takes one split, or with --stream one of its streams. With several splits, or none (all of luigi.cfg), it "
    "records new file times and nothing else."
)


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("names", nargs="*", metavar="DATASET/SPLIT", help="the split; with several, only new file times are recorded")
    add("--because", metavar="TEXT", help="why it does not matter; without it, the differences are shown")
    json_option(sub)
    target_options(sub)


def run(args: argparse.Namespace) -> int:
    """Show what would be accepted; with a reason, accept it, and show what is still to be done."""
    simple = args.raw is None and args.because is None and args.stream is None and not args.json
    if simple and len(targets := targets_of(args, args.names)) > 1:
        return _times(targets)
    target = _target(args)
    committed = committed_split(target.root, target.name)
    what = propose(committed, target) if args.stream is None else propose_for_stream(committed, target)
    differs = list(what.lines())
    for line in () if args.json else few(differs, FEW * 4, "plan --all"):
        out.print(plain(line))
    if args.because is None and not what.empty:  # only show
        records, did = [], "nothing was accepted; to accept this, give the reason: --because TEXT"
    else:
        records = accept(what, args.because or "only times differ")
        did = f"accepted: {count(len(records), 'record')} in the manifest" if records else "new file times are recorded"
    if args.json:
        show_json({"differs": differs, "accepted": records, "plan": as_dict(plan_split(target))})
        return 0
    out.print(did)
    for line in lines(plan_split(target), FEW):
        out.print(line)
    return 0


def _times(targets: Sequence[Target]) -> int:
    """Record the new file times of every split in which nothing else differs."""
    recorded = 0
    for target in targets:
        if (committed := committed_split(target.root, target.name)) is None:
            continue
        what = propose(committed, target)
        if not what.empty:
            out.print(f"{DOUBT} {target.name}: more than times differs: {command('accept', target.name)}")
        elif what.touched:
            accept(what, "only times differ")
            recorded += 1
            out.print(f"{DONE} {target.name}: new file times of {count(len(what.touched), 'video')} are recorded")
    if not recorded:
        out.print(f"no new file times in {count(len(targets), 'split')}: nothing was recorded")
    return 0


def _target(args: argparse.Namespace) -> Target:
    """The one split that the arguments name, with the stream that --stream names."""
    given = argparse.Namespace(**{**vars(args), "stream": args.stream if args.raw is not None else None})
    found = targets_of(given, args.names)
    if len(found) != 1:
        raise PipelineError(f"name one split, as in {found[0].name}: each has differences of its own")
    target, crops = found[0], found[0].crops
    if args.stream is None or target.stream is None:
        return target
    spec = crops if crops is not None and crops.name == args.stream else replace(target.stream, name=args.stream)
    return replace(target, stream=spec)
