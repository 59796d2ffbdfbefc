"""The model of docs/adding-a-model.md, trained, killed, resumed, evaluated and loaded like ours."""

from pathlib import Path

import torch

from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.tiny_runs import assert_same_run, in_memory, killed_at, like_vibe, scalars
from vibe_model import models, training
from vibe_model.models import MODELS, Model
from vibe_model.prediction.trained import load_trained

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-model"


def config_of(root):
    return like_vibe(MODELS["smoothing"].config, root, regressor_size=7)


def test_the_pages_model_trains_is_killed_resumed_evaluated_and_loaded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PAGE))
    added = Model("smoothing", "smoothing_model", section="smoothing", preset="usual", baseline="small")
    monkeypatch.setitem(MODELS, "smoothing", added)
    in_memory(monkeypatch, "vibe")
    undisturbed = training.run(config_of(tmp_path / "whole"))
    killed = config_of(tmp_path / "killed")
    folder = killed_at(training.run, killed, 3, tmp_path / "left")
    assert training.run(killed) == folder
    assert_same_run(folder, undisturbed)
    assert {"train/kp_2d", "gradient/generator", "validation/b/validation/pa_mpjpe"} < {
        tag for tag, _ in scalars(folder)
    }

    monkeypatch.setattr("vibe_model.prediction.trained.load_body", lambda folder: TinyBody())
    trained = load_trained(folder / "best.pt", None, "cpu")
    assert type(trained.generator).__name__ == "Smoothing"
    assert models.variant_of(killed, "small").regressor_size == 64
    assert torch.load(folder / "last.pt", weights_only=True)["gen_state_dict"]["kernel"].abs().sum() > 0
