"""How good the models are: results beside baselines and published figures.  evaluation -> report: [results] -> page

Sentences below a table are computed from its numbers. How far results spread over seeds was measured once, on demo
data: benchmarks/learning.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from pipeline.cli.text import command, count
from report.page import Section
from report.training.curves import listed
from report.training.run import Run
from vibe_model.evaluation import published
from vibe_model.metrics import METRICS, PCK_2D_SHARE, PCK_THRESHOLD_MM, PROTOCOLS, UNITS
from vibe_model.runs import KEYPOINTS, LABEL_BODY, NEUTRAL_BODY, csv_text

MOST_SEQUENCES: Final = 20  # of a split
MOST_WINDOWS: Final = 10
MEAN_BODY: Final = "mean body"
SEED_SPREAD_MM: Final = (1, 6)  # of PA-MPJPE, standard deviations over three seeds: benchmarks/learning.md
FEW_TRACKS: Final = 30

PROTOCOL: Final = {
    "default": "Every frame that is valid, labelled and has features counts once.",
    "published": "As the published figures were made: each track's last frames are dropped, accelerations cross from "
    "one track into the next, frames that are not valid count too, labels are rounded to float16.",
    "hmmr": "As HMMR was evaluated: every frame of which enough joints can be seen, and means over tracks of each "
    "track's mean.",
}
Errors = Mapping[str, float]  # by the names of metrics.json; those that no frame has a label for are absent


class Row(NamedTuple):
    """One model on one split, by one protocol."""

    model: str
    errors: Errors
    frames: int | None  # that were counted; None where it is not known
    about: str = ""  # of a published one, where it is from; of a smoothed one, how wide; of a run, size and inputs


class Table(NamedTuple):
    """Rows that may be compared with one another."""

    key: str  # the protocol, or what else its rows have in common
    title: str
    caption: str
    rows: Sequence[Row]
    meaning: str = ""  # of the protocol
    note: str = ""
    sentences: Sequence[str] = ()  # what the numbers mean

    @property
    def columns(self) -> list[str]:
        """The errors that any of the rows has."""
        return [name for name in METRICS if any(name in row.errors for row in self.rows)]

    @property
    def counted(self) -> bool:
        """Is it known of any row how many frames it stands for?"""
        return any(row.frames is not None for row in self.rows)


def results_section(runs: Sequence[Run], ablation: Mapping[str, Any], *, cache: str) -> Section:
    """What every finished run reached. ablation: the content of ablation.json, empty where there is none."""
    evaluated = [run for run in runs if run.splits]
    data = {
        "metrics": METRICS,
        "units": UNITS,
        "pck_mm": PCK_THRESHOLD_MM,
        "pck_2d_share": PCK_2D_SHARE,
        "waiting": [f"{run.name}: {run.state}" for run in runs if not run.splits],
        "splits": {
            split: tables_of(split, evaluated) for split in dict.fromkeys(s for r in evaluated for s in r.splits)
        },
        "dynamics": [one for run in evaluated for one in _dynamics(run)],
        "ablation": list(_ablation(ablation)),
        "ablation_stand_in": bool(ablation.get("stand_in")),
        "listings": [one for run in evaluated for one in _listings(run, cache)],
    }
    return Section("results", "Results", "results.html", data)


def tables_of(split: str, runs: Sequence[Run]) -> list[Table]:
    """A table a protocol. Beside demo data, the published figures are a table of their own: they do not compare."""
    of = [run for run in runs if split in run.splits]
    stand_in = any(run.stand_in for run in of)
    figures, tables = _published(split, of), []
    by_protocol = [one.protocol for one in published.figures_of(split)]
    for protocol in PROTOCOLS:
        if not (rows := list(_rows(split, protocol, of))):
            continue
        sentences = list(_sentences(split, protocol, of, rows))
        beside = [row for row, its in zip(figures, by_protocol, strict=True) if its == protocol and not stand_in]
        meaning = PROTOCOL[protocol]
        tables.append(Table(protocol, f"Protocol “{protocol}”", split, [*rows, *beside], meaning, sentences=sentences))
    if stand_in and figures:
        note = "These are of the real data, the tables above of demo data: they cannot be compared."
        tables.append(Table("published figures", "Published figures", f"{split}, real data", figures, note=note))
    return tables


def _dynamics(run: Run) -> Iterator[dict[str, Any]]:
    """PA-MPJPE of past, present and future bodies that are known from one frame: `vibe_model.evaluation.dynamics`."""
    for split, found in run.splits.items():
        hmmr = found.get("hmmr")
        if isinstance(hmmr, Mapping) and isinstance(table := hmmr.get("dynamics"), Mapping):
            by_model = table["pa_mpjpe"]
            steps = [int(step) for step in next(iter(by_model.values()))]
            rows = {model: [errors[str(step)] for step in steps] for model, errors in by_model.items()}
            frames, tracks = count(table["frames"], "frame"), count(table["tracks"], "track")
            yield {"caption": f"{run.name}, {split}: {frames} of {tracks}", "steps": steps, "rows": rows}


def _rows(split: str, protocol: str, runs: Sequence[Run]) -> Iterator[Row]:
    """Each run, the same smoothed in time where it has that, and the mean body, which is the same for all."""
    found: Mapping[str, Any] = {}
    for run in runs:
        found = run.splits[split] if protocol == "default" else run.splits[split].get(protocol, {})
        if not found:  # evaluated before there was this protocol
            continue
        yield Row(run.name, _errors(found), _frames(found), _about(run, split) if protocol == "default" else "")
        if isinstance(smoothed := found.get("smoothed"), Mapping):
            sigma = smoothed.get("sigma")
            about = f"Gaussian of {sigma:g} frames" if isinstance(sigma, int | float) else ""
            yield Row(f"{run.name}, smoothed", _errors(smoothed), _frames(found), about)
    if found:
        yield Row(MEAN_BODY, _errors(found["baseline"]), _frames(found))


def _about(run: Run, split: str) -> str:
    """How large the model is, how fast a training step was, what is read of each frame: as far as it is recorded."""
    reads, keypoints = run.metrics.get("reads", []), run.splits[split].get(KEYPOINTS)
    parts = [f"{run.metrics['parameters'] / 1e6:,.1f} M parameters"] if "parameters" in run.metrics else []
    speed = run.events.curves.get("speed/windows_per_second")
    if run.config is not None and speed is not None and speed.values:
        parts.append(f"{median(speed.values) / run.config.batch_size:.2g} steps/s")
    parts += [f"reads {', '.join(reads)}"] if reads else []
    parts += [f"2D keypoints: {keypoints}"] if keypoints else []
    return "; ".join(parts)


def _published(split: str, runs: Sequence[Run]) -> list[Row]:
    """The published figures of a split, and which of them were trained as the first run was."""
    config = runs[0].config if runs else None
    with_3dpw = None if config is None else "3dpw/train" in config.training_splits
    alike = f"; trained {'with' if with_3dpw else 'without'} 3DPW, as {runs[0].name} here" if runs else ""
    return [
        Row(one.model, _errors(one.errors), None, one.source + (alike if one.with_3dpw == with_3dpw else ""))
        for one in published.figures_of(split)
    ]


def _errors(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(found[name]) for name in METRICS if name in found}


def _frames(found: Mapping[str, Any]) -> int:
    return int(found.get("frames") or found.get("frames_2d") or 0)


# ------------------------------------------------------------------------------------------ what the numbers mean


def _sentences(split: str, protocol: str, runs: Sequence[Run], rows: Sequence[Row]) -> Iterator[str]:
    """What the rows mean for the first run, against each of the others, and what that decides."""
    if not rows:
        return
    first, *others = rows
    if (genders := runs[0].splits[split].get(LABEL_BODY, NEUTRAL_BODY)) != NEUTRAL_BODY:
        yield f"Labels are by gendered bodies ({genders}), predictions by the neutral one."
    yield from of_labels(next((row.errors for row in others if row.model == MEAN_BODY), {}), first.model, first.errors)
    if protocol != "default":
        return
    for row in others:
        texts = [against(first.model, first.errors, row.model, row.errors)]
        texts += [_by_track(runs[0], run, split) for run in runs[1:] if run.name == row.model]
        yield " ".join(filter(None, texts))
    yield from decides(rows, runs[0], split)


def against(model: str, own: Errors, other: str, its: Errors) -> str:
    """By which errors the model is better than the other one, by which it is worse, and by how much.

    >>> against("a", {"pa_mpjpe": 50.0, "pck": 80.0}, "b", {"pa_mpjpe": 55.0, "pck": 81.5})
    'a against b: better by PA-MPJPE (5.0 mm); worse by PCK (1.5 points).'
    """
    sides: dict[str, list[str]] = {"better": [], "worse": [], "the same": []}
    for name, metric in METRICS.items():
        if metric.lower_is_better is None or name not in own or name not in its:
            continue
        gain = (its[name] - own[name]) * (1 if metric.lower_is_better else -1)
        unit = "points" if metric.unit == "%" else metric.unit
        if abs(gain) < 0.05:
            sides["the same"].append(metric.title)
        else:
            sides["better" if gain > 0 else "worse"].append(f"{metric.title} ({abs(gain):.1f} {unit})")
    texts = [f"{side} by {', '.join(names)}" for side, names in sides.items() if names]
    return f"{model} against {other}: {'; '.join(texts) or 'no error that both have'}."


def _by_track(one: Run, other: Run, split: str) -> str:
    """In how many tracks of the split the first one's PA-MPJPE is lower; "" where that is not known of both."""
    own, its = (
        {row.get("track"): row["pa_mpjpe"] for row in of_split(run.sequences, split) if "pa_mpjpe" in row}
        for run in (one, other)
    )
    both = own.keys() & its.keys()
    lower = sum(own[track] < its[track] for track in both)
    return f"By track, its PA-MPJPE is lower than that of {other.name} in {lower} of {len(both)}." if both else ""


