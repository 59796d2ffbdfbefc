"""windows -> the motion prior, as a Luigi task: what `prior = mposer` trains a generator with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import luigi

from cache import CacheError
from pipeline.errors import ConfigError
from pipeline.settings.file import located
from tasks import terminal
from tasks.base import PipelineTask
from tasks.data import NETWORK, Data, enabled_splits
from tasks.settings import OF_TRAINING, UNLESS_SET, own_mposer, settings
from tasks.training import read_metrics, train_config
from vibe_model import runs
from vibe_model.errors import VibeModelError
from vibe_model.settings.config import TrainConfig
from vibe_model.settings.mposer_config import MPoserConfig

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress
    from vibe_model.training.loop import Progress as TrainingProgress

CHECKPOINT: Final = "best.pt"  # mposer_training's, which imports torch


def mposer_config(train: TrainConfig) -> MPoserConfig:
    """[mposer] of luigi.cfg: a preset, the settings that differ from it, and what a generator's settings decide.

    The preset is `embedded` where [train] has that, else `amass`. Raises ConfigError.
    """
    config, changes = own_mposer(settings())
    decided: dict[str, Any] = {name: getattr(train, name) for name in OF_TRAINING}
    decided["motion"] = tuple(split for split in train.motion if split not in train.leave_out)
    for name in ("strides", "window_weights"):  # of other splits, they change nothing here
        decided[name] = {split: value for split, value in decided[name].items() if split in decided["motion"]}
    own = {name: getattr(train, name) for name in UNLESS_SET if name not in changes}
    try:
        config = replace(config, **decided, **own)
    except VibeModelError as error:
        raise ConfigError(located(settings().file, "train", settings().train, str(error))) from error
    known = [f"{dataset}/{split}" for dataset, split, _ in enabled_splits()]
    if absent := [name for name in config.splits if name not in known]:
        raise ConfigError(
            f"{settings().source.where('train', 'motion')}: {', '.join(absent)} is to be used, but [data] datasets "
            f"does not enable it; known: {', '.join(known)}"
        )
    return config


def mposer_checkpoint(train: TrainConfig) -> Path:
    """The checkpoint of the prior that `TrainMPoser` trains for this configuration.

    While the cache lacks the motion, nobody knows its name: then a file that never is. Raises ConfigError.
    """
    config = mposer_config(train)
    try:
        return runs.run_folder(config) / CHECKPOINT
    except (VibeModelError, CacheError):
        return config.runs / f"{config.name}-unknown" / CHECKPOINT


class TrainMPoser(PipelineTask):
    """Train the motion prior on the cached motion, into runs/<name>-<fingerprint>/."""

    verb = "train"
    resources = NETWORK
    variant = luigi.Parameter(
        default="", description="whose windows; of vibe_model.settings.variants; empty: as luigi.cfg says"
    )
    seed = luigi.IntParameter(default=-1, description="-1: as luigi.cfg says")

    @property
    def what(self) -> str:
        return "MPoser" + (f", seed {self.seed}" if self.seed >= 0 else "")

    def config(self) -> MPoserConfig:
        return mposer_config(train_config(self.variant, None if self.seed < 0 else self.seed))

    def requires(self) -> luigi.Task:
        self.config()  # a mistake in [mposer] is told before anything runs
        return Data()

    def up_to_date(self) -> bool:
        return runs.is_complete(self.config())

    def work(self) -> None:
        from vibe_model.training import mposer  # imports torch

        config = self.config()
        with terminal.working(self, self.verb, self.what) as progress:
            folder = mposer.run(config, progress=_telling(progress))
        course = f"{terminal.count(config.epochs, 'epoch')} of {terminal.count(config.iterations, 'step')}"
        terminal.say(self.verb, self.what, ", ".join([course, *_held_out(read_metrics(folder))]))


def _held_out(metrics: dict[str, Any]) -> list[str]:
    """What the prior knows of motion that it has never seen, by split, beside what knowing nothing would give."""
    return [
        f"{split} {found['reconstruction_deg']:.1f}° off (mean pose {found['mean_pose_deg']:.1f}°)"
        for split, found in metrics.items()
        if "/" in split
    ]


def _telling(progress: Progress) -> Any:
    """Training's news as a bar over all steps, with the loss and the last held-out angle beside it."""
    last: dict[str, str] = {}

    def tell(news: TrainingProgress) -> None:
        for metrics in news.validation.values():
            last["angle"] = f"{metrics['reconstruction_deg']:.1f}° off"
        loss = "" if news.terms is None else f"loss {sum(news.terms.values()):.4f}"
        done = news.epoch * news.iterations + news.iteration
        said = f"epoch {news.epoch + 1}/{news.epochs}  {loss}  {last.get('angle', '')}"
        progress(done, news.epochs * news.iterations, said)

    return tell
