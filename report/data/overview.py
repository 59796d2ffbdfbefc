"""What is in the cache, and what became of everything that was found.  raw -> tracks -> features -> [report]"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline import datasets
from pipeline.cli.console import duration
from pipeline.cli.text import command, count
from pipeline.reasons import reason
from pipeline.show.tracks import rejected
from report.data.splits import Opened, is_demo, is_untrained, n_rows
from report.figures import Cell
from report.page import Section

OF: Final = {"videos": "videos", "tracks": "tracks", "frames": "person-frames"}  # in manifests -> on the page
MOST_REJECTED: Final = 5  # rejected videos that are listed of a split; the others are counted


class Rejected(NamedTuple):
    """Videos of one split that were rejected because something is wrong with them."""

    split: str
    n: int
    first: tuple[str, ...]  # name, reason, message


def overview_section(opened: Opened) -> Section:
    """Datasets and splits: how much there is, in which columns and streams."""
    rows: list[tuple[Cell, ...]] = []
    for split in opened.splits:
        size = (len(np.unique(split.tracks.video)), len(split.tracks), n_rows(split), _person_time([split]))
        streams = ", ".join(_stream(split, name, opened.missing[split.name, name]) for name in split.streams)
        rows.append((split.name, "demo" if is_demo(split) else "real", *size, streams or "none"))
    if len(rows) > 1:
        rows.append(("all", "", *_sums([row[2:5] for row in rows]), _person_time(opened.splits), ""))
    data = {
        "header": ("split", "data", "videos", "tracks", "rows", "person-time", "streams"),
        "rows": rows,
        "columns": [(split.name, ", ".join(split.columns)) for split in opened.splits],
        "problems": opened.problems,
    }
    return Section("datasets", "Datasets and splits", "overview.html", data)


def accounting_section(opened: Opened) -> Section:
    """found = kept + dropped by reason, rejected videos, and what was found beside what the releases have."""
    recorded = [split for split in opened.splits if "accounting" in split.manifest]
    rows = [_accounting_row(split) for split in recorded]
    if len(rows) > 1:
        rows.append(("all", *_sums([row[1:-1] for row in rows]), ""))
    counted = left_out(recorded)
    faults_first = sorted({name for _, name in counted}, key=lambda name: (reason(name).by_design, name))
    faulty = [Rejected(s.name, n, tuple(islice(texts, MOST_REJECTED))) for s in recorded for n, texts in [rejected(s)]]
    coverage = list(_coverage(recorded))
    data = {
        "header": (
            "split",
            *(f"{of} {what}" for of in OF.values() for what in ("found", "kept")),
            "left out, by reason",
        ),
        "rows": rows,
        "reasons": [_reason_row(name, counted) for name in faults_first],
        "rejected": [one for one in faulty if one.n],
        "command": command("status", "--all", "--cache", str(opened.root)),
        "coverage_header": ("split", "of", "found", "in the release", "coverage, %"),
        "coverage": coverage,
        "short": [
            f"{of}: {found:,} {what} found of {known:,} in the release"
            for of, what, found, known, _ in coverage
            if found < known
        ],
        "demo": [split.name for split in recorded if is_demo(split)],
        "unrecorded": [split.name for split in opened.splits if split not in recorded],
    }
    return Section("accounting", "Accounting", "accounting.html", data)


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


def _sums(rows: Sequence[tuple[Cell, ...]]) -> list[Cell]:
    """Of each column, of which every cell is a number; None for others."""
    columns = [[cell for cell in column if isinstance(cell, int)] for column in zip(*rows, strict=True)]
    return [sum(column) if len(column) == len(rows) else None for column in columns]


def _stream(split: cache.Split, name: str, missing: int) -> str:
    """resnet50 (untrained, 8,192 rows missing)"""
    marks = ["untrained"] * is_untrained(split, name) + [f"{count(missing, 'row')} missing"] * bool(missing)
    return f"{name} ({', '.join(marks)})" if marks else name


def left_out(splits: Sequence[cache.Split]) -> Counter[tuple[str, str]]:
    """(what, reason) -> how many of the splits whose accounting was recorded. what: by `OF`'s values."""
    found: Counter[tuple[str, str]] = Counter()
    for totals in (split.manifest["accounting"] for split in splits if "accounting" in split.manifest):
        for of, what in OF.items():
            for name, n in _dropped(totals[of]).items():
                found[what, name] += n
    return found


def _dropped(counts: Mapping[str, Any]) -> dict[str, int]:
    return {**counts.get("dropped", {}), **counts.get("set_aside", {})}


def _reason_row(name: str, counted: Mapping[tuple[str, str], int]) -> tuple[Cell, ...]:
    """What a reason means and what it cost."""
    cost = ", ".join(f"{n:,} {what}" for (what, of), n in counted.items() if of == name)
    return name, "by design" if reason(name).by_design else "something is wrong", cost, reason(name).meaning


def _accounting_row(split: cache.Split) -> tuple[Cell, ...]:
    """Counts and, as `videos: 3 bad_labels; person-frames: 21 bad_labels`, the reasons."""
    totals, texts = split.manifest["accounting"], []
    for of, what in OF.items():
        reasons = _dropped(totals[of]) | {"without a track": totals[of].get("without_tracks")}
        if some := ", ".join(f"{n:,} {name}" for name, n in reasons.items() if n):
            texts.append(f"{what}: {some}")
    counts = [n for of in OF for n in (totals[of].get("found"), totals[of]["kept"])]
    return (split.name, *counts, "; ".join(texts) or "nothing")


def _coverage(recorded: Sequence[cache.Split]) -> Iterator[tuple[str, str, int, int, float]]:
    """What was found beside what the release has, of real data: by split, else over all splits where they are here."""
    real: dict[str, list[cache.Split]] = {}
    for split in recorded:
        if not (is_demo(split) or split.manifest.get("reader", {}).get("imported")):
            real.setdefault(split.name.partition("/")[0], []).append(split)
    totals: list[tuple[str, Sequence[cache.Split], Mapping[str, int]]] = []
    for name, splits in real.items():
        totals += [(split.name, [split], split.manifest["accounting"].get("known", {})) for split in splits]
        dataset = datasets.get(name) if name in datasets.names() and not datasets.broken([name]) else None
        if dataset is not None and "all" in dataset.totals and len(splits) == len(dataset.splits):
            totals.append((f"{name}, all splits", splits, dataset.totals["all"].as_dict()))
    for of, counted, known in totals:
        for what, n in known.items():
            found = sum(split.manifest["accounting"][what]["found"] for split in counted)
            yield of, OF[what], found, n, 100 * found / n
