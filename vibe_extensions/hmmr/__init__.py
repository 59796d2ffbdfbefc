"""HMMR: temporal convolutions, and past and future bodies of every frame (Kanazawa et al., CVPR 2019)."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final

from vibe_extensions.hmmr.config import PRESETS, VARIANTS, HMMRConfig
from vibe_model.models import Model

if TYPE_CHECKING:
    from vibe_extensions.hmmr.generator import HMMR
    from vibe_extensions.hmmr.training import PoseDiscriminator

__all__ = ["HMMR", "MODEL", "PoseDiscriminator"]

_HOMES: Final = {  # imported on first use, since settings need no torch
    "HMMR": "vibe_extensions.hmmr.generator:HMMR",
    "PoseDiscriminator": "vibe_extensions.hmmr.training:PoseDiscriminator",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(_HOMES[name])
