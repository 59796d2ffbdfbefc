"""The page's first part: what there is, what is wrong, what came out, what to do.  evaluation -> report: [summary]

All of it is shown in full in the sections below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.cli.text import command, count
from pipeline.reasons import reason
from pipeline.show.tracks import rejected
from report.data.overview import OF, left_out
from report.data.splits import Opened, is_demo, is_untrained, n_rows
from report.data.stream_health import Verdict
from report.page import Section
from report.training.results import tables_of
from report.training.run import Run
from vibe_model.metrics import ERRORS

SCORE: Final = "pa_mpjpe"
SCORE_2D: Final = "pck_2d"  # of splits without 3D labels
REAL_DATA: Final = "For real data: docs/getting-started.md, “The first real dataset”."


def summary_section(
    opened: Opened, runs: Sequence[Run], *, stream: str | None, verdicts: Sequence[Verdict] = (), trains: bool = True
) -> Section:
    """The data, what is wrong with it, how training went, what came out, and what to do next.

    verdicts: of the health of `stream`. trains: whether the page is about training, too.
    """
    about, bad = demo_parts(opened, runs), [verdict for verdict in verdicts if verdict.faults]
    missing = sum(n for (_, name), n in opened.missing.items() if name == stream)
    by_design, wrong = _frames(opened)
    n_rejected = sum(rejected(split)[0] for split in opened.splits)
    recorded = [split.manifest["accounting"]["frames"] for split in opened.splits if "accounting" in split.manifest]
    problems = [
        *opened.problems,
        *([f"{count(n_rejected, 'video')} rejected (Accounting)"] if n_rejected else []),
        *([f"{wrong:,} person-frames left out because of errors (Accounting)"] if wrong else []),
        *(f"{one.dataset}: {one.found} (Health of the feature stream)" for one in bad),
        *(f"{run.name}: {text}" for run in runs for text in run.problems),
    ]
    rows, tracks = sum(map(n_rows, opened.splits)), sum(len(split.tracks) for split in opened.splits)
    splits, datasets = count(len(opened.splits), "split"), count(len(opened.datasets), "dataset")
    facts = {
        "Data": about,
        "In the cache": f"{splits} of {datasets}: {count(tracks, 'track')}, {count(rows, 'row')} (one person in one "
        "frame each)",
        "Left out": f"{by_design + wrong:,} of {sum(of.get('found') or 0 for of in recorded):,} person-frames: "
        f"{by_design:,} by design, {wrong:,} because of errors; {count(n_rejected, 'video')} rejected",
    }
    if stream is not None:
        of = [split for split in opened.splits if "bbox" in split.columns]
        texts = [
            f"stream {stream}: in {sum(stream in s.streams for s in of)} of {count(len(of), 'split')} with pictures"
        ]
        texts.append(f"{count(missing, 'row')} missing" if missing else "no row of them missing")
        if verdicts:
            sound = f"✓ for all {count(len(verdicts), 'dataset')}"
            texts.append(f"to look at: {', '.join(one.dataset for one in bad)}" if bad else sound)
        facts["Features"] = ", ".join(texts)
    facts["Problems"] = "; ".join(problems) or "none found"
    if trains:
        facts["Training"] = "; ".join(map(_state, runs)) or "no run to show"
        facts["Result"] = " ".join(_results(runs)) or "none yet"
    todo: list[tuple[str, str]] = []  # what to do, the command
    if not opened.splits:
        todo = [("Fill the cache:", "luigi --module tasks Data")]
    else:
        status = command("status", "--all", "--cache", str(opened.root))
        todo += [("See what is wrong with the raw files:", status)] * bool(wrong or n_rejected)
        todo += [("Compute the missing features:", "luigi --module tasks Data")] * bool(missing)
        todo += [("Train:", "luigi --module tasks TrainVIBE")] * (trains and not runs)
        unfinished = any(not run.metrics for run in runs)
        todo += [("Continue training from its saved state:", "luigi --module tasks EvaluateVIBE")] * unfinished
        if any(map(is_demo, opened.splits)):
            todo.append((REAL_DATA, ""))
        elif any(run.metrics for run in runs):
            again = "See how far seeds differ: change seed in [train] of luigi.cfg, and again"
            todo.append((again, "luigi --module tasks EvaluateVIBE"))
    return Section("in-short", "In short", "summary.html", {"facts": facts, "todo": todo, "demo_parts": about})


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


def _frames(opened: Opened) -> tuple[int, int]:
    """Person-frames that were left out by design, and because of errors."""
    frames = {name: n for (what, name), n in left_out(opened.splits).items() if what == OF["frames"]}
    by_design = sum(n for name, n in frames.items() if reason(name).by_design)
    return by_design, sum(frames.values()) - by_design


def _state(run: Run) -> str:
    best = run.metrics.get("best") or {}
    return f"{run.name}: {run.state}" + (f", best epoch {best['epoch'] + 1}" if "epoch" in best else "")


def _results(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence a split: each model's first error by the default protocol."""
    evaluated = [run for run in runs if run.splits]
    for split in dict.fromkeys(split for run in evaluated for split in run.splits):
        table = tables_of(split, evaluated)[0]
        name, unit = (SCORE, "mm") if SCORE in table.columns else (SCORE_2D, "%")
        if rows := [f"{row.model} {row.errors[name]:.1f} {unit}" for row in table.rows if name in row.errors]:
            yield f"{ERRORS[name]} on {split}: {', '.join(rows)}."
    if any(run.stand_in for run in evaluated):
        yield "Of demo data: not a scientific result."
