"""Whether a model is better than its baselines, in sentences whose numbers were worked out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.skeletons import JOINTS
from report.training import definitions
from report.training.comparison import SEED_SPREAD_MM, against, decides, of_labels
from report.training.results import tables_of
from report.training.run_folder import read_run
from tests.report.runs_by_hand import SPLIT, make_run, metrics
from vibe_model.metrics import ERRORS

LEARNING = Path(__file__).parents[3] / "benchmarks" / "learning.md"


def test_less_error_and_more_hits_are_better() -> None:
    told = against("a", {"pa_mpjpe": 50, "pck": 70, "auc": 40}, "b", {"pa_mpjpe": 53.5, "pck": 71, "auc": 40.01})
    assert told == "a against b: better by PA-MPJPE (3.5 mm); worse by PCK (1.0 points); the same by AUC."


def test_less_acceleration_is_neither_better_nor_worse() -> None:
    assert against("a", {"accel": 1.0}, "b", {"accel": 9.0}) == "a against b: no error that both have."


def test_the_labels_acceleration_is_the_error_of_a_body_that_never_moves() -> None:
    told = of_labels({"accel": 0.0, "accel_error": 3.04}, "VIBE", {"accel": 25.93})
    assert "The labels' own acceleration is 3.0 mm per frame²" in told
    assert "that of VIBE is 25.9." in told
    assert of_labels({"accel": 4.0, "accel_error": 3.04}, "VIBE", {}) == ""


@pytest.mark.parametrize(("its", "open_"), [(55.0, True), (62.9, True), (64.0, False)])
def test_what_another_seed_may_turn_round_decides_nothing(tmp_path: Path, its: float, open_: bool) -> None:
    run = read_run(make_run(tmp_path), "VIBE")
    told = " ".join(decides("VIBE", {"pa_mpjpe": 51.25}, {"per frame": {"pa_mpjpe": its}}, run, SPLIT, 1234))
    assert ("“per frame” this decides nothing" in told) == open_
    assert "Counted: 1,234 frames of 2 tracks; one training run of each model, seed 0." in told
    assert "2 tracks: too few" in told


def test_the_spread_over_seeds_is_the_measured_one() -> None:
    rows = [line.split("|")[2] for line in LEARNING.read_text().splitlines() if " ± " in line and line[0] == "|"]
    spreads = [float(re.findall(r"± ([\d.]+)", cell)[0]) for cell in rows]
    measured = [spread for spread in spreads if spread]  # the mean body has no seed
    assert len(measured) > 10
    assert (round(min(measured)), round(max(measured))) == SEED_SPREAD_MM


def test_below_the_table_the_first_run_is_compared_with_every_other_row(tmp_path: Path) -> None:
    one, other = make_run(tmp_path, "one"), make_run(tmp_path, "other", stand_in=True)
    (other / "metrics.json").write_text(json.dumps(metrics(stand_in=True, pa_mpjpe=55.0)))
    table = tables_of(SPLIT, [read_run(one, "VIBE"), read_run(other, "per frame")])[0]
    assert table.said[0].startswith("VIBE against per frame: better by PA-MPJPE (3.8 mm)")
    assert "in 0 of 2" in table.said[0], "their results by track are the same"
    assert table.said[1].startswith("VIBE against mean body: better by PA-MPJPE (58.8 mm)")


def test_every_measure_is_defined() -> None:
    assert definitions.MEASURES.keys() == ERRORS.keys()
    pairs = [name for name in JOINTS["common14"] if name[0] == "l"]
    assert {f"{name[1:]}s" for name in pairs} == set(
        re.findall("ankles|knees|hips|wrists|elbows|shoulders", definitions.JOINTS_14)
    )
    assert len(JOINTS["common14"]) == 2 * len(pairs) + 2  # and neck and head's top
