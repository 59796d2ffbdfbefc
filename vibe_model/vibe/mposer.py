"""A prior of human motion with a latent code per window, and its training.  features -> windows ->
[training]

MPoser is an ablation of Kocabas et al., CVPR 2020: instead of the discriminator, a variational
autoencoder of motion like VPoser (Pavlakos et al., CVPR 2019), trained on AMASS. The penalty is the
norm of the predicted motion's code. The GRUs, axis-angle input, 6D output, sizes, weights, and the
squared norm of the mean code are our choices.

`run` trains the prior: `_MPoserTrainer` has its losses, `_MPoserRun` its batches and validation.
Then `VIBETrainer` loads best.pt of this run by `MPoser.load`, and adds its `energy` to the losses.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from pipeline.errors import CheckpointError
from pipeline.rotations import axis_angle_to_matrix, nearest_rotations, rotation_6d_to_matrix
from vibe_model import runs
from vibe_model.checkpoints import Checkpoint
from vibe_model.prediction.windows import select_tracks
from vibe_model.settings import split_of
from vibe_model.training.data import TrainingBatch, TrainingBatches
from vibe_model.training.loop import TrainingLoop, TrainingObserver, run_once
from vibe_model.training.trainer import Learner, ProcessGroup, Trainer, weights_of
from vibe_model.vibe.config import MPoserConfig
from vibe_model.vibe.networks import MOTION, MOTION_SIZE, frozen

if TYPE_CHECKING:
    from cache import Split

N_ROTATIONS: Final = MOTION_SIZE // 3  # SMPL's 24 rotations without the global one
_IDENTITY_6D: Final = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
MEAN_POSE_STEPS: Final = 50  # number of batches of which the constant mean pose is the mean
VALIDATION_BATCH: Final = 256  # windows
RECONSTRUCTION: Final = "reconstruction_deg"  # mean angle from the decoded mean code to the labels
MEAN_POSE: Final = "mean_pose_deg"  # mean angle from the constant mean pose to the labels


class Code(NamedTuple):
    """The distribution of a window's latent code: normal, with independent dimensions."""

    mean: Tensor  # (B, L)
    log_variance: Tensor  # (B, L)

    def kl_divergence(self) -> Tensor:
        """KL divergence from the standard normal distribution, in nats: the mean over windows.

        Kingma and Welling, 2014, appendix B.
        """
        squares = self.mean.square() + self.log_variance.exp()
        divergence = squares - 1 - self.log_variance
        return 0.5 * divergence.sum(-1).mean()


