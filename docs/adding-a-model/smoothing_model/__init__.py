"""A small model: VIBE's regressor on features that a learned kernel smooths over five frames."""

from typing import TYPE_CHECKING

from smoothing_model.config import PRESETS, VARIANTS, SmoothingConfig
from vibe_model.models import Model

if TYPE_CHECKING:
    from pipeline.body import Body
    from smoothing_model.generator import Smoothing
    from smoothing_model.training import SmoothingTrainer


def _trainer() -> "type[SmoothingTrainer]":
    from smoothing_model.training import SmoothingTrainer

    return SmoothingTrainer


def _generator(config: SmoothingConfig, body: "Body") -> "Smoothing":
    from smoothing_model.generator import build_generator

    return build_generator(config, body)


MODEL = Model(
    title="Smoothing",
    section="smoothing",
    config=SmoothingConfig,
    presets=PRESETS,
    preset="usual",
    variants=VARIANTS,
    baseline="single-frame",
    load_trainer=_trainer,
    build_generator=_generator,
)
