"""windows -> training, as Luigi tasks: runs of any model, and of the networks that models read.

    Data -> Train          a model; `TrainVIBE` and others name it
    Data -> TrainMPoser    a checkpoint that a model reads: `CheckpointTask`
    Convert -> TrainPrVIPE      the same, which the stream `pr_vipe` reads, too
    Extract -> ExtractBeside    streams of a split that only one model reads

A model's configuration names the tasks of the checkpoints that it may read (`VideoConfig.MADE_BY`),
such as {"mposer": ("TrainMPoser", "prior = discriminator")}, with the setting that needs none. With
`prior = mposer`, and if luigi.cfg does not set `mposer`, `Train` requires TrainMPoser, and its
configuration has the path of that run's best.pt (`model_config`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import luigi
from luigi.task_register import Register

import cache
from pipeline import plug_ins
from pipeline.cli import console
from pipeline.cli.text import count
from pipeline.errors import ConfigError, DataError
from pipeline.features.spec import StreamSpec
from pipeline.settings.sections import stream_of
from pipeline.steps.recipe import Recipe
from tasks.base import UP_TO_DATE, PipelineTask, at_success, warn
from tasks.data import NETWORK, Convert, Extract, data_tasks
from tasks.results import RunMetrics
from tasks.settings import settings
from tasks.training_processes import run_training
from tasks.training_run import TrainingView
from vibe_model import models, runs
from vibe_model.metrics import score_text
from vibe_model.models import Model
from vibe_model.part_dynamics.pr_vipe.config import PR_VIPE, PrVIPEConfig
from vibe_model.part_dynamics.streams import PrVipe
from vibe_model.sections import VIBE, ModelSections
from vibe_model.settings import RunConfig, VideoConfig
from vibe_model.vibe.config import MPoserConfig

MODEL_NAMES: Final = "vibe, hmmr, part_dynamics, or one of another package"
AS_SET: Final = "empty: as luigi.cfg sets it"


class _TrainingTask(PipelineTask):
    """A training run of any model, into runs/<name>-<fingerprint>/."""

    verb = "train"
    unit = "step"
    resources = NETWORK
    # each replaces that of luigi.cfg
    variant = luigi.OptionalStrParameter(None, description=f"of the model's VARIANTS; {AS_SET}")
    seed = luigi.OptionalIntParameter(None, description=AS_SET)

    @abstractmethod
    def config(self) -> RunConfig:
        """The settings of the training. Raises ConfigError for invalid ones.

        `requires` calls it, so that mistakes are reported before anything runs.
        """

    def up_to_date(self) -> bool:
        at_success[self.task_id] = self._end
        return runs.is_complete(self.config())

    def _end(self) -> None:
        """End the command that the run is the result of."""
        config = self.config()
        changes = runs.later_changes(config, runs.open_run(config))
        if changes:
            warn(f"{self.what}: {changes}. The next command trains on the current data.")
        runs.close(config)

    def run(self) -> None:
        """Train, unless a killed command has finished the training: Luigi has asked before `Data`
        was complete.
        """
        if self.up_to_date():
            self.say(UP_TO_DATE, mark=console.IDLE)
        else:
            super().run()

    def say_finished(self, results: Sequence[str]) -> None:
        """Print the line of a finished training, with its results."""
        config = self.config()
        length = f"{count(config.epochs, 'epoch')} of {count(config.iterations, 'step')}"
        self.say(", ".join([length, *results]))

    @property
    def seed_note(self) -> str:
        """The seed for the task's name; "" for that of luigi.cfg."""
        return "" if self.seed is None else f", seed {self.seed}"


class CheckpointTask(_TrainingTask):
    """A training whose checkpoint a model or a stream reads.

    The model's configuration names this task in `MADE_BY`, a stream in `trained_by`.
    """

    title: ClassVar[str]  # name of what it trains
    trainer: ClassVar[str]  # "module:function" that trains, given the configuration
    score_format: ClassVar[str]  # of a split's metrics during training
    result_format: ClassVar[str]  # of a split's metrics after training

    @property
    def what(self) -> str:
        return f"{self.title}{self.seed_note}"

    def work(self) -> None:
        train = plug_ins.load(self.trainer)  # imports torch
        with self.progress() as progress:
            folder = train(
                self.config(),
                progress=TrainingView(progress, self.what, self.score_format.format_map),
            )
        results = []
        for split, metrics in RunMetrics.read(folder).splits.items():
            results.append(f"{split} {self.result_format.format_map(metrics)}")
        self.say_finished(results)

    @classmethod
    @abstractmethod
    def checkpoint(cls, reader: VideoConfig | None) -> Path:
        """Path of the checkpoint, as of `_best_of`. Raises ConfigError.

        reader: Configuration of the model that reads it; None if a stream reads it.
        """

    @classmethod
    @abstractmethod
    def required_tasks(cls, variant: str | None, seed: int | None) -> list[PipelineTask]:
        """Tasks that make the checkpoint; none if the settings name a file. Raises ConfigError.

        variant, seed: Those of the model's training, as in `_TrainingTask`.
        """


