"""`python -m pipeline plan`: what would run, and why. Writes nothing.

A split that is up to date has one line; another one has a line for each step, and reasons:

    penn_action/train
      convert  2 videos to read of 12
        why    1 new video, 1 changed video
      extract  resnet50: new rows of the conversion

`lines` prints this from a `SplitPlan`, in the order of the steps: `_detection`, `_conversion`,
`_notes`, `_extractions`; then problems. `_as_dict` has the same for --json.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from pipeline import datasets
from pipeline.cli.command_line import Command, json_option
from pipeline.cli.console import DONE, DOUBT, WRONG, CommandResult, err, plain
from pipeline.cli.text import FEW, count, few
from pipeline.conversion.plan import ConversionPlan
from pipeline.features.again import fill_command
from pipeline.features.plan import IMPORTED
from pipeline.files.raw.changes import what_differs
from pipeline.recipe.overview import SplitPlan, StreamPlan, plan_splits
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
    broken = dict[str, str]()
    if not args.names:
        broken = datasets.broken(settings.data.datasets)
    for text in broken.values():
        err.print(f"{DOUBT} {plain(text)}: skipped")

    result = CommandResult([_as_dict(plan, missing) for plan in plans])
    failed = any(plan.problems or plan.refusals for plan in plans)
    if broken or missing or failed:
        result.exit_code = 2

    most = None if args.all else FEW
    for plan in plans:
        result.text += lines(plan, most, missing)
    result.problems = missing
    if plans and all(map(_is_done, plans)):
        result.line(_up_to_date(plans))
    return result.print(as_json=args.json)


def _is_done(plan: SplitPlan) -> bool:
    """Whether a split is up to date, and no committed video is missing or unusable."""
    has_problems = plan.conversion is not None and bool(plan.conversion.problems)
    return plan.up_to_date and not has_problems


def _up_to_date(plans: Sequence[SplitPlan]) -> str:
    """The last line, if all splits are up to date."""
    n_bare = sum(plan.recipe.dataset.has_pixels and not plan.extractions for plan in plans)
    did = "converted and extracted"
    if n_bare == len(plans):
        did = "converted"
    text = f"up to date: {count(len(plans), 'split')} {did} (training is not included)"
    if n_bare:
        text += f", {n_bare:,} without features: no stream is named here or in the cache"
    return text


def lines(plan: SplitPlan, most: int | None, shown: Collection[str] = ()) -> Iterator[str]:
    """Yield a split's plan as lines in rich's markup.

    most: Number of videos to name; None: all. shown: Problems that are printed once, at the end.
    """
    yield _heading(plan)
    if plan.recipe.needs_demo_data:
        yield "  convert  everything, after the demo data are made"
        return

    steps = [*_detection(plan, most)]
    if plan.conversion is not None and _converts(plan):
        steps += _conversion(plan, plan.conversion, most)
    steps += _notes(plan)
    steps += map(plain, plan.staged)
    steps += _extractions(plan)
    for line in steps:
        yield f"  {line}"

    for problem in (*plan.problems, *plan.refusals):
        reason = plain(problem)
        if problem in shown:
            reason = "not planned: see the last lines"
        yield f"  {WRONG} {reason}"


def _heading(plan: SplitPlan) -> str:
    """A split's first line, which is its only one if it is up to date."""
    todo = plan.conversion
    if todo is None or not plan.up_to_date:
        return f"[bold]{plain(plan.name)}[/bold]"
    streams = "".join(f", {plain(stream.stream)}" for stream in plan.extractions)
    mark = DOUBT if todo.problems else DONE
    return f"{mark} {plain(plan.name)}: up to date ({count(todo.n_videos, 'video')}{streams})"


def _converts(plan: SplitPlan) -> bool:
    """Whether the conversion has something to do, now or after the detection."""
    return plan.conversion is not None and bool(plan.conversion.why or plan.undetected)


def _extractions(plan: SplitPlan) -> Iterator[str]:
    """Lines on the streams of committed rows, and on the recipe's streams of a new split."""
    if not plan.up_to_date:
        for stream in plan.extractions:
            yield from _extraction(plan, stream)
    if plan.committed is None and not plan.problems:
        for spec in plan.recipe.streams:
            yield f"{_verb(plan, spec.name)}  {plain(spec.name)}: all rows of the conversion"


def _extraction(plan: SplitPlan, stream: StreamPlan) -> Iterator[str]:
    """Lines on one stream: its missing rows, or else the rows that the conversion will add."""
    converts = _converts(plan)
    only_drops_rows = plan.conversion is not None and not plan.conversion.append
    if stream.why and plan.committed is not None:
        missing = stream.missing
        n_rows = count(plan.committed.manifest["rows"], "row")
        n_shards = len(missing.shards) + len(missing.incomplete)
        text = f"{missing.rows:,} of {n_rows} in {count(n_shards, 'shard')}"
        if converts:
            text += ", and new rows of the conversion"
        yield f"extract  {plain(stream.stream)}: {text}"
        yield f"  why    {plain(stream.why)}"
    elif converts and not only_drops_rows and not stream.differs:
        yield f"{_verb(plan, stream.stream)}  {plain(stream.stream)}: new rows of the conversion"


