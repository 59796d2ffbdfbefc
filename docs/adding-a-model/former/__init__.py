"""A small transformer over the features of a window: its settings and its record. Imports no
torch.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from vibe_model.api import EMBEDDED, ConfigError, Model, VideoConfig


@dataclass(frozen=True, kw_only=True)
class FormerConfig(VideoConfig):
    """Settings of this model, in addition to those of all models."""

    VERSION: ClassVar[Mapping[str, int]] = {"former_version": 1}
    MODEL: ClassVar[str] = "former"

    name: str = "former"
    datasets_3d: tuple[str, ...] = ("3dpw/train",)
    evaluation: tuple[str, ...] = ("3dpw/test",)
    n_layers: NonNegativeInt = 2  # 0: each frame is regressed from its own feature
    n_heads: PositiveInt = 4
    hidden_size: PositiveInt = 512
    velocity_weight: NonNegativeFloat = 100.0

    @property
    def per_frame(self) -> bool:
        return not self.n_layers

    def check_consistency(self) -> None:
        super().check_consistency()
        if self.hidden_size % self.n_heads:
            raise ConfigError(
                f"hidden_size: expected a multiple of n_heads, {self.n_heads}; found "
                f"{self.hidden_size}",
                "hidden_size",
                "n_heads",
            )

    @classmethod
    def embedded(cls) -> Self:
        """Settings for the demo data: a minute on two cores."""
        return cls(**EMBEDDED, stride=8, batch_size=16, epochs=4, n_layers=1, hidden_size=256)


MODEL = Model(
    title="Former",
    config=FormerConfig,
    presets={"usual": FormerConfig, "embedded": FormerConfig.embedded},
    preset="usual",
    variants={"single-frame": {"n_layers": 0}, "no-velocity": {"velocity_weight": 0.0}},
    baseline="single-frame",
    trainer="former.network:FormerTrainer",
    generator="former.network:Former",
)
