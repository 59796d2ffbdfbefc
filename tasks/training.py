"""windows -> training, as Luigi tasks: one of each model, the motion prior MPoser, the pose embedding Pr-VIPE."""

from __future__ import annotations

import json
import logging
import os
import signal
from abc import abstractmethod
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import luigi

from cache import CacheError
from pipeline.cli import console
from pipeline.cli.signals import Terminated
from pipeline.cli.text import count
from pipeline.errors import ConfigError
from tasks.base import PipelineTask
from tasks.data import NETWORK, Convert, Data
from tasks.settings import (
    OF_TRAINING,
    UNLESS_SET,
    VIBE,
    check_inputs,
    model_settings,
    mposer_settings,
    pr_vipe_settings,
    settings,
)
from tasks.terminal import fact, plain, say, shortened
from vibe_model import runs
from vibe_model.errors import VibeModelError
from vibe_model.models import MODELS, Model
from vibe_model.pr_vipe.config import PrVIPEConfig
from vibe_model.settings.run_config import RunConfig
from vibe_model.settings.video_config import VideoConfig
from vibe_model.vibe.config import TrainConfig
from vibe_model.vibe.mposer_config import MPoserConfig

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress
    from vibe_model.training.feature_table import TableProgress
    from vibe_model.training.loop import Progress as TrainingProgress

AS_SET: Final = "as luigi.cfg sets it"


def model_config(model: Model, variant: str = "", seed: int = -1) -> VideoConfig:
    """A model's section of luigi.cfg, as `without_prior`, with the checkpoint of `TrainMPoser` where it lacks one."""
    config = without_prior(model, variant, seed)
    return config.with_prior(mposer_checkpoint(config)) if config.lacks_prior else config


def without_prior(model: Model, variant: str = "", seed: int = -1) -> VideoConfig:
    """A model's section of luigi.cfg: a preset, a variant of it, the settings that differ from these, and the paths.

    variant (of the model's) and seed: in place of luigi.cfg's, unless empty and below 0. Raises ConfigError.
    """
    config = model_settings(settings(), model, variant, None if seed < 0 else seed)
    check_inputs(settings(), config)
    return config


def train_config(variant: str = "", seed: int = -1) -> TrainConfig:
    """[train] of luigi.cfg: VIBE's configuration, as `model_config`."""
    config = model_config(VIBE, variant, seed)
    assert isinstance(config, TrainConfig)
    return config


def mposer_config(train: VideoConfig) -> MPoserConfig:
    """[mposer] of luigi.cfg, and what a generator's settings decide of its prior. Raises ConfigError."""
    s = settings()
    config, own = mposer_settings(s)
    decided: dict[str, Any] = {name: getattr(train, name) for name in OF_TRAINING}
    decided |= {name: getattr(train, name) for name in UNLESS_SET if name not in own}
    motion = decided["motion"] = tuple(split for split in train.motion if split not in train.leave_out)
    for name in ("strides", "window_weights"):  # of other splits, they change nothing here
        decided[name] = {split: value for split, value in decided[name].items() if split in motion}
    try:
        config = replace(config, **decided)
    except VibeModelError as error:
        raise ConfigError(s.train.located(str(error))) from error
    check_inputs(s, config)
    return config


def mposer_checkpoint(train: VideoConfig) -> Path:
    """The checkpoint of the prior that `TrainMPoser` trains for this configuration.

    While the cache lacks the motion, its name is not known yet: then a file that never exists. Raises ConfigError.
    """
    config = mposer_config(train)
    try:
        return runs.run_folder(config) / runs.BEST
    except (VibeModelError, CacheError):
        return config.runs / f"{config.name}-unknown" / runs.BEST


