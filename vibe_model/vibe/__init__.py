"""VIBE: a GRU over image features, and a discriminator of motion (Kocabas et al., CVPR 2020)."""

from __future__ import annotations

from typing import Final

from vibe_model.models import Model
from vibe_model.vibe.config import PER_FRAME, PRESETS, VARIANTS, TrainConfig

MODEL: Final = Model(
    title="VIBE",
    config=TrainConfig,
    presets=PRESETS,
    preset="published",
    variants=VARIANTS,
    baseline=PER_FRAME,
    trainer="vibe_model.vibe.training:VIBETrainer",
    generator="vibe_model.vibe.networks:build_generator",
)