def decides(rows: Sequence[Row], run: Run, split: str) -> Iterator[str]:
    """How much the differences between the first row and the others, of `run` and others, stand for."""
    first, *others = rows
    n_tracks = len({row.get("track") for row in of_split(run.sequences, split)})
    of = count(first.frames or 0, "frame") + (f" of {count(n_tracks, 'track')}" if n_tracks else "")
    seed = f", seed {run.config.seed}" if run.config is not None else ""
    yield f"Counted: {of}; one training run of each model{seed}."
    low, high = SEED_SPREAD_MM
    own = first.errors.get("pa_mpjpe", float("nan"))
    if near := [f"“{row.model}”" for row in others if abs(own - row.errors.get("pa_mpjpe", own + 1e9)) <= 2 * high]:
        yield (
            f"Between “{first.model}” and {listed(near)} this does not decide: runs of other seeds differ by a few mm. "
            f"On demo data, the standard deviation of PA-MPJPE over three seeds was {low} to {high} mm "
            f"(benchmarks/learning.md), so that another seed may reverse a difference below {2 * high} mm. "
            "Train with other seeds to see the spread of your data."
        )
    if 0 < n_tracks < FEW_TRACKS:
        yield f"{count(n_tracks, 'track')}: too few to generalise to other people and videos."
    if run.stand_in:
        yield "DEMO DATA: it says nothing about these models on real video."