class TrainingTask(PipelineTask):
    """A training run of any model, into runs/<name>-<fingerprint>/."""

    verb, unit = "train", "step"
    resources = NETWORK
    variant = luigi.Parameter(default="", description=f"of the model's VARIANTS; empty: {AS_SET}")
    seed = luigi.IntParameter(default=-1, description=f"-1: {AS_SET}")

    @abstractmethod
    def config(self) -> RunConfig:
        """Its settings. Raises ConfigError: `requires` calls it, so that a mistake is reported before anything runs."""

    def up_to_date(self) -> bool:
        return runs.is_complete(self.config())

    def done(self, result: str) -> None:
        """Print the task's line."""
        config = self.config()
        self.say(f"{count(config.epochs, 'epoch')} of {count(config.iterations, 'step')}, {result}".removesuffix(", "))

    @property
    def of_seed(self) -> str:
        return f", seed {self.seed}" if self.seed >= 0 else ""


class TrainMPoser(TrainingTask):
    """Train the motion prior on the cached motion."""

    @property
    def what(self) -> str:
        return f"MPoser{self.of_seed}"

    def config(self) -> MPoserConfig:
        return mposer_config(train_config(self.variant, self.seed))

    def requires(self) -> luigi.Task:
        self.config()
        return Data()

    def work(self) -> None:
        from vibe_model.vibe import mposer_training  # imports torch

        with self.progress() as progress:
            folder = mposer_training.run(
                self.config(), progress=shown_by(progress, self.what, "reconstruction_deg", "°")
            )
        # On motion that it was not trained on, beside the error of the mean pose.
        held_out = [
            f"{split} {found['reconstruction_deg']:.1f}° off (mean pose {found['mean_pose_deg']:.1f}°)"
            for split, found in read_metrics(folder).items()
            if "/" in split
        ]
        self.done(", ".join(held_out))


class TrainPrVIPE(TrainingTask):
    """Train the embedding of 2D poses on the cached 3D poses. Needs no features: the stream `pr_vipe` needs it."""

    @property
    def what(self) -> str:
        return f"Pr-VIPE{self.of_seed}"

    def config(self) -> PrVIPEConfig:
        if self.variant:
            raise ConfigError(f"--variant {self.variant}: Pr-VIPE has no variants")
        config = pr_vipe_settings(settings(), None if self.seed < 0 else self.seed)
        check_inputs(settings(), config)
        return config

    def requires(self) -> list[luigi.Task]:
        return [Convert(dataset=name.split("/")[0], split=name.split("/")[1]) for name in self.config().splits]

    def work(self) -> None:
        from vibe_model.pr_vipe import training  # imports torch

        with self.progress() as progress:
            folder = training.run(self.config(), progress=shown_by(progress, self.what, "hit_1", " %"))
        found = {name: metrics for name, metrics in read_metrics(folder).items() if "/" in name}
        hits = [f"{n} {m['hit_1']:.1f} % (keypoints {m['procrustes_hit_1']:.1f} %)" for n, m in found.items()]
        self.done(", ".join(["Hit@1 of another camera's picture", *hits] if hits else []))


class TrainModel(TrainingTask):
    """Train one model on the cached features. A subclass names it."""

    model: ClassVar[Model]

    @property
    def what(self) -> str:
        return f"{self.model.title}, {self.config().name}{self.of_seed}"

    def config(self) -> VideoConfig:
        return model_config(self.model, self.variant, self.seed)

    def requires(self) -> list[luigi.Task]:
        self.config()
        lacks_prior = without_prior(self.model, self.variant, self.seed).lacks_prior
        return [Data(), *([TrainMPoser(variant=self.variant, seed=self.seed)] if lacks_prior else [])]

    def work(self) -> None:
        config = self.config()
        if other := runs.beside(config):
            self.say(f"a new run beside {plain(other)}", mark=console.IDLE)
        try:
            with self.progress() as progress:
                folder = train(config, self.variant, progress, self.what)
        except KeyboardInterrupt as error:
            with suppress(Exception):  # an error here must not hide the interruption
                error.add_note(f"of {self.what}, {kept(config)}")
            raise
        best = read_metrics(folder)["best"]
        self.done(f"validation PA-MPJPE {best['pa_mpjpe']:.1f} mm, best of epoch {best['epoch'] + 1}")


