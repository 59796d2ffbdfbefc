"""Steps of `prepare` and the Luigi tasks, and their lines on the terminal.  [raw -> tracks -> features] -> windows"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import cache
from pipeline.cli.console import DONE, DOUBT, line, out, plain
from pipeline.cli.progress import Progress
from pipeline.cli.text import FEW, command, count, few, from_here, not_counted
from pipeline.conversion.convert import Conversion, ConversionPlan, convert
from pipeline.detect.plan import DetectionPlan
from pipeline.errors import PipelineError
from pipeline.features.extract import Extraction, extract_together
from pipeline.features.plan import ExtractionPlan
from pipeline.features.spec import Resources

FIRST_TIME: Final = ("not converted before", "not extracted before")  # reasons that are not printed
LAYOUT: Final = "\n\t"  # control codes of messages with several lines


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Messages about a step."""

    details: Sequence[str]  # each the end of a line, in rich's markup
    mark: str = DONE
    warnings: Sequence[str] = ()  # untrusted text
    problems: Sequence[str] = ()  # why the step failed, after committing the rest
    flaws: int = 0  # clips that were given up


def report_step(verb: str, what: str, result: StepResult) -> None:
    """Print `✓ convert    3dpw/train    28 videos, ...` and warnings. Raises PipelineError with the problems."""
    for detail in result.details:
        out.print(f"{result.mark} {line(verb, what, detail)}")
    for text in result.warnings:
        out.print(f"  {DOUBT} {plain(text, keep=LAYOUT)}")
    if result.problems:
        raise PipelineError("\n".join(result.problems))


def detect_again(plan: DetectionPlan) -> str:
    """The command that retries clips that were given up."""
    options = [f"{field.name}={getattr(plan.detector, field.name)}" for field in fields(plan.detector)]
    words = [word for option in options for word in ("--set", option)]
    raw, to = from_here(plan.raw), from_here(plan.out)
    return command("detect", raw, "--out", to, "--detector", plan.detector.name, *words)


def convert_split(
    plan: ConversionPlan, *, workers: int, strict: bool, scheduler: str | None, progress: Progress
) -> StepResult:
    """Raises as `convert`."""
    conversion = convert(plan, workers=workers, strict=strict, scheduler=scheduler, progress=progress)
    rejected = [f"rejected {account.rejection}" for account in conversion.rejected]
    renamed = [plain(f"renamed {old} -> {name}") for name, old in plan.renamed.items()]
    return StepResult(
        details=[summarize_conversion(conversion), *renamed],
        mark=DONE if conversion.totals["frames"]["kept"] else DOUBT,
        warnings=few(rejected, FEW, status_of(plan.root, "--all")),
        problems=conversion.problems,
    )


def extract(
    plans: Sequence[ExtractionPlan], resources: Resources, *, scheduler: str | None, progress: Progress, named: bool
) -> StepResult:
    """Extract streams of one split. named: print their names. Raises as `extract_together`."""
    every = extract_together(plans, resources, scheduler=scheduler, progress=progress)
    names = [f"[bold]{plain(extraction.plan.spec.name)}[/bold] " * named for extraction in every]
    details = [name + summarize_extraction(extraction) for name, extraction in zip(names, every, strict=True)]
    return StepResult(details=details, warnings=[text for extraction in every for text in extraction.examples])


def summarize_conversion(done: Conversion) -> str:
    """1 video read, 9 unchanged: 10 videos (1 rejected), 12 tracks, 380 of 400 frames kept (20 no_visible_joint)"""
    videos, frames = done.totals["videos"], done.totals["frames"]
    rejected = sum(videos["set_aside"].values())
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in frames["dropped"].items())
    dropped = (dropped + not_counted(done.uncounted)).removeprefix("; ")
    return (
        (f"{done.did}: " if done.did else "")
        + count(videos["kept"], "video")
        + (f" ([yellow]{rejected} rejected[/yellow])" if rejected else "")
        + f", {count(done.totals['tracks']['kept'], 'track')}, {frames['kept']:,} of {frames['found']:,} frames kept"
        + (f" ({dropped})" if dropped else "")
        + _why(done.plan.why)
    )


def summarize_extraction(done: Extraction) -> str:
    """380 rows in 12 s (31 rows/s on cpu, bottleneck: model), 20 carried over"""
    rate = f"{done.meter.rate}, bottleneck: {done.meter.bottleneck}"
    parts = [f"{count(done.computed, 'row')} in {done.seconds:.0f} s ({rate})"] if done.computed else []
    parts += [f"{count(done.carried, 'row')} carried over"] if done.carried else []
    parts += [f"[yellow]{n:,} {kind}[/yellow]" for kind, n in done.problems.items()]
    return (", ".join(parts) or "no rows") + _why(done.plan.why)


def _why(why: str) -> str:
    return "" if not why or why in FIRST_TIME else f"  [dim]why: {plain(why)}[/dim]"


def status_of(root: cache.Root, *words: str) -> str:
    """The command that shows the contents of a cache."""
    return command("status", *words, "--cache", root if isinstance(root, str) else from_here(root))
