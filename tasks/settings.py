"""luigi.cfg as typed objects: what `commands.settings` reads of it, with those of training and Luigi's own sections.

Those of training are [train] (VIBE's), one of each other model, [mposer] and [pose_embedding] (Pr-VIPE's).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, cast

from pipeline import datasets
from pipeline.commands.settings import file as luigi_cfg
from pipeline.commands.settings import sections
from pipeline.commands.settings.file import Section, did_you_mean, settings_file
from pipeline.commands.settings.sections import Settings
from pipeline.errors import ConfigError
from vibe_model import models
from vibe_model.errors import VibeModelError
from vibe_model.models import Model
from vibe_model.pr_vipe import config as of_pr_vipe
from vibe_model.pr_vipe.config import PrVIPEConfig
from vibe_model.settings.run_config import RunConfig
from vibe_model.settings.video_config import VideoConfig
from vibe_model.vibe import mposer_config as of_mposer

VIBE: Final = models.find("vibe")
EMBEDDED: Final = "embedded"  # the preset for demo data: where [train] has it, so has every model that has one
# Keys of a model's section that are no setting of a run.
WHICH_RUNS: Final = ("preset", "variant", "baseline", "report")
SET_ELSEWHERE: Final = ("cache", "runs", "body", "stream")  # settings of a run, by [paths] and [features]
POSE_EMBEDDING: Final = "pose_embedding"  # Pr-VIPE's section: [pr_vipe] is its stream's
# A prior is for the windows that a generator is trained on: these settings of it are [train]'s.
OF_TRAINING: Final = ("cache", "runs", "validation", "seqlen", "stride", "strides", "window_weights", "tail", "seed")
UNLESS_SET: Final = ("device",)  # this too, where [mposer] does not set it
# Fields of models' configurations that are no settings, since they follow from others, by section; "": of every model.
FIXED: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset(
        {"feature_size", "leave_out", "eval_batch", "threads", "max_non_finite", "discriminator_weight"}
        | {"least_scale", "largest_scale"}
    ),
    "pose_embedding": frozenset(
        {"seqlen", "strides", "window_weights", "tail", "plateau_factor", "plateau_patience", "size"}
    ),
}
# Keys that name splits.
SPLITS: Final = ("datasets_2d", "datasets_3d", "poses_3d", "motion", "validation", "evaluation")


@dataclass(frozen=True, slots=True)
class WhichRuns:
    """Of a model's section: which runs there are, and what the other keys start from.

    Unless set, they depend on whether the data are demo data, too: `which_runs`.
    """

    preset: str = "published"
    variant: str | None = None  # several are joined by +
    baseline: bool = True  # its evaluation trains the per-frame baseline, too
    report: bool = False  # `Report` trains and evaluates it; of what there is, it shows any model


def is_fixed(section: str, key: str) -> bool:
    """Whether a field of a model's configuration is no setting."""
    return key in FIXED[""] or key in FIXED.get(section, ())


@functools.cache
def settings() -> Settings:
    """The effective settings. Raises ConfigError."""
    return load(settings_file())


def load(file: Path) -> Settings:
    """Read and check a whole luigi.cfg.

    Raises ConfigError, which names the line, as `sections.load` does, and for mistakes in the models'
    sections, [mposer] and [pose_embedding] that can be seen without looking at what they name.
    """
    s = sections.load(file)
    for name, message in models.broken().items():
        if name in s.source.sections:
            raise ConfigError(f"{s.source.where(name)}: {message}")
    for model in models.every():
        _check(s, model, model_settings(s, model))
    for other in (MPOSER, PR_VIPE):
        other_settings(s, other)
    return s


def _check(s: Settings, model: Model, config: VideoConfig) -> None:
    at = functools.partial(s.source.where, model.section)
    known, broken = _known_splits(datasets.names())
    for key in ("strides", "tracks"):  # training would ignore other splits
        for name in getattr(config, key) if key in s.source.section(model.section) else ():
            if name not in known and name.split("/")[0] not in broken:
                raise ConfigError(f"{at(key)}: there is no split {name}; known: {', '.join(known)}")
    # What torch would refuse only when training begins.
    if config.hold == "device" and config.device == "cpu":
        raise ConfigError(f"{at('hold')} = device: device is cpu, whose memory is called ram. Take ram, or auto.")
    if config.processes > 1 and config.device.startswith("cuda:"):
        raise ConfigError(
            f"{at('processes')} = {config.processes}: device is {config.device}, but each of several processes has a "
            "GPU of its own. Take device = cuda."
        )