class TrainVIBE(TrainModel):
    """Train generator and motion discriminator on the cached features."""

    model = VIBE


class TrainHMMR(TrainModel):
    """Train HMMR's generator and pose discriminator on the cached features."""

    model = MODELS["hmmr"]


def kept(config: VideoConfig) -> str:
    """What is kept of an interrupted training: the step of its last checkpoint."""
    last = runs.run_folder(config) / runs.LAST
    if not last.is_file():
        return "nothing: no checkpoint was written yet"
    import torch

    step = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["course"]["step"]
    return f"step {step:,} of {config.epochs * config.iterations:,} ({shortened(last)})"


def train(config: VideoConfig, variant: str, progress: Progress, what: str) -> Path:
    """Train in this process, or in as many as the settings ask for. Returns the run's folder."""
    from tasks.prediction.pictures import Pictures
    from vibe_model import training  # imports torch
    from vibe_model.training.parallel import n_processes

    n = n_processes(config)
    if n == 1:
        return training.run(config, progress=shown_by(progress, what), pictures=Pictures(config))
    progress(0, config.epochs * config.iterations, f"{n} processes")
    command = ["-m", "tasks", "train", f"--model={config.MODEL}", f"--variant={variant}", f"--seed={config.seed}"]
    _launch("--standalone", "--nproc-per-node", str(n), *command)
    return runs.run_folder(config)


def _launch(*words: str) -> None:
    """`torchrun WORDS`, in this process: its children are ours. Raises ConfigError where one of them fails."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes print their errors themselves
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # what it would choose itself, with a warning
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run.main(list(words))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        raise ConfigError(
            f"training in several processes ended with exit code {code}: their messages are above"
        ) from error
    except SignalException as error:
        raise (Terminated() if error.sigval == signal.SIGTERM else KeyboardInterrupt()) from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run."""
    metrics: dict[str, Any] = json.loads((folder / runs.METRICS).read_text())
    return metrics


def shown_by(progress: Progress, what: str, score: str = "pa_mpjpe", unit: str = " mm") -> Any:
    """The callback that shows a training: a bar over all steps, with the loss and the last validation.

    Before that, features that are read into memory, and then a line of where they are. Without a terminal there is no
    bar, and each epoch is a line. score: of the validation, by its name in metrics.
    """
    from vibe_model.training.feature_table import TableProgress

    name = {"pa_mpjpe": "PA-MPJPE", "hit_1": "Hit@1"}.get(score, "error")
    loss = validation = ""
    begun = False

    def show(news: TrainingProgress | TableProgress) -> None:
        nonlocal loss, validation, begun
        if isinstance(news, TableProgress):
            progress(news.done, news.total, f"features {news.where}")
            if news.done == news.total:
                fact("features", news.where)
            return
        for metrics in news.validation.values():
            validation = f"{metrics[score]:.1f}{unit}"
        if news.terms is not None:
            loss = f"loss {sum(news.terms.values()):.4g}"
        done = news.epoch * news.iterations + news.iteration
        if not begun and done > 1:
            fact("continues", f"from step {done - 1:,}, where it was interrupted")
        begun = True
        # The loss first: a narrow terminal cuts the end.
        parts = [loss, f"val {validation}" if validation else "", f"epoch {news.epoch + 1}/{news.epochs}"]
        progress(done, news.epochs * news.iterations, "  ".join(filter(None, parts)))
        if news.validation and not console.out.is_terminal:
            found = ", ".join(filter(None, [loss, f"validation {name} {validation}"]))
            say("train", what, f"epoch {news.epoch + 1} of {news.epochs}: {found}", mark=" ")

    return show
