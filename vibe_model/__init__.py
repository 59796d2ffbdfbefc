"""Models of human motion: networks, losses, metrics. Names are imported when first used: without
torch if possible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.plug_ins import import_on_use

if TYPE_CHECKING:
    from vibe_model.checkpoints import LoadReport as LoadReport
    from vibe_model.checkpoints import load_published as load_published
    from vibe_model.training.tracks import Tracks as Tracks
    from vibe_model.vibe.config import TrainConfig as TrainConfig
    from vibe_model.vibe.networks import VIBE as VIBE
    from vibe_model.vibe.networks import MotionDiscriminator as MotionDiscriminator

_HOMES: Final = {
    "VIBE": "vibe_model.vibe.networks",
    "LoadReport": "vibe_model.checkpoints",
    "MotionDiscriminator": "vibe_model.vibe.networks",
    "Tracks": "vibe_model.training.tracks",
    "TrainConfig": "vibe_model.vibe.config",
    "load_published": "vibe_model.checkpoints",
}
if not TYPE_CHECKING:  # type checkers know all names
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)
    __all__ = [*_HOMES]