def which_runs(s: Settings, model: Model = VIBE) -> WhichRuns:
    """What a model's section names. With demo data, all models that have a preset of minutes are in the report, on it.

    Raises ConfigError.
    """
    demo = s.embedded.enabled
    usual = WhichRuns(
        preset=EMBEDDED if _small(s, model) and EMBEDDED in model.presets else model.preset,
        baseline=model is VIBE or not demo,
        report=model is VIBE or (demo and EMBEDDED in model.presets),
    )
    return replace(usual, **s.source.section(model.section).typed(WhichRuns))


def _small(s: Settings, model: Model) -> bool:
    """Is a model to be trained for minutes, unless its section says otherwise?"""
    return s.embedded.enabled if model is VIBE else which_runs(s).preset == EMBEDDED


def not_small(s: Settings, model: Model) -> str:
    """What to say of a model that is trained on demo data as on real ones, for want of a preset; "" of any other."""
    if not _small(s, model) or EMBEDDED in model.presets or "preset" in s.source.section(model.section):
        return ""
    return f"{model.title} has no preset {EMBEDDED!r}, for demo data: it is trained by its preset {model.preset!r}"


def model_settings(s: Settings, model: Model, given: str = "", seed: int | None = None) -> VideoConfig:
    """A model's section: a preset, what luigi.cfg sets instead, the paths, and a variant of that.

    given: by an option, in place of the variant that luigi.cfg names. Raises ConfigError.
    """
    runs, section = which_runs(s, model), s.source.section(model.section)
    own = _own(section, runs.preset, model.presets, SET_ELSEWHERE, WHICH_RUNS)
    paths, variant = s.paths, given or runs.variant or ""
    own |= {"cache": paths.cache, "runs": paths.runs, "body": paths.body, "stream": s.features.stream}
    own |= {} if seed is None else {"seed": seed}
    preset = model.presets[runs.preset]()
    if s.stream.stream.dim:  # one of bytes has none
        own["feature_size"] = s.stream.stream.dim
    if runs.preset == EMBEDDED and "datasets_2d" not in own:  # demo data are made of what is enabled
        own["datasets_2d"] = tuple(name for name in preset.datasets_2d if name.split("/")[0] in s.data.datasets)
    with of_section(section, variant_by_option=bool(given)):
        config = replace(preset, **own)
        # A variant's name promises its settings: they win over luigi.cfg's.
        return replace(models.variant_of(config, variant), name=f"{config.name}-{variant}" if variant else config.name)


class Other(NamedTuple):
    """A training that is no model's: of what a model is trained with."""

    section: str
    presets: Mapping[str, Callable[..., Any]]
    usual: str  # preset, where neither it is set nor [train] has that of demo data
    elsewhere: tuple[str, ...]  # settings that other sections have


MPOSER: Final = Other("mposer", of_mposer.PRESETS, "amass", (*OF_TRAINING, "motion"))
PR_VIPE: Final = Other(POSE_EMBEDDING, of_pr_vipe.PRESETS, "usual", SET_ELSEWHERE)


def preset_of(s: Settings, of: Other) -> str:
    """The preset of [mposer] or [pose_embedding]: `embedded` where [train] has that, unless it is set."""
    usual = EMBEDDED if which_runs(s).preset == EMBEDDED else of.usual
    return str(s.source.section(of.section).get("preset", usual))


def other_settings(s: Settings, of: Other, **given: Any) -> Any:
    """[mposer] or [pose_embedding]: its preset with what luigi.cfg sets instead, and what is given. ConfigError."""
    section, preset = s.source.section(of.section), preset_of(s, of)
    own = _own(section, preset, of.presets, of.elsewhere, ("preset",))
    with of_section(section):
        return replace(of.presets[preset](), **own, **given)


