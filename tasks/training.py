"""windows -> training, as Luigi tasks: runs of any model, and of the motion prior MPoser.

    Data -> Train          a model; `TrainVIBE` and others name it
    Data -> TrainMPoser    a checkpoint that a model reads: `CheckpointTask`
    Extract -> ExtractBeside    a stream that only one model reads

A model's configuration names the tasks of the checkpoints that it may read (`VideoConfig.MADE_BY`),
such as {"mposer": ("TrainMPoser", "prior = discriminator")}, with the setting that needs none. With
`prior = mposer`, and if luigi.cfg does not set `mposer`, `Train` requires TrainMPoser, and
`model_config` sets `mposer` to the path of its best.pt. `Train` also requires `ExtractBeside`. The
training itself is in `vibe_model.training`, in this process or in several (`_run_training`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import luigi
from luigi.task_register import Register

import cache
from pipeline import plug_ins
from pipeline.cli.command_line import Terminated
from pipeline.cli.text import count
from pipeline.errors import ConfigError, DataError
from pipeline.features.spec import StreamSpec
from pipeline.recipe.recipe import Recipe
from pipeline.settings.sections import stream_of
from tasks.base import PipelineTask, warn
from tasks.data import NETWORK, Data, Extract
from tasks.settings import settings
from tasks.training_view import progress_callback
from vibe_model import models, runs
from vibe_model.metrics import score_text
from vibe_model.models import Model
from vibe_model.sections import (
    VIBE,
    WITHOUT_DEPTH,
    check_inputs,
    model_settings,
    mposer_settings,
)
from vibe_model.settings import RunConfig, VideoConfig
from vibe_model.vibe.config import MPoserConfig, TrainConfig

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress

MODEL_NAMES: Final = "vibe, hmmr, part_dynamics, or one of another package"
AS_SET: Final = "as luigi.cfg sets it"
CONFIGURED_SEED: Final = -1  # the value of `seed` that stands for the seed of luigi.cfg


class _TrainingTask(PipelineTask):
    """A training run of any model, into runs/<name>-<fingerprint>/."""

    verb = "train"
    unit = "step"
    resources = NETWORK
    variant = luigi.Parameter(default="", description=f"of the model's VARIANTS; empty: {AS_SET}")
    seed = luigi.IntParameter(default=CONFIGURED_SEED, description=f"-1: {AS_SET}")

    @abstractmethod
    def config(self) -> RunConfig:
        """The settings of the training. Raises ConfigError for invalid ones.

        `requires` calls it, so that mistakes are reported before anything runs.
        """

    def up_to_date(self) -> bool:
        return runs.is_complete(self.config())

    def say_finished(self, results: Sequence[str]) -> None:
        """Print the line of a finished training, with its results."""
        config = self.config()
        length = f"{count(config.epochs, 'epoch')} of {count(config.iterations, 'step')}"
        self.say(", ".join([length, *results]))

    @property
    def seed_note(self) -> str:
        """The seed for the task's name; "" for that of luigi.cfg."""
        return f", seed {self.seed}" if self.seed != CONFIGURED_SEED else ""


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
                progress=progress_callback(progress, self.what, self.score_format.format_map),
            )
        metrics = read_metrics(folder)
        results = []
        for split in splits_of(metrics):
            results.append(f"{split} {self.result_format.format_map(metrics[split])}")
        self.say_finished(results)

    @classmethod
    @abstractmethod
    def checkpoint(cls, reader: VideoConfig | None) -> Path:
        """Path of the checkpoint, as of `best_of`. Raises ConfigError.

        reader: Configuration of the model that reads it; None if a stream reads it.
        """

    @classmethod
    @abstractmethod
    def required_tasks(cls, variant: str, seed: int) -> list[PipelineTask]:
        """Tasks that make the checkpoint; none if the settings name a file. Raises ConfigError.

        variant, seed: Those of the model's training, as in `_TrainingTask`.
        """


def _checkpoint_task(name: str) -> type[CheckpointTask]:
    """The task class of this name."""
    task: type[CheckpointTask] = Register.get_task_cls(name)
    return task


def _checkpoint_tasks(config: VideoConfig) -> dict[str, type[CheckpointTask]]:
    """Setting in `MADE_BY` -> task that makes its checkpoint, for the missing checkpoints."""
    tasks = {}
    for setting in config.missing_checkpoints:
        task_name, _ = config.MADE_BY[setting]
        tasks[setting] = _checkpoint_task(task_name)
    return tasks


def best_of(config: RunConfig) -> Path:
    """Path of a run's best.pt.

    While the run's inputs are missing, its fingerprint is unknown; then it is the path of a file
    that does not exist.
    """
    try:
        return runs.run_folder(config) / runs.BEST
    except (ConfigError, DataError, cache.CacheError):
        return config.runs / f"{config.name}-unknown" / runs.BEST


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run."""
    metrics: dict[str, Any] = json.loads((folder / runs.METRICS).read_text())
    return metrics


def splits_of(metrics: Mapping[str, Any]) -> list[str]:
    """The splits in metrics.json; its other keys are facts of the run."""
    return [name for name in metrics if "/" in name]


def model_config(model: Model, variant: str = "", seed: int = CONFIGURED_SEED) -> VideoConfig:
    """A model's configuration by luigi.cfg, with paths for the checkpoints that other tasks make.

    variant, seed: As in `_config_from_settings`. Raises ConfigError.
    """
    config = _config_from_settings(model, variant, seed)
    checkpoints = dict[str, Any]()
    for setting, task in _checkpoint_tasks(config).items():
        checkpoints[setting] = task.checkpoint(config)
    return replace(config, **checkpoints)


def _config_from_settings(model: Model, variant: str, seed: int) -> VideoConfig:
    """A model's configuration by luigi.cfg, checked (`check_inputs`). Raises ConfigError.

    Settings of checkpoints that are not set are None. variant, seed: Override those of luigi.cfg,
    unless they are "" and `CONFIGURED_SEED`.
    """
    config = model_settings(settings(), model, variant, None if seed == CONFIGURED_SEED else seed)
    check_inputs(settings(), config, model)
    return config


def train_config(variant: str = "", seed: int = CONFIGURED_SEED) -> TrainConfig:
    """VIBE's configuration, from `model_config`."""
    config = model_config(VIBE, variant, seed)
    assert isinstance(config, TrainConfig)
    return config


