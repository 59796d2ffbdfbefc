"""The registry of models, built-in and of other packages.  [settings] -> training -> evaluation,
prediction

A model is one record `MODEL`, in a package here that `pipeline.table` lists, or in another one that
has an entry point of "vibe_pipeline.models" (docs/adding-a-model.md). It imports no torch: trainer
and networks are imported when first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pydantic.dataclasses import is_pydantic_dataclass

from pipeline import plug_ins
from pipeline.errors import ConfigError, did_you_mean
from pipeline.plug_ins import Registry
from vibe_model.settings import RunConfig, VideoConfig

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from vibe_model.networks.video_model import VideoModel

C = TypeVar("C", bound=RunConfig)
V = TypeVar("V", bound=VideoConfig)


@dataclass(frozen=True, kw_only=True)
class Training(Generic[C]):
    """A section of luigi.cfg that is trained: its settings and their defaults."""

    title: str  # in tables
    config: type[C]
    presets: Mapping[str, Callable[..., C]]  # functions that make a configuration
    preset: str  # default
    # settings that other sections decide, and those sections, for messages
    inherited: tuple[str, ...] = ("cache", "at", "runs", "body", "stream")
    inherited_from: str = "[paths], [data] or [features]"

    def __post_init__(self) -> None:
        if self.preset not in self.presets:
            raise ConfigError(
                f"preset: expected one of {', '.join(self.presets) or 'none'}, found "
                f"{self.preset!r}"
            )
        for base in self.config.__mro__:
            if "__dataclass_fields__" in vars(base) and not is_pydantic_dataclass(base):
                raise ConfigError(
                    f"config: expected a pydantic dataclass, found {base.__name__} of the "
                    "standard library, whose values would not be checked: write `from "
                    "pydantic.dataclasses import dataclass`"
                )

    @property
    def section(self) -> str:
        """Name of the section; a model has the same name."""
        return self.config.MODEL

    @property
    def settable(self) -> tuple[str, ...]:
        """Settings that the section may have."""
        not_here = {*self.inherited, *self.config.FIXED}
        return tuple(field.name for field in fields(self.config) if field.name not in not_here)


@dataclass(frozen=True, kw_only=True)
class Model(Training[VideoConfig]):
    """A model of video features."""

    variants: Mapping[str, Mapping[str, Any]]  # changes of a configuration by name
    baseline: str  # variant that regresses each frame from its own feature
    # Whether it is reported, and compared with its baseline, by default. Others are reported for
    # demo data alone, and compared for real data alone.
    always_reported: bool = False
    # "module:name", imported when first used: the VideoTrainer's class, and a class or function
    # that builds a VideoModel with new parameters from (config, body).
    trainer: str
    generator: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline not in self.variants:
            variants = ", ".join(self.variants) or "none"
            raise ConfigError(f"baseline: expected one of {variants}, found {self.baseline!r}")
        field_names = {field.name for field in fields(self.config)}
        for variant, changes in self.variants.items():
            unknown_settings = sorted(changes.keys() - field_names)
            if unknown_settings:
                name = unknown_settings[0]
                close = did_you_mean(name, field_names)
                raise ConfigError(f"variant {variant!r}: {name}: no such setting{close}")

    def parse_variant(self, name: str, setting: str = "variant") -> list[Mapping[str, Any]]:
        """Changes of a variant, or of several joined by "+"; none of "". Raises ConfigError.

        setting: What names it, for the message.
        """
        changes = []
        for part in filter(None, name.split("+")):
            if part not in self.variants:
                raise ConfigError(
                    f"{setting}: expected one of {', '.join(self.variants)}, or some joined by +; "
                    f"found {part!r}",
                    setting,
                )
            changes.append(self.variants[part])
        return changes

    def vary(self, config: V, name: str) -> V:
        """Apply a variant to a configuration of the model, as `parse_variant` reads it."""
        for changes in self.parse_variant(name):
            config = config.vary(changes)
        return config

    def load_trainer(self) -> Callable[..., Any]:
        """The model's VideoTrainer, called with (config, body, process group).

        Raises PlugInError if another package's cannot be imported.
        """
        with calling(self.section, f"importing {self.trainer}"):
            trainer: Callable[..., Any] = plug_ins.load(self.trainer)
            return trainer


_REGISTRY: Final[Registry[Model]] = Registry("model", plug_ins.MODELS, Model, "section")
# what this module offers of it; `Registry` describes each
names = _REGISTRY.names
find = _REGISTRY.find
every = _REGISTRY.every
load_all = _REGISTRY.load_all
unknown = _REGISTRY.unknown
missing_label = _REGISTRY.missing_label
calling = _REGISTRY.calling


def build_generator(config: VideoConfig, body: Body) -> VideoModel:
    """Build a generator with new parameters. Raises PlugInError if another package's fails."""
    model = find(config.MODEL)
    with calling(model.section, model.generator):
        generator: VideoModel = plug_ins.load(model.generator)(config, body)
        generator.model_name = model.section
        return generator
