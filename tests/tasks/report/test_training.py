"""Training, evaluation and provenance on the page, of runs whose numbers were written by hand."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tasks.report.assembly import ReportContent
from tasks.report.curves import plots_of
from tasks.report.results import results_section
from tasks.report.runs import read_curves, read_run
from tests.tasks.report.runs_by_hand import SPLIT, log, make_run, metrics

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path):
    """`make_run` in the test's own folder."""
    return partial(make_run, tmp_path)


DAMAGED = [
    '[11, 1.0, {"train/to',
    "<html>",
    "[1, 2, 3]",
    "null",
    "[1, 2]",
    '[1e999, 1, {"a": 1}]',
    '[1, 1, {"a": "b"}]',
]


@pytest.mark.parametrize("line", DAMAGED)
def test_damaged_curves_count_as_far_as_they_can_be_read(line, tmp_path):
    file = log(tmp_path, {step: {"train/total": float(step)} for step in range(1, 11)})
    with file.open("a") as lines:
        lines.write(line)
    found = read_curves(tmp_path)
    assert [*found.curves["train/total"].steps] == list(range(1, 11))
    assert all(len(curve.steps) == len(curve.values) for curve in found.curves.values())
    (problem,) = found.problems
    assert problem.startswith(f"{file}, line 11: ")
    assert "damaged or being written" in problem


def test_validation_is_shown_by_epoch_and_long_curves_as_means(make):
    folder = make()
    log(folder, {step: {"train/total": float(step)} for step in range(31, 401)})
    plots = {plot.title: plot for plot in plots_of(read_run(folder), 0)}
    (validation,) = plots["vibe-0123: PA-MPJPE on 3dpw/validation"].series.values()
    assert validation == ([1, 2, 3], [70.0, 60.0, 65.0])
    loss = plots["vibe-0123: Loss"]
    assert "the mean of 2 logged ones" in loss.caption
    first, *_, last = zip(*loss.series["total"], strict=True)
    assert (first, last) == ((2, 1.5), (400, 399.5))


def test_published_figures_are_beside_real_results_alone(make):
    table = results_section([read_run(make(), "VIBE")]).data["splits"][SPLIT]
    by_model = {(row.protocol, row.model): row.errors["pa_mpjpe"] for row in table.rows}
    ours = [("default", "VIBE"), ("default", "mean body"), ("published", "VIBE")]
    assert [*by_model][:3] == ours
    assert by_model["published", "VIBE, paper, with 3DPW train"] == 51.9
    demo = results_section([read_run(make("demo", stand_in=True), "VIBE")]).data["splits"][SPLIT]
    assert len(demo.rows) == 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "expected JSON"),
        ("[]", "expected an object, found list"),
        ('{"3dpw/test": {"pa_mpjpe": 1}}', "3dpw/test: expected metrics with a baseline"),
        ('{"3dpw/test": 5}', "3dpw/test: expected metrics with a baseline"),
    ],
)
def test_damaged_metrics_are_reported_with_what_to_do(content, reason, make):
    (file := make() / "metrics.json").write_text(content)
    found = read_run(file.parent)
    assert found.metrics == {}
    (problem,) = found.problems
    assert problem.startswith(f"{file}: ")
    assert reason in problem
    assert "Delete it and run the training command again" in problem


def test_the_fingerprint_follows_what_is_shown_and_nothing_else(root, make, tmp_path):
    own, folder = tmp_path / "cache", make()
    shutil.copytree(root, own)

    def fingerprint(*folders, **more):
        found = tuple((f.name, f) for f in folders)
        content = ReportContent(own, None, None, "resnet50", found)
        return replace(content, **more).fingerprint()

    seen = [fingerprint(folder)]
    (folder / "last.pt").write_bytes(b"not shown")
    assert fingerprint(folder) == seen[0]
    (folder / "metrics.json").write_text(json.dumps(metrics(pa_mpjpe=50.0)))
    seen.append(fingerprint(folder))
    log(folder, {31: {"train/total": 1.0}})
    seen += [fingerprint(folder), fingerprint(), fingerprint(folder, notes=("another note",))]
    body = tmp_path / "body"
    seen.append(fingerprint(folder, body=body))
    body.mkdir()
    (body / "SMPL_NEUTRAL.pkl").write_bytes(b"a model")
    seen.append(fingerprint(folder, body=body))
    for raw in (tmp_path / "raw", tmp_path / "other raw"):
        (raw / "3dpw").mkdir(parents=True)
        seen.append(fingerprint(folder, raw=raw))
    shutil.rmtree(own / "amass")
    seen.append(fingerprint(folder))
    shutil.rmtree(own)
    seen.append(fingerprint(folder))
    assert len(set(seen)) == len(seen)