def pr_vipe_settings(s: Settings, seed: int = -1) -> PrVIPEConfig:
    """[pose_embedding] with the paths; seed: in its place, unless below 0. Raises ConfigError."""
    seeds = {} if seed < 0 else {"seed": seed}
    config = other_settings(s, PR_VIPE, cache=s.paths.cache, runs=s.paths.runs, body=s.paths.body)
    return cast("PrVIPEConfig", replace(config, **seeds))


@contextmanager
def of_section(section: Section, *, variant_by_option: bool = False) -> Iterator[None]:
    """Errors of a configuration name the line of luigi.cfg, or the option `--variant`."""
    try:
        yield
    except VibeModelError as error:
        of_option = variant_by_option and str(error).startswith("variant:")
        raise ConfigError(f"--{error}" if of_option else section.located(str(error))) from error


def _own(
    section: Section, preset: str, presets: Mapping[str, Any], elsewhere: tuple[str, ...], besides: tuple[str, ...]
) -> dict[str, Any]:
    """The keys that a section sets of its preset's, typed. Raises ConfigError."""
    if preset not in presets:
        raise ConfigError(f"{section.where('preset')} = {preset}: expected one of {', '.join(presets)}")
    spec = type(presets[preset]())
    for key in section:
        if key in elsewhere:
            there = "[train] or [paths]" if section.name == "mposer" else "[paths] or [features]"
            raise ConfigError(f"{section.where(key)}: is set in {there}, not here")
    known = [*besides, *(f.name for f in fields(spec) if f.name not in elsewhere)]
    section.check_keys(key for key in known if not is_fixed(section.name, key))
    return section.typed(spec)


def check_inputs(s: Settings, config: RunConfig) -> None:
    """What can be known before hours of conversion: are the splits enabled, do they exist, is the checkpoint there?

    Raises ConfigError.
    """
    known, broken = _known_splits(s.data.datasets)
    section = POSE_EMBEDDING if isinstance(config, PrVIPEConfig) else VIBE.section
    section = models.of(config).section if isinstance(config, VideoConfig) else section
    if isinstance(config, VideoConfig):
        try:
            config.check_feature_size()
        except VibeModelError as error:
            raise ConfigError(s.source.section(section).located(str(error))) from error
    for key in SPLITS:
        at = s.source.where(section, key)
        for name in (name for name in getattr(config, key, ()) if name in config.splits and name not in known):
            dataset = name.split("/")[0]
            if dataset in broken:
                raise ConfigError(f"{at}: {broken[dataset]}")
            if dataset not in s.data.datasets:
                raise ConfigError(
                    f"{at}: {name} is to be used, but [data] datasets does not enable it. Enable it, or set "
                    f"{', '.join(SPLITS)} to what there is."
                )
            raise ConfigError(f"{at}: there is no split {name}{did_you_mean(name, known)} known: {', '.join(known)}")
    pretrained = getattr(config, "pretrained", None)
    if pretrained is not None and not pretrained.is_file():
        at = s.source.where(section, "pretrained")
        raise ConfigError(f"{at} = {pretrained}: there is no such file. Name another, or none.")


def _known_splits(names: tuple[str, ...]) -> tuple[list[str], Mapping[str, str]]:
    """The splits of datasets, and why others cannot be loaded."""
    broken = datasets.broken(names)
    return [f"{n}/{split}" for n in names if n not in broken for split in datasets.get(n).splits], broken


def _refuse_unreadable() -> None:
    """Exit with 2 and a line where a luigi.cfg cannot be read: Luigi's own reader would end with a traceback."""
    try:
        for file in dict.fromkeys([Path("luigi.cfg"), settings_file()]):
            if file.is_file():
                luigi_cfg.read(file)
    except ConfigError as error:
        end(error)


def end(error: ConfigError) -> NoReturn:
    """Exit with 2 and a line, before Luigi begins."""
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(2) from None


if "luigi" not in sys.modules:  # the command `luigi` has read the file before it imports us
    _refuse_unreadable()
