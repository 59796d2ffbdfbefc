"""Show the progress of a training.  windows -> [training]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from pipeline.cli import console
from tasks.base import fact, say, warn
from vibe_model.metrics import score_text

if TYPE_CHECKING:
    from pipeline.cli.progress import Progress
    from vibe_model.training.feature_table import TableProgress
    from vibe_model.training.loop import TrainingProgress

OUTLIER: Final = 10  # a step's loss, in means of its epoch so far, from which it is named


class TrainingView:
    """Shows the loading of features into memory, then steps and epochs: as a bar, or as lines in a
    log. It is called with each step of both.
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
        self._loss = ""  # text of the last step's, or of the last epoch's mean
        self._losses = list[float]()  # of this epoch's steps, for `_warn_of_outlier`
        self._scores: dict[str, str] = {}  # split -> its score in the last validation

    def __call__(self, news: TrainingProgress | TableProgress) -> None:
        from vibe_model.training.feature_table import TableProgress  # imports torch

        if not isinstance(news, TableProgress):
            self._show_training(news)
            return
        self._progress(news.done, news.total, f"features {news.where}")
        if news.done == news.total:
            fact("features", news.where)

    def _show_training(self, news: TrainingProgress) -> None:
        """Show the loss, the last scores and the epoch; in a log, a line for each validation. Warn
        of a step whose loss is an outlier.
        """
        for split, metrics in news.validation.items():
            score = self._score_of(metrics)
            if score:
                self._scores[split] = score
        n_done = news.epoch * news.iterations + news.iteration
        if news.terms is not None:
            loss = sum(news.terms.values())
            self._loss = f"loss {loss:.4g}"
            if news.validation:
                self._loss = f"mean {self._loss}"
                self._losses.clear()
            else:
                self._warn_of_outlier(n_done, loss)
        # Loss first: a narrow terminal cuts the end.
        parts = [self._loss, self._validation, f"epoch {news.epoch + 1}/{news.epochs}"]
        self._progress(n_done, news.epochs * news.iterations, "  ".join(filter(None, parts)))
        if news.validation and not console.out.is_terminal:
            text = ", ".join(filter(None, [self._loss, f"validation {self._validation}"]))
            epoch = f"epoch {news.epoch + 1} of {news.epochs}"
            say("train", self._what, f"{epoch}: {text}", mark=" ")

    def _warn_of_outlier(self, step: int, loss: float) -> None:
        """Print a step whose loss is more than OUTLIER times the mean of the epoch's steps before
        it, of which there must be OUTLIER.
        """
        if len(self._losses) >= OUTLIER and loss > OUTLIER * fmean(self._losses) > 0:
            mean = fmean(self._losses)
            warn(f"step {step:,}: loss {loss:.4g}, while this epoch's mean was {mean:.4g}")
        self._losses.append(loss)

    @property
    def _validation(self) -> str:
        """The scores, with the names of their splits if there are several."""
        if len(self._scores) > 1:
            return ", ".join(f"{split} {score}" for split, score in self._scores.items())
        return "".join(self._scores.values())
