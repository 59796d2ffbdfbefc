"""Steps of a split: carry out plans, and say what was done.  [raw -> tracks -> features]

The commands `detect`, `convert`, `extract` and `prepare`, and Luigi's tasks, run these functions
with a plan (`pipeline.steps.recipe`) and the settings, and print the `StepResult`. With a `Part`,
a step stages its share of the plan, and commits nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import cache
from cache.write.parts import Part
from pipeline.accounting import PASSING, describe_no_rows, is_error
from pipeline.cli.console import DONE, DOUBT, IDLE, out, plain, task_line
from pipeline.cli.progress import Progress
from pipeline.cli.text import FEW, command, count, few, from_here
from pipeline.clips.listing import describe_others
from pipeline.datasets.conversion_record import committed_split
from pipeline.errors import PipelineError
from pipeline.settings.arguments import MEANWHILE
from pipeline.settings.new_cache import check_new_cache, forbid_new_cache, is_new_cache
from pipeline.settings.sections import Settings
from pipeline.steps.conversion import convert as conversion
from pipeline.steps.conversion.parts import read_part
from pipeline.steps.conversion.plan import ConversionPlan
from pipeline.steps.detection.plan import DetectionPlan
from pipeline.steps.detection.results import DetectionReport
from pipeline.steps.extraction.plan import ExtractionPlan, Why

if TYPE_CHECKING:
    from pipeline.steps.extraction.extract import Extraction

LAYOUT: Final = "\n\t"  # control characters that are printed: messages may have several lines


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of a step, as messages to print."""

    details: Sequence[str]  # each ends a line of its own
    mark: str = DONE  # the symbol at the start of these lines
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()  # like warnings, but a command's summary does not repeat them
    problems: Sequence[str] = ()  # why the step failed, after committing the rest
    # number of clips that were given up or are damaged, and of rows without features; if it is
    # not 0, the command exits with 1
    flaws: int = 0
    document: Mapping[str, Any] = field(default_factory=dict)  # of --json, for a detection

    def _show(self, verb: str, what: str) -> None:
        """Print lines such as `✓ convert    3dpw/train    ...`, then warnings and notes."""
        for detail in self.details:
            out.print(f"{self.mark} {task_line(verb, what, plain(detail))}")
        for text in (*self.warnings, *self.notes):
            out.print(f"  {DOUBT} {plain(text, keep=LAYOUT)}")

    def report(self, verb: str, what: str) -> None:
        """Print the result. Raises PipelineError with the problems, if there are any."""
        self._show(verb, what)
        if self.problems:
            raise PipelineError("\n".join(self.problems))

    def print(self, verb: str, what: str) -> int:
        """Print the result of a command of its own, with its problems. Returns the exit code."""
        self._show(verb, what)
        for problem in self.problems:
            out.show_problem(problem)
        return int(bool(self.problems or self.flaws))


# --------------------------------------------------------------------------------------------------
# detection


def detect(
    plan: DetectionPlan,
    settings: Settings,
    progress: Progress,
    part: Part | None = None,
    *,
    retries: bool = False,
) -> StepResult:
    """Find people in clips. If the plan is up to date, clips that failed before are only named,
    unless `retries`. Raises as `detect_planned` does.

    Flaws are clips that have no keypoints, or lost frames.
    """
    from pipeline.steps.detection.run import detect_planned

    report = DetectionReport(up_to_date=plan.n_up_to_date, problems=plan.problems)
    if retries or not plan.up_to_date:
        report = detect_planned(
            plan, settings.detect, dask=settings.dask, part=part, progress=progress
        )
    counts = []
    has_results = report.detected or report.renamed
    if has_results or not report.up_to_date:
        counts.append(str(report))
    if report.up_to_date:
        counts.append(f"{count(report.up_to_date, 'clip')} up to date")
    details = ["; ".join(counts)]
    details += [f"renamed {before} -> {clip}" for clip, before in report.renamed.items()]
    stand_in = ""
    if plan.detector.stand_in:
        stand_in = "stand-in detector: use these keypoints only to try the pipeline"
    failures = few([*report.problems.values()], FEW, plan.retry_command)
    damaged = [f"{clip}: {remark}" for clip, remark in report.damaged.items()]
    texts = (describe_others(plan.raw), stand_in, *damaged, *failures)
    return StepResult(
        details=details,
        mark=DONE if has_results else IDLE,
        warnings=[*filter(None, texts)],
        flaws=len(report.problems) + len(report.damaged),
        document=report.as_dict() | {"stand_in": plan.detector.stand_in},
    )


