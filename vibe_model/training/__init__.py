"""Training of every model from the cache.  features -> windows -> [training] -> evaluation"""

from vibe_model.training.video import run

__all__ = ["run"]
