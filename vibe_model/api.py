"""The names that a package with its own model imports from the models.

Names that need torch are imported when first used: settings, and whether a run is complete, are
known without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.errors import ConfigError, DataError
from pipeline.plug_ins import import_on_use
from vibe_model.models import Model
from vibe_model.settings import EMBEDDED, Reading, VideoConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.losses import (
        PUBLISHED_WEIGHTS,
        generator_losses,
        keypoints_2d,
        keypoints_3d,
        labels_of,
    )
    from vibe_model.networks.video_model import Estimate, VideoModel
    from vibe_model.training.data import TrainingBatch
    from vibe_model.training.trainer import ProcessGroup
    from vibe_model.training.video import VideoTrainer
    from vibe_model.vibe.networks import Regressor

__all__ = ["EMBEDDED", "Model", "Reading", "VideoConfig"]  # settings
__all__ += ["Body", "Estimate", "Regressor", "VideoModel"]  # networks
__all__ += ["ProcessGroup", "TrainingBatch", "VideoTrainer"]  # training
__all__ += ["PUBLISHED_WEIGHTS", "generator_losses", "keypoints_2d", "keypoints_3d", "labels_of"]
__all__ += ["ConfigError", "DataError"]

_LOSSES: Final = (
    "PUBLISHED_WEIGHTS",
    "generator_losses",
    "keypoints_2d",
    "keypoints_3d",
    "labels_of",
)
_HOMES: Final = {
    "Body": "pipeline.body",
    "Estimate": "vibe_model.networks.video_model",
    "ProcessGroup": "vibe_model.training.trainer",
    "Regressor": "vibe_model.vibe.networks",
    "TrainingBatch": "vibe_model.training.data",
    "VideoModel": "vibe_model.networks.video_model",
    "VideoTrainer": "vibe_model.training.video",
    **dict.fromkeys(_LOSSES, "vibe_model.losses"),
}

if not TYPE_CHECKING:  # type checkers know all names
    __getattr__ = import_on_use(__name__, _HOMES)
