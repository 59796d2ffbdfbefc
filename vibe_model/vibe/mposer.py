"""A prior of human motion with a latent code per window.  features -> windows -> [training] -> evaluation

MPoser is an ablation of Kocabas et al., CVPR 2020: instead of the discriminator, a variational autoencoder of motion
like VPoser (Pavlakos et al., CVPR 2019), trained on AMASS. The penalty is the norm of the predicted motion's code.
The GRUs, axis-angle input, 6D output, sizes, weights, and the squared norm of the mean code are our choices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from vibe_model.checkpoints import check_tensors, read_checkpoint, some
from vibe_model.errors import CheckpointError
from vibe_model.networks.cpu_kernels import GRU
from vibe_model.rotations import axis_angle_to_matrix, rotation_6d_to_matrix
from vibe_model.vibe.discriminator import MOTION, MOTION_SIZE, frozen

N_ROTATIONS: Final = MOTION_SIZE // 3  # of SMPL's 24, all but the global one
_IDENTITY_6D: Final = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class Code(NamedTuple):
    """The distribution of a window's latent code: normal, with independent dimensions."""

    mean: Tensor  # (B, L)
    log_variance: Tensor  # (B, L)


class MPoser(nn.Module):
    """A variational autoencoder of windows of any length. stand_in: trained on demo motion."""

    def __init__(self, hidden_size: int = 512, latent_size: int = 64, n_layers: int = 1) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.stand_in = False
        self.encoder = GRU(MOTION_SIZE, hidden_size, n_layers, batch_first=True)
        self.mean = nn.Linear(hidden_size, latent_size)
        self.log_variance = nn.Linear(hidden_size, latent_size)
        self.decoder = GRU(latent_size, hidden_size, n_layers, batch_first=True)
        self.rotations = nn.Linear(hidden_size, 6 * N_ROTATIONS)
        # Start at the rest pose: near 0, 6D rotations are arbitrary.
        with torch.no_grad():
            self.rotations.bias.copy_(torch.tensor(_IDENTITY_6D).repeat(N_ROTATIONS))

    def encode(self, motion: Tensor) -> Code:
        """(B, T, 69) axis-angle in rad, `theta[..., 6:75]` -> the distribution of each window's code."""
        last = self.encoder(motion)[0][:, -1]  # (B, T, hidden) -> (B, hidden)
        return Code(self.mean(last), self.log_variance(last))

    def decode(self, code: Tensor, n_frames: int) -> Tensor:
        """(B, L) -> (B, n_frames, 23, 3, 3) rotation matrices."""
        every_frame = code[:, None].expand(-1, n_frames, -1)  # (B, T, L)
        rotation_6d: Tensor = self.rotations(self.decoder(every_frame)[0])  # (B, T, 138)
        return rotation_6d_to_matrix(rotation_6d.reshape(*rotation_6d.shape[:-1], N_ROTATIONS, 6))

    def forward(self, motion: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Code]:
        """(B, T, 69) -> (decoded (B, T, 23, 3, 3), the codes' distributions).

        noise: (B, L) standard normal, to draw the decoded code; None: decode the mean code.
        """
        code = self.encode(motion)
        drawn = code.mean if noise is None else code.mean + (code.log_variance / 2).exp() * noise
        return self.decode(drawn, motion.shape[1]), code

    def energy(self, motion: Tensor) -> Tensor:
        """(B, T, 69) -> mean over windows of the squared norm of the mean code, a scalar: high for implausible poses.

        Gradients reach the motion, never the parameters.
        """
        # cuDNN differentiates GRUs in training mode only, which is the same without dropout.
        self.encoder.train()
        with frozen(self):
            return self.encode(motion).mean.square().sum(-1).mean()


def matrices(theta: Tensor) -> Tensor:
    """(B, T, 85) -> (B, T, 23, 3, 3): the rotations of labels that MPoser decodes."""
    return axis_angle_to_matrix(theta[..., MOTION].reshape(*theta.shape[:-1], N_ROTATIONS, 3))


def reconstruction_error(rotmat: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of rotation matrices (..., 3, 3) over all their numbers: a scalar."""
    return (rotmat - target).square().mean()


def kl_divergence(code: Code) -> Tensor:
    """From the standard normal distribution, in nats, mean over windows (Kingma and Welling, ICLR 2014, appendix B)."""
    mean, log_variance = code
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()


def geodesic_degrees(rotmat: Tensor, target: Tensor) -> Tensor:
    """Angle between rotations, (..., 3, 3) each -> (...) degrees; from the distance, exact near 0."""
    sine = (rotmat - target).flatten(-2).norm(dim=-1) / 8**0.5
    return torch.rad2deg(2 * torch.asin(sine.clamp(max=1.0)))


def load_mposer(path: Path | str) -> MPoser:
    """Load the prior on the CPU, frozen, with sizes from the file. Raises CheckpointError."""
    path = Path(path)
    content = read_checkpoint(path)
    tensors = content.get("mposer_state_dict")
    if not isinstance(tensors, Mapping):
        raise CheckpointError(
            f"{path}: expected the best.pt of a motion prior, with 'mposer_state_dict'; found keys: "
            f"{some(map(str, content))}. Train one: luigi --module tasks TrainMPoser"
        )
    # Sizes from tensors, not from numbers: the network needs no more memory than the file.
    shapes = {name: tuple(getattr(tensors.get(name), "shape", ())) for name in ("encoder.weight_hh_l0", "mean.weight")}
    if any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
        sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise CheckpointError(f"{path}: expected matrices that have an MPoser's sizes, found {sizes}")
    (_, hidden_size), (latent_size, _) = shapes.values()
    n_layers = sum(re.fullmatch(r"encoder\.weight_hh_l\d+", str(name)) is not None for name in tensors)
    prior = MPoser(hidden_size, latent_size, n_layers)
    check_tensors(path, prior.state_dict(), tensors)
    prior.load_state_dict(dict(tensors))
    prior.stand_in = bool(content.get("stand_in", False))
    return prior.requires_grad_(False).eval()
