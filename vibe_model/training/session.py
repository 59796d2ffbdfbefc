"""What all trainings have in common: a folder of their own, steps, saved states, news.  windows -> [training]"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from cache.storage.atomic import WriterLock
from vibe_model import runs
from vibe_model.checkpoints import read_checkpoint
from vibe_model.errors import CheckpointError, TrainingDiverged
from vibe_model.training.course import Course, Step
from vibe_model.training.curves import Curves
from vibe_model.training.parallel import ALONE, Group

LAST: Final = "last.pt"
CONFIG: Final = "config.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step or an epoch brought, for whoever shows it."""

    epoch: int  # from 0
    epochs: int
    iteration: int  # done in this epoch
    iterations: int
    # The step's weighted losses; None when it was skipped, or at an epoch's end.
    terms: Mapping[str, float] | None = None
    validation: Mapping[str, Any] = field(default_factory=dict)  # metrics by split, at an epoch's end


class Trains(Protocol):
    """What a loop drives: a trainer, which holds everything that training changes."""

    course: Course

    def train_step(self, batch: Any, /) -> Step: ...
    def state_dict(self) -> dict[str, Any]: ...


class Schedule(Protocol):
    """The settings that a loop goes by."""

    @property
    def epochs(self) -> int: ...
    @property
    def iterations(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def max_non_finite(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Steps, the states that are saved between them, and what is told of them."""

    schedule: Schedule
    trainer: Trains
    folder: Path
    about: Mapping[str, Any]  # that last.pt begins with: what it is the state of
    advice: str  # where losses stay non-finite
    show: Callable[[Progress], None] | None = None
    group: Group = ALONE

    def train_epoch(self, epoch: int, ready: Iterator[Any], curves: Curves) -> None:
        """From wherever the course stands to the last step of this epoch. Raises TrainingDiverged."""
        schedule, course = self.schedule, self.trainer.course
        end = (epoch + 1) * schedule.iterations
        curves.speed.begin()
        while course.step < end:
            step = self.trainer.train_step(curves.speed.waiting_for(ready))
            curves.step(course.step, step, course.skipped)
            self.tell(epoch, terms=step.terms if step.good else None)
            if course.skipped_in_a_row >= schedule.max_non_finite:
                self._give_up(curves)
            if course.step % schedule.checkpoint_every == 0 and course.step < end:
                self.save_last(curves)

    def save_last(self, curves: Curves) -> None:
        """The whole state, by the process that leads."""
        if self.group.leads:
            curves.flush()  # first: a resumed run does not log again what led to the state that it goes on from
            save(self.folder / LAST, {**self.about, **self.trainer.state_dict()})

    def tell(self, epoch: int, **news: Any) -> None:
        if self.show is not None:
            schedule = self.schedule
            done = self.trainer.course.step - epoch * schedule.iterations
            self.show(Progress(epoch, schedule.epochs, done, schedule.iterations, **news))

    def _give_up(self, curves: Curves) -> None:
        course = self.trainer.course
        skipped, course.skipped_in_a_row = course.skipped_in_a_row, 0
        self.save_last(curves)
        self.group.from_first(0.0)  # a process that ends takes the others with it: not before this is saved
        raise TrainingDiverged(
            f"{self.folder}: losses were not finite in {skipped} steps in a row, up to step {course.step}. {LAST} "
            "holds the parameters before them. Running it again goes on after them; if it happens again, "
            f"{self.advice}."
        )


def saved_state(last: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What last.pt holds. Raises CheckpointError for a damaged one, and for another run's: it has other `about`."""
    try:
        state = read_checkpoint(last)
    except CheckpointError as error:
        raise CheckpointError(f"{last}: it is damaged. Remove it, and training starts anew.") from error
    differ = [f"{name} {value}, found {state.get(name)!r}" for name, value in about.items() if state.get(name) != value]
    if differ:
        raise CheckpointError(
            f"{last}: expected {'; '.join(differ)}. A run goes on as it was begun, or to other numbers: "
            f"give it another name, or move {last.parent} away."
        )
    return state


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One run trains in its folder. Raises CacheError naming the other one; a dead one holds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(folder / ".writing" / "lock")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def own_torch_state(threads: int, device: torch.device) -> Iterator[None]:
    """Seeds and thread counts of a run stay inside it. threads: 0 for torch's own choice."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a reader, or the next run, sees the old one or the new one."""
    runs.replace_file(path, lambda stream: torch.save(dict(state), stream))