def _checkpoint_task(name: str) -> type[CheckpointTask]:
    """The task class of this name."""
    task: type[CheckpointTask] = Register.get_task_cls(name)
    return task


def _best_of(config: RunConfig) -> Path:
    """Path of a run's best.pt.

    While the run's inputs are missing, its fingerprint is unknown; then it is the path of a file
    that does not exist.
    """
    try:
        return runs.run_folder(config) / runs.BEST
    except (ConfigError, DataError, cache.CacheError):
        return config.runs / f"{config.name}-unknown" / runs.BEST


def _load_config(model: Model, variant: str | None, seed: int | None) -> VideoConfig:
    """A model's configuration by luigi.cfg, checked. variant, seed: Replace those of luigi.cfg."""
    sections = ModelSections(settings())
    config = sections.model(model, variant, seed)
    sections.check_inputs(config, model)
    return config


def _tasks_of(config: VideoConfig) -> dict[str, type[CheckpointTask]]:
    """Setting -> task that makes the checkpoint, which luigi.cfg does not name."""
    return {
        setting: _checkpoint_task(config.MADE_BY[setting][0])
        for setting in config.missing_checkpoints
    }


def model_config(model: Model, variant: str | None = None, seed: int | None = None) -> VideoConfig:
    """A model's configuration by luigi.cfg, with paths for the checkpoints that other tasks make.

    variant, seed: Replace those of luigi.cfg. Raises ConfigError.
    """
    config = _load_config(model, variant, seed)
    checkpoints: dict[str, Any] = {
        setting: task.checkpoint(config) for setting, task in _tasks_of(config).items()
    }
    return replace(config, **checkpoints)


def _mposer_config(train: VideoConfig) -> MPoserConfig:
    """Configuration of the motion prior for the generator `train` (`ModelSections.mposer`),
    checked.

    Raises ConfigError.
    """
    sections = ModelSections(settings())
    config = sections.mposer(train)
    sections.check_inputs(config, VIBE)
    return config


class TrainMPoser(CheckpointTask):
    """Train the motion prior on the cached motion."""

    title = "MPoser"
    trainer = "vibe_model.vibe.mposer_training:run"
    score_format = "error {reconstruction_deg:.1f}°"
    result_format = "{reconstruction_deg:.1f}° off (mean pose {mean_pose_deg:.1f}°)"

    @classmethod
    def checkpoint(cls, reader: VideoConfig | None) -> Path:
        return _best_of(_mposer_config(reader or model_config(VIBE)))

    @classmethod
    def required_tasks(cls, variant: str | None, seed: int | None) -> list[PipelineTask]:
        return [cls(variant=variant, seed=seed)]

    def config(self) -> MPoserConfig:
        return _mposer_config(model_config(VIBE, self.variant, self.seed))

    def requires(self) -> list[PipelineTask]:
        self.config()  # raises what is wrong with it, before anything runs
        return data_tasks()


