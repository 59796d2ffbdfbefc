"""Train the motion prior from the cache; resumable.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from vibe_model import runs
from vibe_model.prediction.trained import device_of
from vibe_model.prediction.windows import rows_of
from vibe_model.rotations import nearest_rotations
from vibe_model.settings import split_of
from vibe_model.training.data import TrainingBatch, TrainingBatches, stream
from vibe_model.training.loop import TrainingLoop, TrainingProgress, run_once
from vibe_model.training.parallel import ProcessGroup
from vibe_model.training.trainer import Learner, Trainer, weights_of
from vibe_model.vibe.config import MPoserConfig
from vibe_model.vibe.discriminator import MOTION
from vibe_model.vibe.mposer import N_ROTATIONS, MPoser, geodesic_degrees, kl_divergence, matrices, reconstruction_error

if TYPE_CHECKING:
    from cache import Split

MEAN_POSE_STEPS: Final = 50  # batches for the constant mean pose
VALIDATION_BATCH: Final = 256  # windows
RECONSTRUCTION: Final = "reconstruction_deg"  # mean angle from the decoded mean code to the labels
MEAN_POSE: Final = "mean_pose_deg"  # mean angle from the constant mean pose to the labels


def run(config: MPoserConfig, progress: Callable[[TrainingProgress], None] | None = None) -> Path:
    """Train or resume, unless the run is finished. Returns its folder. progress: called with every step and epoch.

    Raises DataError, StandInMixed, ConfigError or CheckpointError before training, CacheError if the motion has no
    window or another process trains in the same folder; TrainingDiverged if losses stay non-finite.
    """

    def prepare(splits: Mapping[str, Split]) -> Callable[[ProcessGroup], MPoserRun]:
        options: dict[str, Any] = {"stand_in": runs.require_one_kind(splits), "report": progress}
        return lambda group: MPoserRun(config, MPoserTrainer(config, group), splits, **options)

    return run_once(config, nullcontext(ProcessGroup(device=device_of(config.device))), prepare)


class MPoserTrainer(Trainer):
    """Trains the prior. The noise of its codes depends on seed and step only."""

    config: MPoserConfig

    def __init__(self, config: MPoserConfig, group: ProcessGroup | None = None) -> None:
        super().__init__(config, group)
        self.prior = MPoser(config.hidden_size, config.latent_size, config.n_layers).to(self.group.device)
        learner = Learner(config, self.prior, "mposer", lr=config.lr, weight_decay=config.weight_decay)
        self.learners = {"mposer": learner}

    def gradients(self, batch: TrainingBatch) -> dict[str, Tensor]:
        theta = batch.real_theta  # (B, T, 85)
        noise = _noise(len(theta), self.prior.latent_size, self.config.seed, self.state.step).to(theta.device)
        rotmat, code = self.prior(theta[..., MOTION], noise)
        terms = {
            "reconstruction": reconstruction_error(rotmat, matrices(theta)),
            "kl": self.config.kl_weight * kl_divergence(code),
        }
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return terms


class MPoserRun(TrainingLoop):
    """A run on real motion, validated by angles on held-out motion, beside those of the mean pose."""

    advice = "lower lr, or look at the labels"
    score = "score"
    config: MPoserConfig
    trainer: MPoserTrainer

    def batches(self, start: int) -> Generator[TrainingBatch, None, None]:
        batches = TrainingBatches(self.config, self.splits)
        self.mean_pose = mean_rotations(batches, min(MEAN_POSE_STEPS, len(batches)))
        return stream(batches, start, device=self.group.device)

    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Errors by split, and their mean angle; without labelled motion, the mean training loss."""
        by_split = held_out_errors(self.trainer.prior, self.mean_pose, self.config, self.splits)
        losses = self.trainer.state.means()
        if by_split:
            return by_split, float(np.mean([metrics[RECONSTRUCTION] for metrics in by_split.values()]))
        return by_split, sum(losses.values()) if losses else None

    def best(self) -> dict[str, Any]:
        # No paths: the fingerprint of a generator's run covers this file.
        return {"mposer_state_dict": weights_of(self.trainer.prior)}


def mean_rotations(batches: TrainingBatches, n_steps: int) -> Tensor:
    """(23, 3, 3) on the CPU: the rotations nearest to the mean matrices of the first batches."""
    total = torch.zeros(N_ROTATIONS, 3, 3, dtype=torch.float64)
    for step in range(n_steps):
        rotmat = matrices(torch.as_tensor(batches[step].real_theta)).double()  # (B, T, 23, 3, 3)
        total = total + rotmat.nan_to_num(nan=0.0).mean(dim=(0, 1))
    return torch.from_numpy(nearest_rotations(total.numpy())).float()


def held_out_errors(
    prior: MPoser, mean_pose: Tensor, config: MPoserConfig, splits: Mapping[str, Split]
) -> dict[str, dict[str, Any]]:
    """Mean angles of the prior and the mean pose, and number of windows, by split with labelled motion."""
    device = next(prior.parameters()).device
    prior.eval()
    by_split = {}
    for name in config.validation:
        n_windows, own_error, mean = 0, 0.0, 0.0
        for theta in _read_labelled(splits[split_of(name)], config.seqlen, name.partition(":")[2] or "*"):
            target = matrices(theta)
            with torch.no_grad():
                rotmat, _ = prior(theta[..., MOTION].to(device))
            own_error += float(geodesic_degrees(rotmat.cpu(), target).double().mean()) * len(theta)
            mean += float(geodesic_degrees(mean_pose, target).double().mean()) * len(theta)
            n_windows += len(theta)
        if n_windows:
            by_split[name] = {RECONSTRUCTION: own_error / n_windows, MEAN_POSE: mean / n_windows, "windows": n_windows}
    return by_split


def _read_labelled(split: Split, seqlen: int, tracks: str) -> Iterator[Tensor]:
    """theta (B, T, 85) of the windows with SMPL labels in every frame, in batches."""
    windows = split.windows(seqlen, seqlen)
    windows = windows[np.isin(split.track_of(windows[:, 0]), split.track_of(rows_of(split, [tracks])[:, 0]))]
    for first in range(0, len(windows), VALIDATION_BATCH):
        arrays = split.read(windows[first : first + VALIDATION_BATCH], stream=None, fields=("theta", "w_smpl"))
        theta = torch.as_tensor(arrays["theta"][(arrays["w_smpl"] > 0).all(axis=1)])
        if len(theta):
            yield theta


def _noise(n_windows: int, size: int, seed: int, step: int) -> Tensor:
    """(B, L) standard normal, drawn on the CPU from seed and step: equal on all devices."""
    digest = hashlib.sha256(f"mposer {seed} {step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(n_windows, size, generator=generator)
