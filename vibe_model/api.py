"""The names that a package with its own model imports from the models.

Names that need torch are imported when first used: settings, and whether a run is complete, are
known without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.errors import ConfigError, DataError
from pipeline.plug_ins import import_on_use
from vibe_model.models import Model
from vibe_model.reading import Reading
from vibe_model.settings import EMBEDDED, VideoConfig

if TYPE_CHECKING:
    from pipeline.people.body import Body as Body
    from vibe_model.losses import PUBLISHED_WEIGHTS as PUBLISHED_WEIGHTS
    from vibe_model.losses import generator_losses as generator_losses
    from vibe_model.losses import keypoints_2d as keypoints_2d
    from vibe_model.losses import keypoints_3d as keypoints_3d
    from vibe_model.losses import labels_of as labels_of
    from vibe_model.networks.video_model import Estimate as Estimate
    from vibe_model.networks.video_model import VideoModel as VideoModel
    from vibe_model.training.data import TrainingBatch as TrainingBatch
    from vibe_model.training.process_group import ProcessGroup as ProcessGroup
    from vibe_model.training.video import VideoTrainer as VideoTrainer
    from vibe_model.vibe.networks import Regressor as Regressor

__all__ = ["EMBEDDED", "ConfigError", "DataError", "Model", "Reading", "VideoConfig"]

LATER: Final = {  # imported when first used
    "Body": "pipeline.people.body",
    "Estimate": "vibe_model.networks.video_model",
    "PUBLISHED_WEIGHTS": "vibe_model.losses",
    "ProcessGroup": "vibe_model.training.process_group",
    "Regressor": "vibe_model.vibe.networks",
    "TrainingBatch": "vibe_model.training.data",
    "VideoModel": "vibe_model.networks.video_model",
    "VideoTrainer": "vibe_model.training.video",
    "generator_losses": "vibe_model.losses",
    "keypoints_2d": "vibe_model.losses",
    "keypoints_3d": "vibe_model.losses",
    "labels_of": "vibe_model.losses",
}

if not TYPE_CHECKING:  # type checkers know all names
    __getattr__, __dir__ = import_on_use(__name__, LATER)
    __all__ += LATER
