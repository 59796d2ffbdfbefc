"""Training of the motion prior, MPoser.  features -> windows -> [training]

`run` trains the prior: `_MPoserTrainer` has its losses, `_MPoserRun` its batches and validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam

from pipeline.people.rotations import axis_angle_to_matrix, nearest_rotations
from vibe_model.prediction.windows import select_tracks
from vibe_model.reading import split_of
from vibe_model.stand_in import require_one_kind
from vibe_model.training.data import TrainingBatch, TrainingBatches
from vibe_model.training.loop import TrainingLoop, TrainingObserver, run_once
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.trainer import Learner, Trainer, weights_of
from vibe_model.vibe.config import MPoserConfig
from vibe_model.vibe.mposer import N_ROTATIONS, MPoser
from vibe_model.vibe.networks import MOTION

if TYPE_CHECKING:
    from cache import Split

MEAN_POSE_STEPS: Final = 50  # number of batches of which the constant mean pose is the mean
VALIDATION_BATCH: Final = 256  # windows


class _HeldOutErrors(NamedTuple):
    """Mean errors on a validation split, as metrics.json records them."""

    reconstruction_deg: float  # mean angle from the decoded mean code to the labels
    mean_pose_deg: float  # mean angle from the constant mean pose to the labels
    windows: int

    @classmethod
    def measure(cls, prior: MPoser, mean_pose: Tensor, windows: Iterable[Tensor]) -> Self | None:
        """Measure batches of theta (B, T, 85); None if there is no window."""
        device = next(prior.parameters()).device
        n_windows = 0
        sums = np.zeros(2)  # over windows
        for theta in windows:
            target = _motion_matrices(theta)
            with torch.no_grad():
                rotmat, _ = prior(theta[..., MOTION].to(device))
            for i, predicted in enumerate((rotmat.cpu(), mean_pose)):
                degrees = _geodesic_degrees(predicted, target)
                sums[i] += float(degrees.double().mean()) * len(theta)
            n_windows += len(theta)
        if not n_windows:
            return None
        prior_deg, mean_pose_deg = (sums / n_windows).tolist()
        return cls(prior_deg, mean_pose_deg, n_windows)


def run(config: MPoserConfig, progress: TrainingObserver | None = None) -> Path:
    """Train the prior, or resume its training, unless the run is finished. Returns its folder.

    Raises DataError, StandInMixed, ConfigError or CheckpointError before training, CacheError if
    the motion has no window or another process trains in the same folder; TrainingDiverged if
    losses stay non-finite.
    """

    def prepare(splits: Mapping[str, Split]) -> Callable[[ProcessGroup], _MPoserRun]:
        stand_in = require_one_kind({}, splits)
        return lambda group: _MPoserRun(
            config, _MPoserTrainer(config, group), splits, stand_in=stand_in, observer=progress
        )

    return run_once(config, prepare)


class _MPoserTrainer(Trainer):
    """Trains the prior. The noise with which codes are drawn depends on seed and step only."""

    config: MPoserConfig

    def __init__(self, config: MPoserConfig, group: ProcessGroup | None = None) -> None:
        super().__init__(config, group)
        prior = MPoser(config.hidden_size, config.latent_size, config.n_layers)
        self.prior = prior.to(self.group.device)
        adam = Adam(self.prior.parameters(), config.lr, weight_decay=config.weight_decay)
        self.learners = {"mposer": Learner(config, self.prior, "mposer", adam)}

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        theta = batch.real_theta  # (B, T, 85)
        noise = _noise(len(theta), self.prior.latent_size, self.config.seed, self.state.step)
        rotmat, code = self.prior(theta[..., MOTION], noise.to(theta.device))
        return {
            "reconstruction": (rotmat - _motion_matrices(theta)).square().mean(),
            "kl": self.config.kl_weight * code.kl_divergence(),
        }


class _MPoserRun(TrainingLoop):
    """The training run of a motion prior on real motion.

    It is validated by the mean angle between decoded and labelled rotations of other motion. The
    angles of a constant mean pose are reported for comparison.
    """

    advice = "lower lr, or look at the labels"
    score = "score"
    config: MPoserConfig
    trainer: _MPoserTrainer

    def __init__(
        self,
        config: MPoserConfig,
        trainer: _MPoserTrainer,
        splits: Mapping[str, Split],
        *,
        stand_in: bool,
        observer: TrainingObserver | None,
    ) -> None:
        """Raises CacheError if the motion has no window."""
        super().__init__(config, trainer, splits, stand_in=stand_in, observer=observer)
        self._batches = TrainingBatches(config, splits)
        n_steps = min(MEAN_POSE_STEPS, len(self._batches))
        self.mean_pose = _mean_rotations(self._batches, n_steps)

    def batches(self, start: int) -> Generator[TrainingBatch, None, None]:
        return self._batches.stream(start, device=self.group.device)

    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Errors by split, and as the score, the mean over splits of the angle (degrees).

        Without labelled motion in the validation splits, the score is the mean training loss.
        """
        errors = _held_out_errors(self.trainer.prior, self.mean_pose, self.config, self.splits)
        if not errors:
            return {}, self.trainer.state.total()
        angles = [of_split.reconstruction_deg for of_split in errors.values()]
        by_split = {name: of_split._asdict() for name, of_split in errors.items()}
        return by_split, float(np.mean(angles))

    def best(self) -> dict[str, Any]:
        # No paths: the fingerprint of a generator's run covers this file's bytes.
        return {"mposer_state_dict": weights_of(self.trainer.prior)}


