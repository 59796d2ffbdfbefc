"""What a hurried reader should know: the page's first part.  raw -> evaluation -> report: [summary] -> page

It says nothing that the sections below it do not show in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import cache
from pipeline.cli.text import command, count
from pipeline.features.plan import missing_rows
from pipeline.reasons import reason
from pipeline.show.tracks import rejected
from report.data.health_verdicts import Verdict
from report.data.opened import UNREADABLE, Opened, problem, stands_in
from report.data.overview import OF, left_out
from report.data.samples import n_rows
from report.page import Section
from report.training.results import tables_of
from report.training.run_folder import Run
from vibe_model.metrics import ERRORS

SCORE: Final = "pa_mpjpe"
SCORE_2D: Final = "pck_2d"  # of splits without 3D labels
REAL_DATA: Final = "For real data: README, “Real data, in five steps”."


def summary_section(
    opened: Opened, runs: Sequence[Run], *, stream: str | None, verdicts: Sequence[Verdict] = (), trains: bool = True
) -> Section:
    """The data, what is wrong with it, how training went, what came out, and what to do next.

    verdicts: of the health of `stream`. trains: whether the page is about training, too.
    """
    opened = _readable(opened)
    about = stand_ins(opened, runs)
    facts = {"Data": about, "In the cache": _held(opened), "Left out": _left_out(opened)}
    if stream is not None:
        facts["Features"] = _features(opened, stream, verdicts)
    facts["Problems"] = "; ".join(_problems(opened, runs, verdicts)) or "none found"
    if trains:
        facts["Training"] = "; ".join(_state(run) for run in runs) or "no run to show"
        facts["Result"] = " ".join(_results(runs)) or "none yet"
    todo = list(_next(opened, runs, stream, trains=trains))
    return Section("in-short", "In short", "summary.html", {"facts": facts, "todo": todo, "stand_ins": about})


def _readable(opened: Opened) -> Opened:
    """Without the splits that cannot be read, which are told as problems instead."""
    found = Opened(opened.root, problems=[*opened.problems])
    for split in opened.splits:
        try:
            n_rows(split)
            rejected(split)
            for name in split.streams:
                split.stream_manifest(name)
            found.splits.append(split)
        except UNREADABLE as error:
            found.problems.append(problem(split.name, error))
    return found


def stand_ins(opened: Opened, runs: Sequence[Run]) -> str:
    """Which of data, body and network are stand-ins, in words."""
    data = [split for split in opened.splits if stands_in(split)]
    networks = {name for split in opened.splits for name in split.streams if _untrained(split, name)}
    body = any((split.manifest.get("reader") or {}).get("body") for split in data)
    told = []
    if data:
        of = "all splits" if len(data) == len(opened.splits) else f"{len(data)} of {len(opened.splits)} splits"
        told.append(f"The data of {of} are made by this project, in the datasets' layouts")
        told += ["the body is a procedural one, not SMPL"] * body
    if networks:
        told.append(f"{'the' if data else 'The'} network of the features {', '.join(sorted(networks))} is untrained")
    if not told and any(run.stand_in for run in runs):
        told.append(f"Trained on stand-ins: {', '.join(run.name for run in runs if run.stand_in)}")
    if told:
        return f"{'; '.join(told)}."
    return "Real: no split, network or run says that it is a stand-in." if opened.splits else "None."


def _untrained(split: cache.Split, name: str) -> bool:
    return bool((split.stream_manifest(name).get("backbone") or {}).get("stand_in"))


def _held(opened: Opened) -> str:
    rows, tracks = sum(map(n_rows, opened.splits)), sum(len(split.tracks) for split in opened.splits)
    splits, datasets = count(len(opened.splits), "split"), count(len(opened.datasets), "dataset")
    return f"{splits} of {datasets}: {count(tracks, 'track')}, {count(rows, 'row')} (one person in one frame each)"


def _left_out(opened: Opened) -> str:
    """Person-frames, by whether the readers' rules or faults cost them; videos set aside."""
    recorded = [s.manifest["accounting"] for s in opened.splits if "accounting" in s.manifest]
    found = sum(totals["frames"].get("found") or 0 for totals in recorded)
    by_design, wrong = _frames(opened)
    aside = sum(rejected(split)[0] for split in opened.splits)
    return (
        f"{by_design + wrong:,} of {found:,} person-frames: {by_design:,} by design, {wrong:,} since something is "
        f"wrong; {count(aside, 'video')} set aside since something is wrong"
    )


