"""Settings, presets and variants. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vibe_model.settings.run_config import positive
from vibe_model.settings.video_config import VideoConfig


@dataclass(frozen=True, kw_only=True)
class SmoothingConfig(VideoConfig):
    """The settings of this model, beside those of every model."""

    VERSION: ClassVar[Mapping[str, int]] = {"smoothing_version": 1}
    MODEL: ClassVar[str] = "smoothing"

    name: str = "smoothing"
    datasets_3d: tuple[str, ...] = ("3dpw/train",)
    evaluation: tuple[str, ...] = ("3dpw/test",)
    regressor_size: int = positive(1024)


CONFIG = SmoothingConfig
PRESETS = {"usual": SmoothingConfig}
VARIANTS: dict[str, dict[str, int]] = {"small": {"regressor_size": 64}}
