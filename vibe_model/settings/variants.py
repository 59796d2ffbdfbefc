"""The paper's ablations, each as one name for what it changes.  features -> windows -> [training] -> evaluation

Imports no torch. The ablations of Kocabas et al., CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from vibe_model.errors import ConfigError
from vibe_model.settings.config import TrainConfig


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


def variant_of(config: TrainConfig, name: str) -> TrainConfig:
    """A configuration with what variant `name` changes; several at once are joined by "+", "" is none.

    What is left out already stays left out. Raises ConfigError for an unknown one.
    """
    for part in filter(None, name.split("+")):
        if part not in VARIANTS:
            raise ConfigError(f"variant: expected one of {', '.join(VARIANTS)}, or some joined by +; found {part!r}")
        changes = dict(VARIANTS[part])
        if "leave_out" in changes:
            changes["leave_out"] = tuple(dict.fromkeys((*config.leave_out, *changes["leave_out"])))
        config = replace(config, **changes)
    return config
