"""A run's curves for TensorBoard.  features -> windows -> [training] -> evaluation

HPARAMS; train/*: weighted losses of each step and their sum; gradient/*: norms by network; learning_rate/*;
speed/windows_per_second; speed/waiting_for_data: share of time; validation/SPLIT/*: metrics of each epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vibe_model.training.trainer import Step

T = TypeVar("T")

SPEED_EVERY: Final = 10  # steps per point of the speed curves


class Curves:
    """The TensorBoard events of one training run."""

    def __init__(self, folder: Path | None, *, first_step: int, windows: int) -> None:
        """folder: None writes nothing; first_step: log again from here; windows: number per step."""
        self._writer = None if folder is None else SummaryWriter(str(folder), purge_step=first_step)
        self._windows = windows
        self.start_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def settings(self, values: Mapping[str, Any], scores: Sequence[str]) -> None:
        """Write a run's settings for the table that compares runs; scores: the curves to show beside them."""
        if self._writer is not None:
            plain = {key: value if isinstance(value, int | float) else str(value) for key, value in values.items()}
            for summary in hparams(plain, dict.fromkeys(scores, 0.0)):  # type: ignore[no-untyped-call]
                self._writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]

    def start_clock(self) -> None:
        """Measure speed from here on, without the validation or checkpoint before."""
        self._steps, self._waited_s, self._since_s = 0, 0.0, time.perf_counter()

    def next_batch(self, batches: Iterator[T]) -> T:
        """The next batch; counts the time until it comes."""
        since = time.perf_counter()
        batch = next(batches)
        self._waited_s += time.perf_counter() - since
        return batch

    def flush(self) -> None:
        """Write all to disk. Call it before the state is saved: a resumed run does not log these steps again."""
        if self._writer is not None:
            self._writer.flush()

    def step(self, number: int, step: Step, skipped: int) -> None:
        """Log one step: its losses, or the number of skipped steps."""
        if step.good:
            losses = {f"train/{name}": value for name, value in step.terms.items()}
            norms = {f"gradient/{name}": value for name, value in step.norms.items()}
            self._scalars(number, losses | norms | {"train/total": sum(step.terms.values())})
        else:
            self._scalars(number, {"train/skipped_steps": skipped})
        self._steps += 1
        if self._steps == SPEED_EVERY:
            elapsed = time.perf_counter() - self._since_s
            rates = {"windows_per_second": self._steps * self._windows, "waiting_for_data": self._waited_s}
            self._scalars(number, {f"speed/{name}": value / elapsed for name, value in rates.items()})
            self.start_clock()

    def epoch(self, number: int, validation: Mapping[str, Any], learning_rates: Mapping[str, float]) -> None:
        """Log an epoch's validation by split, and the learning rates after it."""
        for split, metrics in validation.items():
            numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
            self._scalars(number, {f"validation/{split}/{name}": value for name, value in numbers.items()})
        self._scalars(number, {f"learning_rate/{name}": rate for name, rate in learning_rates.items()})

    def _scalars(self, number: int, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, number)
