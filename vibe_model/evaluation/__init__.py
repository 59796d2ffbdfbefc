"""How good a model is: errors of its predictions on a split.  features -> windows -> training -> [evaluation]

The functions are imported when first used: the published figures need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vibe_model.evaluation.evaluate import SIGMAS, choose_sigma, evaluate_all, evaluate_split

__all__ = ["SIGMAS", "choose_sigma", "evaluate_all", "evaluate_split"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.evaluate"), name)
