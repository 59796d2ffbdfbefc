"""Which models there are.  [settings] -> training -> evaluation, prediction

A model is a package of three modules. `config`, which imports no torch, has CONFIG (a VideoConfig), PRESETS (functions
that make one, by name) and VARIANTS (what each changes of a configuration); `generator` has `build_generator(config,
body)`, a VideoModel with fresh parameters; `training` has TRAINER (a VideoTrainer). Nothing outside of the package asks
which model it has: docs/adding-a-model.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from vibe_model.errors import ConfigError
from vibe_model.settings.video_config import VideoConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.networks.video_model import VideoModel

C = TypeVar("C", bound=VideoConfig)


@dataclass(frozen=True, slots=True)
class Model:
    """Where a model's parts are. They are imported when they are first asked for."""

    title: str  # as tables call it
    package: str
    section: str  # of luigi.cfg
    preset: str  # where that section's settings start from, unless it names another
    baseline: str  # the variant that regresses each frame from its own feature

    @property
    def config(self) -> type[VideoConfig]:
        return cast("type[VideoConfig]", self._of("config", "CONFIG"))

    @property
    def presets(self) -> Mapping[str, Callable[..., VideoConfig]]:
        return cast("Mapping[str, Callable[..., VideoConfig]]", self._of("config", "PRESETS"))

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        return cast("Mapping[str, Mapping[str, Any]]", self._of("config", "VARIANTS"))

    @property
    def trainer(self) -> Any:
        """Of (config, body, group): a VideoTrainer."""
        return self._of("training", "TRAINER")

    @property
    def several_processes(self) -> bool:
        """Can several processes train it as one?"""
        return bool(self.trainer.several_processes)

    def build(self, config: VideoConfig, body: Body) -> VideoModel:
        """A generator by its configuration, with fresh parameters."""
        return cast("VideoModel", self._of("generator", "build_generator")(config, body))

    def _of(self, module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"{self.package}.{module}"), name)


MODELS: Final[dict[str, Model]] = {
    "vibe": Model("VIBE", "vibe_model.vibe", section="train", preset="published", baseline="per-frame"),
    "hmmr": Model("HMMR", "vibe_model.hmmr", section="hmmr", preset="hmmr", baseline="single-view"),
    "part_dynamics": Model(
        "Part dynamics",
        "vibe_model.part_dynamics",
        section="part_dynamics",
        preset="partdyn",
        baseline="per-frame",
    ),
}


def named(name: str) -> Model:
    """Raises ConfigError for a model that there is not."""
    if name not in MODELS:
        raise ConfigError(f"model: expected one of {', '.join(MODELS)}, found {name!r}")
    return MODELS[name]


def of(config: VideoConfig) -> Model:
    """The model that a configuration is of."""
    return named(config.MODEL)


def variant_of(config: C, name: str) -> C:
    """A configuration with what a variant of its model changes; several at once are joined by "+", "" is none.

    What is left out already stays left out. Raises ConfigError for an unknown one.
    """
    variants = of(config).variants
    for part in filter(None, name.split("+")):
        if part not in variants:
            raise ConfigError(f"variant: expected one of {', '.join(variants)}, or some joined by +; found {part!r}")
        changes = dict(variants[part])
        if "leave_out" in changes:
            changes["leave_out"] = tuple(dict.fromkeys((*config.leave_out, *changes["leave_out"])))
        config = replace(config, **changes)
    return config
