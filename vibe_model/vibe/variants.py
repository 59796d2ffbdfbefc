"""The paper's ablations, each as one name for what it changes.  features -> windows -> [training] -> evaluation

Imports no torch. The ablations of Kocabas et al., CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


def _attention(layers: int, size: int) -> dict[str, Any]:
    return {"prior": "discriminator", "disc_pool": "attention", "attention_layers": layers, "disc_size": size}


PER_FRAME: Final = "per-frame"
"""The baseline that a temporal model has to beat: the same regressor on the same features, each frame by itself."""

VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    PER_FRAME: {"n_layers": 0, "prior": "none"},
    "generator-only": {"prior": "none"},
    "mposer": {"prior": "mposer"},
    "concat": {"prior": "discriminator", "disc_pool": "concat"},
    "attention-2x512": _attention(2, 512),
    "attention-2x1024": _attention(2, 1024),
    "attention-3x512": _attention(3, 512),
    "attention-3x1024": _attention(3, 1024),
    "without-3dpw": {"leave_out": ("3dpw/train",)},
}
"""What each changes of the configuration that it is a variant of."""
