"""`python -m pipeline plan`: what would run, and why. Writes nothing.

A split that is up to date has one line; another one has a line for each step, and reasons:

    penn_action/train
      convert  2 videos to read of 12
        why    1 new video, 1 changed video
      extract  resnet50: new rows of the conversion

`lines` prints this from a `SplitPlan`, in the order of the steps, then problems; `_as_dict` has the
same for --json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import DONE, DOUBT, WRONG, CommandResult, plain, print_result
from pipeline.cli.text import FEW, count, few
from pipeline.features.committed import IMPORTED, is_current
from pipeline.files.raw.changes import what_differs
from pipeline.settings.arguments import CACHE, warn_of_broken
from pipeline.settings.file import ROOT, settings_file
from pipeline.settings.sections import load
from pipeline.steps.conversion.plan import ConversionPlan
from pipeline.steps.extraction.plan import ExtractionPlan
from pipeline.steps.recipe import Recipe, SplitPlan, missing_files, plan_splits


def _options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "names",
        nargs="*",
        metavar="DATASET[/SPLIT]",
        help="Datasets or splits (default: [data] datasets)",
    )
    add("--all", action="store_true", help="Name every video instead of the first few")
    add("--cache", type=ROOT, help=f"{CACHE} (default: [paths] cache)")
    json_option(sub, ", with all videos")


def _run(args: argparse.Namespace) -> int:
    """Print what would run, split by split. Returns 2 if a split has an error."""
    settings = load(settings_file())
    recipes = Recipe.by_settings(settings, args.names, args.cache)
    plans = plan_splits(recipes)
    missing = missing_files(recipes)
    broken = {} if args.names else warn_of_broken(settings.data.datasets)

    result = CommandResult([_as_dict(plan, missing) for plan in plans])
    failed = any(plan.problems or plan.extraction.refusals for plan in plans)
    if broken or missing or failed:
        result.exit_code = 2

    limit = None if args.all else FEW
    for plan in plans:
        result.text += lines(plan, limit)
    result.problems = missing
    if plans and all(plan.up_to_date and not plan.lost_videos for plan in plans):
        n_splits = count(len(plans), "split")
        result.add_line(f"up to date: {n_splits} (training is not included)")
    return print_result(result, as_json=args.json)


def lines(plan: SplitPlan, most: int | None) -> Iterator[str]:
    """Yield a split's plan as lines in rich's markup.

    most: Number of videos to name; None: all.
    """
    todo = plan.conversion
    steps = list[str]()
    if plan.up_to_date and todo is not None and todo.committed is not None:
        mark = DOUBT if todo.problems else DONE
        split = todo.committed
        streams = [name for name in split.streams if is_current(split, name)]
        names = ", ".join([count(todo.n_videos, "video"), *streams])
        yield f"{mark} {plain(f'{plan.name}: up to date ({names})')}"
    else:
        yield f"[bold]{plain(plan.name)}[/bold]"
        if plan.recipe.needs_demo_data:
            steps.append("convert  everything, after the demo data are made")
        steps += _detection(plan, most)
        if todo is not None and plan.converts:
            steps += _conversion(plan, todo, most)
    recorded = {} if todo is None else plan.recipe.recorded_values(todo.committed)
    for setting, value in recorded.items():
        steps.append(plain(f"as before: {setting} = {value} (none ends it)"))
    steps += [f"{WRONG} {plain(text)}" for text in plan.lost_videos]
    if plan.staged is not None:
        steps.append(plain(plan.staged))
    if not plan.up_to_date:
        steps += _extractions(plan)
    for problem in (*plan.problems, *plan.extraction.refusals):
        steps.append(f"{WRONG} {plain(problem)}")
    yield from (f"  {step}" for step in steps)


def _extractions(plan: SplitPlan) -> Iterator[str]:
    """Lines on the streams of committed rows, and of rows that the conversion will add."""
    verbs = dict[str, str]()  # the step that fills each stream, in a column of its own
    for spec in plan.recipe.streams:
        verbs[spec.name] = "import " if spec.stream.kind == IMPORTED else "extract"
    if plan.committed is None:
        if not (plan.problems or plan.recipe.needs_demo_data):
            for name, verb in verbs.items():
                yield f"{verb}  {plain(name)}: all rows of the conversion"
        return
    todo = plan.conversion
    adds_rows = plan.converts and (todo is None or bool(todo.append))
    for stream in plan.extraction.plans:
        name = plain(stream.spec.name)
        if stream.why:
            missing = _extraction_as_dict(stream)
            n_rows = count(plan.committed.manifest["rows"], "row")
            text = f"{missing['rows']:,} of {n_rows} in {count(missing['shards'], 'shard')}"
            if plan.converts:
                text += ", and new rows of the conversion"
            yield f"extract  {name}: {text}"
            yield f"  why    {plain(stream.why)}"
        elif adds_rows and not stream.differs:
            yield f"{verbs[stream.spec.name]}  {name}: new rows of the conversion"


def _detection(plan: SplitPlan, most: int | None) -> Iterator[str]:
    """Lines on clips that the detector has to do."""
    if plan.detection.undetected and plan.recipe.detector is not None:
        clips = count(len(plan.detection.undetected), "clip")
        yield f"detect   {clips}, by {plain(plan.recipe.detector.name)}"
        for line in few(plan.detection.undetected, most, "--all names them"):
            yield f"  {plain(line)}"


def _conversion(plan: SplitPlan, todo: ConversionPlan, most: int | None) -> Iterator[str]:
    """Lines on the conversion: how many videos it reads, why, and which have changed."""
    yield f"convert  {count(_count_read(plan, todo), 'video')} to read of {len(todo.stamps):,}"
    yield f"  why    {plain(todo.why or 'keypoints come from the detection')}"
    named = _named_videos(plan, todo)
    videos = [f"new      {name}" for name in named["new"]]
    for name, differences in named["changed"].items():
        videos.append(f"changed  {name}: {'; '.join(differences)}")
    if not todo.differs:
        videos += [f"renamed  {old} -> {name}" for name, old in todo.renamed.items()]
    videos += [f"removed  {name}" for name in named["removed"]]
    for line in few(videos, most, "--all names them"):
        yield f"  {plain(line)}"


def _count_read(plan: SplitPlan, todo: ConversionPlan) -> int:
    """Number of videos that the conversion reads, now or after the detection."""
    undetected = {*plan.detection.undetected}
    others = [video for video in todo.append if undetected.isdisjoint(map(str, video.files))]
    return len(undetected) + len(others)


def _named_videos(plan: SplitPlan, todo: ConversionPlan) -> dict[str, Any]:
    """New, changed (with how their files differ from those that were converted) and removed videos;
    none if all are read.
    """
    if plan.committed is None or todo.differs:
        return {"new": [], "changed": {}, "removed": []}
    recorded = todo.recorded_stamps()
    changed = {name: what_differs(recorded.get(name), todo.stamps[name]) for name in todo.changed}
    return {"new": todo.new, "changed": changed, "removed": todo.removed}


def _as_dict(plan: SplitPlan, more_problems: Sequence[str]) -> dict[str, Any]:
    """A split's plan as JSON values. more_problems: problems of all splits. docs/terminal.md
    describes the keys.
    """
    return {
        "split": plan.name,
        "nothing_to_do": plan.up_to_date,
        "to_be_made": plan.recipe.needs_demo_data,
        "detect": list(plan.detection.undetected),
        "convert": _conversion_as_dict(plan),
        "extract": [_extraction_as_dict(stream) for stream in plan.extraction.plans],
        "problems": list(
            dict.fromkeys([*plan.problems, *plan.extraction.refusals, *more_problems])
        ),
    }


def _conversion_as_dict(plan: SplitPlan) -> dict[str, Any] | None:
    todo = plan.conversion
    if todo is None:
        return None
    n_videos = {
        "read": _count_read(plan, todo),
        "of": len(todo.stamps or todo.listed),
        "kept": todo.n_left_alone,
        "touched": len(todo.touched),
    }
    return {
        "why": todo.why,
        "videos": n_videos,
        **_named_videos(plan, todo),
        "renamed": dict(todo.renamed),
        "missing": dict(todo.missing),
        "unusable": dict(todo.unusable),
    }


def _extraction_as_dict(stream: ExtractionPlan) -> dict[str, Any]:
    missing = stream.missing
    assert missing is not None, "a stream without its columns is not planned"
    return {
        "stream": stream.spec.name,
        "why": stream.why,
        "shards": len(missing.shards) + len(missing.incomplete),
        "rows": missing.rows,
    }


COMMAND: Final = Command(_options, _run, reads=lambda _: None)
