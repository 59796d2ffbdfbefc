"""Training of VIBE and of the motion prior from the cache.  features -> windows -> [training] -> evaluation"""

from vibe_model.training.vibe import run

__all__ = ["run"]
