"""`python -m pipeline plan`: what would run, and why. Writes nothing.

A split that is up to date has one line; another one has a line for each step, and reasons:

    penn_action/train
      convert  2 videos to read of 12
        why    1 new video, 1 changed video
      extract  resnet50: new rows of the conversion

`lines` prints this from a `NextRun`, in the order of the steps, then problems; `_as_dict` has the
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
from pipeline.steps.conversion.plan import ConversionWork, Reason
from pipeline.steps.extraction.plan import ExtractionWork
from pipeline.steps.next_run import NextRun, plan_runs
from pipeline.steps.recipe import Recipe, missing_files
from pipeline.steps.sentences import kept_lines, problems_of


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
    runs = plan_runs(recipes)
    missing = missing_files(recipes)
    broken = {} if args.names else warn_of_broken(settings.data.datasets)

    result = CommandResult([_as_dict(run, missing) for run in runs])
    failed = any(run.problems or run.refusals for run in runs)
    if broken or missing or failed:
        result.exit_code = 2

    limit = None if args.all else FEW
    for run in runs:
        result.text += lines(run, limit)
    result.problems = missing
    if runs and all(run.up_to_date and not lost_videos(run) for run in runs):
        n_splits = count(len(runs), "split")
        result.add_line(f"up to date: {n_splits} (training is not included)")
    return print_result(result, as_json=args.json)


def lines(run: NextRun, most: int | None) -> Iterator[str]:
    """Yield what is to do for a split as lines in rich's markup.

    most: Number of videos to name; None: all.
    """
    work = run.conversion
    steps = list[str]()
    split = run.committed
    if run.up_to_date and work is not None and split is not None:
        mark = DOUBT if lost_videos(run) else DONE
        streams = [name for name in split.streams if is_current(split, name)]
        n_videos = count(split.manifest["accounting"]["videos"]["found"], "video")
        names = ", ".join([n_videos, *streams])
        yield f"{mark} {plain(f'{run.name}: up to date ({names})')}"
    else:
        yield f"[bold]{plain(run.name)}[/bold]"
        if run.recipe.needs_demo_data:
            steps.append("convert  everything, after the demo data are made")
        steps += _detection(run, most)
        if work is not None and run.converts:
            steps += _conversion(run, work, most)
    lasting = {} if work is None else run.recipe.lasting_values(work.committed)
    for setting, value in lasting.items():
        steps.append(plain(f"as before: {setting} = {value} (none ends it)"))
    steps += [f"{WRONG} {plain(text)}" for text in lost_videos(run)]
    if run.staged is not None:
        steps.append(plain(run.staged))
    if not run.up_to_date:
        steps += _extractions(run)
    for problem in (*run.problems, *run.refusals):
        steps.append(f"{WRONG} {plain(problem)}")
    yield from (f"  {step}" for step in steps)


def lost_videos(run: NextRun) -> list[str]:
    """Messages about committed videos that are missing or unusable."""
    work = run.conversion
    if work is None:
        return []
    return problems_of(work) if work.up_to_date else kept_lines(work, work.stays)


def _extractions(run: NextRun) -> Iterator[str]:
    """Lines on the streams of committed rows, and of rows that the conversion will add."""
    verbs = dict[str, str]()  # the step that fills each stream, in a column of its own
    for spec in run.recipe.streams:
        verbs[spec.name] = "import " if spec.stream.kind == IMPORTED else "extract"
    if run.committed is None:
        if not (run.problems or run.recipe.needs_demo_data):
            for name, verb in verbs.items():
                yield f"{verb}  {plain(name)}: all rows of the conversion"
        return
    for stream in run.extractions:
        name = plain(stream.spec.name)
        if stream.why:
            missing = _extraction_as_dict(stream)
            n_rows = count(run.committed.manifest["rows"], "row")
            text = f"{missing['rows']:,} of {n_rows} in {count(missing['shards'], 'shard')}"
            if run.converts:
                text += ", and new rows of the conversion"
            yield f"extract  {name}: {text}"
            yield f"  why    {plain(stream.why)}"
        elif run.adds_rows and not stream.differs:
            yield f"{verbs[stream.spec.name]}  {name}: new rows of the conversion"


def _detection(run: NextRun, most: int | None) -> Iterator[str]:
    """Lines on clips that the detector has to do."""
    if run.undetected and run.recipe.detector is not None:
        clips = count(len(run.undetected), "clip")
        yield f"detect   {clips}, by {plain(run.recipe.detector.name)}"
        for line in few(run.undetected, most, "--all names them"):
            yield f"  {plain(line)}"


def _conversion(run: NextRun, work: ConversionWork, most: int | None) -> Iterator[str]:
    """Lines on the conversion: how many videos it reads, why, and which have changed."""
    yield f"convert  {count(_count_read(run, work), 'video')} to read of {_count_all(work):,}"
    yield f"  why    {plain(work.why or 'keypoints come from the detection')}"
    named = _named_videos(work)
    videos = [f"new      {name}" for name in named["new"]]
    for name, differences in named["changed"].items():
        videos.append(f"changed  {name}: {'; '.join(differences)}")
    if not work.differs:
        videos += [f"renamed  {old} -> {name}" for name, old in work.renamed.items()]
    videos += [f"removed  {name}" for name in named["removed"]]
    for line in few(videos, most, "--all names them"):
        yield f"  {plain(line)}"


def _count_all(work: ConversionWork) -> int:
    """Number of videos that are read, and of committed ones that stay."""
    return len(work.items) + len(work.unread)


def _count_read(run: NextRun, work: ConversionWork) -> int:
    """Number of videos that the conversion reads, now or after the detection."""
    undetected = {*run.undetected}
    files = (map(str, item.video.files) for item in work.items)
    return len(undetected) + sum(map(undetected.isdisjoint, files))


def _named_videos(work: ConversionWork) -> dict[str, Any]:
    """New, changed (with how their files differ from those that were converted) and removed videos;
    none if all are read.
    """
    if work.committed is None or work.differs:
        return {"new": [], "changed": {}, "removed": []}
    new = []
    changed = {}
    for item in work.items:
        if item.reason == Reason.NEW:
            new.append(item.video.name)
        elif item.reason != Reason.RENAMED:
            changed[item.video.name] = what_differs(item.recorded, item.stamp)
    return {"new": new, "changed": changed, "removed": work.removed}


def _as_dict(run: NextRun, more_problems: Sequence[str]) -> dict[str, Any]:
    """A split's next run as JSON values. more_problems: problems of all splits. docs/terminal.md
    describes the keys.
    """
    return {
        "split": run.name,
        "nothing_to_do": run.up_to_date,
        "to_be_made": run.recipe.needs_demo_data,
        "detect": list(run.undetected),
        "convert": _conversion_as_dict(run),
        "extract": [_extraction_as_dict(stream) for stream in run.extractions],
        "problems": list(dict.fromkeys([*run.problems, *run.refusals, *more_problems])),
    }


def _conversion_as_dict(run: NextRun) -> dict[str, Any] | None:
    work = run.conversion
    if work is None:
        return None
    n_videos = {
        "read": _count_read(run, work),
        "of": _count_all(work),
        "kept": work.n_left_alone,
        "touched": len(work.touched),
    }
    return {
        "why": work.why,
        "videos": n_videos,
        **_named_videos(work),
        "renamed": work.renamed,
        "missing": work.missing,
        "unusable": work.unusable,
    }


def _extraction_as_dict(stream: ExtractionWork) -> dict[str, Any]:
    missing = stream.missing
    assert missing is not None, "a stream without its columns is not planned"
    return {
        "stream": stream.spec.name,
        "why": stream.why,
        "shards": len(missing.shards) + len(missing.incomplete),
        "rows": missing.rows,
    }


COMMAND: Final = Command(_options, _run, reads=lambda _: None)
