"""`python -m pipeline accept`: a difference that `plan` tells does not matter. Recorded in the manifest."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pipeline.cli.console import ERROR, show_json
from pipeline.commands.options import FEW, count, err, few, json_option, out, plain
from pipeline.commands.plan import as_dict, lines, wanted_of, where_options
from pipeline.conversion.differences import short
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.maintenance import accept
from pipeline.maintenance.accept import Acceptance
from pipeline.maintenance.overview import plan_split
from pipeline.settings.targets import Wanted

HELP: Final = "Say that a difference which `plan` tells does not matter, and why: recorded, nothing is made anew."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("names", nargs="+", metavar="DATASET/SPLIT", help="whose rows count as made by what is there now")
    sub.add_argument("--because", metavar="TEXT", help="why it does not matter; without it, what differs is shown only")
    sub.add_argument("--part", action="append", default=[], help="only this part, as `plan` names it; again for others")
    sub.add_argument("--video", action="append", default=[], help="only this changed video; again for others")
    sub.add_argument(
        "--discard-unfinished", action="store_true", help="also where a killed conversion would lose finished shards"
    )
    json_option(sub)
    where_options(sub)


def run(args: argparse.Namespace) -> int:
    """Show what would be accepted; with a reason, accept it, and tell what is still to be done."""
    of_stream, wanted = wanted_here(args)
    if of_stream and args.video:
        raise PipelineError("--video is of a split's raw files, --stream of its features: one at a time")
    what = accept.propose_for_stream(wanted, args.part) if of_stream else accept.propose(wanted, args.part, args.video)
    differs = list(told(what))
    for line in () if args.json else few(differs, FEW * 4, "plan --all"):
        out.print(plain(line))
    if args.because is None and not what.nothing:
        err.print(f"{ERROR} nothing was accepted: say why it does not matter, with --because TEXT")
        return 2
    records = accept.accept(what, args.because or "only times differ", discard_unfinished=args.discard_unfinished)
    if args.json:
        show_json({"differs": differs, "accepted": records, "plan": as_dict(plan_split(wanted))})
        return 0
    out.print(f"accepted: {count(len(records), 'record')} in the manifest" if records else "times are remembered")
    for line in lines(plan_split(wanted), FEW):
        out.print(line)
    return 0


def wanted_here(args: argparse.Namespace) -> tuple[bool, Wanted]:
    """Whether it is about a stream, and what is wanted of the one split that the arguments name."""
    of_stream = args.stream is not None
    given = argparse.Namespace(**{**vars(args), "stream": args.stream if args.raw is not None else None})
    found = wanted_of(given, args.names)
    if len(found) != 1:
        raise PipelineError(f"name one split, as in {found[0].name}: what differs is another thing in each")
    wanted = found[0]
    if of_stream and wanted.stream is not None:
        crops = wanted.crops
        spec = crops if crops is not None and crops.name == args.stream else _named(wanted.stream, args.stream)
        wanted = replace(wanted, stream=spec)
    return of_stream, wanted


def _named(spec: StreamSpec, name: str) -> StreamSpec:
    return replace(spec, name=name)


def told(what: Acceptance) -> Iterator[str]:
    """What would be accepted, line by line."""
    where = what.wanted.name + (f", stream {what.stream}" if what.stream is not None else "")
    for difference in what.parts:
        yield f"{where}: {difference}"
    for name, (was, now) in what.videos.items():
        pictures = "" if was[1] == now[1] else f", pictures were {short(was[1])}, are {short(now[1])}"
        yield f"{where}: video {name}: raw files were {short(was[0])}, are {short(now[0])}{pictures}"
    if what.touched:
        yield f"{where}: {count(len(what.touched), 'video')} of other times and the same content"
