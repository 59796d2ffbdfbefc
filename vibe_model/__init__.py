"""Models of human motion: networks, losses, metrics. Names are imported when first used: without torch if possible."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vibe_model.checkpoints import LoadReport, load_published
    from vibe_model.training.data import Tracks
    from vibe_model.vibe.config import TrainConfig
    from vibe_model.vibe.networks import VIBE, MotionDiscriminator

__all__ = ["VIBE", "LoadReport", "MotionDiscriminator", "Tracks", "TrainConfig", "load_published"]

_HOMES: Final = {
    "VIBE": "vibe_model.vibe.networks",
    "LoadReport": "vibe_model.checkpoints",
    "MotionDiscriminator": "vibe_model.vibe.networks",
    "Tracks": "vibe_model.training.data",
    "TrainConfig": "vibe_model.vibe.config",
    "load_published": "vibe_model.checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
