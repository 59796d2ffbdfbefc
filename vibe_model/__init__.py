"""Models of human motion: networks, losses, metrics.  features -> windows -> [training, evaluation]

Names are imported when first used: whether a run is complete can be known without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vibe_model.checkpoints import LoadReport, load_published
    from vibe_model.hmmr import losses as hmmr_losses
    from vibe_model.hmmr.discriminator import PoseDiscriminator
    from vibe_model.hmmr.generator import HMMR
    from vibe_model.tracks import Tracks
    from vibe_model.vibe.config import TrainConfig
    from vibe_model.vibe.discriminator import MotionDiscriminator
    from vibe_model.vibe.generator import VIBE

__all__ = [
    "HMMR",
    "VIBE",
    "LoadReport",
    "MotionDiscriminator",
    "PoseDiscriminator",
    "Tracks",
    "TrainConfig",
    "hmmr_losses",
    "load_published",
]

_HOMES: Final = {
    "HMMR": "hmmr.generator",
    "VIBE": "vibe.generator",
    "LoadReport": "checkpoints",
    "MotionDiscriminator": "vibe.discriminator",
    "PoseDiscriminator": "hmmr.discriminator",
    "Tracks": "tracks",
    "TrainConfig": "vibe.config",
    "load_published": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name == "hmmr_losses":
        return importlib.import_module(f"{__name__}.hmmr.losses")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
