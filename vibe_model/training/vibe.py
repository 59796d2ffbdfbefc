"""Trains VIBE from the cache, and can be killed at any time.  features -> windows -> [training] -> [evaluation]

`run` writes into `runs/<name>-<fingerprint>/`: config.json, last.pt (the whole state), best.pt (the generator of the
best epoch, readable by `load_published`), TensorBoard events, and metrics.json, written last: the mark of a finished
run. Started again, it goes on from last.pt and ends with the same numbers, on a CPU to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from vibe_model import evaluation, runs
from vibe_model.checkpoints import LoadReport, load_published, read_checkpoint
from vibe_model.errors import CheckpointError, DataError, StandInMixed
from vibe_model.networks.generator import VIBE
from vibe_model.settings.config import TrainConfig
from vibe_model.training.curves import Curves
from vibe_model.training.data import Batches, stream
from vibe_model.training.feature_table import HeldFeatures, Holding, held_features
from vibe_model.training.parallel import joined, launched_processes
from vibe_model.training.session import CONFIG, LAST, Loop, Progress, alone, own_torch_state, save, saved_state
from vibe_model.training.steps import step_losses
from vibe_model.training.trainer import Trainer, weights_of

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

__all__ = ["Holding", "Progress", "run", "step_losses"]

BEST: Final = runs.BEST


ShowProgress = Callable[[Progress | Holding], None]  # Holding: before the first step, if the configuration says so
DrawPictures = Callable[[VIBE, int], Mapping[str, NDArray[np.uint8]]]  # (generator, epoch) -> (H, W, 3) RGB by name


def run(config: TrainConfig, progress: ShowProgress | None = None, pictures: DrawPictures | None = None) -> Path:
    """Train and evaluate, or go on with it, or find it done. Returns the run's folder.

    Started by torch's launcher in several processes, these train as one; the first of them writes, and is told.
    progress: told of every step and epoch, and before them of features on their way into memory; pictures: asked for
    what to log at each epoch's end.
    Raises ConfigError, DataError, StandInMixed or CheckpointError before training, CacheError when a part has no window
    or another process trains in the same folder; TrainingDiverged when losses stay non-finite, with the last good state
    saved.
    """
    splits = runs.open_splits(config)
    folder = runs.run_folder(config, splits)
    # Several processes ask together, below: they must come to one answer.
    if runs.is_finished(folder) and launched_processes() == 1:
        return folder
    body = load_body(config.body)
    stand_in = runs.check_stand_in(body.stand_in, splits) | runs.check_streams(config, splits)
    with (
        joined(config.device, config.processes) as group,
        alone(folder) if group.leads else nullcontext(),
        own_torch_state(config.threads, group.device),
    ):
        if group.from_first(runs.is_finished(folder)):
            return folder  # another run has finished it meanwhile
        trainer = Trainer(config, body, group)
        _check_prior(config, trainer)
        facts = {"stand_in": stand_in, "software": _software(), "processes": group.size}
        session = _Session.begin(config, trainer, splits, folder, facts, progress, pictures)
        session.train()
        if group.leads:
            session.finish()
    return folder


def _check_prior(config: TrainConfig, trainer: Trainer) -> None:
    """Raise StandInMixed for a prior that learned from stand-in motion with a real body, or the other way round."""
    prior, body = trainer.prior, trainer.generator.body
    if prior is not None and prior.stand_in != body.stand_in:
        kinds = {True: "of stand-ins", False: "real"}
        raise StandInMixed(
            f"{config.mposer}: the prior is {kinds[prior.stand_in]}, the body {kinds[body.stand_in]}. Train the prior "
            "on the data of this run."
        )


def load_body(folder: Path | None) -> Body:
    """The body of a configuration: SMPL's files, or without a folder the procedural stand-in."""
    from pipeline.body import Body  # here: smplx is slow to import, and a finished run needs none

    return Body.stand_in() if folder is None else Body.load(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """The loop over epochs, and everything that it tells or saves."""

    config: TrainConfig
    trainer: Trainer
    splits: Mapping[str, Split]
    folder: Path
    facts: Mapping[str, Any]  # that config.json and metrics.json begin with
    batches: Batches
    held: HeldFeatures | None
    loop: Loop
    draw: DrawPictures | None

    @classmethod
    def begin(
        cls,
        config: TrainConfig,
        trainer: Trainer,
        splits: Mapping[str, Split],
        folder: Path,
        facts: Mapping[str, Any],
        show: ShowProgress | None,
        draw: DrawPictures | None,
    ) -> Self:
        """All that comes before the first step: where to start from, what is read, config.json."""
        group, fingerprint = trainer.group, runs.fingerprint(config, splits)
        if not group.leads:
            show = draw = None
        start = _start(config, trainer.generator)
        batches = Batches(config, splits, rank=group.rank, world_size=group.size)
        held = held_features(batches, config.hold, group.device, show)
        facts = {"fingerprint": fingerprint, **facts}
        if group.leads:
            read = {"inputs": runs.inputs(config, splits), "windows": batches.counts, "features": batches.where}
            runs.write_json(folder / CONFIG, {**facts, **read, "pretrained": start, "config": config.as_dict()})
        # The same settings can be run by other processes and devices, to other numbers.
        about = {"fingerprint": fingerprint, "processes": group.size, "device": group.device.type}
        _restore(trainer, folder / LAST, about)
        loop = Loop(
            schedule=config,
            trainer=trainer,
            folder=folder,
            about=about,
            advice="lower lr_generator and lr_discriminator, or look at the labels",
            show=show,
            group=group,
        )
        return cls(
            config=config,
            trainer=trainer,
            splits=splits,
            folder=folder,
            facts=facts,
            batches=batches,
            held=held,
            loop=loop,
            draw=draw,
        )

    def train(self) -> None:
        """From wherever the run stands to the end of the last epoch."""
        config, course = self.config, self.trainer.course
        first = len(course.history)
        if first == config.epochs:
            return
        device, workers = self.trainer.device, config.read_workers
        with (
            closing(stream(self.batches, course.step, device=device, held=self.held, workers=workers)) as ready,
            self._curves() as curves,
        ):
            for epoch in range(first, config.epochs):
                self.loop.train_epoch(epoch, ready, curves)
                self._end_epoch(epoch, curves)

    def finish(self) -> None:
        """The best epoch's metrics on the evaluation splits, written last: the mark of a finished run."""
        course, best_file = self.trainer.course, self.folder / BEST
        if not best_file.is_file():
            raise CheckpointError(
                f"{best_file}: it is gone, and was the best epoch. Remove {self.folder} to train again."
            )
        found, wanted = read_checkpoint(best_file), (self.facts["fingerprint"], course.best_epoch)
        if (found.get("fingerprint"), found.get("epoch")) != wanted:
            raise CheckpointError(
                f"{best_file}: expected epoch {course.best_epoch} of this run, found epoch {found.get('epoch')} of run "
                f"{found.get('fingerprint')}. Move {self.folder} away and train again."
            )
        results = _final_metrics(self.config, self.trainer.generator, self.splits, self.folder)
        best = {"epoch": course.best_epoch, "pa_mpjpe": course.best}
        content = {**self.facts, "best": best, "skipped_steps": course.skipped, **results}
        runs.write_json(self.folder / runs.METRICS, content)

    def _curves(self) -> Curves:
        folder = self.folder if self.trainer.group.leads else None
        return Curves(folder, first_step=self.trainer.course.step + 1, windows=self.config.batch_size)

    def _end_epoch(self, epoch: int, curves: Curves) -> None:
        trainer, score = self.trainer, 0.0
        validation: Mapping[str, Any] = {}
        images: Mapping[str, NDArray[np.uint8]] = {}
        if trainer.group.leads:
            validation = _validate(self.config, trainer.generator, self.splits)
            images = self.draw(trainer.generator, epoch) if self.draw is not None else {}
            score = float(np.mean([validation[name]["pa_mpjpe"] for name in self.config.validation]))
        score = trainer.group.from_first(score)
        if trainer.end_epoch(score, validation) and trainer.group.leads:
            save(self.folder / BEST, self._best(epoch, score))
        curves.epoch(trainer.course.step, validation, trainer.learning_rates(), images)
        self.loop.save_last(curves)
        self.loop.tell(epoch, validation=validation)

    def _best(self, epoch: int, score: float) -> dict[str, Any]:
        identities = {n: self.splits[n].stream_manifest(self.config.stream) for n in self.config.pixel_splits}
        features = next((m["identity"] for m in identities.values() if "identity" in m), None)
        facts = {name: self.facts[name] for name in ("fingerprint", "stand_in")}
        about = {**facts, "config": self.config.as_dict(), "features": features}
        weights = weights_of(self.trainer.generator)
        return {"epoch": epoch, "performance": score, "gen_state_dict": weights, **about}


def _start(config: TrainConfig, generator: VIBE) -> dict[str, Any] | None:
    """Fill the generator from the configured checkpoint, and say how many of its tensors were used and ignored."""
    if config.pretrained is None:
        return None
    if read_checkpoint(config.pretrained).get("stand_in", False) and not generator.body.stand_in:
        raise StandInMixed(
            f"{config.pretrained}: it was trained on stand-ins, the body is real. Start from SPIN's or VIBE's, or "
            "from a run of yours on real data."
        )
    # Frame by frame, only the regressor of a checkpoint can be started from.
    only = "regressor." if config.n_layers == 0 else ""
    report: LoadReport = load_published(generator, config.pretrained, only=only)
    return {"kind": report.kind, "used": len(report.used), "ignored": len(report.ignored)}


def _restore(trainer: Trainer, last: Path, about: Mapping[str, Any]) -> None:
    """Go on from the saved state, where there is one. Raises CheckpointError for one that is not of this run."""
    if last.exists():
        trainer.load_state_dict(saved_state(last, about))
    step = trainer.course.step
    if step != (first := int(trainer.group.from_first(step))):
        raise CheckpointError(
            f"{last}: process {trainer.group.rank} goes on at step {step}, the first one at {first}. All processes "
            "need the same [paths] runs: put it where every machine sees it."
        )


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
            keypoints=False,
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
    options: dict[str, Any] = {"stream": config.stream, "seqlen": config.seqlen, "tracks": config.tracks}
    options["batch_size"] = config.eval_batch
    sigma = 0.0
    if config.n_layers == 0:  # the per-frame baseline: smoothed as validation likes it best, it is another one
        validation = {name: splits[name] for name in config.validation}
        sigma, _ = evaluation.choose_sigma(generator, validation, **options, candidates=evaluation.SIGMAS[1:])
    return evaluation.evaluate_all(
        generator,
        {name: splits[name] for name in config.evaluation},
        **options,
        smoothed_too=sigma,
        folder=folder,
        predictions=True,
        stand_in=runs.check_streams(config, splits),
        about={"fingerprint": runs.fingerprint(config, splits), "run": folder.name},
    )


def _software() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "smplx", "torch")}
