"""Part-based 3D dynamics with uncertainty (after Lee and Lee, ICCV 2021), with a decoder for body
regions.
"""

from __future__ import annotations

from typing import Final

from vibe_model.models import Model
from vibe_model.part_dynamics.config import PRESETS, VARIANTS, PartDynamicsConfig

MODEL: Final = Model(
    title="Part dynamics",
    config=PartDynamicsConfig,
    presets=PRESETS,
    preset="partdyn",
    variants=VARIANTS,
    baseline="per-frame",
    trainer="vibe_model.part_dynamics.training:PartDynamicsTrainer",
    generator="vibe_model.part_dynamics.generator:build_generator",
)
