"""VIBE: generator, discriminator, losses, training, metrics, evaluation.  features -> windows -> [training, evaluation]

Names are imported when first used: whether a run is complete can be known without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vibe_model.checkpoints import LoadReport, load_published
    from vibe_model.networks.discriminator import MotionDiscriminator
    from vibe_model.networks.generator import VIBE
    from vibe_model.settings.config import TrainConfig

__all__ = ["VIBE", "LoadReport", "MotionDiscriminator", "TrainConfig", "load_published"]

_HOMES: Final = {
    "VIBE": "networks.generator",
    "LoadReport": "checkpoints",
    "MotionDiscriminator": "networks.discriminator",
    "TrainConfig": "settings.config",
    "load_published": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
