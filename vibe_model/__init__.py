"""Models of human motion: networks, losses, metrics.  features -> windows -> [training, evaluation]

Names are imported when first used: whether a run is complete can be known without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pipeline.features.networks.pr_vipe import PrVIPE
    from vibe_model.checkpoints import LoadReport, load_published
    from vibe_model.hmmr import losses as hmmr_losses
    from vibe_model.hmmr.discriminator import PoseDiscriminator
    from vibe_model.hmmr.generator import HMMR
    from vibe_model.part_dynamics import losses as part_dynamics_losses
    from vibe_model.part_dynamics.generator import PartDynamics
    from vibe_model.pr_vipe import losses as pr_vipe_losses
    from vibe_model.training.data import Tracks
    from vibe_model.vibe.config import TrainConfig
    from vibe_model.vibe.discriminator import MotionDiscriminator
    from vibe_model.vibe.generator import VIBE

__all__ = [
    "HMMR",
    "VIBE",
    "LoadReport",
    "MotionDiscriminator",
    "PartDynamics",
    "PoseDiscriminator",
    "PrVIPE",
    "Tracks",
    "TrainConfig",
    "hmmr_losses",
    "load_published",
    "part_dynamics_losses",
    "pr_vipe_losses",
]

_HOMES: Final = {
    "HMMR": "vibe_model.hmmr.generator",
    "VIBE": "vibe_model.vibe.generator",
    "LoadReport": "vibe_model.checkpoints",
    "MotionDiscriminator": "vibe_model.vibe.discriminator",
    "PartDynamics": "vibe_model.part_dynamics.generator",
    "PoseDiscriminator": "vibe_model.hmmr.discriminator",
    "PrVIPE": "pipeline.features.networks.pr_vipe",  # a feature stream is computed with it, too
    "Tracks": "vibe_model.training.data",
    "TrainConfig": "vibe_model.vibe.config",
    "hmmr_losses": "vibe_model.hmmr.losses",
    "load_published": "vibe_model.checkpoints",
    "part_dynamics_losses": "vibe_model.part_dynamics.losses",
    "pr_vipe_losses": "vibe_model.pr_vipe.losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return home if name.endswith("_losses") else getattr(home, name)