def _mean_rotations(batches: TrainingBatches, n_steps: int) -> Tensor:
    """The constant mean pose, (23, 3, 3) on the CPU.

    Its rotations are those nearest to the mean matrices of the first `n_steps` batches.
    """
    total = torch.zeros(N_ROTATIONS, 3, 3, dtype=torch.float64)
    for step in range(n_steps):
        theta = torch.as_tensor(batches[step].real_theta)
        rotmat = _motion_matrices(theta).double()  # (B, T, 23, 3, 3)
        # motion that is not finite is refused by the losses, with a better message than here
        total = total + rotmat.nan_to_num(nan=0.0).mean(dim=(0, 1))
    return torch.from_numpy(nearest_rotations(total.numpy())).float()


def _held_out_errors(
    prior: MPoser, mean_pose: Tensor, config: MPoserConfig, splits: Mapping[str, Split]
) -> dict[str, _HeldOutErrors]:
    """Errors on the validation splits, by their names in `validation`, such as "amass/val:S5*".

    Splits without labelled motion are missing.
    """
    prior.eval()
    by_split = {}
    for name in config.validation:
        split = splits[split_of(name)]
        windows = _read_labelled(split, config.seqlen, config.tracks_of(name))
        errors = _HeldOutErrors.measure(prior, mean_pose, windows)
        if errors is not None:
            by_split[name] = errors
    return by_split


def _read_labelled(split: Split, seqlen: int, tracks: str) -> Iterator[Tensor]:
    """Yield theta (B, T, 85) of windows of which every frame has SMPL labels.

    tracks: Pattern of track names.
    """
    windows = split.windows(seqlen, seqlen)
    starts = np.array([track.start for track in select_tracks(split, tracks)], np.int64)
    chosen = split.track_of(starts)
    windows = windows[np.isin(split.track_of(windows[:, 0]), chosen)]
    for first in range(0, len(windows), VALIDATION_BATCH):
        arrays = split.read(
            windows[first : first + VALIDATION_BATCH], stream=None, fields=("theta", "w_smpl")
        )
        is_labelled = (arrays["w_smpl"] > 0).all(axis=1)  # (B,) in every frame
        theta = torch.as_tensor(arrays["theta"][is_labelled])
        if len(theta):
            yield theta


def _noise(n_windows: int, size: int, seed: int, step: int) -> Tensor:
    """Standard normal numbers (B, L), drawn on the CPU from seed and step.

    They are the same for all devices.
    """
    digest = hashlib.sha256(f"mposer {seed} {step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(n_windows, size, generator=generator)


def _motion_matrices(theta: Tensor) -> Tensor:
    """Rotation matrices (B, T, 23, 3, 3) of theta (B, T, 85), without the global orientation."""
    return axis_angle_to_matrix(theta[..., MOTION].reshape(*theta.shape[:-1], N_ROTATIONS, 3))


def _geodesic_degrees(rotmat: Tensor, target: Tensor) -> Tensor:
    """Angle between rotation matrices (..., 3, 3), in degrees (...).

    The Frobenius distance of two rotations by an angle a is sqrt(8) sin(a / 2). It is exact for
    small angles, unlike the arccosine of the trace.
    """
    sine_of_half = (rotmat - target).flatten(-2).norm(dim=-1) / 8**0.5
    return torch.rad2deg(2 * torch.asin(sine_of_half.clamp(max=1.0)))
