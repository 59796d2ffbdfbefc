"""Raw to results through the `luigi` command, and what a second run does: nothing."""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

import pytest

from tasks.training import as_csv, result_rows
from vibe_model.metrics import UNITS

PROBE = """
import sys
from typing import Any
from luigi.cmdline import luigi_run
try:
    luigi_run(sys.argv[1:])
finally:
    print("imported:", *sorted({"torch", "torchvision", "smplx"} & sys.modules.keys()))
"""
STAGES = [
    *("convert 3dpw/test", "convert 3dpw/train", "convert 3dpw/validation", "convert amass/train"),
    *("extract 3dpw/test", "extract 3dpw/train", "extract 3dpw/validation"),
]


def test_one_command_goes_from_raw_files_to_an_evaluated_model(made) -> None:
    assert made.synthesized.code == 0, made.synthesized.shown
    assert made.evaluated.code == 0, made.evaluated.shown
    assert sorted(made.evaluated.done[:7]) == STAGES
    assert made.evaluated.done[7:] == ["data 2 datasets", "train VIBE, tiny"]


def test_all_conversions_come_before_the_first_extraction(made) -> None:
    verbs = [line.split()[0] for line in made.evaluated.done[:7]]
    assert verbs == sorted(verbs)


def test_it_says_at_the_start_what_data_it_is_and_at_the_end_where_to_look(made) -> None:
    lines = made.evaluated.shown.splitlines()
    assert lines[0] == "data       stand-in (seed 0, tiny), in raw: 3dpw, amass"
    assert lines[1] == "cache      cache"
    run = made.project.runs[0].name
    assert lines[-4].startswith("STAND-IN   ")
    assert lines[-3] == f"numbers    runs/{run}/results.csv (both protocols), runs/{run}/metrics.json (all)"
    assert lines[-2].startswith("curves     ")
    assert lines[-2].endswith(" -m tensorboard.main --logdir runs")
    assert lines[-1].endswith(" -m pipeline status --cache cache")


def test_the_terminal_shows_our_lines_alone(made) -> None:
    starts = ("data ", "cache ", "✓ ", "· ", "3dpw/test ", "VIBE", "mean ", "STAND-IN", "numbers", "curves", "  train ")
    strange = [line for line in made.evaluated.shown.splitlines() if line and not line.startswith((*starts, "status"))]
    assert strange == []


def test_the_printed_table_and_results_csv_agree_with_metrics_json(made) -> None:
    metrics = json.loads((made.project.runs[0] / "metrics.json").read_text())
    with (made.project.runs[0] / "results.csv").open() as stream:
        written = {(row["split"], row["protocol"], row["model"]): row for row in csv.DictReader(stream)}
    result = metrics["3dpw/test"]
    truth = {
        ("default", "VIBE"): result,
        ("default", "mean body"): result["baseline"],
        ("published", "VIBE"): result["published"],
        ("published", "mean body"): result["published"]["baseline"],
    }
    assert written.keys() == {("3dpw/test", *key) for key in truth}
    names = ("pa_mpjpe", "mpjpe", "pve", "accel", "accel_error")
    for key, values in truth.items():
        row = written["3dpw/test", *key]
        assert [float(row[name]) for name in names] == pytest.approx([values[name] for name in names], abs=0.005)
    lines = made.evaluated.shown.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("3dpw/test "))
    mean = result["baseline"]
    assert lines[first + 1].split() == ["VIBE", *(f"{result[name]:.1f}" for name in names), str(result["frames"])]
    assert lines[first + 2].split() == ["mean", "body", *(f"{mean[name]:.1f}" for name in names), str(result["frames"])]


def test_the_table_fits_into_80_columns_with_a_header_of_one_line(made) -> None:
    lines = made.evaluated.shown.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("3dpw/test "))
    header = ["3dpw/test", "PA-MPJPE", "MPJPE", "PVE", "accel", "accel", "error", "frames"]
    assert lines[first].split() == header
    assert max(len(line.rstrip()) for line in lines[first : first + 4]) <= 80
    assert lines[first + 3] == UNITS


def test_run_again_nothing_runs_nothing_changes_and_no_torch_is_imported(made) -> None:
    before = made.project.files()
    again = made.project.luigi("EvaluateVIBE", command=(sys.executable, "-c", PROBE))
    assert again.code == 0, again.shown
    assert again.done == []
    assert "· evaluate VIBE up to date, nothing to do" in " ".join(again.shown.split())
    assert again.shown.splitlines()[-1] == "imported:"
    assert made.project.files() == before


def test_results_that_are_not_those_of_metrics_json_are_written_again(project, build) -> None:
    results = project.runs[0] / "results.csv"
    good = results.read_text()
    results.write_text(good[:40])  # as somebody's editor may leave it
    assert build(project, "EvaluateVIBE").code == 0
    assert results.read_text() == good


def test_an_error_that_no_frame_has_a_label_for_is_left_empty() -> None:
    values = {"pa_mpjpe": 41.256, "mpjpe": 60.0, "frames": 12, "baseline": {"pa_mpjpe": 50.0}}
    metrics = {"stand_in": False, "h36m/val": {**values, "published": {**values, "frames": 9}}}
    assert as_csv(result_rows(metrics)).splitlines() == [
        "split,protocol,model,pa_mpjpe,mpjpe,pve,accel,accel_error,pck,auc,pck_2d,frames",
        "h36m/val,default,VIBE,41.26,60.0,,,,,,,12",
        "h36m/val,default,mean body,50.0,,,,,,,,12",
        "h36m/val,published,VIBE,41.26,60.0,,,,,,,9",
        "h36m/val,published,mean body,50.0,,,,,,,,9",
    ]


def test_the_per_frame_baseline_stands_in_the_table_plain_and_smoothed() -> None:
    def of(pa_mpjpe: float, **more: Any) -> dict[str, Any]:
        return {"pa_mpjpe": pa_mpjpe, "frames": 12, "baseline": {"pa_mpjpe": 50.0}, **more}

    own = {"h36m/val": of(41.0, published=of(42.0))}
    smoothed = {"sigma": 2.0, "pa_mpjpe": 43.5}
    per_frame = {"h36m/val": of(44.0, smoothed=smoothed, published=of(45.0, smoothed={"sigma": 2.0, "pa_mpjpe": 46.0}))}
    found = [(row["protocol"], row["model"], row["pa_mpjpe"]) for row in result_rows(own, per_frame)]
    assert found == [
        ("default", "VIBE", 41.0),
        ("default", "per frame", 44.0),
        ("default", "per frame, smoothed", 43.5),
        ("default", "mean body", 50.0),
        ("published", "VIBE", 42.0),
        ("published", "per frame", 45.0),
        ("published", "per frame, smoothed", 46.0),
        ("published", "mean body", 50.0),
    ]
