"""A training run as a Luigi task, whatever it trains, and how it is shown.  windows -> training"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import luigi
from luigi.task_register import Register, TaskClassNotFoundException

from cache import CacheError
from pipeline.cli import console
from pipeline.cli.text import count
from tasks.base import PipelineTask
from tasks.data import NETWORK
from tasks.terminal import fact, say
from vibe_model import runs
from vibe_model.errors import ConfigError, DataError
from vibe_model.settings.run_config import RunConfig
from vibe_model.settings.video_config import VideoConfig

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress
    from vibe_model.training.feature_table import TableProgress
    from vibe_model.training.loop import TrainingProgress

AS_SET: Final = "as luigi.cfg sets it"


class TrainingTask(PipelineTask):
    """A training run of any model, into runs/<name>-<fingerprint>/."""

    verb, unit = "train", "step"
    resources = NETWORK
    variant = luigi.Parameter(default="", description=f"of the model's VARIANTS; empty: {AS_SET}")
    seed = luigi.IntParameter(default=-1, description=f"-1: {AS_SET}")

    @abstractmethod
    def config(self) -> RunConfig:
        """Its settings. Raises ConfigError; `requires` calls it, to report mistakes before anything runs."""

    def up_to_date(self) -> bool:
        return runs.is_complete(self.config())

    def done(self, result: str) -> None:
        config = self.config()
        self.say(f"{count(config.epochs, 'epoch')} of {count(config.iterations, 'step')}, {result}".removesuffix(", "))

    @property
    def of_seed(self) -> str:
        return f", seed {self.seed}" if self.seed >= 0 else ""


class CheckpointTask(TrainingTask):
    """A training whose checkpoint a model reads: named in the `MADE_BY` of the model's configuration."""

    @classmethod
    def checkpoint(cls, train: VideoConfig | None) -> Path:
        """The checkpoint for a model's configuration; None: for a stream. See `best_of`. Raises ConfigError."""
        raise NotImplementedError(cls.__name__)

    @classmethod
    def required_tasks(cls, variant: str, seed: int) -> list[luigi.Task]:
        """The tasks that make the checkpoint; empty where the settings name a file. Raises ConfigError."""
        raise NotImplementedError(cls.__name__)


def checkpoint_task(name: str) -> type[CheckpointTask]:
    """The task of that name, which an extension or a package may add. Raises ConfigError where there is none."""
    try:
        task: type[CheckpointTask] = Register.get_task_cls(name)
    except TaskClassNotFoundException as error:
        raise ConfigError(f"no Luigi task is called {name}: install the package that adds it") from error
    return task


def best_of(config: RunConfig) -> Path:
    """best.pt of a run; a file that never exists while the run's inputs are missing, and so its name unknown."""
    try:
        return runs.run_folder(config) / runs.BEST
    except (ConfigError, DataError, CacheError):
        return config.runs / f"{config.name}-unknown" / runs.BEST


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run."""
    metrics: dict[str, Any] = json.loads((folder / runs.METRICS).read_text())
    return metrics


def progress_callback(progress: Progress, what: str, score: str = "pa_mpjpe", unit: str = " mm") -> Any:
    """A callback that shows a training: a bar, without a terminal lines. score: the name of its metric."""
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
            validation = f"{metrics[score]:.1f}{unit}" if score in metrics else validation
        if news.terms is not None:
            loss = f"loss {sum(news.terms.values()):.4g}"
        n_done = news.epoch * news.iterations + news.iteration
        if not begun and n_done > 1:
            fact("continues", f"from step {n_done - 1:,}, where it was interrupted")
        begun = True
        # The loss first: a narrow terminal cuts the end.
        parts = [loss, f"val {validation}" if validation else "", f"epoch {news.epoch + 1}/{news.epochs}"]
        progress(n_done, news.epochs * news.iterations, "  ".join(filter(None, parts)))
        if news.validation and not console.out.is_terminal:
            text = ", ".join(filter(None, [loss, f"validation {name} {validation}"]))
            say("train", what, f"epoch {news.epoch + 1} of {news.epochs}: {text}", mark=" ")

    return show
