"""Part-based 3D dynamics with uncertainty (after Lee and Lee, ICCV 2021), with a decoder for body
regions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use
from vibe_model.models import Model
from vibe_model.part_dynamics.config import PRESETS, VARIANTS, PartDynamicsConfig

if TYPE_CHECKING:
    from vibe_model.part_dynamics import losses as part_dynamics_losses  # noqa: F401
    from vibe_model.part_dynamics.generator import PartDynamics as PartDynamics
    from vibe_model.part_dynamics.pr_vipe import losses as pr_vipe_losses  # noqa: F401
    from vibe_model.part_dynamics.pr_vipe.network import PrVIPE as PrVIPE

_HOMES: Final = {  # imported on use, since settings need no torch
    "PartDynamics": "vibe_model.part_dynamics.generator",
    "PrVIPE": "vibe_model.part_dynamics.pr_vipe.network",
    "part_dynamics_losses": "vibe_model.part_dynamics.losses:",
    "pr_vipe_losses": "vibe_model.part_dynamics.pr_vipe.losses:",
}
__getattr__ = import_on_use(__name__, _HOMES)

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
