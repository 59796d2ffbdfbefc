"""`python -m tasks evaluate`: the model of a checkpoint on splits of a cache."""

import json
from dataclasses import replace

import pytest

import cache
from pipeline.errors import PipelineError, StandInMixed
from tasks.__main__ import main
from tasks.commands.evaluate import _chosen_splits
from tasks.evaluation import show_notes
from tasks.results import RunMetrics, rows_by_split
from tests.results import read_file
from tests.tasks.prediction.conftest import SPLIT, of_model, save_checkpoint, small_config
from vibe_model.evaluation.evaluate import EvalOptions, evaluate_split
from vibe_model.trained import Trained


@pytest.fixture
def words(world, job, tmp_path):
    words = (*of_model(world.checkpoint, tmp_path), "--cache", job.split.root, "--split", SPLIT)
    return ["evaluate", *map(str, words)]


def test_its_numbers_are_those_of_evaluation_called_by_hand(words, job, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/metrics.json").write_text("{}")  # such as of a run
    words += ["--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "what `evaluate` wrote; found something else" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    capsys.readouterr()
    assert main(words) == 0
    shown, warned = capsys.readouterr()
    assert f"{SPLIT} has no 3D joints" in warned
    expected = evaluate_split(
        job.trained.generator,
        job.split,
        EvalOptions(stream="resnet50", seqlen=job.trained.config.seqlen),
    )
    written = read_file(tmp_path / "out/metrics.json")
    assert written[SPLIT]["pck_2d"] == pytest.approx(expected["pck_2d"])
    assert written["stand_in"] is True
    assert (tmp_path / "out/results.csv").is_file()
    first = next(line.split() for line in shown.splitlines() if line.startswith("VIBE"))
    assert f"{expected['pck_2d']:.1f}" in first
    assert "Nothing measures depth" in shown
    save_checkpoint(tmp_path / "flat.pt", small_config(datasets_3d=(), prior="none"))
    main([*words, "--checkpoint", str(tmp_path / "flat.pt")])
    assert "depth is not learned" in capsys.readouterr().out


def test_protocols_are_named_and_whole_tracks_evaluated(words, job, capsys, monkeypatch):
    words = [*words, "--json", "--seqlen", "0"]
    assert main([*words, "--protocol", "hmmr", "--protocol", "default"]) == 0
    result = json.loads(capsys.readouterr().out)[SPLIT]
    expected = evaluate_split(
        job.trained.generator,
        job.split,
        EvalOptions(stream="resnet50", seqlen=0),
        protocol="hmmr",
    )
    assert (result["protocol"], result["pck_aligned"]) == (
        "hmmr",
        pytest.approx(expected["pck_aligned"]),
    )
    assert "default" in result
    assert "published" not in result
    assert main([*words, "--protocol", "publishd"]) == 2
    monkeypatch.setattr(
        "vibe_model.trained.Trained.load", lambda *_: pytest.fail("the model comes later")
    )
    assert main([*words, "--split", "3dpw/test"]) == 2


def test_the_splits_are_those_that_are_named_or_the_models_own(job, tmp_path):
    opened = cache.open(job.split.root)
    save_checkpoint(tmp_path / "own.pt", small_config(evaluation=("3dpw/test", SPLIT)))
    trained = Trained.load(tmp_path / "own.pt", None, "cpu")
    assert list(_chosen_splits(trained, opened, [], "resnet50")) == [SPLIT]
    with pytest.raises(
        PipelineError, match=r"expected 3dpw/test with the stream 'resnet50', found splits videos"
    ):
        _chosen_splits(job.trained, opened, ["3dpw/test"], "resnet50")
    with pytest.raises(StandInMixed, match=SPLIT):
        _chosen_splits(replace(job.trained, stand_in=False), opened, [SPLIT], "resnet50")


def test_training_on_estimates_is_told(capsys):
    metrics = {"stand_in": False, "estimates": {"videos/train": "estimates of WHAM"}}
    show_notes(RunMetrics(metrics), small_config())
    assert "videos/train: estimates of WHAM, no ground truth" in capsys.readouterr().out


def test_the_rows_of_a_splits_own_protocol_come_first():
    values = {"pa_mpjpe": 50.0, "frames": 9, "baseline": {"pa_mpjpe": 60.0}}

    metrics = {"stand_in": True, "emdb/emdb1": values | {"emdb": values}}
    (rows,) = rows_by_split({"VIBE": RunMetrics(metrics)}, with_published=False).values()
    assert [row.protocol for row in rows] == ["emdb", "emdb", "default", "default"]
