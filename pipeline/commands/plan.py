"""`python -m pipeline plan`: what would run, and why. Writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from pipeline import datasets
from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import DONE, DOUBT, WRONG, CommandResult, err, plain, size
from pipeline.cli.text import FEW, command, count, few
from pipeline.conversion.plan import ConversionPlan
from pipeline.features.inputs import unusual_clips
from pipeline.features.plan import IMPORTED
from pipeline.files.raw.changes import what_differs
from pipeline.recipe.forecast import Forecast, forecast_lines, forecasts_of
from pipeline.recipe.overview import SplitPlan, plan_splits
from pipeline.recipe.recipe import NO_SETTINGS, Recipe, missing_files
from pipeline.settings.arguments import CACHE, join_split_name
from pipeline.settings.file import PATH, ROOT, settings_file
from pipeline.settings.sections import load


def _options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "names",
        nargs="*",
        metavar="DATASET[/SPLIT]",
        help="Datasets or splits (default: [data] datasets)",
    )
    add("--all", action="store_true", help="Name every video instead of the first few")
    add("--config", type=PATH, help="Settings file (default: LUIGI_CONFIG_PATH, else ./luigi.cfg)")
    add("--cache", type=ROOT, help=f"{CACHE} (default: [paths] cache)")
    json_option(sub, ", with all videos")


def _run(args: argparse.Namespace) -> int:
    """Print what would run, split by split. Returns 2 if a split has an error."""
    settings = load(args.config or settings_file(), NO_SETTINGS)
    recipes = Recipe.by_settings(settings, join_split_name(args.names), args.cache)
    plans = plan_splits(recipes)
    missing = missing_files(recipes)
    broken = [] if args.names else [*datasets.broken(settings.data.datasets).values()]
    for text in broken:
        err.print(f"{DOUBT} {plain(text)}: skipped")
    forecasts = forecasts_of(plans)
    failed = any(plan.problems or plan.refusals for plan in plans)
    rows = [_as_dict(plan, missing, forecasts.get(plan.name)) for plan in plans]
    result = CommandResult(rows, exit_code=2 if broken or missing or failed else 0)
    for plan in plans:
        result.text += lines(plan, None if args.all else FEW, missing)
    result.text += forecast_lines([*forecasts.values()])
    result.problems = missing
    if plans and all(
        plan.up_to_date and not (plan.conversion and plan.conversion.problems) for plan in plans
    ):
        bare = sum(plan.recipe.dataset.has_pixels and not plan.extractions for plan in plans)
        did = "converted" if bare == len(plans) else "converted and extracted"
        without = (
            f", {bare:,} without features: no stream is named here or in the cache" if bare else ""
        )
        result.line(
            f"up to date: {count(len(plans), 'split')} {did} (training is not included){without}"
        )
    return result.print(as_json=args.json)


def lines(plan: SplitPlan, most: int | None, shown: Collection[str] = ()) -> Iterator[str]:
    """A split's plans as lines in rich's markup.

    most: number of videos to name; None: all. shown: problems that are printed once for all splits.
    """
    todo = plan.conversion
    because = ""
    if plan.up_to_date and todo is not None:
        has = "".join(f", {plain(stream.stream)}" for stream in plan.extractions)
        mark = DOUBT if todo.problems else DONE
        yield f"{mark} {plain(plan.name)}: up to date ({count(todo.n_videos, 'video')}{has})"
    else:
        yield f"[bold]{plain(plan.name)}[/bold]"
    if plan.recipe.not_made:
        yield "  convert  everything, after the demo data are made"
        return
    yield from (f"  {line}" for line in _detection(plan, most))
    if todo is not None and (todo.why or plan.undetected):
        because = ", and new rows of the conversion"
        yield from (f"  {line}" for line in _conversion(plan, todo, most))
    yield from (f"  {line}" for line in (*_notes(plan), *map(plain, plan.parts)))
    for stream in () if plan.up_to_date else plan.extractions:
        if stream.why and plan.committed is not None:
            missing = stream.missing
            n_rows = count(plan.committed.manifest["rows"], "row")
            n_shards = len(missing.shards) + len(missing.incomplete)
            rows = (
                f"{missing.rows:,} of {n_rows} in {count(n_shards, 'shard')}, "
                f"{size(stream.n_bytes)}"
            )
            yield f"  extract  {plain(stream.stream)}: {rows}{because}"
            yield f"    why    {plain(stream.why)}"
            unusual = unusual_clips(plan.committed, missing.shards)
            if unusual and missing.replaced:
                n_shown = len(unusual) if most is None else most
                yield f"    {count(len(unusual), 'clip')} that earlier versions decoded otherwise:"
                yield from (
                    f"      {plain(line)}" for line in few(unusual, n_shown, "--all names them")
                )
        elif because and not stream.differs and (todo is None or todo.append):
            yield (
                f"  {_verb(plan, stream.stream)}  {plain(stream.stream)}: new rows of the "
                "conversion"
            )
        if stream.other_keys:
            yield "    no feature can be carried over: the stored keys are from another version"
    for spec in plan.recipe.streams if plan.committed is None and not plan.problems else ():
        yield f"  {_verb(plan, spec.name)}  {plain(spec.name)}: all rows of the conversion"
    for problem in (*plan.problems, *plan.refusals):
        reason = "not planned: see the last lines" if problem in shown else plain(problem)
        yield f"  {WRONG} {reason}"


def _verb(plan: SplitPlan, stream: str) -> str:
    imported = {spec.name for spec in plan.recipe.streams if spec.stream.kind == IMPORTED}
    return "import " if stream in imported else "extract"


def _detection(plan: SplitPlan, most: int | None) -> Iterator[str]:
    stamps = {} if plan.conversion is None or plan.up_to_date else plan.conversion.stamps
    if refused := [
        clip for clip in (plan.detection.refused if plan.detection else ()) if clip in stamps
    ]:
        yield (
            f"{DOUBT} {count(len(refused), 'clip')} cannot be read: "
            f"{plain(', '.join(refused[:FEW]))}"
        )
    if plan.undetected and plan.recipe.detector is not None:
        clips = count(len(plan.undetected), "clip")
        yield f"detect   {clips}, by {plain(plan.recipe.detector.name)}"
        shown = len(plan.undetected) if most is None else most
        yield from (f"  {plain(line)}" for line in few(plan.undetected, shown, "--all names them"))


def _conversion(plan: SplitPlan, todo: ConversionPlan, most: int | None) -> Iterator[str]:
    n_videos = f"{count(len(todo.append), 'video')} to read of {len(todo.stamps):,}"
    yield f"convert  {n_videos}, {size(plan.bytes_of_labels)} of labels and videos"
    yield f"  why    {plain(todo.why or 'keypoints come from the detection')}"
    if todo.differs or plan.committed is None:
        return
    videos = [f"new      {name}" for name in todo.new]
    videos += [
        f"changed  {name}: {'; '.join(differences)}"
        for name, differences in _changed_videos(todo).items()
    ]
    videos += [f"renamed  {old} -> {name}" for name, old in todo.renamed.items()]
    videos += [f"removed  {name}" for name in todo.removed]
    for line in few(videos, len(videos) if most is None else most, "--all names them"):
        yield f"  {plain(line)}"
    if plan.rows_again:
        yield f"  the cache has {count(plan.rows_again, 'row')} of the changed videos"


def _changed_videos(todo: ConversionPlan) -> dict[str, list[str]]:
    recorded = todo.recorded_stamps()
    return {name: what_differs(recorded.get(name), todo.stamps[name]) for name in todo.changed}


def _notes(plan: SplitPlan) -> Iterator[str]:
    """Missing videos, a split without rows, and streams that no task extracts."""
    todo = plan.conversion
    for text in () if todo is None else todo.problems if todo.up_to_date else todo.kept_lines:
        yield f"{WRONG} {plain(text)}"
    for stream in plan.behind:
        split = command(
            "extract", plan.recipe.dataset.name, plan.recipe.split, "--cache", str(plan.recipe.root)
        )
        yield f"{DOUBT} " + plain(
            f"stream {stream.stream}: {count(stream.missing.rows, 'row')} missing, and not in "
            f"[features] streams: {split} --stream {stream.stream}"
        )


def _as_dict(
    plan: SplitPlan, more_problems: Sequence[str] = (), forecast: Forecast | None = None
) -> dict[str, Any]:
    """For --json."""
    todo = plan.conversion
    conversion = None
    if todo is not None:
        by_video = not todo.differs and plan.committed is not None
        n_videos = {
            "read": len(todo.append),
            "of": len(todo.stamps or todo.listed),
            "kept": todo.kept,
            "touched": len(todo.touched),
        }
        conversion = {
            "why": todo.why,
            "reader": [difference.as_dict() for difference in todo.differs],
            "videos": n_videos,
            "new": list(todo.new) if by_video else [],
            "changed": _changed_videos(todo) if by_video else {},
            "removed": list(todo.removed) if by_video else [],
            "renamed": dict(todo.renamed),
            "missing": dict(todo.missing),
            "unusable": dict(todo.unusable),
            "bytes_to_read": plan.bytes_of_labels,
            "rows_again": plan.rows_again,
        }
    return {
        "split": plan.name,
        "nothing_to_do": plan.up_to_date,
        "to_be_made": plan.recipe.not_made,
        "detect": list(plan.undetected),
        "convert": conversion,
        "extract": [
            {
                "stream": stream.stream,
                "why": stream.why,
                "identity": [difference.as_dict() for difference in stream.differs],
                "shards": len(stream.missing.shards) + len(stream.missing.incomplete),
                "rows": stream.missing.rows,
                "carried_at_most": 0 if stream.other_keys else stream.missing.carried_at_most,
                "other_keys": stream.other_keys,
                "bytes": stream.n_bytes,
            }
            for stream in plan.extractions
        ],
        "problems": list(dict.fromkeys([*plan.problems, *plan.refusals, *more_problems])),
        "behind": [
            {"stream": stream.stream, "rows": stream.missing.rows} for stream in plan.behind
        ],
        "forecast": forecast and forecast.as_dict(),
    }


COMMAND: Final = Command(_options, _run, reads=lambda _: None)
