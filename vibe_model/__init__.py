"""Models of human motion: networks, losses, metrics. Names are imported when first used: without
torch if possible.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

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
    __all__ = [*_HOMES]

    def __getattr__(name: str) -> Any:
        # Imported here: the programs start in this package (`start`), before a wrong `pipeline`.
        on_use = import_module("pipeline.plug_ins").import_on_use
        return on_use(__name__, _HOMES)[0](name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})