# --------------------------------------------------------------------------------------------------
# conversion


def convert(
    plan: ConversionPlan,
    settings: Settings,
    progress: Progress,
    part: Part | None = None,
) -> StepResult:
    """Convert one split, and tell the user if that makes a new cache. If the plan is up to date,
    only record new folders and file times.

    Raises as `check_new_cache` and `conversion.convert` do.
    """
    if part is not None:
        return _convert_part(plan, settings, progress, part)
    if plan.up_to_date and plan.committed is not None:
        if settings.convert.strict:
            conversion.refuse_committed_failures(plan)
        details = [f"up to date, {count(plan.n_videos, 'video')}", *conversion.record_moves(plan)]
        totals = plan.committed.manifest["accounting"]
        notes = [*_note_no_rows(plan, totals)]
        return StepResult(details=details, mark=IDLE, notes=notes, problems=plan.problems)

    check_new_cache(settings, plan.root)
    is_new = is_new_cache(plan.root)
    result = conversion.convert(
        plan,
        workers=settings.workers,
        strict=settings.convert.strict,
        dask=settings.dask,
        progress=progress,
    )
    if is_new:
        out.print(f"{IDLE} new cache {plain(from_here(plan.root))}")
    forbid_new_cache(settings, plan.root)

    every = command("status", "--all", "--cache", from_here(plan.root))
    summary = result.video_counts or "converted"
    if plan.committed is not None:
        summary += f" (why: {plan.why})"
    summary += f": {'; '.join(accounting_lines(result.totals))}"
    renamed = [f"renamed {before} -> {name}" for name, before in plan.renamed.items()]
    rejected = [f"rejected {account.rejection}" for account in result.rejected]
    labels = filter(None, [plan.dataset.label_note(plan.raw, plan.split)])
    notes = [f"note {note}" for note in (*labels, *result.damaged, *result.notes)]
    return StepResult(
        details=[
            summary,
            *few(renamed, FEW, command("status", "--csv", "--cache", str(plan.root))),
        ],
        mark=DONE if result.totals["frames"]["kept"] and not result.problems else DOUBT,
        warnings=few(rejected, FEW, every),
        flaws=len(result.damaged),
        notes=[
            *result.assumptions,
            *_note_no_rows(plan, result.totals),
            *few(notes, FEW, every),
        ],
        problems=result.problems,
    )


def _convert_part(
    plan: ConversionPlan, settings: Settings, progress: Progress, part: Part
) -> StepResult:
    """Read a part's share of the videos. Its problems are those that cannot be read."""
    unreadable = read_part(
        plan, part, workers=settings.workers, dask=settings.dask, progress=progress
    )
    share = count(len(part.share(plan.append)) - len(unreadable), "video")
    current = committed_split(plan.root, plan.name)
    digests = [split and split.manifest["digest"] for split in (plan.committed, current)]
    return StepResult(
        details=[f"{share} staged, not committed (why: {plan.why or 'up to date'})"],
        warnings=[MEANWHILE] if digests[0] != digests[1] else [],
        problems=[account.rejection for account in unreadable],
    )


def accounting_lines(totals: Any) -> Iterator[str]:
    """Yield lines on videos, tracks and frames: found = kept + dropped by reason.

    totals: `Accounting.totals`.
    """
    for unit, dropped in (("videos", "set_aside"), ("tracks", "dropped"), ("frames", "dropped")):
        counts = totals[unit]
        text = f"{unit} {counts['kept']:,} kept of {counts['found']:,}"
        if unit in totals["known"]:
            text += f" ({totals['known'][unit]:,} in the release)"
        for why, n in counts[dropped].items():
            text += f", {n:,} {why}"
        n_without = counts.get("without_tracks")
        if n_without:
            text += f", {n_without:,} without a track"
        yield text


