"""How good the models are: results beside baselines and published figures.  evaluation -> report: [results] -> page"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.cli.text import command
from report.page import Section
from report.training import comparison, definitions
from report.training.run_folder import Run
from vibe_model.evaluation import published
from vibe_model.metrics import ERRORS, PROTOCOLS, UNITS

MOST_SEQUENCES: Final = 20  # of a split
MOST_WINDOWS: Final = 10
MEAN_BODY: Final = "mean body"
MEANINGS: Final = {
    "default": "Every frame that is valid, labelled and has features counts once.",
    "published": "As the published figures were made: each track's last frames are dropped, accelerations cross from "
    "one track into the next, frames that are not valid count too, labels are rounded to float16.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one split, by one protocol."""

    model: str
    errors: Mapping[str, float]  # by the names of metrics.json; those that no frame has a label for are absent
    frames: int | None  # that were counted; None where it is not known
    about: str = ""  # of a published one, where it is from; of a smoothed one, how wide


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that may be compared with one another."""

    title: str
    caption: str
    rows: Sequence[Row]
    meaning: str = ""  # of the protocol
    note: str = ""
    said: Sequence[str] = ()  # what the numbers say, in sentences

    @property
    def columns(self) -> list[str]:
        """The errors that any of the rows has."""
        return [name for name in ERRORS if any(name in row.errors for row in self.rows)]

    @property
    def counted(self) -> bool:
        """Is it known of any row how many frames it stands for?"""
        return any(row.frames is not None for row in self.rows)


@dataclass(frozen=True, slots=True)
class Listing:
    """Results of one run on parts of one split, the worst first."""

    caption: str
    split: str
    columns: Sequence[str]  # names of errors
    rows: Sequence[Mapping[str, Any]]
    look: str  # the command that shows the first of them


def results_section(runs: Sequence[Run], ablation: Mapping[str, Any], *, cache: str) -> Section:
    """What every finished run reached. ablation: the content of ablation.json, empty where there is none."""
    evaluated = [run for run in runs if run.splits]
    splits = list(dict.fromkeys(split for run in evaluated for split in run.splits))
    return Section(
        "results",
        "Results",
        "results.html",
        {
            "names": ERRORS,
            "units": UNITS[:1].upper() + UNITS[1:],
            "better": definitions.BETTER,
            "models": definitions.MODELS,
            "measures": {ERRORS[name]: meaning for name, meaning in definitions.MEASURES.items()},
            "waiting": [f"{run.name}: {run.state}" for run in runs if not run.splits],
            "splits": {split: tables_of(split, evaluated) for split in splits},
            "ablation": list(_ablation(ablation)),
            "ablation_stand_in": bool(ablation.get("stand_in")),
            "sequences": [listing for run in evaluated for listing in _sequences(run, cache)],
            "windows": [listing for run in evaluated for listing in _windows(run, cache)],
        },
    )


def tables_of(split: str, runs: Sequence[Run]) -> list[Table]:
    """A table a protocol; what was published is a table of its own beside stand-ins, which it says nothing about."""
    of = [run for run in runs if split in run.splits]
    stand_in = any(run.stand_in for run in of)
    tables = []
    for protocol in PROTOCOLS:
        rows = list(rows_of(split, protocol, of))
        said = list(_said(split, protocol, of, rows))
        if protocol == "published" and not stand_in:
            rows += _published(split, of)
        tables.append(Table(f"Protocol “{protocol}”", split, rows, MEANINGS[protocol], said=said))
    if stand_in and (rows := _published(split, of)):
        note = "These are of the real data, the tables above of stand-ins: neither says anything about the other."
        tables.append(Table("Published figures", f"{split}, real data", rows, note=note))
    return tables


def rows_of(split: str, protocol: str, runs: Sequence[Run]) -> Iterator[Row]:
    """Each run, the same smoothed in time where it has that, and the mean body, which is the same for all."""
    found: Mapping[str, Any] = {}
    for run in runs:
        found = run.splits[split] if protocol == "default" else run.splits[split][protocol]
        frames = _frames(found)
        yield Row(run.name, _errors(found), frames)
        if isinstance(found.get("smoothed"), Mapping):
            sigma = found["smoothed"].get("sigma")
            about = f"Gaussian of {sigma:g} frames" if isinstance(sigma, int | float) else ""
            yield Row(f"{run.name}, smoothed", _errors(found["smoothed"]), frames, about)
    if found:
        yield Row(MEAN_BODY, _errors(found["baseline"]), _frames(found))


def _said(split: str, protocol: str, runs: Sequence[Run], rows: Sequence[Row]) -> Iterator[str]:
    """What the rows say of the first run against each of the others, and what that decides."""
    if not rows:
        return
    first, *others = rows
    baseline = next((row.errors for row in others if row.model == MEAN_BODY), {})
    if labels := comparison.of_labels(baseline, first.model, first.errors):
        yield labels
    if protocol != "default":
        return
    for row in others:
        told = [comparison.against(first.model, first.errors, row.model, row.errors)]
        told += [comparison.by_track(runs[0], run, split) for run in runs[1:] if run.name == row.model]
        yield " ".join(filter(None, told))
    by_name = {row.model: row.errors for row in others}
    yield from comparison.decides(first.model, first.errors, by_name, runs[0], split, first.frames or 0)


def _published(split: str, runs: Sequence[Run]) -> list[Row]:
    """What was published of a split, and which of it was trained as the first run was."""
    config = runs[0].config if runs else None
    with_3dpw = None if config is None else "3dpw/train" in config.training_splits
    alike = f"trained {'with' if with_3dpw else 'without'} 3DPW, as {runs[0].name} here" if runs else ""
    return [
        Row(
            figures.model,
            _errors(figures.errors),
            None,
            f"{figures.source}; {alike}" if figures.with_3dpw == with_3dpw else figures.source,
        )
        for figures in published.figures_of(split)
    ]


def _errors(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(found[name]) for name in ERRORS if name in found}


def _frames(found: Mapping[str, Any]) -> int:
    return int(found.get("frames") or found.get("frames_2d") or 0)


def _ablation(content: Mapping[str, Any]) -> Iterator[Table]:
    """The ablation's rows as tables. Raises nothing: what is not as it is written is left out."""
    rows = [row for row in content.get("rows", []) if isinstance(row, Mapping)]
    for split, protocol in dict.fromkeys((str(row.get("split")), str(row.get("protocol"))) for row in rows):
        here = [row for row in rows if (row.get("split"), row.get("protocol")) == (split, protocol)]
        shown = []
        for row in here:
            means = {n: v["mean"] for n, v in row.get("errors", {}).items() if n in ERRORS and isinstance(v, Mapping)}
            seeds = row.get("seeds", 1)
            name = f"{row.get('model')}" + (f" (mean of {seeds} seeds)" if seeds != 1 else "")
            shown.append(Row(name, means, row.get("frames")))
        yield Table(f"{split}, protocol “{protocol}”", split, shown)


