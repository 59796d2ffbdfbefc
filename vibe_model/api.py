"""Everything that a package with a model or an evaluation protocol imports from the models.

Names that need torch are imported when first used: settings, and whether a run is complete, are known without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import ConfigError, DataError
from vibe_model.evaluation.protocols import Labels, Protocol
from vibe_model.metrics import METRICS, Metric
from vibe_model.models import Model
from vibe_model.settings import EMBEDDED, Reading, VideoConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.losses import PUBLISHED_WEIGHTS, generator_losses, keypoints_2d, keypoints_3d, labels_of
    from vibe_model.networks.video_model import Estimate, VideoModel
    from vibe_model.training.data import TrainingBatch
    from vibe_model.training.trainer import ProcessGroup
    from vibe_model.training.video import VideoTrainer
    from vibe_model.vibe.networks import Regressor

__all__ = [
    "EMBEDDED",
    "METRICS",
    "PUBLISHED_WEIGHTS",
    "Body",
    "ConfigError",
    "DataError",
    "Estimate",
    "Labels",
    "Metric",
    "Model",
    "ProcessGroup",
    "Protocol",
    "Reading",
    "Regressor",
    "TrainingBatch",
    "VideoConfig",
    "VideoModel",
    "VideoTrainer",
    "generator_losses",
    "keypoints_2d",
    "keypoints_3d",
    "labels_of",
]

_LOSSES: Final = ("PUBLISHED_WEIGHTS", "generator_losses", "keypoints_2d", "keypoints_3d", "labels_of")
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

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)
