"""The command line: `python -m pipeline COMMAND`. Each command calls one function and tells what it did."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cache
from pipeline import convert, datasets, features, synthetic
from pipeline.errors import PipelineError
from pipeline.progress import bar
from pipeline.weights import KINDS, WeightsSpec

WIDE: Final = 100_000  # columns of what is no terminal: there, nobody wants lines folded

STATUS: Final = ("split", "videos", "tracks", "frames kept / found", "dropped", "streams")

out: Final = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err: Final = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def run_synthesize(args: argparse.Namespace) -> int:
    """Write the embedded data and the stand-in body."""
    with bar("synthesize", err) as progress:
        synthetic.synthesize(args.out, seed=args.seed, size=args.size, workers=_cores(args.workers), progress=progress)
    out.print(plain(f"Embedded stand-in data in {args.out / 'raw'}, stand-in body in {args.out / 'body'}."))
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """Raw -> tracks, for one split, and its accounting."""
    dataset = datasets.get(args.dataset)
    plan = convert.plan_conversion(dataset, args.split, raw=args.raw, root=args.cache, body=args.body)
    if plan.up_to_date:
        out.print(f"{plan.name}: up to date, {plan.kept} videos")
        return 0
    if dataset.uses_body and args.body is None:
        err.print(f"[yellow]![/yellow] {plan.name}: no --body, so there will be no 3D joints")
    with bar(f"convert {plan.name}", err) as progress:
        done = convert.convert(plan, workers=_cores(args.workers), strict=args.strict, progress=progress)
    out.print(plain(f"{plan.name}: {plan.why}"))
    print_accounting(done.totals)
    for account in done.set_aside:
        out.print(f"  [yellow]![/yellow] {plain(f'set aside {account.set_aside}: {account.message}')}")
    return 0


def run_extract(args: argparse.Namespace) -> int:
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
    out.print(
        f"{name}: {done.computed} rows computed ({rate:.0f} crops/s), {done.carried} carried over; {plain(plan.why)}"
    )
    if weights.stand_in:
        out.print("  [yellow]STAND-IN[/yellow] an untrained network: these features are for trying the pipeline only")
    for kind, rows in done.problems.items():
        out.print(f"  [yellow]![/yellow] {rows} rows without features: {kind}")
    for example in done.examples:
        out.print(f"    {plain(example)}")
    return 0


def default_weights(root: Path, name: str) -> str:
    """What `extract` takes when no weights are named. Raises PipelineError for real data: those must be named."""
    if not cache.open(root)[name].manifest["stand_in"]:
        raise PipelineError(f"{name} is real data: name the network's weights, for example --weights spin:FILE")
    return "untrained:0"


def run_verify(args: argparse.Namespace) -> int:
    """Every problem that a cache has, and what a killed run left."""
    report = cache.verify(args.cache)
    for problem in report.problems:
        out.print(f"[red]✗[/red] {plain(problem)}")
    for note in report.notes:
        out.print(f"[dim]·[/dim] {plain(note)}")
    summary = f"{report.shards} shards, {report.bytes / 2**20:.1f} MiB"
    out.print(f"[green]✓[/green] intact: {summary}" if report.ok else f"{len(report.problems)} problems in {summary}")
    return 0 if report.ok else 1


def run_status(args: argparse.Namespace) -> int:
    """A table of splits, or the same as JSON."""
    opened = cache.open(args.cache)
    rows = [split_status(opened[name]) for name in opened.splits]
    if args.json:
        out.out(json.dumps(rows, indent=2))
        return 0
    table = Table(*STATUS, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        frames = row["accounting"]["frames"]
        dropped = ", ".join(f"{n} {reason}" for reason, n in frames["dropped"].items()) or "-"
        videos = row["accounting"]["videos"]
        name = row["split"] + (" [yellow](stand-in)[/yellow]" if row["stand_in"] else "")
        kept = f"{frames['kept']} / {frames['found']}"
        table.add_row(
            name,
            f"{videos['kept']} / {videos['found']}",
            str(row["tracks"]),
            kept,
            dropped,
            ", ".join(row["streams"]) or "-",
        )
    out.print(table)
    for row in rows:
        for message in row["set_aside"]:
            out.print(f"[yellow]![/yellow] {row['split']}: {plain(message)}")
    return 0


def split_status(split: cache.Split) -> dict[str, Any]:
    """What `status` tells of one split, for a table or for a machine."""
    accounts = [video.account for video in split.videos]
    name = split.name.split("/")[0]
    harmless = datasets.get(name).harmless if name in datasets.names() else ()
    return {
        "split": split.name,
        "tracks": len(split.tracks),
        "accounting": split.manifest["accounting"],
        "stand_in": split.manifest["stand_in"],
        "streams": [name + ("" if features.is_current(split, name) else " (lags behind)") for name in split.streams],
        "set_aside": [f"{a['set_aside']}: {a['message']}" for a in accounts if a["set_aside"] not in ("", *harmless)],
    }


def print_accounting(totals: Any) -> None:
    """found = kept + dropped by reason, in three lines."""
    frames, tracks, videos = totals["frames"], totals["tracks"], totals["videos"]
    out.print(f"  videos {videos['kept']} kept of {videos['found']}" + _reasons(videos["set_aside"]))
    out.print(f"  tracks {tracks['kept']} kept" + _reasons(tracks["dropped"]))
    out.print(f"  frames {frames['kept']} kept of {frames['found']}" + _reasons(frames["dropped"]))


def _reasons(counts: dict[str, int]) -> str:
    return "".join(f", {n} {reason}" for reason, n in counts.items())


def plain(text: str) -> str:
    """Text from elsewhere, such as names of files, on one line and without anything that a terminal would obey."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _cores(workers: int) -> int:
    return workers or len(os.sched_getaffinity(0))


