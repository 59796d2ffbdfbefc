"""Trains VIBE from the cache, and can be killed at any time.  features -> windows -> [training] -> [evaluation]

`run` writes into `runs/<name>-<fingerprint>/`: config.json, last.pt (the whole state), best.pt (the generator of the
best epoch, readable by `load_published`), TensorBoard events, and metrics.json, written last: the mark of a finished
run. Started again, it goes on from last.pt and ends with the same numbers, on a CPU to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from cache.durable import WriterLock
from vibe_model import evaluation, runs
from vibe_model.checkpoints import LoadReport, load_published, read_checkpoint
from vibe_model.config import TrainConfig
from vibe_model.data import Batch, Batches, stream
from vibe_model.errors import CheckpointError, ConfigError, DataError, TrainingDiverged
from vibe_model.generator import VIBE
from vibe_model.held import HeldFeatures, Holding, held_features
from vibe_model.trainer import Trainer, step_losses, weights_of

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

__all__ = ["Holding", "Progress", "run", "step_losses"]

LAST: Final = "last.pt"
BEST: Final = "best.pt"
CONFIG: Final = "config.json"
_NUMBERS: Final = ("mpjpe", "pa_mpjpe", "pve", "accel", "accel_error", "pck", "auc")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step or an epoch brought, for whoever shows it."""

    epoch: int  # from 0
    epochs: int
    iteration: int  # done in this epoch
    iterations: int
    terms: Mapping[str, float] | None = (
        None  # the step's weighted losses; None when it was skipped, or at an epoch's end
    )
    validation: Mapping[str, Any] = field(default_factory=dict)  # metrics by split, at an epoch's end


ShowProgress = Callable[[Progress | Holding], None]  # Holding: before the first step, if the configuration says so
DrawPictures = Callable[[VIBE, int], Mapping[str, NDArray[np.uint8]]]  # (generator, epoch) -> (H, W, 3) RGB by name


def run(config: TrainConfig, progress: ShowProgress | None = None, pictures: DrawPictures | None = None) -> Path:
    """Train and evaluate, or go on with it, or find it done. Returns the run's folder.

    progress: told of every step and epoch, and before them of features on their way into memory; pictures: asked for
    what to log at each epoch's end.
    Raises ConfigError, DataError, StandInMixed or CheckpointError before training, CacheError when a part has no window
    or another process trains in the same folder; TrainingDiverged when losses stay non-finite, with the last good state
    saved.
    """
    splits = runs.open_splits(config)
    fingerprint = runs.fingerprint(config, splits)
    folder = runs.run_folder(config, splits)
    if (folder / runs.METRICS).is_file():
        return folder
    body = load_body(config.body)
    stand_in = runs.check_stand_in(body.stand_in, splits) | runs.check_streams(config, splits)
    device = _device(config.device)
    with _alone(folder), _own_torch_state(config.threads, device):
        if (folder / runs.METRICS).is_file():
            return folder  # another process has finished it meanwhile
        trainer = Trainer(config, body, device)
        start = _start(config, trainer.generator)
        batches = Batches(config, splits)
        held = held_features(batches, config.hold, device, progress)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"fingerprint": fingerprint, "stand_in": stand_in, "software": _software()}
        made_from: dict[str, Any] = {"inputs": runs.inputs(config, splits), "pretrained": start}
        made_from |= {"windows": batches.counts, "features": batches.where}
        runs.write_json(folder / CONFIG, {**facts, **made_from, "config": config.as_dict()})
        _restore(trainer, folder / LAST, fingerprint)
        # What a killed run has logged beyond its last saved state is logged again: of that, viewers keep one.
        with closing(SummaryWriter(str(folder), purge_step=trainer.course.step + 1)) as writer:
            session = _Session(config, trainer, splits, folder, fingerprint, writer, progress, pictures)
            session.train(batches, held)
        results = _final_metrics(config, trainer.generator, splits, folder)
        course = trainer.course
        best = {"epoch": course.best_epoch, "pa_mpjpe": course.best}
        runs.write_json(folder / runs.METRICS, {**facts, "best": best, "skipped_steps": course.skipped, **results})
    return folder


def load_body(folder: Path | None) -> Body:
    """The body of a configuration: SMPL's files, or without a folder the procedural stand-in."""
    from pipeline.body import Body  # here: smplx is slow to import, and a finished run needs none

    return Body.stand_in() if folder is None else Body.load(folder)


