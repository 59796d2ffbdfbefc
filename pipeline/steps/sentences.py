"""Sentences about works and reports, for the terminal.  [raw -> tracks -> features]"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import cache
from cache.write.parts import describe_staged
from pipeline.accounting import (
    LIBRARY,
    NOT_NOW,
    OTHER_TRACK,
    PASSING,
    VideoAccount,
    describe_no_rows,
    is_error,
)
from pipeline.cli.console import DONE, DOUBT, IDLE, WRONG, plain
from pipeline.cli.text import FEW, command, count, few, first_few, text_of
from pipeline.clips.listing import describe_others
from pipeline.features.committed import IMPORTED, is_current
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw.files import VIDEOS
from pipeline.steps.conversion.keep import Loss, missing, unusable
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.extraction.plan import Why
from pipeline.steps.next_run import NextRun, named_videos
from pipeline.steps.report import StepReport

if TYPE_CHECKING:
    from pipeline.steps.conversion.plan import ConversionWork
    from pipeline.steps.detection.plan import DetectionWork
    from pipeline.steps.detection.results import DetectionTally
    from pipeline.steps.extraction.stream_extraction import Extraction

LATER: Final = "The next run reads it again."
MIXED: Final = 1.5  # a window is this many times as long in one track as in another


# --------------------------------------------------------------------------------------------------
# rows that are kept


def missing_lines(losses: Mapping[str, Loss]) -> list[str]:
    """The missing videos, each with the file that is gone if others are there:
    `b (without b/labels.json)`.
    """
    return [f"{name} (without {file})" if file else name for name, file in missing(losses).items()]


def kept_lines(work: ConversionWork, losses: Mapping[str, Loss]) -> list[str]:
    """Messages about videos that would lose rows, with what to do; empty without any."""
    if work.committed is None or not losses:
        return []
    recipe = work.recipe
    status = command("status", "--all", "--cache", str(recipe.root))
    drop = ConversionRecord(work.committed).drop_command(recipe.raw)
    or_delete = f"or delete their rows: {drop}"
    moved = recipe.others.find_moved(name for name, loss in losses.items() if loss.may_have_moved)
    not_moved = {name: loss for name, loss in losses.items() if name not in moved}
    without_files = missing_lines(not_moved)
    with_fewer_rows = [*unusable(not_moved).values()]
    lines = []
    if without_files:
        shown = ", ".join(few(without_files, FEW, status))
        lines.append(
            f"{count(len(without_files), 'video')} missing from {recipe.raw}; the rows are kept: "
            f"{shown}. Restore them (is the disk mounted?), {or_delete}"
        )
    if with_fewer_rows:
        shown = " ".join(few(with_fewer_rows, FEW, status))
        lines.append(
            f"{count(len(with_fewer_rows), 'video')} would lose rows; the rows are kept: "
            f"{shown} Restore them (and touch the folder of an image that is put back), {or_delete}"
        )
    if moved:
        shown = ", ".join(few([*moved], FEW, status))
        lines.append(
            f"{count(len(moved), 'video')} moved to another split; the rows are kept until it is "
            f"converted: {shown}: {' && '.join(sorted({*moved.values()}))}"
        )
    return [f"{work.name}: {line}" for line in lines]


def problems_of(work: ConversionWork) -> list[str]:
    """Problems of a split with nothing to convert: videos that would lose rows, or no rows."""
    if work.committed is None:
        return []
    return [*kept_lines(work, work.losses), *ConversionRecord(work.committed).why_empty()]


# --------------------------------------------------------------------------------------------------
# what a conversion did


def conversion_report(
    work: ConversionWork, document: Mapping[str, Any], problems: Sequence[str]
) -> StepReport:
    """The report of a commit. document, problems: of the report."""
    recipe = work.recipe
    every = command("status", "--all", "--cache", str(recipe.root))
    totals = document["accounting"]
    summary = _video_counts(work, document) or "converted"
    if work.committed is not None:
        summary += f" (why: {work.why})"
    summary += f": {'; '.join(accounting_lines(totals))}"
    renamed = [f"renamed {before} -> {name}" for name, before in work.renamed.items()]
    labels = filter(None, [recipe.dataset.label_note(recipe.raw, recipe.split)])
    remarks = (*labels, *document["notes"])
    csv = command("status", "--csv", "--cache", str(recipe.root))
    return StepReport(
        details=[summary, *few(renamed, FEW, csv)],
        mark=DONE if totals["frames"]["kept"] and not problems else DOUBT,
        warnings=few([f"rejected {text}" for text in document["rejected"].values()], FEW, every),
        flaws=few(document["damaged"], FEW, every),
        notes=[
            *document["assumed"],
            *document["contradictions"],
            *document["unread"],
            *notes_on_videos(work, totals),
            *_check_line(work, document["rejected"]),
            *few([f"note {remark}" for remark in remarks], FEW, every),
        ],
        problems=problems,
        document=document,
    )


def _video_counts(work: ConversionWork, document: Mapping[str, Any]) -> str:
    """How many videos were read and how many not, `1 video read, 3 unchanged`; "" if all were
    read.
    """
    if not work.n_left_alone:
        return ""
    parts = [f"{count(document['read'], 'video')} read"]
    if work.removed:
        parts.append(f"{len(work.removed):,} removed")
    parts.append(f"{document['unchanged']:,} unchanged")
    return ", ".join(parts)


def accounting_lines(totals: Any) -> Iterator[str]:
    """Yield lines on videos, tracks and frames: found = kept + dropped by reason.

    totals: `Accounting.totals`.
    """
    for unit, dropped in (("videos", "set_aside"), ("tracks", "dropped"), ("frames", "dropped")):
        counts = totals[unit]
        text = f"{unit} {counts['kept']:,} kept of {counts['found']:,}"
        if unit in totals["known"]:
            text += f" ({totals['known'][unit]:,} in the official download)"
        for why, n in counts[dropped].items():
            text += f", {n:,} {why}"
        n_without = counts.get("without_tracks")
        if n_without:
            text += f", {n_without:,} without a track"
        yield text


def notes_on_videos(work: ConversionWork, totals: Any) -> Iterator[str]:
    """Yield notes on videos that are not labelled, on rejected videos, and on a split
    without a body model.
    """
    recipe = work.recipe
    n_failed = 0
    for why, n in totals["videos"]["set_aside"].items():
        if not is_error(why):
            yield describe_no_rows(why, n)
        elif why not in PASSING:
            n_failed += n
    if n_failed:
        again = command("convert", work.name, "--retry", "--cache", str(recipe.root))
        how = f"retried when their files change, or with: {again}"
        yield f"{count(n_failed, 'rejected video')}: {how}"
    if recipe.dataset.labels.uses_body and recipe.body is None:
        places = ["--raw", str(recipe.raw), "--cache", str(recipe.root), "--body", "DIR"]
        again = command("convert", work.name, *places)
        yield (
            "converted without a body model: no 3D joints. To add them, before extracting "
            f"features, delete {recipe.root}/{work.name}, then: {again}"
        )


def _check_line(work: ConversionWork, rejected: Iterable[str]) -> Iterator[str]:
    """Yield the command that shows what is read of the keypoints of the first of the rejected
    videos that has some, with a clip.
    """
    from pipeline.clips.labels.label_files import labels_of

    raw = work.recipe.raw
    videos = {item.video.name: item.video for item in work.items}
    for name in rejected:
        labels = labels_of(raw, videos[name]) if name in videos else None
        if labels is not None and videos[name].files[0].suffix.lower() in VIDEOS:
            check = command("check", str(labels), str(raw / videos[name].files[0]))
            yield f"what is read of {labels.name}: {check}"
            return


def rejection_problems(work: ConversionWork, rejected: Iterable[VideoAccount]) -> Iterator[str]:
    """Yield problems of rejected videos that every run reads again."""
    reasons = Counter(account.set_aside for account in rejected)
    n_unread = reasons[NOT_NOW] + reasons[LIBRARY]
    if n_unread:
        n_videos = count(n_unread, "video")
        yield f"{work.name}: {n_videos} could not be read now. {LATER}"
    if reasons[OTHER_TRACK]:
        n_videos = count(reasons[OTHER_TRACK], "video")
        yield (
            f"{work.name}: {work.recipe.selection.corrections} has lines that do not fit "
            f"{n_videos}: what the cache has of them is kept. Correct these lines."
        )


def damage_lines(accounts: Iterable[VideoAccount]) -> Iterator[str]:
    """A line about each video whose file has lost frames."""
    for account in accounts:
        record = ClipRecord.from_dict(account.clip)
        if record is not None and record.lost:
            yield f"{account.name}: {record.remarks()[0]}"


def gone_notes(n_gone: Counter[str]) -> Iterator[str]:
    """Yield a note on rows that another reader drops, of files that have not changed."""
    if n_gone:
        rows = count(n_gone.total(), "row")
        videos = first_few([*n_gone])
        yield f"all videos: {rows} of unchanged files are dropped now: {videos}"


def mixed_rates_notes(split: cache.Split) -> Iterator[str]:
    """Yield a note if windows of the split last longer in some tracks than in others."""
    fps = np.asarray(split.tracks.fps, np.float64) / np.asarray(split.tracks.step)
    rates = fps[np.isfinite(fps)]
    if not len(rates) or rates.max() <= MIXED * rates.min():
        return
    slowest = rates.min()
    fastest = rates.max()
    n_fast = count(int((rates > MIXED * slowest).sum()), "track")
    yield (
        f"all videos: tracks have {slowest:.4g} to {fastest:.4g} rows a second, so windows of "
        f"equal length differ in time. [convert] max_fps = {math.ceil(slowest)} takes fewer rows "
        f"of the {n_fast} above {MIXED * slowest:.4g}"
    )


# --------------------------------------------------------------------------------------------------
# what a detection and an extraction did


def detection_report(work: DetectionWork, tally: DetectionTally) -> StepReport:
    """The report of a detection."""
    counts = []
    has_results = bool(tally.detected or tally.renamed)
    if has_results or not tally.up_to_date:
        counts.append(str(tally))
    if tally.up_to_date:
        counts.append(f"{count(tally.up_to_date, 'clip')} up to date")
    details = ["; ".join(counts)]
    details += [f"renamed {before} -> {clip}" for clip, before in tally.renamed.items()]
    stand_in = ""
    if work.detector.stand_in:
        stand_in = "demo detector: use these keypoints only to try the pipeline"
    failures = few([*tally.problems.values()], FEW, work.retry_command)
    damaged = [f"{clip}: {remark}" for clip, remark in tally.damaged.items()]
    texts = (describe_others(work.raw), stand_in)
    return StepReport(
        details=details,
        mark=DONE if has_results else IDLE,
        warnings=[*filter(None, texts)],
        flaws=[*damaged, *failures],
        document=tally.as_dict() | {"stand_in": work.detector.stand_in},
    )


def describe_extraction(done: Extraction, *, is_part: bool) -> str:
    """Sum up an extraction: resnet50 extracted, 380 rows computed (31 rows/s on cpu), 20 carried
    over (why: ...)
    """
    spec = done.work.spec
    did = "extracted"
    if is_part:
        did = f"{count(done.shards, 'shard')} finished, not yet in the cache"
        if not done.shards:
            did = "not extracted: this share has no missing shard"
    text = f"{spec.name} {did}, {count(done.computed, 'row')} computed ({done.meter})"
    text += f", {done.carried:,} carried over"
    if done.kept:
        text += f", {done.kept:,} kept of an earlier run or of shares"
    if spec.stream.stand_in:
        weights = "DEMO DATA" if spec.stream.weights_file else "RANDOM WEIGHTS"
        text += f", {weights}: only for trial runs"
    if done.work.why == Why.NEW:
        return text
    return f"{text} (why: {done.work.why})"


# --------------------------------------------------------------------------------------------------
# what is to do


def next_cell(run: NextRun) -> str:
    """What the next run would do, in a cell of a table; "-": nothing."""
    if run.conversion is None and not run.recipe.needs_demo_data:
        return "unknown"
    parts = []
    if run.recipe.needs_demo_data:
        parts.append("everything, after the demo data are made")
    if run.undetected:
        parts.append(f"detect {count(len(run.undetected), 'clip')}")
    if run.converts and run.conversion is not None:
        parts.append(f"convert: {run.conversion.why or 'after the detection'}")
    streams = {work.spec.name for work in run.extractions if work.why}
    if run.adds_rows and not run.recipe.needs_demo_data:
        streams |= {spec.name for spec in run.recipe.streams if spec.stream.kind != IMPORTED}
    if streams:
        parts.append(f"extract {', '.join(sorted(streams))}")
    if run.problems:
        parts.append("refused")
    return "; ".join(parts) or "-"


def next_lines(run: NextRun, most: int | None) -> Iterator[str]:
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
        steps += _detection_lines(run, most)
        if work is not None and run.converts:
            steps += _conversion_lines(run, work, most)
    lasting = {} if work is None else run.recipe.lasting_values(work.committed)
    for setting, value in lasting.items():
        ends = "" if value is True else " (none ends it)"
        steps.append(plain(f"as before: {setting} = {text_of(value)}{ends}"))
    steps += [f"{WRONG} {plain(text)}" for text in lost_videos(run)]
    if run.staged:
        steps.append(plain(describe_staged(run.staged)))
    if not run.up_to_date:
        steps += _extraction_lines(run)
    for problem in (*run.problems, *run.refusals):
        steps.append(f"{WRONG} {plain(problem)}")
    yield from (f"  {step}" for step in steps)


def lost_videos(run: NextRun) -> list[str]:
    """Messages about committed videos that are missing or unusable."""
    work = run.conversion
    if work is None:
        return []
    return problems_of(work) if work.up_to_date else kept_lines(work, work.losses)


def _extraction_lines(run: NextRun) -> Iterator[str]:
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
            missing = stream.missing
            assert missing is not None, "a stream without its columns is not planned"
            n_shards = count(len(missing.shards) + len(missing.incomplete), "shard")
            n_rows = count(run.committed.manifest["rows"], "row")
            text = f"{missing.rows:,} of {n_rows} in {n_shards}"
            if run.converts:
                text += ", and new rows of the conversion"
            yield f"extract  {name}: {text}"
            yield f"  why    {plain(stream.why)}"
        elif run.adds_rows and not stream.differs:
            yield f"{verbs[stream.spec.name]}  {name}: new rows of the conversion"


def _detection_lines(run: NextRun, most: int | None) -> Iterator[str]:
    """Lines on clips that the detector has to do."""
    if run.undetected and run.recipe.detector is not None:
        clips = count(len(run.undetected), "clip")
        yield f"detect   {clips}, by {plain(run.recipe.detector.name)}"
        for line in few(run.undetected, most, "--all names them"):
            yield f"  {plain(line)}"


def _conversion_lines(run: NextRun, work: ConversionWork, most: int | None) -> Iterator[str]:
    """Lines on the conversion: how many videos it reads, why, and which have changed."""
    yield f"convert  {count(run.n_to_read, 'video')} to read of {work.n_videos:,}"
    yield f"  why    {plain(work.why or 'keypoints come from the detection')}"
    named = named_videos(work)
    videos = [f"new      {name}" for name in named["new"]]
    for name, differences in named["changed"].items():
        videos.append(f"changed  {name}: {'; '.join(differences)}")
    if not work.differs:
        videos += [f"renamed  {old} -> {name}" for name, old in work.renamed.items()]
    videos += [f"removed  {name}" for name in named["removed"]]
    for line in few(videos, most, "--all names them"):
        yield f"  {plain(line)}"
