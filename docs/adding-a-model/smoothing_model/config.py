"""Settings, presets and variants. Imports no torch."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from vibe_model.errors import ConfigError
from vibe_model.settings.video_config import EMBEDDED, VideoConfig


@dataclass(frozen=True, kw_only=True)
class SmoothingConfig(VideoConfig):
    """The settings of this model, beside those of every model."""

    VERSION: ClassVar[Mapping[str, int]] = {"smoothing_version": 1}
    MODEL: ClassVar[str] = "smoothing"

    name: str = "smoothing"
    datasets_3d: tuple[str, ...] = ("3dpw/train",)
    evaluation: tuple[str, ...] = ("3dpw/test",)
    regressor_size: PositiveInt = 1024
    kernel_size: PositiveInt = 5  # frames, an odd number

    @property
    def per_frame(self) -> bool:
        """Is every frame regressed from its own feature?"""
        return self.kernel_size == 1

    def check_consistency(self) -> None:
        super().check_consistency()
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size: expected an odd number, found {self.kernel_size}")

    @classmethod
    def embedded(cls) -> "SmoothingConfig":
        """A minute on two cores, for the demo data."""
        return cls(**EMBEDDED, stride=8, batch_size=16, epochs=4, regressor_size=256)


PRESETS = {"usual": SmoothingConfig, "embedded": SmoothingConfig.embedded}
VARIANTS: dict[str, dict[str, int]] = {"single-frame": {"kernel_size": 1}, "small": {"regressor_size": 64}}
