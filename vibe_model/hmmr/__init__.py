"""HMMR: temporal convolutions, and the past and future of every frame (Kanazawa et al., CVPR 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vibe_model.hmmr.config import PRESETS, VARIANTS, HMMRConfig
from vibe_model.models import Model

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.hmmr.training import HMMRTrainer
    from vibe_model.networks.video_model import VideoModel


def _trainer() -> type[HMMRTrainer]:
    from vibe_model.hmmr.training import HMMRTrainer

    return HMMRTrainer


def _generator(config: HMMRConfig, body: Body) -> VideoModel:
    from vibe_model.hmmr.generator import build_generator

    return build_generator(config, body)


MODEL: Final = Model(
    title="HMMR",
    section="hmmr",
    config=HMMRConfig,
    presets=PRESETS,
    preset="hmmr",
    variants=VARIANTS,
    baseline="single-view",
    load_trainer=_trainer,
    build_generator=_generator,
)
