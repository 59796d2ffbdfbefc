"""Training, evaluation and provenance on the page, of runs whose numbers were written by hand."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from html import unescape
from pathlib import Path

import pytest

from tasks.report.assembly import ReportContent, recorded_fingerprint
from tasks.report.curves import plots_of
from tasks.report.results import tables_of
from tasks.report.runs import read_curves, read_run, split_uses
from tests.tasks.report.conftest import person, write_split
from tests.tasks.report.runs_by_hand import SPLIT, log, make_run, metrics
from vibe_model import models

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(tmp_path):
    """`make_run` in the test's own folder."""
    return partial(make_run, tmp_path)


def words(html):
    """What a person reads of it."""
    return " ".join(
        unescape(
            re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", " ", html, flags=re.DOTALL)
        ).split()
    )


def test_curves_are_what_was_logged(tmp_path):
    log(tmp_path, {step: {"train/total": 100.0 + step} for step in (1, 2, 5)})
    found = read_curves(tmp_path)
    curve = found.curves["train/total"]
    assert ([*curve.steps], [*curve.values]) == ([1, 2, 5], [101, 102, 105])
    assert (found.seconds, found.problems) == (4.0, [])


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
    assert plots["vibe-0123: PA-MPJPE on 3dpw/validation"].rows == [
        ("1", 70.0),
        ("2", 60.0),
        ("3", 65.0),
    ]
    loss = plots["vibe-0123: Loss"]
    assert "the mean of 2 logged ones" in loss.caption
    assert (loss.rows[0], loss.rows[-1]) == (("2", 1.5), ("400", 399.5))


def test_published_figures_are_in_the_table_of_their_protocol_and_those_that_compare_are_marked(
    make,
):
    default, by_protocol = tables_of(SPLIT, [read_run(make(), "VIBE")])
    assert [row.model for row in default.rows] == ["VIBE", "mean body"]
    extra_streams = {row.model: (row.errors["pa_mpjpe"], row.about) for row in by_protocol.rows[2:]}
    assert extra_streams["VIBE, paper, with 3DPW train"][0] == 51.9
    assert {"VIBE, checkpoint, no 3DPW train", "part dynamics, paper"} < extra_streams.keys()
    applies = [model for model, (_, about) in extra_streams.items() if "as VIBE here" in about]
    assert applies == ["VIBE, paper, with 3DPW train"]


def test_every_split_is_listed_with_its_use(tmp_path):
    one, other = (
        read_run(make_run(tmp_path), "VIBE"),
        read_run(make_run(tmp_path, "other"), "other"),
    )
    uses = split_uses([one, other])
    assert "penn_action/train" not in uses
    assert uses["insta_variety/train"] == "training, 2D"
    assert uses["amass/train"] == "real motion"
    hmmr = models.find("hmmr").presets["embedded"]().as_dict()
    third = read_run(make_run(tmp_path, "third", config=hmmr, of_model="hmmr"), "HMMR")
    assert split_uses([one, third])["kinetics/train"] == "training, 2D (HMMR)"


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
        content = ReportContent(own, None, None, "resnet50", tmp_path / "runs", found)
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


def test_a_whole_page_is_made_without_torch_and_records_its_fingerprint(make, tmp_path):
    root, out, folder = tmp_path / "cache", tmp_path / "page.html", make()
    write_split(root, "penn_action/train", {"a/0": person(8)})
    code = (
        "import sys; from pathlib import Path\nfrom tasks.report.assembly import "
        f"ReportContent, write_report\nruns = Path({str(folder)!r})\nof = "
        f"ReportContent({str(root)!r}, None, None, 'resnet50', runs.parent, (('VIBE', "
        f"runs),))\nsize, mark = write_report(of, Path({str(out)!r}))\nprint(size.split()[0], "
        "mark, 'torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == ["5", "demo", "data", "False"]
    content = ReportContent(str(root), None, None, "resnet50", tmp_path, (("VIBE", folder),))
    assert recorded_fingerprint(out) == content.fingerprint()
