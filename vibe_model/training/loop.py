"""A training run of any model in its folder: epochs, saved states, curves, results.  windows ->
[training]

A run writes config.json, last.pt (the whole state), best.pt (the network of the best epoch),
curves.jsonl and TensorBoard events, and metrics.json last. Killed and started again, it resumes
from last.pt, and on a CPU ends with the same bits. The `run` functions of the trainings call
`run_once` with a subclass of `TrainingLoop`; `carry_out` does all in order.

The network of a new best epoch is first written to best.next.pt. It becomes best.pt once last.pt
names that epoch: best.pt and last.pt never disagree, whenever a run is killed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

import torch

from cache import CacheError, store_at
from cache.format.pins import LIFETIME, find_missing, pinned_commits
from cache.storage.writer_lock import WriterLock
from pipeline.errors import CheckpointError, DataError, TrainingDiverged
from vibe_model import runs
from vibe_model.checkpoints import Checkpoint
from vibe_model.files import replace_file, write_json
from vibe_model.settings import RunConfig
from vibe_model.training.curves import Curves
from vibe_model.training.data import TrainingBatch
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.trainer import Trainer

if TYPE_CHECKING:
    from cache import Split

    # open splits -> function that makes the run in a process of the group (`run_once`)
    Prepare = Callable[[Mapping[str, Split]], Callable[[ProcessGroup], "TrainingLoop"]]

T = TypeVar("T")

NEXT_BEST: Final = "best.next.pt"  # the weights of a new best epoch, until last.pt names it


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training is, after a step."""

    epoch: int  # from 0
    epochs: int
    iteration: int  # steps done in this epoch
    iterations: int

    @property
    def n_done(self) -> int:
        """Steps done in all epochs."""
        return self.epoch * self.iterations + self.iteration


class TrainingObserver(Protocol):
    """Shows a training to the user. The first process alone has one."""

    def show_features(self, where: str, done: int, total: int) -> None:
        """Show how many rows of features are in memory, before the first step.

        where: the place of features, or why they are not in memory. Not called with hold = none.
        """

    def show_growth(self, text: str) -> None:
        """Show, before an epoch, that the cache has later commits, which this run does not read."""

    def show_step(self, progress: TrainingProgress, loss: float | None) -> None:
        """Show a step. loss: the weighted sum of its terms; None: the step was skipped."""

    def show_epoch(
        self, progress: TrainingProgress, loss: float | None, validation: Mapping[str, Any]
    ) -> None:
        """Show an epoch after its last step.

        loss: mean over its steps; None if all were skipped. validation: metrics by split.
        """


def run_once(config: RunConfig, prepare: Prepare, *, processes: int = 1) -> Path:
    """Train, or resume training, unless the run is finished. Returns the run's folder.

    prepare: Checks the open splits before anything is written, and returns a function that makes
    the run. processes: As for `ProcessGroup.join`. Raises DataError for missing splits and files,
    CacheError if another process trains in the same folder, and as `TrainingLoop.carry_out` does.
    """
    splits = runs.open_run(config)
    folder = runs.run_folder(config, splits)
    if runs.is_finished(folder):  # of an earlier command: this one trains on the current data
        splits = runs.open_splits(config)
        folder = runs.run_folder(config, splits)
    # Several processes decide together, below: they must reach the same decision.
    if runs.is_finished(folder) and ProcessGroup.launched_size() == 1:
        return folder
    make = prepare(splits)
    with ProcessGroup.join(config.device, processes) as group:
        folder = group.from_first(folder)  # the others may have seen a later commit
        with _exclusive(folder, group, config.threads):
            if group.from_first(runs.is_finished(folder)):
                return folder  # another process has finished it meanwhile
            if group.from_first(not group.leads or runs.keep_data(config, splits, folder)):
                # in place: `make` has these splits
                splits |= runs.open_splits(config, runs.pin_of(config, folder))
                _require_shards(config, folder)
                return make(group).carry_out()
    return run_once(config, prepare, processes=processes)  # on the rows of the later commit


