"""`python -m tasks evaluate`: the model of a checkpoint on splits of a cache."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

import cache
from pipeline.cli.progress import silent
from pipeline.errors import PipelineError
from pipeline.features.streams.resnet50 import ResNet50
from tasks import evaluation as evaluate
from tasks.__main__ import main
from tasks.prediction import predict
from tasks.prediction.trained import load
from tests.tasks.conftest import FakeNetwork
from tests.tasks.prediction.predicting import World, make_world, save_checkpoint, small_config
from vibe_model.errors import StandInMixed
from vibe_model.evaluation.evaluate import evaluate_split

SPLIT = "new_video/keypoints"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def job(world, tmp_path_factory) -> predict.Job:
    """A split with 2D labels, and an untrained model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResNet50, "load", lambda stream, machine, recorded: FakeNetwork(stream))
        made = world.job(tmp_path_factory.mktemp("made"))
        predict.make_tracks(made, silent)
        predict.make_features(made, silent)
    return made


def test_it_says_what_evaluation_says_of_the_model_built_by_hand(world, job, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("tasks.prediction.trained.load_body", lambda folder: job.trained.generator.body)
    words = ["evaluate", "--checkpoint", world.checkpoint, "--cache", job.root, "--split", SPLIT, "--body", tmp_path]
    assert main([str(word) for word in (*words, "--device", "cpu", "--out", tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    expected = evaluate_split(job.trained.generator, job.split(), stream="resnet50", seqlen=job.trained.seqlen)
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written[SPLIT]["pck_2d"] == pytest.approx(expected["pck_2d"])
    assert written["stand_in"] is True
    with (tmp_path / "out/results.csv").open() as stream:
        assert {row["model"] for row in csv.DictReader(stream)} == {"VIBE", "mean body"}
    first = next(line.split() for line in shown.splitlines() if line.startswith("VIBE"))
    assert f"{expected['pck_2d']:.1f}" in first
    assert "STAND-IN" in shown


def test_a_split_that_is_not_there_is_told_with_those_that_are(job) -> None:
    with pytest.raises(PipelineError, match=r"expected 3dpw/test with the stream 'resnet50', found splits new_video"):
        evaluate.chosen_splits(job.trained, cache.open(job.root), ["3dpw/test"], "resnet50")


def test_without_a_name_what_the_cache_has_of_the_model_s_own_evaluation_is_taken(job, tmp_path) -> None:
    config = small_config(evaluation=("3dpw/test", SPLIT))
    save_checkpoint(tmp_path / "own.pt", config)
    trained = load(tmp_path / "own.pt", None, "cpu")
    assert list(evaluate.chosen_splits(trained, cache.open(job.root), [], "resnet50")) == [SPLIT]


def test_a_model_of_real_data_is_not_evaluated_on_stand_ins(job) -> None:
    with pytest.raises(StandInMixed, match=SPLIT):
        evaluate.chosen_splits(replace(job.trained, stand_in=False), cache.open(job.root), [SPLIT], "resnet50")


def test_published_figures_stand_beside_real_results_and_never_beside_stand_ins() -> None:
    values = {"pa_mpjpe": 50.0, "frames": 9, "baseline": {"pa_mpjpe": 60.0}}
    result = {"3dpw/test": {**values, "published": values}}
    real = evaluate.rows_beside_published({"stand_in": False, **result})["3dpw/test"]
    stand_in = evaluate.rows_beside_published({"stand_in": True, **result})["3dpw/test"]
    assert [row["model"] for row in stand_in] == ["VIBE", "mean body", "VIBE", "mean body"]
    assert real[:4] == stand_in
    assert {row["pa_mpjpe"] for row in real[4:]} >= {56.5, 51.9}  # the paper's, without and with 3DPW
    assert {row["protocol"] for row in real[4:]} == {"published"}


def test_a_terminal_that_knows_no_tick_is_no_reason_to_fail() -> None:
    code = "from pipeline.cli.command_line import show_any_symbol; show_any_symbol(); print('✓ ²')"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (answer.returncode, answer.stdout.strip()) == (0, r"\u2713 \xb2")
