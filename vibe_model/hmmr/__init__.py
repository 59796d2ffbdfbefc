"""HMMR: temporal convolutions, and past and future bodies of every frame (Kanazawa et al., CVPR
2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use
from vibe_model.hmmr.config import PRESETS, VARIANTS, HMMRConfig
from vibe_model.models import Model

if TYPE_CHECKING:
    from vibe_model.hmmr.generator import HMMR as HMMR
    from vibe_model.hmmr.training import PoseDiscriminator as PoseDiscriminator

_HOMES: Final = {  # imported on use, since settings need no torch
    "HMMR": "vibe_model.hmmr.generator",
    "PoseDiscriminator": "vibe_model.hmmr.training",
}
__getattr__ = import_on_use(__name__, _HOMES)

MODEL: Final = Model(
    title="HMMR",
    config=HMMRConfig,
    presets=PRESETS,
    preset="hmmr",
    variants=VARIANTS,
    baseline="single-view",
    trainer="vibe_model.hmmr.training:HMMRTrainer",
    generator="vibe_model.hmmr.generator:build_generator",
)
