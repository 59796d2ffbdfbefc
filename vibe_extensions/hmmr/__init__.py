"""HMMR: temporal convolutions, and past and future bodies of every frame (Kanazawa et al., CVPR 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use
from vibe_extensions.hmmr.config import PRESETS, VARIANTS, HMMRConfig
from vibe_model.models import Model

if TYPE_CHECKING:
    from vibe_extensions.hmmr.generator import HMMR
    from vibe_extensions.hmmr.training import PoseDiscriminator

__all__ = ["HMMR", "MODEL", "PoseDiscriminator"]

_HOMES: Final = {  # imported on use, since settings need no torch
    "HMMR": "vibe_extensions.hmmr.generator",
    "PoseDiscriminator": "vibe_extensions.hmmr.training",
}
__getattr__ = import_on_use(__name__, _HOMES)

MODEL: Final = Model(
    title="HMMR",
    config=HMMRConfig,
    presets=PRESETS,
    preset="hmmr",
    variants=VARIANTS,
    baseline="single-view",
    trainer="vibe_extensions.hmmr.training:HMMRTrainer",
    generator="vibe_extensions.hmmr.generator:build_generator",
)