class MPoser(nn.Module):
    """A variational autoencoder of windows of motion, of any length.

    Encoder and decoder are GRUs over a window's frames. The encoder's last state gives the code's
    mean and log variance; the decoder reads the code in every frame.
    """

    def __init__(
        self,
        hidden_size: int = 512,
        latent_size: int = 64,
        n_layers: int = 1,
        *,
        stand_in: bool = False,
    ) -> None:
        """stand_in: Whether it was trained on demo motion."""
        super().__init__()
        self.latent_size = latent_size
        self.stand_in = stand_in
        self.encoder = nn.GRU(MOTION_SIZE, hidden_size, n_layers, batch_first=True)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)
        self.decoder = nn.GRU(latent_size, hidden_size, n_layers, batch_first=True)
        self.rotations = nn.Linear(hidden_size, 6 * N_ROTATIONS)
        # Start at the rest pose: near 0, 6D rotations are arbitrary.
        with torch.no_grad():
            self.rotations.bias.copy_(torch.tensor(_IDENTITY_6D).repeat(N_ROTATIONS))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the prior on the CPU, frozen, with sizes from the file. Raises CheckpointError."""
        checkpoint = Checkpoint.read(path)
        tensors = checkpoint.content.get("mposer_state_dict")
        if not isinstance(tensors, Mapping):
            raise CheckpointError(
                f"{path}: expected the best.pt of a motion prior, with 'mposer_state_dict'; "
                f"found keys: {checkpoint.keys}. Train one: luigi --module tasks TrainMPoser"
            )
        # Sizes from tensors, not from numbers: the network needs no more memory than the file.
        shapes = {
            name: tuple(getattr(tensors.get(name), "shape", ()))
            for name in ("encoder.weight_hh_l0", "mean.weight")
        }
        if any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
            sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise CheckpointError(
                f"{path}: expected matrices that have an MPoser's sizes, found {sizes}"
            )
        _, hidden_size = shapes["encoder.weight_hh_l0"]
        latent_size, _ = shapes["mean.weight"]
        layers = [name for name in tensors if re.fullmatch(r"encoder\.weight_hh_l\d+", str(name))]
        prior = cls(hidden_size, latent_size, len(layers), stand_in=checkpoint.stand_in)
        checkpoint.check_tensors(prior.state_dict(), tensors)
        prior.load_state_dict(dict(tensors))
        return prior.requires_grad_(False).eval()

    def encode(self, motion: Tensor) -> Code:
        """Compute the distribution of each window's code.

        motion: (B, T, 69) axis-angle in rad, `theta[..., 6:75]`.
        """
        states, _ = self.encoder(motion)  # (B, T, hidden)
        last = states[:, -1]
        return Code(self.mean(last), self.log_variance(last))

    def decode(self, code: Tensor, n_frames: int) -> Tensor:
        """Decode codes (B, L) to rotation matrices (B, n_frames, 23, 3, 3)."""
        every_frame = code[:, None].expand(-1, n_frames, -1)  # (B, T, L)
        rotation_6d: Tensor = self.rotations(self.decoder(every_frame)[0])  # (B, T, 138)
        return rotation_6d_to_matrix(rotation_6d.reshape(*rotation_6d.shape[:-1], N_ROTATIONS, 6))

    def forward(self, motion: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Code]:
        """Encode and decode windows of motion (B, T, 69).

        Returns the decoded rotation matrices (B, T, 23, 3, 3), and the codes' distributions. noise:
        (B, L) standard normal numbers, with which the code to decode is drawn; None: decode the
        mean code.
        """
        code = self.encode(motion)
        sample = code.mean
        if noise is not None:
            deviation = (code.log_variance / 2).exp()
            sample = code.mean + deviation * noise
        return self.decode(sample, motion.shape[1]), code

    def energy(self, motion: Tensor) -> Tensor:
        """The penalty of windows of motion (B, T, 69), a scalar that is high for implausible ones.

        It is the squared norm of the mean code, mean over windows. Gradients reach the motion,
        never the prior's parameters. It leaves the encoder in training mode.
        """
        # cuDNN differentiates GRUs in training mode only. Results are the same in both modes, since
        # the encoder has no dropout.
        self.encoder.train()
        with frozen(self):
            return self.encode(motion).mean.square().sum(-1).mean()


def run(config: MPoserConfig, progress: TrainingObserver | None = None) -> Path:
    """Train the prior, or resume its training, unless the run is finished. Returns its folder.

    Raises DataError, StandInMixed, ConfigError or CheckpointError before training, CacheError if
    the motion has no window or another process trains in the same folder; TrainingDiverged if
    losses stay non-finite.
    """

    def prepare(splits: Mapping[str, Split]) -> Callable[[ProcessGroup], _MPoserRun]:
        stand_in = runs.require_one_kind({}, splits)
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

    def __init__(self, *args: Any, **options: Any) -> None:
        """Arguments of TrainingLoop. Raises CacheError if the motion has no window."""
        super().__init__(*args, **options)
        self._batches = TrainingBatches(self.config, self.splits)
        n_steps = min(MEAN_POSE_STEPS, len(self._batches))
        self.mean_pose = _mean_rotations(self._batches, n_steps)

    def batches(self, start: int) -> Generator[TrainingBatch, None, None]:
        return self._batches.stream(start, device=self.group.device)

    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Errors by split, and as the score, the mean over splits of the angle (degrees).

        Without labelled motion in the validation splits, the score is the mean training loss.
        """
        by_split = _held_out_errors(self.trainer.prior, self.mean_pose, self.config, self.splits)
        if not by_split:
            return {}, self.trainer.state.total()
        angles = [metrics[RECONSTRUCTION] for metrics in by_split.values()]
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
) -> dict[str, dict[str, Any]]:
    """Errors on the validation splits, by their names in `validation`.

    Mean angles (degrees) of the prior and of the mean pose: {"amass/val:S5*": {RECONSTRUCTION: 7.5,
    MEAN_POSE: 21.0, "windows": 120}}. Splits without labelled motion are missing.
    """
    device = next(prior.parameters()).device
    prior.eval()
    by_split = {}
    for name in config.validation:
        n_windows = 0
        prior_error = 0.0  # sums over windows
        mean_pose_error = 0.0
        split = splits[split_of(name)]
        for theta in _read_labelled(split, config.seqlen, config.tracks_of(name)):
            target = _motion_matrices(theta)
            with torch.no_grad():
                rotmat, _ = prior(theta[..., MOTION].to(device))
            degrees = _geodesic_degrees(rotmat.cpu(), target)
            mean_pose_degrees = _geodesic_degrees(mean_pose, target)
            prior_error += float(degrees.double().mean()) * len(theta)
            mean_pose_error += float(mean_pose_degrees.double().mean()) * len(theta)
            n_windows += len(theta)
        if n_windows:
            by_split[name] = {
                RECONSTRUCTION: prior_error / n_windows,
                MEAN_POSE: mean_pose_error / n_windows,
                "windows": n_windows,
            }
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