def _verb(plan: SplitPlan, stream: str) -> str:
    """The step that fills a stream, in a column of its own."""
    imported = {spec.name for spec in plan.recipe.streams if spec.stream.kind == IMPORTED}
    return "import " if stream in imported else "extract"


def _detection(plan: SplitPlan, most: int | None) -> Iterator[str]:
    """Lines on clips that cannot be read, and on those that the detector has to do."""
    refused = list[str]()
    if plan.detection is not None and plan.conversion is not None and not plan.up_to_date:
        stamps = plan.conversion.stamps
        refused = [clip for clip in plan.detection.refused if clip in stamps]
    if refused:
        clips = count(len(refused), "clip")
        yield f"{DOUBT} {clips} cannot be read: {plain(', '.join(refused[:FEW]))}"
    if plan.undetected and plan.recipe.detector is not None:
        clips = count(len(plan.undetected), "clip")
        yield f"detect   {clips}, by {plain(plan.recipe.detector.name)}"
        for line in few(plan.undetected, most, "--all names them"):
            yield f"  {plain(line)}"


def _conversion(plan: SplitPlan, todo: ConversionPlan, most: int | None) -> Iterator[str]:
    """Lines on the conversion: how many videos it reads, why, and which have changed."""
    n_videos = f"{count(len(todo.append), 'video')} to read of {len(todo.stamps):,}"
    yield f"convert  {n_videos}"
    yield f"  why    {plain(todo.why or 'keypoints come from the detection')}"
    if todo.differs or plan.committed is None:
        return
    videos = [f"new      {name}" for name in todo.new]
    for name, differences in _changed_videos(todo).items():
        videos.append(f"changed  {name}: {'; '.join(differences)}")
    videos += [f"renamed  {old} -> {name}" for name, old in todo.renamed.items()]
    videos += [f"removed  {name}" for name in todo.removed]
    for line in few(videos, most, "--all names them"):
        yield f"  {plain(line)}"


def _changed_videos(todo: ConversionPlan) -> dict[str, list[str]]:
    """Changed video -> how its files differ from those that were converted."""
    recorded = todo.recorded_stamps()
    return {name: what_differs(recorded.get(name), todo.stamps[name]) for name in todo.changed}


def _notes(plan: SplitPlan) -> Iterator[str]:
    """Lines on missing videos, a split without rows, and streams that no task extracts."""
    for text in lost_videos(plan):
        yield f"{WRONG} {plain(text)}"
    for stream in plan.unnamed:
        assert plan.committed is not None
        rows = count(stream.missing.rows, "row")
        fill = fill_command(plan.committed, stream.stream)
        text = f"stream {stream.stream}: {rows} missing, and not in [features] streams: {fill}"
        yield f"{DOUBT} {plain(text)}"


def lost_videos(plan: SplitPlan) -> Sequence[str]:
    """Messages about committed videos that are missing or unusable."""
    todo = plan.conversion
    if todo is None:
        return ()
    return todo.problems if todo.up_to_date else todo.kept_lines


def _as_dict(plan: SplitPlan, more_problems: Sequence[str] = ()) -> dict[str, Any]:
    """A split's plan as JSON values. more_problems: problems of all splits. docs/terminal.md
    describes the keys.
    """
    return {
        "split": plan.name,
        "nothing_to_do": plan.up_to_date,
        "to_be_made": plan.recipe.needs_demo_data,
        "detect": list(plan.undetected),
        "convert": _conversion_as_dict(plan),
        "extract": [_extraction_as_dict(stream) for stream in plan.extractions],
        "problems": list(dict.fromkeys([*plan.problems, *plan.refusals, *more_problems])),
        "behind": [
            {"stream": stream.stream, "rows": stream.missing.rows} for stream in plan.unnamed
        ],
    }


def _conversion_as_dict(plan: SplitPlan) -> dict[str, Any] | None:
    todo = plan.conversion
    if todo is None:
        return None
    new = list[str]()
    changed = dict[str, list[str]]()
    removed = list[str]()
    if plan.committed is not None and not todo.differs:
        new += todo.new
        changed |= _changed_videos(todo)
        removed += todo.removed
    n_videos = {
        "read": len(todo.append),
        "of": len(todo.stamps or todo.listed),
        "kept": todo.n_left_alone,
        "touched": len(todo.touched),
    }
    return {
        "why": todo.why,
        "reader": [difference.as_dict() for difference in todo.differs],
        "videos": n_videos,
        "new": new,
        "changed": changed,
        "removed": removed,
        "renamed": dict(todo.renamed),
        "missing": dict(todo.missing),
        "unusable": dict(todo.unusable),
    }


def _extraction_as_dict(stream: StreamPlan) -> dict[str, Any]:
    return {
        "stream": stream.stream,
        "why": stream.why,
        "identity": [difference.as_dict() for difference in stream.differs],
        "shards": len(stream.missing.shards) + len(stream.missing.incomplete),
        "rows": stream.missing.rows,
    }


COMMAND: Final = Command(_options, _run, reads=lambda _: None)
