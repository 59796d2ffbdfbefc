"""The paper's ablation as one table: runs of variants and seeds -> mean and spread.  training -> [evaluation]

The ablations of Kocabas et al., CVPR 2020: a row a model, a column an error. Here also the baselines that a temporal
model has to beat, acceleration errors, and how far the seeds of one model lie apart.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Final, NamedTuple

from vibe_model.metrics import ERRORS, PROTOCOLS
from vibe_model.settings.variants import PER_FRAME

Metrics = Mapping[str, Any]  # a run's metrics.json
Runs = Mapping[str, Mapping[str, Metrics]]  # by variant, and by the name of the run's folder: a seed each

AS_CONFIGURED: Final = "configured"  # the variant that changes nothing
NAMES: Final = {  # much as the paper's tables call them; attention: [layers, size]
    AS_CONFIGURED: "VIBE, as configured",
    PER_FRAME: "per frame, no temporal encoder",
    "generator-only": "only G",
    "mposer": "G + MPoser prior",
    "concat": "G + D_M, concat",
    "attention-2x512": "G + D_M, attention [2, 512]",
    "attention-2x1024": "G + D_M, attention [2, 1024]",
    "attention-3x512": "G + D_M, attention [3, 512]",
    "attention-3x1024": "G + D_M, attention [3, 1024]",
    "without-3dpw": "VIBE, trained without 3DPW",
}
OF_PAPER: Final = ("pa_mpjpe", "mpjpe", "pve", "accel", "accel_error")  # what a terminal has room for
MEAN_BODY: Final = "constant mean body"
SMOOTHED: Final = "per frame, smoothed in time"
UNITS: Final = "Mean errors over frames: in mm, accelerations in mm per frame², PCK and AUC in %."
STAND_IN: Final = (
    "STAND-IN: synthetic pictures, a procedural body or an untrained network. No number here is a scientific result, "
    "and none can be compared with the paper's."
)


class Value(NamedTuple):
    """One number of the table."""

    mean: float  # over the seeds
    spread: float | None  # their standard deviation, of a sample; None where there is one seed


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one split, by one protocol."""

    split: str
    protocol: str
    model: str
    seeds: int  # how many runs it stands for
    frames: int
    errors: Mapping[str, Value]  # by the names of ERRORS; those that no frame has a label for are absent


def table(runs: Runs) -> list[Row]:
    """Every model of the runs on every split that they were evaluated on, the baselines first."""
    if not runs or not all(runs.values()):
        raise ValueError("expected at least one run of each variant")
    first = next(iter(next(iter(runs.values())).values()))
    splits = [name for name in first if "/" in name]  # the others are facts of the run
    return [row for split in splits for protocol in PROTOCOLS for row in _rows(runs, split, protocol)]


def _rows(runs: Runs, split: str, protocol: str) -> Iterator[Row]:
    results = {variant: [_of(m[split], protocol) for m in by_seed.values()] for variant, by_seed in runs.items()}
    first = next(iter(results.values()))[0]
    # It is the same for every run.
    yield _row(split, protocol, MEAN_BODY, [first["baseline"]], first["frames"])
    for variant, found in results.items():
        yield _row(split, protocol, NAMES.get(variant, variant), found, found[0]["frames"])
        if variant == PER_FRAME and all("smoothed" in result for result in found):
            yield _row(split, protocol, SMOOTHED, [result["smoothed"] for result in found], found[0]["frames"])


def _of(result: Metrics, protocol: str) -> Metrics:
    published: Metrics = result["published"]
    return published if protocol == "published" else result


def _row(split: str, protocol: str, model: str, found: Sequence[Metrics], frames: int) -> Row:
    errors = {name: _value([each[name] for each in found]) for name in ERRORS if all(name in each for each in found)}
    return Row(split, protocol, model, len(found), frames, errors)


def _value(numbers: Sequence[float]) -> Value:
    return Value(fmean(numbers), stdev(numbers) if len(numbers) > 1 else None)


