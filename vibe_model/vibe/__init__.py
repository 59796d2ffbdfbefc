"""VIBE: a GRU over image features, and a discriminator of motion (Kocabas et al., CVPR 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vibe_model.models import Model
from vibe_model.vibe.config import PER_FRAME, PRESETS, VARIANTS, TrainConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.networks.video_model import VideoModel
    from vibe_model.vibe.training import VIBETrainer


def _trainer() -> type[VIBETrainer]:
    from vibe_model.vibe.training import VIBETrainer

    return VIBETrainer


def _generator(config: TrainConfig, body: Body) -> VideoModel:
    from vibe_model.vibe.generator import build_generator

    return build_generator(config, body)


MODEL: Final = Model(
    title="VIBE",
    section="vibe",
    config=TrainConfig,
    presets=PRESETS,
    preset="published",
    variants=VARIANTS,
    baseline=PER_FRAME,
    load_trainer=_trainer,
    build_generator=_generator,
)
