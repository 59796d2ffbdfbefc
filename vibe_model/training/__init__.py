"""Training of VIBE and of the motion prior from the cache.  features -> windows -> [training] -> evaluation

`run` is imported when first used: settings and run folders need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vibe_model.training.vibe import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vibe_model.training import vibe

    return vibe.run
