"""Show the progress of a training.  windows -> [training]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli import console
from pipeline.cli.text import count
from tasks.base import fact, say, warn
from tasks.settings import settings
from vibe_model.metrics import score_text
from vibe_model.sections import ModelSections

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress
    from vibe_model.settings import VideoConfig
    from vibe_model.training.loop import TrainingProgress

# A step is an outlier if its loss is more than so many times the mean of the epoch's steps before
# it, of which there must be enough.
OUTLIER_FACTOR: Final = 10
FEWEST_STEPS: Final = 10


class TrainingView:
    """Shows the loading of features into memory, then steps and epochs: as a bar, or as lines in a
    log. It is the `TrainingObserver` of tasks and commands.
    """

    def __init__(
        self,
        progress: Progress,
        what: str,
        score_of: Callable[[Mapping[str, Any]], str] = score_text,
    ) -> None:
        """score_of: Function that describes the score in a split's metrics."""
        self._progress = progress
        self._what = what
        self._score_of = score_of
        self._losses = list[float]()  # of this epoch's steps
        self._loss = ""  # text of the last step's
        self._n_skipped = 0  # steps of this epoch whose loss was not finite
        self._scores: dict[str, str] = {}  # split -> its score in the last validation

    def show_features(self, where: str, done: int, total: int) -> None:
        self._progress(done, total, f"features {where}", unit="row")
        if done == total:
            fact("features", where)

    def show_growth(self, text: str) -> None:
        warn(text)

    def show_step(self, progress: TrainingProgress, loss: float | None) -> None:
        """Show the step's loss, and warn if it is an outlier."""
        if loss is None:
            self._n_skipped += 1
            self._loss = f"loss not finite, {count(self._n_skipped, 'step')} skipped"
        else:
            if len(self._losses) >= FEWEST_STEPS:
                _warn_of_outlier(progress.n_done, loss, fmean(self._losses))
            self._losses.append(loss)
            self._loss = f"loss {loss:.4g}"
        self._show_bar(progress)

    def show_epoch(
        self, progress: TrainingProgress, loss: float | None, validation: Mapping[str, Any]
    ) -> None:
        """Show the mean loss and the scores; in a log, as a line."""
        self._losses.clear()
        if self._n_skipped:
            n_steps = count(self._n_skipped, "step")
            warn(f"epoch {progress.epoch + 1}: loss not finite, {n_steps} skipped")
            self._n_skipped = 0
        if loss is not None:
            self._loss = f"mean loss {loss:.4g}"
        for split, metrics in validation.items():
            score = self._score_of(metrics)
            if score:
                self._scores[split] = score
        self._show_bar(progress)
        if validation and not console.out.is_terminal:
            text = ", ".join(filter(None, [self._loss, f"validation {self._validation}"]))
            epoch = f"epoch {progress.epoch + 1} of {progress.epochs}"
            say("train", self._what, f"{epoch}: {text}", mark=" ")

    def _show_bar(self, progress: TrainingProgress) -> None:
        # Loss first: a narrow terminal cuts the end.
        parts = [self._loss, self._validation, f"epoch {progress.epoch + 1}/{progress.epochs}"]
        n_steps = progress.epochs * progress.iterations
        self._progress(progress.n_done, n_steps, "  ".join(filter(None, parts)))

    @property
    def _validation(self) -> str:
        """The scores, with the names of their splits if there are several."""
        if len(self._scores) > 1:
            return ", ".join(f"{split} {score}" for split, score in self._scores.items())
        return "".join(self._scores.values())


def warn_of_doubts(config: VideoConfig) -> None:
    """Print the warnings before a training, in the process that shows it."""
    for text in ModelSections(settings()).doubts(config):
        warn(text)


def _warn_of_outlier(step: int, loss: float, mean: float) -> None:
    """Print a step whose loss is an outlier. mean: of the epoch's steps before it."""
    if loss > OUTLIER_FACTOR * mean > 0:
        warn(f"step {step:,}: loss {loss:.4g}, while this epoch's mean was {mean:.4g}")
