"""The registry of models, built-in and of other packages.  [settings] -> training -> evaluation,
prediction

A model is one record `MODEL`, found below or by an entry point of "vibe_pipeline.models"
(docs/adding-a-model.md). It imports no torch: trainer and networks are imported when first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pydantic.dataclasses import is_pydantic_dataclass

from pipeline import plug_ins
from pipeline.errors import ConfigError, did_you_mean
from pipeline.plug_ins import Registry
from vibe_model.settings import RunConfig, VideoConfig

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.networks.video_model import VideoModel

C = TypeVar("C", bound=VideoConfig)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A section of luigi.cfg that is trained: its settings and their defaults."""

    title: str  # in tables
    section: str  # of luigi.cfg; a model's is its name
    config: type[RunConfig]
    presets: Mapping[str, Callable[..., RunConfig]]  # functions that make a configuration
    preset: str  # default
    elsewhere: tuple[str, ...] = ("cache", "runs", "body", "stream")  # settings of other sections
    elsewhere_sections: str = "[paths] or [features]"  # those sections, for messages

    def __post_init__(self) -> None:
        if self.preset not in self.presets:
            raise ConfigError(
                f"preset: expected one of {', '.join(self.presets) or 'none'}, found "
                f"{self.preset!r}"
            )
        for of_config in self.config.__mro__:
            if "__dataclass_fields__" in vars(of_config) and not is_pydantic_dataclass(of_config):
                raise ConfigError(
                    f"config: expected a pydantic dataclass, found {of_config.__name__} of the "
                    "standard library, whose values would not be checked: write `from "
                    "pydantic.dataclasses import dataclass`"
                )

    @property
    def settable(self) -> tuple[str, ...]:
        """Settings that the section may have."""
        not_here = {*self.elsewhere, *self.config.FIXED}
        return tuple(field.name for field in fields(self.config) if field.name not in not_here)


@dataclass(frozen=True, kw_only=True)
class Model(Training):
    """A model of video features."""

    section: str = ""  # the configuration's MODEL
    config: type[VideoConfig]
    presets: Mapping[str, Callable[..., VideoConfig]]
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
            strange = sorted(changes.keys() - field_names)
            if strange:
                close = did_you_mean(strange[0], field_names)
                raise ConfigError(f"variant {variant!r}: {strange[0]}: no such setting{close}")
        object.__setattr__(self, "section", self.section or self.config.MODEL)
        if self.section != self.config.MODEL:
            raise ConfigError(
                f"{self.config.__name__}.MODEL: expected {self.section!r}, found "
                f"{self.config.MODEL!r}"
            )

    def require_variant(self, name: str, setting: str = "variant") -> None:
        """Raise ConfigError unless `name` is a variant, or several joined by "+".

        setting: What names it, for the message.
        """
        for part in filter(None, name.split("+")):
            if part not in self.variants:
                raise ConfigError(
                    f"{setting}: expected one of {', '.join(self.variants)}, or some joined by +; "
                    f"found {part!r}"
                )

    def load_trainer(self) -> Any:
        """The VideoTrainer's class. Raises PlugInError if another package's cannot be imported."""
        with _REGISTRY.calling(self.section, f"importing {self.trainer}"):
            return plug_ins.load(self.trainer)

    def build(self, config: VideoConfig, body: Body) -> VideoModel:
        """Build a generator with new parameters. Raises PlugInError if another package's fails."""
        with _REGISTRY.calling(self.section, self.generator):
            generator = cast("VideoModel", plug_ins.load(self.generator)(config, body))
            generator.model_name = self.section
            return generator


_REGISTRY: Final[Registry[Model]] = Registry("model", plug_ins.MODELS, Model, "section")
names = _REGISTRY.names
find = _REGISTRY.find
every = _REGISTRY.every
load_all = _REGISTRY.load_all
unknown = _REGISTRY.unknown
missing_label = _REGISTRY.missing_label
calling = _REGISTRY.calling


def model_of(config: VideoConfig) -> Model:
    """The model of a configuration."""
    return find(config.MODEL)


def variant_of(config: C, name: str) -> C:
    """Apply a variant to a configuration; join several by "+"; "": none.

    `leave_out` accumulates. Raises ConfigError for an unknown variant.
    """
    model = model_of(config)
    model.require_variant(name)
    for part in filter(None, name.split("+")):
        changes = dict(model.variants[part])
        if "leave_out" in changes:
            changes["leave_out"] = tuple(dict.fromkeys((*config.leave_out, *changes["leave_out"])))
        config = replace(config, **changes)
    return config