def as_csv(rows: Sequence[Row]) -> str:
    """A line a row; of each error its mean and its spread, empty where there is none."""
    errors = [column for name in ERRORS for column in (name, f"{name}_spread")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "protocol", "model", "seeds", *errors, "frames"])
    for row in rows:
        values = [number for name in ERRORS for number in row.errors.get(name, (None, None))]
        rounded = ["" if number is None else round(number, 2) for number in values]
        writer.writerow([row.split, row.protocol, row.model, row.seeds, *rounded, row.frames])
    return text.getvalue()


def as_json(runs: Runs, rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    """The rows with all digits, which runs they stand for, and whether these are stand-ins."""
    plain = [{**asdict(row), "errors": {name: value._asdict() for name, value in row.errors.items()}} for row in rows]
    content = {
        "stand_in": is_stand_in(runs),
        "runs": {variant: list(by_folder) for variant, by_folder in runs.items()},
        "left_out": dict(left_out),
        "rows": plain,
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_markdown(runs: Runs, rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    """A table a split and protocol, for people."""
    lines = ["# Ablation", ""]
    if is_stand_in(runs):
        lines += [f"**{STAND_IN}**", ""]
    lines += [
        "The form is that of the ablations of Kocabas et al., VIBE, CVPR 2020.",
        f"{UNITS} {spread_in_words(rows)}",
    ]
    for split, protocol in dict.fromkeys((row.split, row.protocol) for row in rows):
        here = [row for row in rows if (row.split, row.protocol) == (split, protocol)]
        lines += ["", f"## {split}, protocol {protocol}, {here[0].frames:,} frames", "", *_markdown_table(here)]
    if left_out:
        lines += ["", "Left out:", "", *(f"- {name}: {why}" for name, why in left_out.items())]
    lines += ["", "The runs:", ""]
    lines += [f"- {variant}: {', '.join(f'`{folder}`' for folder in folders)}" for variant, folders in runs.items()]
    return "\n".join([*lines, ""])


def _markdown_table(rows: Sequence[Row]) -> Iterator[str]:
    names = columns(rows)
    yield "| model | " + " | ".join(ERRORS[name] for name in names) + " |"
    yield "|---|" + "---:|" * len(names)
    for row in rows:
        yield f"| {row.model} | " + " | ".join(shown(row.errors.get(name)) for name in names) + " |"


def as_text(rows: Sequence[Row]) -> Iterator[str]:
    """The rows of one split, for a terminal: the paper's errors, and others only where there are none of these."""
    names = [name for name in columns(rows) if name in OF_PAPER] or columns(rows)
    cells = [["", *(ERRORS[name] for name in names)]]
    cells += [[row.model, *(shown(row.errors.get(name)) for name in names)] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    for model, *numbers in cells:
        yield model.ljust(first) + "".join(n.rjust(width + 2) for n, width in zip(numbers, others, strict=True))


def columns(rows: Sequence[Row]) -> list[str]:
    """The errors that any of the rows has."""
    return [name for name in ERRORS if any(name in row.errors for row in rows)]


def shown(value: Value | None) -> str:
    """
    >>> shown(Value(51.94, 0.26)), shown(Value(51.94, None)), shown(None)
    ('51.9 ± 0.3', '51.9', '-')
    """
    if value is None:
        return "-"
    return f"{value.mean:.1f}" + ("" if value.spread is None else f" ± {value.spread:.1f}")


def spread_in_words(rows: Sequence[Row]) -> str:
    """What stands behind ±."""
    seeds = max(row.seeds for row in rows)
    return "One seed." if seeds == 1 else f"Mean ± standard deviation over {seeds} seeds."


def is_stand_in(runs: Runs) -> bool:
    """Is any of the runs one of stand-in data?"""
    return any(metrics["stand_in"] for by_folder in runs.values() for metrics in by_folder.values())
