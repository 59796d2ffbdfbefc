"""The models' contract: every promise, once broken, is named; ours keep it."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import plug_ins
from tests.packages import install_page
from tests.vibe_model.builders import TinyBody
from tests.vibe_model.training.tiny_runs import KINDS, in_memory, like_vibe
from vibe_model import models as registry
from vibe_model.networks.video_model import Estimate
from vibe_model.settings import VideoConfig
from vibe_model.testing import ModelContract, models
from vibe_model.testing.models import model_problems


@pytest.mark.parametrize("kind", ["vibe", "hmmr", "part_dynamics", "former"])
class TestOurs(ModelContract):
    @pytest.fixture
    def config(
        self, kind: str, tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
    ) -> VideoConfig:
        if kind == "former":
            install_page(site, "model")
        in_memory(monkeypatch, "vibe" if kind == "former" else kind)
        monkeypatch.setattr(models, "load_body", lambda folder: TinyBody())
        if kind == "former":
            return like_vibe(registry.find("former").config, tmp_path, hidden_size=8)
        config: VideoConfig = KINDS[kind].config(tmp_path)
        # two channels in each of its group norms
        return replace(config, width=64) if kind == "hmmr" else config


def no_gradient(trainer: Any, batch: Any) -> Any:
    return {"kp_2d": torch.zeros(())}


def with_terms(change: Callable[[dict[str, Any], Any], None]) -> Any:
    """`gradients` of a trainer whose terms are changed in one way."""

    def gradients(trainer: Any, batch: Any) -> Any:
        terms = type(trainer).__mro__[1].gradients(trainer, batch)
        change(terms, trainer)
        return terms

    return {"gradients": gradients}, {}


def add_randomness(terms: dict[str, Any], trainer: Any) -> None:
    terms["kp_2d"] = terms["kp_2d"] + np.random.default_rng(random.getrandbits(32)).normal()


def scale_weights(terms: dict[str, Any], trainer: Any) -> None:
    """A state that no learner saves."""
    trainer.n_calls = getattr(trainer, "n_calls", 0) + 1
    terms["kp_2d"] = terms["kp_2d"] * trainer.n_calls


def regress_with(change: Callable[[Estimate], Estimate]) -> Any:
    def regress(model: Any, features: Any) -> Estimate:
        return change(type(model).__mro__[1].regress(model, features))

    return {}, {"regress": regress}


FAULTS = {  # methods of the trainer, and of the network
    "generator gets no gradient": ({"gradients": no_gradient}, {}),
    "the term 'kp_3d' is nan": with_terms(
        lambda terms, _: terms.update(kp_3d=torch.tensor(torch.nan))
    ),
    "NumPy's or Python's random state": with_terms(add_randomness),
    "a step from a restored state": with_terms(scale_weights),
    "alone than in a batch": regress_with(
        lambda e: e._replace(shape=e.shape - e.shape.mean(0, keepdim=True))
    ),
    "shape contains NaN or infinite numbers": regress_with(lambda e: e._replace(shape=e.shape / 0)),
    "not orthonormal": regress_with(lambda e: e._replace(rotmat=e.rotmat * 2)),
    "camera: expected": regress_with(lambda e: e._replace(camera=e.camera[..., :2])),
}


@pytest.fixture
def spoil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The problems of VIBE with methods of its trainer and network replaced."""

    def problems(trainer: dict[str, Any], network: dict[str, Any]) -> list[str]:
        in_memory(monkeypatch, "vibe")
        monkeypatch.setattr(models, "load_body", lambda folder: TinyBody())
        vibe = registry.find("vibe")
        spoilt_trainer = type("Spoilt", (vibe.load_trainer(),), trainer)
        spoilt_network = type(
            "SpoiltNetwork", (plug_ins.load("vibe_model.vibe.networks:VIBE"),), network
        )
        load = plug_ins.load

        def load_spoilt(place: str) -> Any:
            loaded = load(place)
            replaced = {vibe.trainer: spoilt_trainer}
            if network and place == vibe.generator:
                return lambda config, body: _as(spoilt_network, loaded(config, body))
            return replaced.get(place, loaded)

        monkeypatch.setattr(plug_ins, "load", load_spoilt)
        return model_problems(KINDS["vibe"].config(tmp_path))

    return problems


def _as(kind: type[Any], network: Any) -> Any:
    network.__class__ = kind
    return network


@pytest.mark.parametrize("problem", FAULTS)
def test_a_broken_promise_is_named(problem: str, spoil: Any) -> None:
    found = spoil(*FAULTS[problem])
    assert any(problem in text for text in found), found
