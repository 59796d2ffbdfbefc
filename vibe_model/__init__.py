"""VIBE: generator, discriminator, losses, training, metrics, evaluation.  features -> windows -> [training, evaluation]

Names are imported when first used: whether a run is complete can be known without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vibe_model import checkpoints, evaluation, losses, metrics, rotations, runs, training
    from vibe_model.checkpoints import LoadReport, load_published
    from vibe_model.networks.discriminator import MotionDiscriminator
    from vibe_model.networks.generator import VIBE
    from vibe_model.settings import config
    from vibe_model.settings.config import TrainConfig
    from vibe_model.training import data

__all__ = [
    "VIBE",
    "LoadReport",
    "MotionDiscriminator",
    "TrainConfig",
    "checkpoints",
    "config",
    "data",
    "evaluation",
    "load_published",
    "losses",
    "metrics",
    "rotations",
    "runs",
    "training",
]

_HOMES: Final = {
    "VIBE": "networks.generator",
    "LoadReport": "checkpoints",
    "MotionDiscriminator": "networks.discriminator",
    "TrainConfig": "settings.config",
    "load_published": "checkpoints",
}
_MODULES: Final = {"config": "settings.config", "data": "training.data"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name) or _MODULES.get(name, name)}")
    return getattr(module, name) if name in _HOMES else module