def _note_no_rows(plan: ConversionPlan, totals: Any) -> Iterator[str]:
    """Yield notes on videos that are not labelled, on rejected videos, and on a split
    without a body model.
    """
    n_failed = 0
    for why, n in totals["videos"]["set_aside"].items():
        if not is_error(why):
            yield describe_no_rows(why, n)
        elif why not in PASSING:
            n_failed += n
    if n_failed:
        again = command("convert", plan.name, "--retry", "--cache", str(plan.root))
        how = f"retried when their files change, or with: {again}"
        yield f"{count(n_failed, 'rejected video')}: {how}"
    if plan.dataset.labels.uses_body and plan.body is None:
        places = ["--raw", str(plan.raw), "--cache", str(plan.root), "--body", "DIR"]
        again = command("convert", plan.name, *places)
        yield (
            "converted without a body model: no 3D joints. To add them, before extracting "
            f"features, delete {plan.root}/{plan.name}, then: {again}"
        )


# --------------------------------------------------------------------------------------------------
# extraction


def extract(
    plans: Sequence[ExtractionPlan],
    settings: Settings,
    progress: Progress,
    part: Part | None = None,
) -> StepResult:
    """Extract streams of one split; a `part` stages its share. Raises as `extract_together` does.

    Its flaws are rows without features.
    """
    # imported here, because importing the engine is slow
    from pipeline.steps.extraction.extract import extract_together

    details = []
    for plan in plans:
        if plan.missing is None:
            details.append("motion only, without images")
        elif plan.up_to_date:
            details.append(f"{plan.spec.name} is up to date (verify checks its shards)")
    upcoming = [plan for plan in plans if not plan.up_to_date]
    if not upcoming:
        return StepResult(details=details, mark=IDLE)
    extractions = extract_together(
        upcoming, settings.features, dask=settings.dask, part=part, progress=progress
    )

    warnings = []
    for extraction in extractions:
        if extraction.shards or not extraction.problem:
            details.append(_describe_extraction(extraction, is_part=part is not None))
        for kind, n in extraction.problems.items():
            warnings.append(f"{count(n, 'row')} without features: {kind}")
        warnings += extraction.examples
        if part is not None:
            for video, why in extraction.lost.items():
                warnings.append(f"{video} is left to a later run: {why}")
            plan = extraction.plan
            split = cache.open(plan.root)[plan.split]
            if plan.spec.name in split.streams and plan.missing is not None:
                committed = split.open_stream(plan.spec.name).shards
                if not set(plan.missing.shards).isdisjoint(committed):
                    warnings.append(MEANWHILE)
    problems = [extraction.problem for extraction in extractions if extraction.problem]
    n_lost = sum(extraction.problems.total() for extraction in extractions)
    return StepResult(details=details, warnings=warnings, problems=problems, flaws=n_lost)


def _describe_extraction(done: Extraction, *, is_part: bool) -> str:
    """Sum up an extraction: resnet50 extracted, 380 rows computed (31 rows/s on cpu), 20 carried
    over (why: ...)
    """
    spec = done.plan.spec
    did = "extracted"
    if is_part:
        did = f"{count(done.shards, 'shard')} staged, not committed"
    text = f"{spec.name} {did}, {count(done.computed, 'row')} computed ({done.meter})"
    text += f", {done.carried:,} carried over"
    if done.kept:
        text += f", {done.kept:,} kept of an earlier run or of parts"
    if spec.stream.stand_in:
        weights = "DEMO DATA" if spec.stream.weights_file else "UNTRAINED"
        text += f", {weights}: only for trial runs"
    if done.plan.why == Why.NEW:
        return text
    return f"{text} (why: {done.plan.why})"
