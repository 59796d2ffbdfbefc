"""Is what `plan` forecasts what conversion and extraction then take?

    .venv/bin/python benchmarks/forecast.py

The demo data, and two larger made-up sets of some of the datasets, in the official layouts and with lengths that vary.
Of each training split, `plan --sample` forecasts person-frames, bytes by stream and hours; then `convert` and, of Penn
Action, `extract` do it, and `status --sizes` has what was written. Speeds of conversion are those of the sample; the
demo data's extraction has none to go by, the other sets are given its speed (`--rate`). Writes benchmarks/forecast.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline import datasets, synthetic

ROOT: Final = Path(__file__).parents[1]
SETS: Final[Mapping[str, Mapping[str, int]]] = {  # videos a split; none: as the demo data have
    "demo data": {},
    "made up": {"penn_action": 16, "posetrack": 8, "amass": 150},
    "made up, larger": {"posetrack": 20, "amass": 600},
}
EXTRACTED: Final = "penn_action"
WITHIN: Final = 0.15


class Line(NamedTuple):
    """One forecast, and what came of it."""

    of: str
    what: str
    forecast: float
    measured: float

    @property
    def off(self) -> float:
        """By which share of what was measured."""
        return self.forecast / self.measured - 1


def main() -> None:
    """Forecast, do, compare; print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--sample", type=int, default=16, help="videos that a forecast reads")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of made-up videos")
    parser.add_argument("--work", type=Path, help="folder for raw data and caches; default: a temporary one")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/forecast.md")
    args = parser.parse_args()
    found: list[Line] = []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        rate = None
        for name in args.sets:
            work = Path(folder, name.replace(" ", "_"))
            made = make(work, {of: max(2, round(n * args.scale)) for of, n in SETS[name].items()})
            lines, rate = compare(name, work, made, args.sample, rate)
            found += lines
    args.out.write_text(report(found, args.sample))
    print(args.out)


def make(work: Path, n_videos: Mapping[str, int]) -> tuple[str, ...]:
    """raw/<dataset> and body below a folder. Returns the datasets."""
    if not n_videos:
        synthetic.synthesize(work / "raw", work / "body", datasets.DATASETS)
        return tuple(datasets.DATASETS)
    for name, n in n_videos.items():
        synthetic.write_dataset(name, work / "raw" / name, n_videos=n, workers=os.cpu_count() or 1)
    synthetic.write_body(work / "body")
    return tuple(n_videos)


def compare(
    name: str, work: Path, of: tuple[str, ...], sample: int, rate: float | None
) -> tuple[list[Line], float | None]:
    """All of one set; and rows a second of the extraction."""
    root, found = work / "cache", list[Line]()
    for dataset in of:
        where = [dataset, "train", "--raw", str(work / "raw" / dataset), "--cache", str(root)]
        body = ["--body", str(work / "body")] if datasets.get(dataset).uses_body else []
        given = ["--weights", "untrained:0"] if dataset == EXTRACTED else []
        given += ["--rate", str(round(rate))] if rate and given else []
        (planned,) = json.loads(run("plan", *where, *body, *given, "--sample", str(sample), "--json"))
        expected = planned["forecast"]
        run("convert", *where, *body)
        rows, notes = stored(root, f"{dataset}/train")
        took = {"convert": notes[""]["seconds"]}
        if dataset == EXTRACTED:
            run("extract", dataset, "train", "--cache", str(root), "--weights", "untrained:0")
            rows, notes = stored(root, f"{dataset}/train")
            took["resnet50"] = notes["resnet50"]["seconds"]
        kept = rows["accounting"]["frames"]["kept"]
        found.append(Line(f"{name}: {dataset}", "person-frames", expected["rows"], kept))
        sizes = {"columns": rows["sizes"]["columns"], **rows["sizes"]["streams"]}
        for what, n_bytes in sizes.items():
            found.append(Line(f"{name}: {dataset}", f"bytes of {what}", expected["bytes"][what], n_bytes))
        for what, seconds in took.items():
            if expected["seconds"][what] is not None:
                found.append(Line(f"{name}: {dataset}", f"seconds of {what}", expected["seconds"][what], seconds))
        if dataset == EXTRACTED:
            rate = notes["resnet50"]["rows_a_second"]
    for line in found:
        print(
            f"{line.of:<32} {line.what:<20} {line.forecast:14,.1f} {line.measured:14,.1f} {line.off:+.1%}", flush=True
        )
    return found, rate


def stored(root: Path, split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `status --sizes` shows of a split; and what was measured, of its conversion ("") and of each stream."""
    import cache

    (row,) = (
        row for row in json.loads(run("status", "--cache", str(root), "--sizes", "--json")) if row["split"] == split
    )
    opened = cache.open(root)[split]
    notes = {"": opened.provenance} | {name: opened.stream_provenance(name) for name in opened.streams}
    return row, {name: note["measured"] for name, note in notes.items()}


def run(*words: str) -> str:
    """A command of `python -m pipeline`. Ends the benchmark when it fails."""
    command = [sys.executable, "-m", "pipeline", *words]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")
    return done.stdout


def report(found: list[Line], sample: int) -> str:
    """benchmarks/forecast.md."""
    exact = [line for line in found if not line.what.startswith("seconds")]
    timed = [line for line in found if line not in exact]
    lines = [
        "# Is what `plan` forecasts what conversion and extraction then take?",
        "",
        "DEMO DATA in the official layouts: it says nothing about the datasets. Made by",
        "`.venv/bin/python benchmarks/forecast.py`, which describes at its beginning what is compared.",
        "",
        f"{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, a load of {os.getloadavg()[1]:.0f}. Samples of up to {sample} videos a split.",
        "",
        *(f"- {text}" for text in _verdicts(exact, timed)),
        "",
        "| data | what | forecast | measured | off |",
        "|---|---|---|---|---|",
        *(f"| {one.of} | {one.what} | {one.forecast:,.4g} | {one.measured:,.4g} | {one.off:+.1%} |" for one in found),
    ]
    return "\n".join(lines) + "\n"


def _verdicts(exact: list[Line], timed: list[Line]) -> Iterator[str]:
    for what, of in (("person-frames and bytes", exact), ("seconds", timed)):
        within = sum(abs(line.off) <= WITHIN for line in of)
        worst = max(of, key=lambda line: abs(line.off))
        many = f"Of {len(of)} forecasts of {what}, {within} were within {WITHIN:.0%}"
        yield f"{many}; the worst is {worst.off:+.1%}, {worst.of}, {worst.what}."


if __name__ == "__main__":
    main()
