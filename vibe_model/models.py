"""Which models there are: ours, and those of other packages.  [settings] -> training -> evaluation, prediction

A model is a package of three modules. `config`, which imports no torch, has CONFIG (a VideoConfig), PRESETS (functions
that make one, by name) and VARIANTS (what each changes of a configuration); `generator` has `build_generator(config,
body)`, a VideoModel with fresh parameters; `training` has TRAINER (a VideoTrainer). An entry point of the group
"vibe_pipeline.models" leads to its `Model`. Nothing outside of the package asks which model it has:
docs/adding-a-model.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pipeline import plug_ins
from pipeline.plug_ins import PlugInError, Registry
from vibe_model.errors import ConfigError
from vibe_model.settings.video_config import VideoConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.networks.video_model import VideoModel

C = TypeVar("C", bound=VideoConfig)


@dataclass(frozen=True, slots=True)
class Model:
    """Where a model's parts are. They are imported when they are first used."""

    title: str  # as tables call it
    package: str
    section: str  # of luigi.cfg; of another package's model, its name
    preset: str  # where that section's settings start from, unless it names another
    baseline: str  # the variant that regresses each frame from its own feature

    @property
    def config(self) -> type[VideoConfig]:
        return cast("type[VideoConfig]", self._of("config", "CONFIG"))

    @property
    def name(self) -> str:
        """As commands and checkpoints call it."""
        return self.config.MODEL

    @property
    def presets(self) -> Mapping[str, Callable[..., VideoConfig]]:
        return cast("Mapping[str, Callable[..., VideoConfig]]", self._of("config", "PRESETS"))

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        return cast("Mapping[str, Mapping[str, Any]]", self._of("config", "VARIANTS"))

    @property
    def trainer(self) -> Any:
        """Of (config, body, group): a VideoTrainer."""
        with _REGISTRY.calling(self.section, "its module training"):
            return self._of("training", "TRAINER")

    @property
    def several_processes(self) -> bool:
        """Can several processes train it as one?"""
        return bool(self.trainer.several_processes)

    def build(self, config: VideoConfig, body: Body) -> VideoModel:
        """A generator by its configuration, with fresh parameters."""
        with _REGISTRY.calling(self.section, "build_generator"):
            return cast("VideoModel", self._of("generator", "build_generator")(config, body))

    def _of(self, module: str, name: str) -> Any:
        return getattr(importlib.import_module(f"{self.package}.{module}"), name)


_OURS: Final = {name: f"vibe_model.{name}:MODEL" for name in ("vibe", "hmmr", "part_dynamics")}
_REGISTRY: Final[Registry[Model]] = Registry("model", plug_ins.MODELS, _OURS, Model, "section", records=True)
names = _REGISTRY.names


def find(name: str) -> Model:
    """The model of that name. Raises PipelineError for an unknown name, PlugInError for one that does not load."""
    model = cast("Model", _REGISTRY.find(name))
    if name not in _OURS and (flaw := _flaw(model)):
        raise PlugInError(f"model {name!r} of package {model.package}: {flaw}")
    return model


def _flaw(model: Model) -> str:
    """What is wrong with the settings of another package's model; "" if nothing."""
    try:
        if model.name != model.section:
            return f"config.CONFIG.MODEL: expected {model.section!r}, its entry point's name, found {model.name!r}"
        for key, known in (("preset", model.presets), ("baseline", model.variants)):
            if (word := getattr(model, key)) not in known:
                return f"{key}: expected one of {', '.join(known) or 'none'}, found {word!r}"
    except Exception as error:  # other people's code may fail in any way
        return f"its settings cannot be loaded: {type(error).__name__}: {error}"
    return ""


def every() -> tuple[Model, ...]:
    """All models that load, ours first."""
    broken_ones = broken()
    return tuple(find(name) for name in names() if name not in broken_ones)


def broken() -> dict[str, str]:
    """The models of other packages that do not load: name -> message."""
    messages = {}
    for name in names()[len(_OURS) :]:
        try:
            find(name)
        except PlugInError as error:
            messages[name] = str(error)
    return messages


def of(config: VideoConfig) -> Model:
    """The model that a configuration is of."""
    return find(config.MODEL)


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