def of_labels(baseline: Errors, model: str, own: Errors) -> Iterator[str]:
    """The labels' own acceleration, which is the acceleration error of a body that never moves."""
    if baseline.get("accel") == 0 and "accel_error" in baseline:
        beside = f"; that of {model} is {own['accel']:.1f}" if "accel" in own else ""
        its = f"{baseline['accel_error']:.1f} mm per frame²"
        yield f"The labels' own acceleration is {its}: accel is to be near that{beside}."


# ------------------------------------------------------------------------------------------- ablation, parts of splits


def _ablation(content: Mapping[str, Any]) -> Iterator[Table]:
    """The ablation's rows as tables."""
    tables: dict[tuple[str, str], list[Row]] = {}
    for row in content.get("rows", []):
        means = {name: value["mean"] for name, value in row["errors"].items() if name in METRICS}
        name = row["model"] + (f" (mean of {row['seeds']} seeds)" if row["seeds"] != 1 else "")
        tables.setdefault((row["split"], row["protocol"]), []).append(Row(name, means, row["frames"]))
    for (split, protocol), rows in tables.items():
        yield Table(protocol, f"{split}, protocol “{protocol}”", split, rows)


def of_split(rows: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    """Rows of sequences.json or worst_windows.json that are of one split."""
    return [row for row in rows if row.get("split") == split]


def _listings(run: Run, cache: str) -> Iterator[dict[str, Any]]:
    """Results of one run on the tracks of each split, and on its worst windows; the worst first.

    `look`: the command that shows the first of them.
    """
    listed = []
    for split in dict.fromkeys(str(row.get("split")) for row in run.sequences):
        here = sorted(of_split(run.sequences, split), key=badness)
        of = f"all {len(here)}" if len(here) <= MOST_SEQUENCES else f"the worst {MOST_SEQUENCES} of {len(here):,}"
        caption = f"{run.name} on {split} by sequence, {of}, the worst first; all are in sequences.csv of the run"
        listed.append((caption, split, here[:MOST_SEQUENCES]))
    for split in dict.fromkeys(str(row.get("split")) for row in run.worst_windows):
        here = of_split(run.worst_windows, split)[:MOST_WINDOWS]
        caption = f"{run.name} on {split}: the {len(here)} worst windows; more are in worst_windows.csv of the run"
        listed.append((caption, split, here))
    for caption, split, rows in listed:
        columns = [name for name in METRICS if any(name in row for row in rows)]
        words = (*split.split("/", 1), "--cache", cache, "--track", str(rows[0].get("track")), "--out", "track.html")
        look = command("show", *words)
        yield {"caption": caption, "split": split, "columns": columns, "rows": rows, "look": look}


def badness(row: Mapping[str, Any]) -> tuple[float, str]:
    """The largest PA-MPJPE first; without 3D labels, the smallest 2D PCK."""
    worst = -float(row["pa_mpjpe"]) if "pa_mpjpe" in row else float(row.get("pck_2d", 100.0))
    return worst, str(row.get("track"))


# ------------------------------------------------------------------------------- files beside the page


def as_csv(splits: Mapping[str, Sequence[Table]]) -> str:
    """A line of names, then a line a row of every table; an error that is not known is left empty."""
    lines: list[tuple[Any, ...]] = [("split", "protocol", "model", *METRICS, "frames")]
    for split, one in ((split, one) for split, tables in splits.items() for one in tables):
        for row in one.rows:
            errors = (f"{row.errors[name]:.2f}" if name in row.errors else "" for name in METRICS)
            lines.append((split, one.key, row.model, *errors, "" if row.frames is None else row.frames))
    return csv_text(lines)


def as_latex(splits: Mapping[str, Sequence[Table]], *, stand_in: bool) -> str:
    """A tabular of each split by the default protocol. stand_in: on demo data, which its first line reports."""
    lines = ["% DEMO DATA: no number here is a scientific result"] * stand_in + [f"% {UNITS}"]
    for split, (table, *_) in splits.items():
        header = ["model", *(METRICS[name].title for name in table.columns)]
        shape = "l" + "r" * len(table.columns)
        lines += [f"% {split}", rf"\begin{{tabular}}{{{shape}}}", r"\hline", _line(header), r"\hline"]
        for row in table.rows:
            errors = [f"{row.errors[name]:.1f}" if name in row.errors else "--" for name in table.columns]
            lines.append(_line([row.model, *errors]))
        lines += [r"\hline", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(re.sub(r"[&%$#_{}]", r"\\\g<0>", cell) for cell in cells) + r" \\"