def _sequences(run: Run, cache: str) -> Iterator[Listing]:
    for split in dict.fromkeys(str(row.get("split")) for row in run.sequences):
        here = sorted((row for row in run.sequences if row.get("split") == split), key=_badness)
        kept = here[:MOST_SEQUENCES]
        of = f"all {len(here)}" if len(kept) == len(here) else f"the worst {len(kept)} of {len(here):,}"
        caption = f"{run.name} on {split} by sequence, {of}, the worst first; all are in sequences.csv of the run"
        yield Listing(caption, split, _columns(kept), kept, _look(split, kept[0], cache))


def _windows(run: Run, cache: str) -> Iterator[Listing]:
    for split in dict.fromkeys(str(row.get("split")) for row in run.worst_windows):
        kept = [row for row in run.worst_windows if row.get("split") == split][:MOST_WINDOWS]
        caption = f"{run.name} on {split}: the {len(kept)} worst windows; more are in worst_windows.csv of the run"
        yield Listing(caption, split, _columns(kept), kept, _look(split, kept[0], cache))


def _badness(row: Mapping[str, Any]) -> tuple[float, str]:
    """The largest PA-MPJPE first; without 3D labels, the smallest 2D PCK."""
    worst = -float(row["pa_mpjpe"]) if "pa_mpjpe" in row else float(row.get("pck_2d", 100.0))
    return worst, str(row.get("track"))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in ERRORS if any(name in row for row in rows)]


def _look(split: str, row: Mapping[str, Any], cache: str) -> str:
    words = ("show", *split.split("/", 1), "--cache", cache, "--track", str(row.get("track")), "--out", "track.html")
    return command(*words)
