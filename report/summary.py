"""The page's first lines: what is wrong, what there is, what to do next.  evaluation -> report: [summary]

All of it is shown in full in the sections below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pipeline.cli.text import command, count
from pipeline.exchange.show.tracks import rejected
from report.data.overview import frames_left_out
from report.data.splits import Opened, is_demo, is_untrained, n_rows
from report.data.stream_health import Verdict
from report.page import Section
from report.training.run import Run

REAL_DATA: Final = "For real data: docs/getting-started.md, “The first real dataset”."


def summary_section(
    opened: Opened, runs: Sequence[Run], *, stream: str | None, verdicts: Sequence[Verdict] = (), trains: bool = True
) -> Section:
    """What is wrong, else a line of what there is; and what to do next.

    verdicts: of the health of `stream`. trains: whether the page is about training, too.
    """
    about, bad = demo_parts(opened, runs), [verdict for verdict in verdicts if verdict.faults]
    missing = sum(n for (_, name), n in opened.missing.items() if name == stream)
    _, wrong = frames_left_out(opened.splits)
    n_rejected = sum(rejected(split)[0] for split in opened.splits)
    problems = [
        *opened.problems,
        *([f"{count(n_rejected, 'video')} rejected (Left out)"] if n_rejected else []),
        *([f"{wrong:,} person-frames left out because of errors (Left out)"] if wrong else []),
        *(f"{one.dataset}: {one.found} (Health of the feature stream)" for one in bad),
        *(f"{run.name}: {text}" for run in runs for text in run.problems),
    ]
    texts = [
        f"{count(len(opened.splits), 'split')} of {count(len(opened.datasets), 'dataset')}",
        f"{count(sum(map(n_rows, opened.splits)), 'row')} (one person in one frame each)",
        "no row lost because of errors" if not wrong and not n_rejected else "",
        f"features {stream} " + ("without a missing row" if not missing else f"with {count(missing, 'row')} missing")
        if stream is not None and opened.splits
        else "",
        *(map(_state, runs) if trains else ()),
        "no training run to show" if trains and not runs else "",
    ]
    line = f"{'' if problems else '✓ '}{'; '.join(filter(None, texts))}."
    todo: list[tuple[str, str]] = []  # what to do, the command
    if not opened.splits:
        todo = [("Fill the cache:", "luigi --module tasks Data")]
    else:
        status = command("status", "--all", "--cache", str(opened.root))
        todo += [("See what is wrong with the raw files:", status)] * bool(wrong or n_rejected)
        todo += [("Compute the missing features:", "luigi --module tasks Data")] * bool(missing)
        todo += [("Train:", "luigi --module tasks Report")] * (trains and not runs)
        unfinished = any(not run.metrics for run in runs)
        todo += [("Continue training from its saved state:", "luigi --module tasks Report")] * unfinished
        if any(map(is_demo, opened.splits)):
            todo.append((REAL_DATA, ""))
        elif any(run.metrics for run in runs):
            again = "See how far seeds differ: change seed in [train] of luigi.cfg, and again"
            todo.append((again, "luigi --module tasks Report"))
    data = {"line": line, "problems": problems, "todo": todo, "demo_parts": about}
    return Section("in-short", "In short", "summary.html", data)


def demo_parts(opened: Opened, runs: Sequence[Run]) -> str:
    """Which of data, body and network are not real."""
    data = [split for split in opened.splits if is_demo(split)]
    networks = {name for split in opened.splits for name in split.streams if is_untrained(split, name)}
    parts = []
    if data:
        of = "all splits" if len(data) == len(opened.splits) else f"{len(data)} of {len(opened.splits)} splits"
        parts.append(f"The data of {of} are made by this project, in the datasets' layouts")
        body = any((split.manifest.get("reader") or {}).get("body") for split in data)
        parts += ["the body is a procedural one, not SMPL"] * body
    if networks:
        parts.append(f"{'the' if data else 'The'} network of the features {', '.join(sorted(networks))} is untrained")
    if not parts and any(run.stand_in for run in runs):
        parts.append(f"Trained on demo data: {', '.join(run.name for run in runs if run.stand_in)}")
    if parts:
        return f"{'; '.join(parts)}."
    return "Real: no split, network or run is marked as demo data." if opened.splits else "None."


def _state(run: Run) -> str:
    best = run.metrics.get("best") or {}
    return f"{run.name}: {run.state}" + (f", best epoch {best['epoch'] + 1}" if "epoch" in best else "")
