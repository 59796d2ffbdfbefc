"""`python -m pipeline plan`: what would run, how much, and why. Writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import cache
from pipeline.cli.console import DONE, DOUBT, IDLE, WRONG, err, plain, size
from pipeline.cli.options import cores, json_option, whole, workers_option
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, command, count, few
from pipeline.commands.maintenance.forecast import Forecast, forecast_lines, forecasts_of
from pipeline.commands.maintenance.overview import SplitPlan, StreamPlan, plan_split
from pipeline.commands.settings.arguments import check_own_folder, joined
from pipeline.commands.settings.commands import body_of, dataset_of
from pipeline.commands.settings.file import settings_file
from pipeline.commands.settings.targets import Target, absent, broken_in, by_settings, stream_named
from pipeline.conversion.plan import ConversionPlan
from pipeline.detect.plan import DetectionPlan
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import KINDS
from pipeline.files.raw.changes import what_differs
from pipeline.files.raw.stand_in import is_stand_in


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "names", nargs="*", metavar="DATASET[/SPLIT]", help="only these; with --raw, the one split of that folder"
    )
    sub.add_argument("--all", action="store_true", help="name every video, not the first few")
    json_option(sub, "; always names all videos")
    add = sub.add_argument
    add(
        "--forecast",
        action="store_true",
        help="the forecast alone: person-frames, disk and hours, also of releases that are not downloaded yet",
    )
    add(
        "--sample", type=whole(1), default=0, metavar="N", help="forecast: read N videos of every split to be converted"
    )
    add("--rate", type=whole(1), help="forecast: rows a second of extraction, on all devices; default: as measured")
    workers_option(sub, "forecast: processes that read the sample")
    target_options(sub)


def target_options(sub: argparse.ArgumentParser) -> None:
    """For commands that compare the cache with luigi.cfg, or with one raw folder."""
    sub.set_defaults(reads=reads)
    add = sub.add_argument
    add("--config", type=Path, help="another luigi.cfg than LUIGI_CONFIG_PATH or ./luigi.cfg")
    add("--cache", type=cache.place_of, help="the cache's folder or URL; default: [paths] cache of luigi.cfg")
    add("--raw", type=Path, help="a dataset's own raw folder, instead of those of luigi.cfg")
    add("--body", type=Path, help="with --raw: SMPL's files, for datasets that need them; default: [paths] body")
    add("--stream", help="with --raw and --weights: the stream's name; default: every stream there is")
    add("--weights", help=f"with --raw: the network's, {', '.join(f'{kind}:...' for kind in KINDS)}")
    add("--precision", choices=["exact", "fast"], help="with --raw and --weights; default: [features] precision")


def reads(args: argparse.Namespace) -> list[str] | None:
    """With --raw the dataset's section, [paths] body and the stream's options; else all of luigi.cfg."""
    of_stream = ["features.precision", ResNet50.kind] if args.weights else []
    name = "/".join(args.names).partition("/")[0]
    return None if args.raw is None else [name, "paths.body", *of_stream]


def run(args: argparse.Namespace) -> int:
    """What would run, split by split; one with an error shows it, and the others follow. Exit code 2 then."""
    targets = targets_of(args, args.names)
    detections: dict[Path, DetectionPlan] = {}
    plans = [plan_split(target, detections) for target in targets]
    missing = [] if args.forecast else absent(targets)
    broken = [] if args.raw is not None or args.names else broken_in(args.config or settings_file())
    for text in broken:
        err.print(f"{DOUBT} {plain(text)}: left out")
    forecasts = forecasts_of(plans, sample=args.sample, workers=cores(args.workers), rate=args.rate)
    failed = [plan for plan in plans if plan.problems and not (args.forecast and plan.name in forecasts)]
    rows = [as_dict(plan, missing, forecasts.get(plan.name)) for plan in plans]
    result = CommandResult(rows, exit_code=2 if broken or missing or failed else 0)
    for plan in () if args.forecast else plans:
        result.text += lines(plan, None if args.all else FEW, missing)
    result.text += forecast_lines([*forecasts.values()])
    if args.forecast:
        result.problems = [*dict.fromkeys(problem for plan in failed for problem in plan.problems)]
        if not forecasts and not failed:
            result.line("nothing to forecast: all splits are converted and extracted")
        return print_result(result, as_json=args.json)
    result.problems = missing
    if plans and all(plan.up_to_date and not (plan.conversion and plan.conversion.problems) for plan in plans):
        bare = sum(plan.target.dataset.has_pixels and not plan.extractions for plan in plans)
        did = "converted" if bare == len(plans) else "converted and extracted"
        without = f", {bare:,} without any features: no stream is named here, and none is in the cache" * bool(bare)
        result.line(f"up to date: {count(len(plans), 'split')} {did} (training is not included){without}")
    return print_result(result, as_json=args.json)


def targets_of(args: argparse.Namespace, names: Sequence[str]) -> list[Target]:
    """What the arguments ask for. Raises PipelineError where they do not fit together, ConfigError of luigi.cfg."""
    if args.raw is None:
        if alone := [f"--{name}" for name in ("body", "stream", "weights", "precision") if getattr(args, name)]:
            raise PipelineError(f"{alone[0]} goes with --raw DIR; without it, luigi.cfg sets everything but --cache")
        return by_settings(args.config or settings_file(), joined(names), args.cache)
    name, _, split = "/".join(names).partition("/")
    if args.cache is None or not split or "/" in split:
        raise PipelineError(
            "--raw is one dataset's own folder: name the split and --cache, as DATASET SPLIT --cache DIR"
        )
    if args.precision is not None and args.weights is None:
        raise PipelineError("--precision goes with --weights")
    dataset, spec = dataset_of(args, name), None
    check_own_folder(args.raw, dataset)
    dataset.check_split(split)
    if args.weights is not None:
        options = {"weights": args.weights} | ({"precision": args.precision} if args.precision else {})
        stream = stream_named(ResNet50.kind, options, args.source)
        spec = StreamSpec(args.stream or stream.kind, stream, raw=args.raw)
    body = body_of(args, dataset, demo=is_stand_in(args.raw))
    return [Target(dataset, split, args.raw, args.cache, body, spec)]


def lines(plan: SplitPlan, most: int | None, shown: Collection[str] = ()) -> Iterator[str]:
    """A split's plans as text, ready to be printed. `most`: so many videos by name; None: all. `shown`: problems that
    are printed once for all splits."""
    todo, because = plan.conversion, ""
    if plan.up_to_date and todo is not None:
        has = "".join(f", {plain(stream.stream)}" for stream in plan.extractions)
        mark = DOUBT if todo.problems else DONE
        yield f"{mark} {plain(plan.name)}: up to date ({count(todo.n_videos, 'video')}{has})"
    else:
        yield f"[bold]{plain(plan.name)}[/bold]"
    if plan.target.not_made:
        yield "  convert  all of it, once the demo data are made: they are not there yet"
        return
    yield from (f"  {line}" for line in _detection(plan, most))
    if todo is not None and (todo.why or plan.undetected):
        because = ", and new rows of the conversion"
        yield from (f"  {line}" for line in _conversion(plan, todo, most))
    yield from (f"  {line}" for line in _notes(plan))
    for stream in () if plan.up_to_date else plan.extractions:
        if stream.why:
            yield from (f"  {line}" for line in _extraction(plan, stream, because))
        elif because and not stream.differs and (todo is None or todo.append):
            yield f"  extract  {plain(stream.stream)}: new rows of the conversion"
        if stream.other_keys:
            yield "    no feature can be carried over, all are computed again: the stored keys are of another version"
    if plan.committed is None and plan.target.stream is not None and not plan.problems:
        yield f"  extract  {plain(plan.target.stream.name)}: all rows of the conversion"
    for problem in plan.problems:
        yield f"  {WRONG} {plain(problem) if problem not in shown else 'cannot be planned: see the last lines'}"


def _detection(plan: SplitPlan, most: int | None) -> Iterator[str]:
    if plan.undetected and plan.target.detector is not None:
        clips = count(len(plan.undetected), "clip")
        yield f"detect   {clips}, by {plain(plan.target.detector.name)}"
        shown = len(plan.undetected) if most is None else most
        yield from (f"  {plain(line)}" for line in few(plan.undetected, shown, "plan --all"))


def _conversion(plan: SplitPlan, todo: ConversionPlan, most: int | None) -> Iterator[str]:
    n_videos = f"{count(len(todo.append), 'video')} to read of {len(todo.stamps):,}"
    yield f"convert  {n_videos}, {size(plan.bytes_of_labels)} of labels and videos"
    yield f"  why    {plain(todo.why or 'keypoints come from the detection')}"
    if todo.differs or plan.committed is None:
        return
    videos = [f"new      {name}" for name in todo.new]
    videos += [f"changed  {name}: {'; '.join(differences)}" for name, differences in _changed(todo).items()]
    videos += [f"renamed  {old} -> {name}" for name, old in todo.renamed.items()]
    videos += [f"removed  {name}" for name in todo.removed]
    for line in few(videos, len(videos) if most is None else most, "plan --all, or --json"):
        yield f"  {plain(line)}"
    if plan.rows_again:
        yield f"  the changed ones have {count(plan.rows_again, 'row')} now"


def _changed(todo: ConversionPlan) -> dict[str, list[str]]:
    """Changed video -> what differs of its files."""
    recorded = todo.recorded()
    return {name: what_differs(recorded.get(name), todo.stamps[name]) for name in todo.changed}


def _extraction(plan: SplitPlan, todo: StreamPlan, more: str) -> Iterator[str]:
    lacks, n_rows = todo.lacks, plan.committed.manifest["rows"] if plan.committed is not None else 0
    shards = count(len(lacks.shards), "shard")
    line = f"extract  {plain(todo.stream)}: {lacks.rows:,} of {count(n_rows, 'row')} in {shards}, {size(todo.n_bytes)}"
    yield line + more
    yield f"  why    {plain(todo.why)}"


def _notes(plan: SplitPlan) -> Iterator[str]:
    """Videos that are gone, a split without rows, streams that no task extracts, and accepted differences."""
    todo = plan.conversion
    for text in () if todo is None else todo.problems if plan.up_to_date else todo.missing_lines:
        yield f"{WRONG} {plain(text)}"
    for stream in plan.behind:
        split = command("extract", plan.target.dataset.name, plan.target.split, "--cache", str(plan.target.root))
        yield f"{DOUBT} " + plain(
            f"stream {stream.stream} lacks {count(stream.lacks.rows, 'row')}, and `make data` extracts only "
            f"[features] stream: {split} --stream {stream.stream}, with the options that it was extracted with"
        )
    yield from (f"{IDLE} {plain(text)}" for text in plan.accepted)


def as_dict(plan: SplitPlan, more_problems: Sequence[str] = (), forecast: Forecast | None = None) -> dict[str, Any]:
    """For --json."""
    todo, conversion = plan.conversion, None
    if todo is not None:
        by_video = not todo.differs and plan.committed is not None
        n_videos = {"read": len(todo.append), "of": len(todo.stamps), "kept": todo.kept, "touched": len(todo.touched)}
        conversion = {
            "why": todo.why,
            "reader": [difference.as_dict() for difference in todo.differs],
            "videos": n_videos,
            "new": list(todo.new) if by_video else [],
            "changed": _changed(todo) if by_video else {},
            "removed": list(todo.removed) if by_video else [],
            "renamed": dict(todo.renamed),
            "missing": dict(todo.missing),
            "bytes_to_read": plan.bytes_of_labels,
            "rows_again": plan.rows_again,
        }
    return {
        "split": plan.name,
        "nothing_to_do": plan.up_to_date,
        "to_be_made": plan.target.not_made,
        "detect": list(plan.undetected),
        "convert": conversion,
        "extract": [
            {
                "stream": stream.stream,
                "why": stream.why,
                "identity": [difference.as_dict() for difference in stream.differs],
                "shards": len(stream.lacks.shards),
                "rows": stream.lacks.rows,
                "carried_at_most": 0 if stream.other_keys else stream.lacks.carried_at_most,
                "other_keys": stream.other_keys,
                "bytes": stream.n_bytes,
            }
            for stream in plan.extractions
        ],
        "problems": list(dict.fromkeys([*plan.problems, *more_problems])),
        "behind": [{"stream": stream.stream, "rows": stream.lacks.rows} for stream in plan.behind],
        "forecast": forecast and forecast.as_dict(),
    }
