"""Trains VIBE from the cache, and can be killed at any time.  features -> windows -> [training] -> [evaluation]

best.pt holds the generator of the best epoch, readable by `load_published`; `loop` has what else a run writes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vibe_model import runs
from vibe_model.checkpoints import load_mposer, load_published, read_checkpoint
from vibe_model.errors import ConfigError, DataError
from vibe_model.evaluation.evaluate import SIGMAS, choose_sigma, evaluate_all, evaluate_split
from vibe_model.networks.discriminator import MotionDiscriminator, build_discriminator
from vibe_model.networks.generator import VIBE, build_generator
from vibe_model.networks.mposer import MPoser
from vibe_model.prediction.trained import load_body
from vibe_model.settings.config import TrainConfig
from vibe_model.training.data import Batch, Batches, stream
from vibe_model.training.feature_table import TableProgress
from vibe_model.training.loop import Progress, TrainingRun, exclusive
from vibe_model.training.parallel import Group, joined, launched_processes
from vibe_model.training.steps import step_gradients
from vibe_model.training.trainer import Keys, Learner, Trainer, weights_of

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

ShowProgress = Callable[[Progress | TableProgress], None]  # TableProgress: before the first step, with `hold`
DrawPictures = Callable[[VIBE, int], Mapping[str, NDArray[np.uint8]]]  # (generator, epoch) -> (H, W, 3) RGB by name


def run(config: TrainConfig, progress: ShowProgress | None = None, pictures: DrawPictures | None = None) -> Path:
    """Train and evaluate, or resume that, or find it done. Returns the run's folder.

    Started by torch's launcher in several processes, these train as one; the first of them writes and reports.
    progress: called with every step and epoch, and before them with features that are read into memory; pictures: gives
    what to log at each epoch's end.
    Raises ConfigError, DataError, StandInMixed or CheckpointError before training, CacheError when a part has no window
    or another process trains in the same folder; TrainingDiverged when losses stay non-finite, with the last good state
    saved.
    """
    splits = runs.open_splits(config)
    folder = runs.run_folder(config, splits)
    # Several processes decide together, below: they must come to one answer.
    if runs.is_finished(folder) and launched_processes() == 1:
        return folder
    body = load_body(config.body)
    stand_in = runs.check_stand_in(splits, the_body=body.stand_in) | runs.check_streams(config, splits)
    with joined(config.device, config.processes) as group, exclusive(folder, group, config.threads):
        if group.from_first(runs.is_finished(folder)):
            return folder  # another process has finished it meanwhile
        trainer = VIBETrainer(config, body, group)
        return VIBERun(config, trainer, splits, stand_in=stand_in, report=progress, draw=pictures).carry_out()


class VIBETrainer(Trainer):
    """Generator and discriminator, or instead of that one a trained prior of motion, or neither."""

    def __init__(self, config: TrainConfig, body: Body, group: Group | None = None) -> None:
        """Raises CheckpointError for a prior that cannot be read, StandInMixed for one of other data than the body."""
        super().__init__(config, group or Group())
        self.config = config
        self.generator = build_generator(config, body).to(self.group.device)
        self.discriminator: MotionDiscriminator | None = None
        self.learners = {
            "generator": Learner(
                config,
                self.generator,
                Keys("gen_state_dict", "gen_optimizer", "gen_optimizer_schedule", "gen_optimizer"),
                lr=config.lr_generator,
                weight_decay=config.weight_decay_generator,
                fused=True,
            )
        }
        if config.prior == "discriminator":
            self.discriminator = build_discriminator(config).to(self.group.device)
            optimiser = "disc_motion_optimizer"
            self.learners["discriminator"] = Learner(
                config,
                self.discriminator,
                Keys("disc_motion_state_dict", optimiser, f"{optimiser}_schedule", optimiser),
                lr=config.lr_discriminator,
                weight_decay=config.weight_decay_discriminator,
                fused=True,
            )
        self.prior: MPoser | None = None
        if config.prior == "mposer":
            if config.mposer is None:
                raise ConfigError("mposer: expected a trained motion prior's best.pt for prior = mposer, found none")
            self.prior = load_mposer(config.mposer).to(self.group.device)
            runs.one_kind({f"the prior {config.mposer}": self.prior.stand_in, "the body": body.stand_in})

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        return step_gradients(
            self.generator,
            self.discriminator,
            batch.labels,
            batch.real_theta,
            self._weights(batch),
            prior=None if self.prior is None else self.prior.energy,
            precision=self.config.precision,
        )

    def _weights(self, batch: Batch) -> dict[str, float]:
        """The factors of this process's terms, each times its share of the labels that all processes have of the term.

        A mean over the whole batch is the sum of the processes' means, each times its share of what the mean is over.
        """
        weights = self.config.weights
        if self.group.size == 1:
            return weights
        real = 0 if batch.real_theta is None else len(batch.real_theta)
        counts = [len(batch.labels["kp_2d"]), batch.labels["w_3d"].sum(), batch.labels["w_smpl"].sum(), real]
        own = torch.stack([torch.as_tensor(n, dtype=torch.float64, device=self.group.device) for n in counts])
        windows, kp_3d, smpl, discriminator_real = (own / self.group.sum(own.clone()).clamp(min=1e-12)).tolist()
        share = {"kp_3d": kp_3d, "pose": smpl, "shape": smpl, "discriminator_real": discriminator_real}
        weights["discriminator_real"] = weights["discriminator"]
        return {name: weight * share.get(name, windows) for name, weight in weights.items()}


class VIBERun(TrainingRun):
    """Batches of labelled windows and real motion, validation on held-out videos, both protocols' errors at the end."""

    advice = "lower lr_generator and lr_discriminator, or look at the labels"
    score = "pa_mpjpe"
    software = ("numpy", "smplx", "torch")
    config: TrainConfig
    trainer: VIBETrainer

    def __init__(
        self,
        config: TrainConfig,
        trainer: VIBETrainer,
        splits: Mapping[str, Split],
        *,
        stand_in: bool,
        report: ShowProgress | None,
        draw: DrawPictures | None,
    ) -> None:
        super().__init__(config, trainer, splits, stand_in=stand_in, report=report)
        self._draw, group = draw, self.group
        self.facts["processes"] = group.size
        # Other processes and devices give the same settings other numbers.
        self.identity |= {"processes": group.size, "device": group.device.type}
        self._pretrained = self._start_from_checkpoint()
        self._batches = Batches(config, splits, rank=group.rank, world_size=group.size)
        self._table = self._batches.load_features(config.hold, group.device, report if group.leads else None)

    def inputs(self) -> dict[str, Any]:
        windows = {"windows": self._batches.counts, "features": self._batches.where}
        return {**super().inputs(), **windows, "pretrained": self._pretrained}

    def batches(self, start: int) -> Generator[Batch, None, None]:
        device, workers = self.group.device, self.config.read_workers
        return stream(self._batches, start, device=device, table=self._table, workers=workers)

    def validate(self) -> tuple[dict[str, Any], float]:
        """Errors by split, and the mean PA-MPJPE over splits, mm. Raises DataError for a split without 3D labels."""
        config = self.config
        found = {
            name: evaluate_split(
                self.trainer.generator,
                self.splits[name],
                stream=config.stream,
                seqlen=config.seqlen,
                tracks=config.tracks.get(name, "*"),
                batch_size=config.eval_batch,
                vertices=False,
                keypoints=False,
            )
            for name in config.validation
        }
        if unlabelled := [name for name, metrics in found.items() if not metrics["frames"]]:
            raise DataError(
                f"{', '.join(unlabelled)}: expected frames with 3D labels to validate on, found none. Convert with a "
                "body."
            )
        return found, float(np.mean([metrics["pa_mpjpe"] for metrics in found.values()]))

    def pictures(self, epoch: int) -> Mapping[str, NDArray[np.uint8]]:
        return {} if self._draw is None else self._draw(self.trainer.generator, epoch)

    def best(self) -> dict[str, Any]:
        manifests = (self.splits[name].stream_manifest(stream) for name, stream in self.config.streams.items())
        features = next((manifest["identity"] for manifest in manifests if "identity" in manifest), None)
        weights = weights_of(self.trainer.generator)
        return {"gen_state_dict": weights, "config": self.config.as_dict(), "features": features}

    def results(self) -> dict[str, Any]:
        """The best epoch's metrics on the evaluation splits, by the default protocol; the published one's below."""
        config, generator = self.config, self.trainer.generator
        load_published(generator, self.folder / runs.BEST)
        options: dict[str, Any] = {"stream": config.stream, "seqlen": config.seqlen, "tracks": config.tracks}
        options["batch_size"] = config.eval_batch
        sigma = 0.0
        if config.n_layers == 0:  # the per-frame baseline: smoothed as is best in validation, it is another one
            validation = {name: self.splits[name] for name in config.validation}
            sigma, _ = choose_sigma(generator, validation, **options, candidates=SIGMAS[1:])
        return evaluate_all(
            generator,
            {name: self.splits[name] for name in config.evaluation},
            **options,
            smoothed_too=sigma,
            folder=self.folder,
            predictions=True,
            stand_in=self.facts["stand_in"],
            about={"fingerprint": self.fingerprint, "run": self.folder.name},
        )

    def _start_from_checkpoint(self) -> dict[str, Any] | None:
        """Fill the generator from the configured checkpoint; how many of its tensors were used and ignored."""
        config, generator = self.config, self.trainer.generator
        if config.pretrained is None:
            return None
        if read_checkpoint(config.pretrained).get("stand_in", False):
            runs.one_kind({f"the checkpoint {config.pretrained}": True, "the body": generator.body.stand_in})
        # Frame by frame, only the regressor of a checkpoint can be started from.
        only = "regressor." if config.n_layers == 0 else ""
        report = load_published(generator, config.pretrained, only=only)
        return {"kind": report.kind, "used": len(report.used), "ignored": len(report.ignored)}
