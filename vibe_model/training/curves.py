"""The curves of a training run, for the report and for TensorBoard.  windows -> [training]"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self, TypeVar

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vibe_model import runs
from vibe_model.training.trainer import StepResult

T = TypeVar("T")

SPEED_EVERY: Final = 10  # steps per point of the speed curves


class Curves:
    """The curves of one training run: `runs.CURVES` for the report, and events for TensorBoard.

    HPARAMS; train/*: weighted losses of each step and their sum; gradient/*: norms by network;
    learning_rate/*; speed/windows_per_second; speed/waiting_for_data: share of time;
    validation/SPLIT/*: metrics of each epoch.
    """

    def __init__(self, folder: Path | None, *, first_step: int, windows: int) -> None:
        """Continue the curves in a run's folder.

        Args:
            folder: None: nothing is written.
            first_step: The next step; points of an earlier process from this step on are deleted.
            windows: Number of windows per step, for the speed.
        """
        # TensorBoard's events and curves.jsonl; empty if nothing is written
        self._outputs: tuple[SummaryWriter, IO[str]] | tuple[()] = ()
        self._began_s = time.perf_counter()
        if folder is not None:
            writer = SummaryWriter(str(folder), purge_step=first_step)
            file = folder / runs.CURVES
            self._began_s -= _cut_curves(file, first_step)
            self._outputs = (writer, file.open("a", encoding="utf-8"))
        self._windows = windows
        self.start_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for output in self._outputs:
            output.close()

    def settings(self, values: Mapping[str, Any], scores: Sequence[str]) -> None:
        """Write a run's settings for TensorBoard's table of runs (HPARAMS).

        scores: Tags of the curves that the table shows beside them.
        """
        if self._outputs:
            plain: dict[str, int | float | str] = {}
            for key, value in values.items():
                plain[key] = value if isinstance(value, int | float) else str(value)
            for summary in hparams(plain, dict.fromkeys(scores, 0.0)):  # type: ignore[no-untyped-call]
                self._outputs[0].file_writer.add_summary(summary)  # type: ignore[attr-defined]

    def start_clock(self) -> None:
        """Start measuring speed now, so that validation and saving before do not count."""
        self._steps = 0
        self._waited_s = 0.0
        self._since_s = time.perf_counter()

    def next_batch(self, batches: Iterator[T]) -> T:
        """Return the next batch, and measure the time spent waiting for it."""
        since = time.perf_counter()
        batch = next(batches)
        self._waited_s += time.perf_counter() - since
        return batch

    def flush(self) -> None:
        """Write all points to disk; those of curves.jsonl survive a power cut.

        Call it before the state is saved: a run that resumes from this state does not log the steps
        before it again.
        """
        for output in self._outputs:
            output.flush()
        if self._outputs:
            os.fsync(self._outputs[1].fileno())

    def step(self, number: int, step: StepResult, skipped: int) -> None:
        """Log the step of this number: its losses, or the number of skipped steps."""
        if step.loss is not None:
            losses = {f"train/{name}": value for name, value in step.terms.items()}
            norms = {f"gradient/{name}": value for name, value in step.norms.items()}
            self._scalars(number, losses | norms | {"train/total": step.loss})
        else:
            self._scalars(number, {"train/skipped_steps": skipped})
        self._steps += 1
        if self._steps == SPEED_EVERY:
            elapsed = time.perf_counter() - self._since_s
            rates = {
                "speed/windows_per_second": self._steps * self._windows / elapsed,
                "speed/waiting_for_data": self._waited_s / elapsed,
            }
            self._scalars(number, rates)
            self.start_clock()

    def epoch(
        self, number: int, validation: Mapping[str, Any], learning_rates: Mapping[str, float]
    ) -> None:
        """Log an epoch's validation by split, and the learning rates after it."""
        for split, metrics in validation.items():
            numbers = {
                f"validation/{split}/{name}": value
                for name, value in metrics.items()
                if isinstance(value, float)
            }
            self._scalars(number, numbers)
        rates = {f"learning_rate/{name}": rate for name, rate in learning_rates.items()}
        self._scalars(number, rates)

    def _scalars(self, number: int, values: Mapping[str, float]) -> None:
        if not self._outputs:
            return
        writer, lines = self._outputs
        for name, value in values.items():
            writer.add_scalar(name, value, number)
        seconds = round(time.perf_counter() - self._began_s, 1)
        digits = {name: float(f"{value:.7g}") for name, value in values.items()}
        lines.write(json.dumps([number, seconds, digits]) + "\n")


def _cut_curves(file: Path, first_step: int) -> float:
    """Delete the lines of curves.jsonl from `first_step` on, or from the first broken line on.

    Returns the time of training (seconds) that the last remaining line records.
    """
    n_bytes = 0  # of the lines that stay
    seconds = 0.0
    with file.open("a+b") as lines:
        lines.seek(0)
        for line in lines:
            try:
                step, spent, _ = json.loads(line)
            except ValueError:
                break
            if step >= first_step or not line.endswith(b"\n"):
                break
            n_bytes += len(line)
            seconds = float(spent)
        lines.truncate(n_bytes)
    return seconds