@dataclass(frozen=True, slots=True)
class _Session:
    """The loop over epochs, and everything that it tells or saves."""

    config: TrainConfig
    trainer: Trainer
    splits: Mapping[str, Split]
    folder: Path
    fingerprint: str
    writer: SummaryWriter
    show: ShowProgress | None
    draw: DrawPictures | None

    def train(self, batches: Batches, held: HeldFeatures | None) -> None:
        course = self.trainer.course
        first = len(course.history)
        if first == self.config.epochs:
            return
        device, workers = self.trainer.device, self.config.read_workers
        with closing(stream(batches, course.step, device=device, held=held, workers=workers)) as ready:
            for epoch in range(first, self.config.epochs):
                self._train_epoch(epoch, ready)
                self._end_epoch(epoch)

    def _train_epoch(self, epoch: int, ready: Iterator[Batch]) -> None:
        config, course = self.config, self.trainer.course
        end = (epoch + 1) * config.iterations
        while course.step < end:
            terms = self.trainer.train_step(next(ready))
            for name, value in (terms or {}).items():
                self.writer.add_scalar(f"train/{name}", value, course.step)
            self._tell(epoch, terms=terms)
            if course.skipped_in_a_row >= config.max_non_finite:
                self._give_up()
            if course.step % config.checkpoint_every == 0 and course.step < end:
                self._save_last()

    def _end_epoch(self, epoch: int) -> None:
        trainer = self.trainer
        # Whatever validation and pictures draw from the random state must not show in the training that follows.
        with torch.random.fork_rng(devices=_cuda_devices(trainer.device)):
            validation = _validate(self.config, trainer.generator, self.splits)
            images = self.draw(trainer.generator, epoch) if self.draw is not None else {}
        score = float(np.mean([validation[name]["pa_mpjpe"] for name in self.config.validation]))
        if trainer.end_epoch(score, validation):
            save(self.folder / BEST, self._best(epoch, score))
        self._log_epoch(validation, images)
        self._save_last()
        self._tell(epoch, validation=validation)

    def _log_epoch(self, validation: Mapping[str, Any], images: Mapping[str, NDArray[np.uint8]]) -> None:
        step = self.trainer.course.step
        for split, metrics in validation.items():
            for name in _NUMBERS:
                if name in metrics:
                    self.writer.add_scalar(f"validation/{split}/{name}", metrics[name], step)
        for name, rate in self.trainer.learning_rates().items():
            self.writer.add_scalar(f"learning_rate/{name}", rate, step)
        for name, image in images.items():
            self.writer.add_image(name, image, step, dataformats="HWC")

    def _give_up(self) -> None:
        course = self.trainer.course
        skipped, course.skipped_in_a_row = course.skipped_in_a_row, 0
        self._save_last()
        raise TrainingDiverged(
            f"{self.folder}: losses were not finite in {skipped} steps in a row, up to step {course.step}. {LAST} "
            "holds the parameters before them. Running it again goes on after them; if it happens again, lower "
            "lr_generator and lr_discriminator, or look at the labels."
        )

    def _best(self, epoch: int, score: float) -> dict[str, Any]:
        about = {"fingerprint": self.fingerprint, "config": self.config.as_dict()}
        weights = weights_of(self.trainer.generator)
        return {"epoch": epoch, "performance": score, "gen_state_dict": weights, **about}

    def _save_last(self) -> None:
        self.writer.flush()  # first: a resumed run does not log again what led to the state that it goes on from
        save(self.folder / LAST, {"fingerprint": self.fingerprint, **self.trainer.state_dict()})

    def _tell(self, epoch: int, **news: Any) -> None:
        if self.show is not None:
            done = self.trainer.course.step - epoch * self.config.iterations
            self.show(Progress(epoch, self.config.epochs, done, self.config.iterations, **news))


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a reader, or the next run, sees the old one or the new one."""
    runs.replace_file(path, lambda stream: torch.save(dict(state), stream))


def _start(config: TrainConfig, generator: VIBE) -> dict[str, Any] | None:
    """Fill the generator from the configured checkpoint, and say how many of its tensors were used and ignored."""
    if config.pretrained is None:
        return None
    report: LoadReport = load_published(generator, config.pretrained)
    return {"kind": report.kind, "used": len(report.used), "ignored": len(report.ignored)}


def _restore(trainer: Trainer, last: Path, fingerprint: str) -> None:
    if not last.exists():
        return
    state = read_checkpoint(last)
    if state.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{last}: expected fingerprint {fingerprint}, found {state.get('fingerprint')!r}. "
            f"It is not this run's: move {last.parent} away."
        )
    trainer.load_state_dict(state)


def _validate(config: TrainConfig, generator: VIBE, splits: Mapping[str, Split]) -> dict[str, Any]:
    results = {}
    for name in config.validation:
        results[name] = evaluation.evaluate_split(
            generator,
            splits[name],
            stream=config.stream,
            seqlen=config.seqlen,
            tracks=config.tracks.get(name, "*"),
            batch_size=config.eval_batch,
            vertices=False,
        )
        if not results[name]["frames"]:
            raise DataError(
                f"{name}: expected frames with 3D labels to validate on, found none. Convert it with a body."
            )
    return results


def _final_metrics(
    config: TrainConfig, generator: VIBE, splits: Mapping[str, Split], folder: Path
) -> dict[str, dict[str, Any]]:
    """The best epoch's metrics on the evaluation splits: the default protocol's, and below them the published one's."""
    load_published(generator, folder / BEST)
    chosen = {name: splits[name] for name in config.evaluation}
    default, published = (
        evaluation.evaluate(
            generator,
            chosen,
            stream=config.stream,
            seqlen=config.seqlen,
            protocol=protocol,
            tracks=config.tracks,
            batch_size=config.eval_batch,
        )
        for protocol in evaluation.PROTOCOLS
    )
    return {name: {**default[name], "published": published[name]} for name in chosen}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process trains in a run's folder. Raises CacheError naming the other one; a dead one holds nothing."""
    lock = WriterLock(folder / ".writing" / "lock")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _own_torch_state(threads: int, device: torch.device) -> Iterator[None]:
    """Seeds and thread counts of a run stay inside it."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=_cuda_devices(device)):
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _device(name: str) -> torch.device:
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(chosen)
    except RuntimeError as error:
        raise ConfigError(f"device: expected auto, cpu or cuda, found {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r}, but torch finds no GPU here. Use cpu, or auto.")
    return device


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _software() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "smplx", "torch")}