def _mposer_config(train: VideoConfig) -> MPoserConfig:
    """Configuration of the motion prior for the generator `train` (`mposer_settings`), checked.

    Raises ConfigError.
    """
    config = mposer_settings(settings(), train)
    check_inputs(settings(), config, VIBE)
    return config


class TrainMPoser(CheckpointTask):
    """Train the motion prior on the cached motion."""

    title = "MPoser"
    trainer = "vibe_model.vibe.mposer:run"
    score_format = "error {reconstruction_deg:.1f}°"
    result_format = "{reconstruction_deg:.1f}° off (mean pose {mean_pose_deg:.1f}°)"

    @classmethod
    def checkpoint(cls, reader: VideoConfig | None) -> Path:
        return best_of(_mposer_config(reader or train_config()))

    @classmethod
    def required_tasks(cls, variant: str, seed: int) -> list[PipelineTask]:
        return [cls(variant=variant, seed=seed)]

    def config(self) -> MPoserConfig:
        return _mposer_config(train_config(self.variant, self.seed))

    def requires(self) -> luigi.Task:
        self.config()  # raises what is wrong with it, before anything runs
        return Data()


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
        self.config()  # raises what is wrong with it and with its checkpoints' settings
        # This one has None for the checkpoints that luigi.cfg does not set.
        config = _config_from_settings(self.record, self.variant, self.seed)
        tasks = list[luigi.Task]([Data()])
        for task in _checkpoint_tasks(config).values():
            tasks += task.required_tasks(self.variant, self.seed)
        return [*tasks, *_extractions_beside_data(config)]

    def work(self) -> None:
        config = self.config()
        if not config.learns_depth:
            warn(WITHOUT_DEPTH)
        with self.progress() as progress:
            folder = _run_training(config, self.variant, progress, self.what)
        best = read_metrics(folder)["best"]
        self.say_finished([f"validation {score_text(best)}", f"best of epoch {best['epoch'] + 1}"])


def _extractions_beside_data(config: VideoConfig) -> Iterator[ExtractBeside]:
    """The tasks that extract the extra streams of a model which `Data` does not extract."""
    extracted_by_data = {spec.name for spec in settings().streams}
    extra_streams = {extra.stream for extra in config.extra_streams.values()} - extracted_by_data
    for split, streams in config.streams.items():
        dataset, _, part = split.partition("/")
        for stream in streams:
            if stream in extra_streams:
                yield ExtractBeside(dataset=dataset, split=part, stream=stream)


class TrainVIBE(Train):
    """Train generator and motion discriminator on the cached features."""

    model = "vibe"


class ExtractBeside(Extract):
    """Extract an extra stream of a model, by its section of luigi.cfg or with weights that another
    task trains.
    """

    stream = luigi.Parameter()
    flaw = ""  # `Extract` has it

    @property
    def what(self) -> str:
        return f"{super().what} {self.stream}"

    def requires(self) -> list[PipelineTask]:
        tasks: list[PipelineTask] = [Extract(dataset=self.dataset, split=self.split)]
        trained_by = self._spec().stream.trained_by
        if trained_by:
            tasks += _checkpoint_task(trained_by).required_tasks(variant="", seed=CONFIGURED_SEED)
        return tasks

    def recipe(self) -> Recipe:
        spec = self._spec()
        if spec.stream.trained_by:
            checkpoint = _checkpoint_task(spec.stream.trained_by).checkpoint(None)
            spec = replace(spec, stream=spec.stream.with_weights(checkpoint))
        return replace(super().recipe(), streams=(spec,))

    def _spec(self) -> StreamSpec:
        return stream_of(settings().source, str(self.stream))


def _run_training(config: VideoConfig, variant: str, progress: Progress, what: str) -> Path:
    """Train in this process, or in several processes if the settings ask for them.

    Returns the run's folder. variant: Of the model, as the command `train` takes it. what: Name of
    the training for progress lines.
    """
    from vibe_model import training  # imports torch
    from vibe_model.training.trainer import ProcessGroup

    n = ProcessGroup.planned_size(config)
    if n == 1:
        return training.run(config, progress=progress_callback(progress, what))
    progress(0, config.epochs * config.iterations, f"{n} processes")
    _launch_processes(
        "--standalone",
        "--nproc-per-node",
        str(n),
        "-m",
        "tasks",
        "train",
        f"--model={config.MODEL}",
        f"--variant={variant}",
        f"--seed={config.seed}",
    )
    return runs.run_folder(config)


def _launch_processes(*words: str) -> None:
    """Run `torchrun WORDS` in this process. Raises ConfigError if a child fails."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # the processes print their errors themselves
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, without its warning
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run.main(list(words))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        raise ConfigError(
            f"training in several processes ended with exit code {code}, see above"
        ) from error
    except SignalException as error:
        if error.sigval == signal.SIGTERM:
            raise Terminated from error
        raise KeyboardInterrupt from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
