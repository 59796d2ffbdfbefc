"""What is in the cache, and what became of everything that was found.  raw -> tracks -> features -> [report]"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline import datasets
from pipeline.cli.text import command, count
from pipeline.commands.status import beside_the_release
from pipeline.features.plan import missing_rows
from pipeline.reasons import reason
from pipeline.show.tracks import rejected
from report.data.opened import UNREADABLE, Opened, problem, stands_in
from report.data.samples import n_rows
from report.figures import Cell, duration
from report.page import Section

OF: Final = {"videos": "videos", "tracks": "tracks", "frames": "person-frames"}  # as manifests and as people say
MOST_TOLD: Final = 5  # videos set aside that a split names; the others are counted


class Aside(NamedTuple):
    """Videos of one split that were set aside since something is wrong with them."""

    split: str
    n: int
    first: tuple[str, ...]  # in words


def overview_section(opened: Opened) -> Section:
    """Datasets and splits: how much there is, in which columns and streams."""
    rows: list[tuple[Cell, ...]] = []
    columns: list[tuple[Cell, ...]] = []
    problems = [*opened.problems]
    for split in opened.splits:
        try:
            rows.append(_overview_row(split))
            columns.append((split.name, ", ".join(split.columns)))
        except UNREADABLE as error:
            problems.append(problem(split.name, error))
    if len(rows) > 1:
        rows.append(("all", "", *_sums([row[2:5] for row in rows]), _person_time(opened.splits), ""))
    data = {
        "rows": rows,
        "header": ("split", "data", "videos", "tracks", "rows", "person-time", "streams"),
        "columns": columns,
        "problems": problems,
    }
    return Section("datasets", "Datasets and splits", "overview.html", data)


def accounting_section(opened: Opened) -> Section:
    """found = kept + dropped by reason, videos set aside, and what was found beside what the releases have."""
    recorded = [split for split in opened.splits if "accounting" in split.manifest]
    data = {
        "header": (
            "split",
            *(f"{of} {what}" for of in OF.values() for what in ("found", "kept")),
            "left out, by reason",
        ),
        "rows": _with_sums([_accounting_row(split) for split in recorded]),
        "reasons": list(_reason_rows(left_out(recorded))),
        "aside": [aside for split in recorded if (aside := _aside(split)).n],
        "command": command("status", "--all", "--cache", str(opened.root)),
        "coverage_header": ("split", "of", "found", "in the release", "coverage, %"),
        "coverage": [*(row for split in recorded for row in _coverage_rows(split)), *_coverage_of_all(recorded)],
        "missing": list(beside_the_release([_status(split) for split in recorded])),
        "stand_ins": [split.name for split in recorded if stands_in(split)],
        "unrecorded": [split.name for split in opened.splits if split not in recorded],
    }
    return Section("accounting", "Accounting", "accounting.html", data)


def _overview_row(split: cache.Split) -> tuple[Cell, ...]:
    streams = ", ".join(_stream(split, name) for name in split.streams) or "none"
    data = "stand-in" if stands_in(split) else "real"
    n_videos = len(np.unique(split.tracks.video))
    return (split.name, data, n_videos, len(split.tracks), n_rows(split), _person_time([split]), streams)


def _person_time(splits: Sequence[cache.Split]) -> str:
    """Of the tracks whose rate is known: a row lasts `step` frames of the video."""
    seconds, n_known, n_tracks = 0.0, 0, 0
    for tracks in (split.tracks for split in splits):
        known = np.isfinite(tracks.fps) & (tracks.fps > 0)
        seconds += float((((tracks.stop - tracks.start) * tracks.step)[known] / tracks.fps[known]).sum())
        n_known += int(known.sum())
        n_tracks += len(tracks)
    if not n_known:
        return "rate not known"
    of = "" if n_known == n_tracks else f" (of {count(n_known, 'track')}; no rate for the others)"
    return duration(seconds) + of


def left_out(splits: Sequence[cache.Split]) -> Counter[tuple[str, str]]:
    """(what, reason) -> how many of the splits whose accounting was recorded. what: as `OF` says it."""
    found: Counter[tuple[str, str]] = Counter()
    for totals in (split.manifest["accounting"] for split in splits if "accounting" in split.manifest):
        for of, what in OF.items():
            for name, n in (*totals[of].get("dropped", {}).items(), *totals[of].get("set_aside", {}).items()):
                found[what, name] += n
    return found


def _reason_rows(counted: Mapping[tuple[str, str], int]) -> Iterator[tuple[Cell, ...]]:
    """Each reason that occurs, what it means and what it cost; those first that say that something is wrong."""
    for name in sorted({name for _, name in counted}, key=lambda name: (reason(name).by_design, name)):
        cost = ", ".join(f"{n:,} {what}" for (what, of), n in counted.items() if of == name)
        yield name, "by design" if reason(name).by_design else "something is wrong", cost, reason(name).meaning


def _with_sums(rows: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    return [*rows, ("all", *_sums([row[1:-1] for row in rows]), "")] if len(rows) > 1 else rows


def _sums(rows: Sequence[tuple[Cell, ...]]) -> list[Cell]:
    """Of each column, of which every cell is a number; None for others."""
    columns = [[cell for cell in column if isinstance(cell, int)] for column in zip(*rows, strict=True)]
    return [sum(column) if len(column) == len(rows) else None for column in columns]


def _stream(split: cache.Split, name: str) -> str:
    """resnet50 (untrained, lacks 8,192 rows)"""
    untrained = bool(split.stream_manifest(name).get("backbone", {}).get("stand_in", False))
    lacks = missing_rows(split, name).rows
    marks = ["untrained"] * untrained + [f"lags behind: lacks {lacks:,} rows"] * bool(lacks)
    return f"{name} ({', '.join(marks)})" if marks else name


def _accounting_row(split: cache.Split) -> tuple[Cell, ...]:
    totals = split.manifest["accounting"]
    counts = [n for of in OF for n in (totals[of].get("found"), totals[of]["kept"])]
    reasons = [f"{told}: {left_out}" for of, told in OF.items() if (left_out := _left_out(totals[of]))]
    return (split.name, *counts, "; ".join(reasons) or "nothing")


def _left_out(counts: Mapping[str, Any]) -> str:
    """10 before_first_detection, 3 without a track"""
    reasons = {**counts.get("dropped", {}), **counts.get("set_aside", {})}
    if counts.get("without_tracks"):
        reasons["without a track"] = counts["without_tracks"]
    return ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())


def _aside(split: cache.Split) -> Aside:
    n, told = rejected(split)
    return Aside(split.name, n, tuple(islice(told, min(n, MOST_TOLD))))


def _coverage_rows(split: cache.Split) -> Iterator[tuple[Cell, ...]]:
    totals = split.manifest["accounting"]
    for what, known in totals.get("known", {}).items():
        yield _coverage(split.name, what, totals[what]["found"], known)


def _coverage_of_all(recorded: list[cache.Split]) -> Iterator[tuple[Cell, ...]]:
    """Of datasets of which only the total over all splits is known, and that are here with all their splits."""
    recorded_names = {split.name.partition("/")[0] for split in recorded}
    broken = datasets.broken(recorded_names.intersection(datasets.names()))
    for name in (name for name in datasets.names() if name in recorded_names and name not in broken):
        dataset = datasets.get(name)
        here = [s for s in recorded if s.name.partition("/")[0] == name and not stands_in(s)]
        if "all" in dataset.totals and {s.name for s in here} >= {f"{name}/{split}" for split in dataset.splits}:
            for what, known in dataset.totals["all"].as_dict().items():
                found = sum(s.manifest["accounting"][what]["found"] for s in here)
                yield _coverage(f"{name}, all splits", what, found, known)


def _coverage(of: str, what: str, found: int, known: int) -> tuple[Cell, ...]:
    return of, OF[what], found, known, 100 * found / known


def _status(split: cache.Split) -> Mapping[str, Any]:
    """What `beside_the_release` asks of a split."""
    return {
        "split": split.name,
        "stand_in": stands_in(split),
        "imported": split.manifest.get("reader", {}).get("imported", {}).get("file"),
        "accounting": split.manifest["accounting"],
        "raw": split.provenance.get("raw"),
    }
