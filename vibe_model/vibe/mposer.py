"""A prior of human motion with a latent code per window.  features -> windows -> [training]

MPoser is an ablation of Kocabas et al., CVPR 2020: instead of the discriminator, a variational
autoencoder of motion like VPoser (Pavlakos et al., CVPR 2019), trained on AMASS
(`mposer_training`). The penalty is the norm of the predicted motion's code. The GRUs, axis-angle
input, 6D output, sizes, weights, and the squared norm of the mean code are our choices.

`VIBETrainer` loads best.pt of a run by `MPoser.load`, and adds its `energy` to the losses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.people.rotations import rotation_6d_to_matrix
from vibe_model.checkpoints import Checkpoint
from vibe_model.vibe.networks import MOTION_SIZE, frozen

N_ROTATIONS: Final = MOTION_SIZE // 3  # SMPL's 24 rotations without the global one
_IDENTITY_6D: Final = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class _Code(NamedTuple):
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

    def encode(self, motion: Tensor) -> _Code:
        """Compute the distribution of each window's code.

        motion: (B, T, 69) axis-angle in rad, `theta[..., 6:75]`.
        """
        states, _ = self.encoder(motion)  # (B, T, hidden)
        last = states[:, -1]
        return _Code(self.mean(last), self.log_variance(last))

    def decode(self, code: Tensor, n_frames: int) -> Tensor:
        """Decode codes (B, L) to rotation matrices (B, n_frames, 23, 3, 3)."""
        every_frame = code[:, None].expand(-1, n_frames, -1)  # (B, T, L)
        rotation_6d: Tensor = self.rotations(self.decoder(every_frame)[0])  # (B, T, 138)
        return rotation_6d_to_matrix(rotation_6d.reshape(*rotation_6d.shape[:-1], N_ROTATIONS, 6))

    def forward(self, motion: Tensor, noise: Tensor | None = None) -> tuple[Tensor, _Code]:
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
        never the prior's parameters.
        """
        # cuDNN differentiates only GRUs that ran in training mode. Results are the same in both
        # modes, since the encoder has no dropout.
        was_training = self.encoder.training
        self.encoder.train()
        with frozen(self):
            code = self.encode(motion)
        self.encoder.train(was_training)
        return code.mean.square().sum(-1).mean()