class TrainingLoop(ABC):
    """A training run. A subclass adds batches, validation and results.

    observer: Sees every step and epoch, in the first process only. If several processes train
    together, each has a loop; the first one (`group.leads`) alone validates and writes files.
    """

    advice: ClassVar[str]  # the end of the error message if losses stay non-finite
    score: str  # name of the best epoch's score in metrics.json

    def __init__(
        self,
        config: RunConfig,
        trainer: Trainer,
        splits: Mapping[str, Split],
        *,
        stand_in: bool,
        observer: TrainingObserver | None,
    ) -> None:
        self.config = config
        self.trainer = trainer
        self.splits = splits
        self.group = trainer.group
        self.folder = runs.run_folder(config, splits)
        self.fingerprint = self.folder.name.rpartition("-")[2]
        # last.pt records it; a run is only resumed from a last.pt with the same values
        software = {name: version(name) for name in ("numpy", "smplx", "torch")}
        self.identity: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            # Its feature releases, not its bug fixes, may give other random orders of windows.
            "numpy": ".".join(software["numpy"].split(".")[:2]),
        }
        # Beginning of config.json and metrics.json.
        self.facts: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "stand_in": stand_in,
            "software": software,
        }
        self._observer = observer if self.group.leads else None
        self._has_shown_growth = False

    def inputs(self) -> dict[str, Any]:
        """Content of config.json beside the facts and the settings."""
        return {"inputs": self.config.inputs(self.splits)}

    @abstractmethod
    def batches(self, start: int) -> Generator[TrainingBatch, None, None]:
        """Yield the batches from step `start` to the end of the run, on the device."""

    @abstractmethod
    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Evaluate the networks after an epoch. Returns metrics by split, and a score.

        The epoch with the lowest score is the best one. None: this epoch has no score.
        """

    @abstractmethod
    def best(self) -> dict[str, Any]:
        """Content of best.pt, without what every run adds: fingerprint, epoch, score, ..."""

    def results(self) -> dict[str, Any]:
        """Metrics of the best epoch by split, for metrics.json. By default, its validation."""
        assert self.trainer.state.best_epoch is not None
        return dict(self.trainer.state.history[self.trainer.state.best_epoch]["validation"])

    def carry_out(self) -> Path:
        """Train, or resume training, and write the results. Returns the run's folder.

        Raises CheckpointError if last.pt or best.pt is damaged or of another run, and
        TrainingDiverged if losses stay non-finite.
        """
        config = self.config
        self._restore()  # first: if it raises, no config.json is written
        # config.json records the settings and digests that the fingerprint is made of
        if self.group.leads and not (self.folder / runs.CONFIG).is_file():
            content = {**self.facts, **self.inputs(), "config": config.as_dict()}
            write_json(self.folder / runs.CONFIG, content)
        state = self.trainer.state
        if len(state.history) < config.epochs:
            log = self.folder if self.group.leads else None
            with (
                closing(self.batches(state.step)) as batches,
                Curves(log, first_step=state.step + 1, windows=config.batch_size) as curves,
            ):
                if not state.step:
                    self._show_old_runs()
                    scores = [f"validation/{split}/{self.score}" for split in config.validation]
                    curves.settings(config.as_dict(), scores)
                    if log:
                        self.validate()  # missing labels are reported now, not after an epoch
                for epoch in range(len(state.history), config.epochs):
                    self._show_growth()
                    self._train_epoch(epoch, batches, curves)
                    self._end_epoch(epoch, curves)
        if self.group.leads:
            self._finish()
        return self.folder

    def _restore(self) -> None:
        """Load last.pt, if there is one. Raises CheckpointError, also if processes differ in it."""
        last = self.folder / runs.LAST
        if last.exists():
            self.trainer.load_state_dict(_saved_state(last, self.identity))
        self._settle_best()
        step = self.trainer.state.step
        first = self.group.from_first(step)
        if step != first:
            raise CheckpointError(
                f"{last}: process {self.group.rank} resumes at step {step}, the first one at "
                f"{first}. All processes "
                "need the same [paths] runs: put it where every machine sees it."
            )

    def _show_old_runs(self) -> None:
        for folder in runs.old_runs(self.config):
            if self._observer is not None:
                text = (
                    f"{folder}: nothing was saved there for {LIFETIME} days: training begins anew"
                )
                self._observer.show_growth(text)

    def _show_growth(self) -> None:
        """Show once that there are later commits."""
        if self._observer is None or self._has_shown_growth:
            return
        with suppress(CacheError, OSError):  # a store that does not answer: reading reports it
            changes = runs.later_changes(self.config, self.splits)
            if changes:
                self._observer.show_growth(
                    f"{changes}. This training goes on with the data that it began with. To train "
                    f"on the current data, end it, and move {self.folder} away."
                )
                self._has_shown_growth = True

    def _train_epoch(self, epoch: int, batches: Iterator[TrainingBatch], curves: Curves) -> None:
        """Train from the state's step to the epoch's end. batches: the run's next ones."""
        config = self.config
        state = self.trainer.state
        end = (epoch + 1) * config.iterations
        curves.start_clock()
        while state.step < end:
            step = self.trainer.train_step(curves.next_batch(batches))
            curves.step(state.step, step, state.skipped)
            if self._observer is not None:
                self._observer.show_step(self._progress(epoch), step.loss)
            if state.skipped_in_a_row >= config.max_non_finite:
                self._give_up(curves)
            if state.step % config.checkpoint_every == 0 and state.step < end:
                self._save_last(curves)

    def _end_epoch(self, epoch: int, curves: Curves) -> None:
        """Validate, and save the state, and the network if the epoch is the best so far."""
        trainer = self.trainer
        validation: dict[str, Any] = {}
        score: float | None = None
        if self.group.leads:
            validation, score = self.validate()
        score = self.group.from_first(score)
        loss = trainer.state.total()
        if trainer.end_epoch(score, validation) and self.group.leads:
            about = {name: self.facts[name] for name in ("fingerprint", "stand_in")}
            # Until last.pt names this epoch, best.pt keeps the old one: a killed run trains this
            # epoch again.
            _save(
                self.folder / NEXT_BEST,
                {**about, "epoch": epoch, "performance": score, **self.best()},
            )
        curves.epoch(trainer.state.step, validation, trainer.learning_rates())
        self._save_last(curves)
        self._settle_best()
        if self._observer is not None:
            self._observer.show_epoch(self._progress(epoch), loss, validation)

    def _settle_best(self) -> None:
        """Rename best.next.pt to best.pt if its epoch is the state's best one, else delete it."""
        candidate = self.folder / NEXT_BEST
        if not self.group.leads or not candidate.is_file():
            return
        if Checkpoint.read(candidate).content.get("epoch") == self.trainer.state.best_epoch:
            candidate.replace(self.folder / runs.BEST)
        else:
            candidate.unlink()

    def _finish(self) -> None:
        """Write metrics.json with the best epoch's results, which marks the run as finished."""
        state = self.trainer.state
        best = self.folder / runs.BEST
        if state.best_epoch is None or state.skipped == state.step:
            raise TrainingDiverged(
                f"{self.folder}: no step had a finite loss. Look at the labels of the motion."
            )
        if not best.is_file():
            raise CheckpointError(
                f"{best}: the best epoch is missing. Remove {self.folder} to train again."
            )
        checkpoint = Checkpoint.read(best).content
        is_of_run = checkpoint.get("fingerprint") == self.fingerprint
        if not is_of_run or checkpoint.get("epoch") != state.best_epoch:
            raise CheckpointError(
                f"{best}: expected epoch {state.best_epoch} of this run, found epoch "
                f"{checkpoint.get('epoch')} of run "
                f"{checkpoint.get('fingerprint')}. Move {self.folder} away and train again."
            )
        about = {
            "best": {"epoch": state.best_epoch, self.score: state.best},
            "skipped_steps": state.skipped,
        }
        write_json(self.folder / runs.METRICS, {**self.facts, **about, **self.results()})

    def _save_last(self, curves: Curves) -> None:
        if self.group.leads:
            curves.flush()  # first: a resumed run does not log again the steps before its state
            _save(self.folder / runs.LAST, {**self.identity, **self.trainer.state_dict()})
            os.utime(runs.pin_of(self.config, self.folder))  # it counts from now on

    def _give_up(self, curves: Curves) -> None:
        """Save the state, and raise TrainingDiverged."""
        state = self.trainer.state
        skipped = state.skipped_in_a_row
        state.skipped_in_a_row = 0
        self._save_last(curves)
        # a process that ends takes the others with it: wait until this is saved
        self.group.from_first(None)
        raise TrainingDiverged(
            f"{self.folder}: losses were not finite in {skipped} steps in a row, up to step "
            f"{state.step}. {runs.LAST} holds the parameters before them. Run it again to "
            f"continue after them; if it happens again, {self.advice}."
        )

    def _progress(self, epoch: int) -> TrainingProgress:
        iterations = self.config.iterations
        n_done = self.trainer.state.step - epoch * iterations
        return TrainingProgress(epoch, self.config.epochs, n_done, iterations)


