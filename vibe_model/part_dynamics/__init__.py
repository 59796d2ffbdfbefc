"""Part-based 3D dynamics with uncertainty (after Lee and Lee, ICCV 2021): a decoder split by body regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vibe_model.models import Model
from vibe_model.part_dynamics.config import PRESETS, VARIANTS, PartDynamicsConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.networks.video_model import VideoModel
    from vibe_model.part_dynamics.training import PartDynamicsTrainer


def _trainer() -> type[PartDynamicsTrainer]:
    from vibe_model.part_dynamics.training import PartDynamicsTrainer

    return PartDynamicsTrainer


def _generator(config: PartDynamicsConfig, body: Body) -> VideoModel:
    from vibe_model.part_dynamics.generator import build_generator

    return build_generator(config, body)


MODEL: Final = Model(
    title="Part dynamics",
    section="part_dynamics",
    config=PartDynamicsConfig,
    presets=PRESETS,
    preset="partdyn",
    variants=VARIANTS,
    baseline="per-frame",
    load_trainer=_trainer,
    build_generator=_generator,
)
