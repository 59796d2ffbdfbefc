"""Training of VIBE and of the motion prior from the cache.  features -> windows -> [training] -> evaluation

The functions are imported when first used: settings and run folders need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vibe_model.training.data import Batches
    from vibe_model.training.steps import step_gradients, step_losses
    from vibe_model.training.vibe import load_body, run

__all__ = ["Batches", "load_body", "run", "step_gradients", "step_losses"]

_HOMES: Final = {"Batches": "data", "step_gradients": "steps", "step_losses": "steps"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'vibe')}"), name)