def _save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    replace_file(path, lambda stream: torch.save(dict(state), stream))


def _saved_state(last: Path, identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read last.pt. Raises CheckpointError if it is damaged, or belongs to another run."""
    try:
        saved = Checkpoint.read(last).content
    except CheckpointError as error:
        raise CheckpointError(
            f"{last}: it is damaged. Remove it, and training starts from the beginning."
        ) from error
    differ = [
        f"{name} {want}, found {saved.get(name)!r}"
        for name, want in identity.items()
        if saved.get(name) != want
    ]
    if differ:
        raise CheckpointError(
            f"{last}: expected {'; '.join(differ)}. A run is resumed as it was started, for "
            f"the same numbers: give it another name, or move {last.parent} away."
        )
    return saved


def _require_shards(config: RunConfig, folder: Path) -> None:
    """Raise DataError if the cache has no longer all files of the data of a run that goes on."""
    pin = store_at(runs.pin_of(config, folder))
    lost = list[str]()
    for commit in pinned_commits(store_at(config.cache), pin):
        lost += [file.key for file in find_missing(commit)]
    if lost and (folder / runs.LAST).is_file():  # else reading the tag raises
        step = Checkpoint.read(folder / runs.LAST).content["training"]["step"]
        raise DataError(
            f"{folder}: this training stands at step {step:,}, but {config.cache} has no longer "
            f"{len(lost)} files of the data that it began with, first {lost[0]}: `gc` removed "
            "them, or they were written again. Move the folder away to begin anew."
        )


@contextmanager
def _exclusive(folder: Path, group: ProcessGroup, threads: int) -> Iterator[None]:
    """Context for training in a folder, which other trainings cannot use meanwhile.

    Sets the number of CPU threads (0: torch's own choice). Afterwards, restores it and the state of
    the random generators. Raises CacheError if another process has locked the folder.
    """
    lock = None
    if group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(folder / ".writing" / "lock")
    before = torch.get_num_threads()
    gpus = []
    if group.device.type == "cuda":
        gpus.append(group.device)
    try:
        with torch.random.fork_rng(devices=gpus):
            if threads:
                torch.set_num_threads(threads)
            yield
    finally:
        torch.set_num_threads(before)
        if lock is not None:
            lock.release()