class TrainPrVIPE(CheckpointTask):
    """Train the embedding of 2D poses on the cached 3D poses, for the stream `pr_vipe`. Needs no
    features.
    """

    title = "Pr-VIPE"
    trainer = "vibe_model.part_dynamics.pr_vipe.training:run"
    score_format = "Hit@1 {hit_1:.1f} %"
    result_format = "Hit@1 across cameras {hit_1:.1f} % (keypoints {procrustes_hit_1:.1f} %)"

    @classmethod
    def checkpoint(cls, reader: VideoConfig | None) -> Path:  # noqa: ARG003 - the same for all runs
        """The checkpoint in [features], else the one that this task trains."""
        config = ModelSections(settings()).pr_vipe()
        return _embedding_in_settings() or _best_of(config)

    @classmethod
    def required_tasks(cls, variant: str | None, seed: int | None) -> list[PipelineTask]:  # noqa: ARG003 - the same for all runs
        """This task, unless [features] names a trained embedding, which replaces it."""
        if _embedding_in_settings():
            return []
        return [cls()]

    def config(self) -> PrVIPEConfig:
        if self.variant:
            raise ConfigError(f"--variant {self.variant}: Pr-VIPE has no variants")
        sections = ModelSections(settings())
        config = sections.pr_vipe()
        if self.seed is not None:
            config = replace(config, seed=self.seed)
        sections.check_inputs(config, PR_VIPE)
        return config

    def requires(self) -> list[luigi.Task]:
        conversions = list[luigi.Task]()
        config = self.config()
        if config.at is not None:
            return conversions
        for name in config.splits:
            dataset, split = name.split("/")
            conversions.append(Convert(dataset=dataset, split=split))
        return conversions


def _embedding_in_settings() -> Path | None:
    """The embedding's file in a stream of [features], if there is one."""
    for spec in settings().streams:
        if isinstance(spec.stream, PrVipe) and spec.stream.weights.kind == "file":
            return Path(spec.stream.weights.argument)
    return None


class Train(_TrainingTask):
    """Train a model on the cached features: `--model NAME`. A subclass names it."""

    model = luigi.Parameter(description=MODEL_NAMES)

    @property
    def record(self) -> Model:
        """Raises PipelineError for an unknown model, and for one that does not load."""
        return models.find(self.model)

    @property
    def what(self) -> str:
        return f"{self.record.title}, {self.config().name}{self.seed_note}"

    def config(self) -> VideoConfig:
        return model_config(self.record, self.variant, self.seed)

    def requires(self) -> list[luigi.Task]:
        config = _load_config(self.record, self.variant, self.seed)
        tasks = list[luigi.Task](data_tasks())
        for task in _tasks_of(config).values():
            tasks += task.required_tasks(self.variant, self.seed)
        return [*tasks, *_extractions_beside_data(config)]

    def work(self) -> None:
        with self.progress() as progress:
            folder = run_training(self.config(), self.variant, progress, self.what)
        best = RunMetrics.read(folder).content["best"]
        self.say_finished([f"validation {score_text(best)}", f"best of epoch {best['epoch'] + 1}"])


def _extractions_beside_data(config: VideoConfig) -> Iterator[ExtractBeside]:
    """The tasks that extract the streams of a model which `Data` does not extract."""
    listed = settings().stream_names
    for split, streams in config.streams.items():
        dataset, _, part = split.partition("/")
        names = " ".join(stream for stream in streams if stream not in listed)
        if names and config.at is None:
            yield ExtractBeside(dataset=dataset, split=part, streams=names)


class TrainVIBE(Train):
    """Train generator and motion discriminator on the cached features."""

    model = "vibe"


class TrainHMMR(Train):
    """Train HMMR's generator and pose discriminator on the cached features."""

    model = "hmmr"


class TrainPartDynamics(Train):
    """Train part dynamics on the cached features, the embedding of 2D poses and the
    homographies.
    """

    model = "part_dynamics"


class ExtractBeside(Extract):
    """Extract streams of one model, by luigi.cfg or with weights that another task trains.

    They share the decoded frames.
    """

    streams = luigi.Parameter()  # names, with spaces between
    flaw = ""  # `Extract` has it

    @property
    def what(self) -> str:
        return f"{super().what} {self.streams}"

    def requires(self) -> list[PipelineTask]:
        tasks: list[PipelineTask] = [Extract(dataset=self.dataset, split=self.split)]
        for spec in self._specs():
            if spec.stream.trained_by:
                tasks += _checkpoint_task(spec.stream.trained_by).required_tasks(None, None)
        return tasks

    def recipe(self) -> Recipe:
        specs = []
        for spec in self._specs():
            stream = spec.stream
            if stream.trained_by:
                stream = stream.with_weights(_checkpoint_task(stream.trained_by).checkpoint(None))
            specs.append(replace(spec, stream=stream))
        return replace(super().recipe(), streams=tuple(specs))

    def _specs(self) -> Iterator[StreamSpec]:
        return (stream_of(settings().source, name) for name in str(self.streams).split())