def _frames(opened: Opened) -> tuple[int, int]:
    """Person-frames that were left out by design, and for faults."""
    frames = {name: n for (what, name), n in left_out(opened.splits).items() if what == OF["frames"]}
    by_design = sum(n for name, n in frames.items() if reason(name).by_design)
    return by_design, sum(frames.values()) - by_design


def _features(opened: Opened, stream: str, verdicts: Sequence[Verdict]) -> str:
    of = [split for split in opened.splits if "bbox" in split.columns]
    having = [split for split in of if stream in split.streams]
    lacking = _lacking(opened, stream)
    told = [f"stream {stream}: in {len(having)} of {count(len(of), 'split')} with pictures"]
    told.append(f"{count(lacking, 'row')} lacking" if lacking else "no row of them lacking")
    if verdicts:
        bad = [verdict.dataset for verdict in verdicts if verdict.found]
        told.append(f"to look at: {', '.join(bad)}" if bad else f"✓ for all {count(len(verdicts), 'dataset')}")
    return ", ".join(told)


def _lacking(opened: Opened, stream: str) -> int:
    """Rows without features, of the splits that have the stream."""
    n = 0
    for split in opened.splits:
        try:
            n += missing_rows(split, stream).rows if stream in split.streams else 0
        except UNREADABLE:
            continue  # the section about the stream says so
    return n


def _problems(opened: Opened, runs: Sequence[Run], verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield from opened.problems
    if aside := sum(rejected(split)[0] for split in opened.splits):
        yield f"{count(aside, 'video')} set aside (Accounting)"
    if wrong := _frames(opened)[1]:
        yield f"{wrong:,} person-frames left out since something is wrong (Accounting)"
    yield from (
        f"{one.dataset}: {', '.join(one.found)} (Health of the feature stream)" for one in verdicts if one.found
    )
    yield from (f"{run.name}: {text}" for run in runs for text in run.problems)


def _state(run: Run) -> str:
    best = run.metrics.get("best")
    epoch = best.get("epoch") if isinstance(best, dict) else None
    return f"{run.name}: {run.state}" + (f", best epoch {epoch + 1}" if isinstance(epoch, int) else "")


def _results(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence a split: everybody's first error by the default protocol."""
    evaluated = [run for run in runs if run.splits]
    for split in dict.fromkeys(split for run in evaluated for split in run.splits):
        table = tables_of(split, evaluated)[0]
        name, unit = (SCORE, "mm") if SCORE in table.columns else (SCORE_2D, "%")
        rows = [f"{row.model} {row.errors[name]:.1f} {unit}" for row in table.rows if name in row.errors]
        if rows:
            yield f"{ERRORS[name]} on {split}: {', '.join(rows)}."
    if any(run.stand_in for run in evaluated):
        yield "Of stand-ins: not a scientific result."


def _next(opened: Opened, runs: Sequence[Run], stream: str | None, *, trains: bool) -> Iterator[tuple[str, str]]:
    """(what to do, the command)"""
    if not opened.splits:
        yield "Fill the cache:", "luigi --module tasks Data"
        return
    if _frames(opened)[1] or any(rejected(split)[0] for split in opened.splits):
        yield "See what is wrong with the raw files:", command("status", "--all", "--cache", str(opened.root))
    if stream is not None and _lacking(opened, stream):
        yield "Compute the features that are lacking:", "luigi --module tasks Data"
    if trains and not runs:
        yield "Train:", "luigi --module tasks TrainVIBE"
    if any(not run.metrics for run in runs):
        yield "Go on with training; it takes up its saved state:", "luigi --module tasks EvaluateVIBE"
    if any(map(stands_in, opened.splits)):
        yield REAL_DATA, ""
    elif any(run.metrics for run in runs):
        yield (
            "See how far seeds differ: change seed in [train] of luigi.cfg, and again",
            "luigi --module tasks EvaluateVIBE",
        )
