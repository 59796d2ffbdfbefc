"""HMMR: temporal convolutions, and past and future bodies of every frame (Kanazawa et al., CVPR
2019).
"""

from __future__ import annotations

from typing import Final

from vibe_model.hmmr.config import PRESETS, VARIANTS, HMMRConfig
from vibe_model.models import Model

MODEL: Final = Model(
    title="HMMR",
    config=HMMRConfig,
    presets=PRESETS,
    preset="hmmr",
    variants=VARIANTS,
    baseline="single-view",
    trainer="vibe_model.hmmr.training:HMMRTrainer",
    generator="vibe_model.hmmr.generator:HMMR.build",
)
