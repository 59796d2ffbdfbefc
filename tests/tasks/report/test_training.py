"""Training, evaluation and provenance on the page, of runs whose numbers were written by hand."""

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from tasks.report.assembly import ReportContent, _results_section
from tasks.report.curves import _plots_of
from tasks.report.runs import TrainingRun, _read_curves
from tests.environments import run
from tests.tasks.report.runs_by_hand import SPLIT, log, make_run, metrics

ROOT = Path(__file__).parents[3]


@pytest.fixture
def make(tmp_path):
    """`make_run` in the test's own folder."""
    return partial(make_run, tmp_path)


def test_a_line_of_curves_that_is_being_written_is_left_out(tmp_path):
    file = log(tmp_path, {step: {"train/total": float(step)} for step in range(1, 11)})
    with file.open("a") as lines:
        lines.write('[11, 1.0, {"train/to')
    found = _read_curves(tmp_path)
    assert [*found.curves["train/total"].steps] == list(range(1, 11))


def test_the_backend_of_a_notebook_that_started_the_report_is_not_asked_for():
    backend = "module://notebook_of_another_environment"
    ended = run([sys.executable, "-c", "import tasks.report.curves"], ROOT, MPLBACKEND=backend)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("settings", [None, {"of_the_future": 1}, {"seqlen": "x"}, {"cache": None}])
def test_settings_that_this_version_cannot_read_are_unknown(tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps({"config": settings}))
    assert TrainingRun.read(tmp_path, "vibe-0123").config is None


def test_validation_is_shown_by_epoch_and_long_curves_as_means(make):
    folder = make()
    log(folder, {step: {"train/total": float(step)} for step in range(31, 401)})
    plots = {plot.title: plot for plot in _plots_of(TrainingRun.read(folder, folder.name), 0)}
    (validation,) = plots["vibe-0123: PA-MPJPE on 3dpw/validation"].series.values()
    assert validation == ([1, 2, 3], [70.0, 60.0, 65.0])
    loss = plots["vibe-0123: Loss, weighted sum of all terms"]
    assert "the mean of 2 logged ones" in loss.caption
    first, *_, last = zip(*loss.series["total"], strict=True)
    assert (first, last) == ((2, 1.5), (400, 399.5))


def test_published_figures_are_beside_real_results_alone(make):
    for name, stand_in in (("demo", True), ("real", False)):
        found = _results_section([TrainingRun.read(make(name, stand_in=stand_in), "VIBE")])
        models = {row.model for row in found.data["splits"][SPLIT].rows}
        assert ("VIBE, paper, with 3DPW train" in models) is not stand_in


def test_damaged_metrics_are_named_with_what_to_do(make):
    (file := make() / "metrics.json").write_text("{")
    with pytest.raises(PipelineError, match=r"metrics\.json: expected JSON.* train again"):
        TrainingRun.read(file.parent, "VIBE")


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