def _whole(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, found {text!r}")
        return int(text)

    return parse


class _Parser(argparse.ArgumentParser):
    """One line for a mistake in the arguments, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(prog="python -m pipeline", description="Raw datasets -> tracks -> features in a Zarr cache.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return sub

    def split_of(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("dataset", choices=datasets.names(), help="the dataset's name")
        sub.add_argument("split", help="train, val, test, ... as the dataset has them")
        sub.add_argument("--cache", type=Path, required=True, help="the cache's folder")

    sub = command(
        "synthesize", run_synthesize, "Write the embedded default data: small stand-ins in the official layouts."
    )
    sub.add_argument("--out", type=Path, required=True, help="gets raw/<dataset>/ and body/")
    sub.add_argument("--seed", type=_whole(0), default=0, help="the same seed gives the same bytes")
    sub.add_argument("--size", default="default", choices=list(synthetic.SIZES), help="how much of it")
    sub.add_argument("--workers", type=_whole(0), default=0, help="processes; 0: one a core")

    sub = command("convert", run_convert, "Convert one split of a raw dataset into committed rows of the cache.")
    split_of(sub)
    sub.add_argument("--raw", type=Path, required=True, help="the dataset's own raw folder")
    sub.add_argument("--body", type=Path, help="SMPL's files, for datasets whose 3D joints come from SMPL parameters")
    sub.add_argument("--workers", type=_whole(0), default=0, help="processes; 0: one a core")
    sub.add_argument("--strict", action="store_true", help="fail on the first video that cannot be used")

    sub = command("extract", run_extract, "Compute a feature stream for the rows that lack it.")
    split_of(sub)
    sub.add_argument("--stream", default="resnet50", help="the stream's name in the cache")
    sub.add_argument("--kind", default=features.KIND, choices=[features.KIND], help="the network")
    sub.add_argument(
        "--weights",
        help="; ".join(f"{kind}:... {what}" for kind, what in KINDS.items()) + ". Must be named for real data",
    )
    sub.add_argument("--precision", default="fast", choices=["exact", "fast"], help="exact: plain fp32")
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: cuda when there is one")
    sub.add_argument("--batch-size", type=_whole(1), default=32, help="crops at once through the network")
    sub.add_argument("--raw", type=Path, help="where the dataset's raw folder lies now, when it has moved")
    sub.add_argument("--replace", action="store_true", help="discard the stream of that name and extract it anew")

    sub = command(
        "verify", run_verify, "Check every shard of a cache against its manifest; exit 1 when something is wrong."
    )
    sub.add_argument("--cache", type=Path, required=True)

    sub = command("status", run_status, "What is in a cache: videos, tracks, frames kept and dropped, streams.")
    sub.add_argument("--cache", type=Path, required=True)
    sub.add_argument("--json", action="store_true", help="for a machine to read")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit 0: done; 1: `verify` found problems; 2: an error, told in words; 130: interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no "✓" is no reason to fail
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
    except KeyboardInterrupt:
        err.print("interrupted: finished shards (8,192 rows each) are kept; the same command goes on from there")
        return 130
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        err.print(f"[red]error:[/red] {plain(in_words(error))}")
        return 2
    return code


def in_words(error: Exception) -> str:
    """An error as the user is told it."""
    if isinstance(error, PipelineError | cache.CacheError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}. This should not happen: --debug shows where it does."


if __name__ == "__main__":
    sys.exit(main())
