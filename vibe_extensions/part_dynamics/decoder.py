"""A temporal convolution split into body regions, which see little of each other.  windows -> [training]

SRNet (Zeng et al., ECCV 2020), the decoder of Lee and Lee (ICCV 2021). With "multiply", a convolution of the other
regions yields one factor per frame and tap for the region's channels. Sizes are ours.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

RECOMBINE: Final = ("multiply", "add", "none")
KERNEL: Final = 3
DILATIONS: Final = (1, 3)  # a state depends on 9 frames
DROPOUT: Final = 0.1


class RegionConvolution(nn.Module):
    """A temporal convolution of each region, recombined with the other regions: (B, T, R, W) -> (B, T, R, W).

    The window's ends are repeated. No bias, since a batch norm follows.
    """

    def __init__(self, regions: int, width: int, kernel: int, dilation: int, recombine: str) -> None:
        super().__init__()
        self.kernel, self.dilation, self.recombine = kernel, dilation, recombine
        self.weight = nn.Parameter(torch.empty(regions, kernel, width, width))  # (region, tap, in, out)
        for one in self.weight.data:
            nn.init.xavier_uniform_(one.view(kernel * width, width))
        if recombine != "none":
            # (region, its tap, other region, other's tap, channel). Initially 0, which makes each factor 0.5.
            self.context = nn.Parameter(torch.zeros(regions, kernel, regions - 1, kernel, width))
            self.context_bias = nn.Parameter(torch.zeros(regions, kernel))
            self.context_norm = nn.BatchNorm1d(regions * kernel)
            other_regions = [[one for one in range(regions) if one != region] for region in range(regions)]
            self.register_buffer("others", torch.tensor(other_regions), persistent=False)

    others: Tensor

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, R, W) -> (B, T, R, W)."""
        n_frames, margin = states.shape[1], (self.kernel - 1) // 2 * self.dilation
        frames = torch.arange(-margin, n_frames + margin, device=states.device).clamp(0, n_frames - 1)
        padded = states[:, frames]
        starts = (tap * self.dilation for tap in range(self.kernel))
        taps = torch.stack([padded[:, start : start + n_frames] for start in starts], dim=3)  # (B, T, R, K, W)
        if self.recombine == "multiply":
            taps = taps * self._context(taps).sigmoid()[..., None]
        elif self.recombine == "add":
            taps = taps + self._context(taps)[..., None]
        rows = taps.flatten(3).flatten(0, 1).transpose(0, 1)  # (R, B T, K W)
        return torch.bmm(rows, self.weight.flatten(1, 2)).transpose(0, 1).view_as(states)

    def _context(self, taps: Tensor) -> Tensor:
        """Context of each region from the others, batch-normed: (B, T, R, K, W) -> (B, T, R, K)."""
        n_regions, kernel = self.context_bias.shape
        whole = self.context.new_zeros(n_regions, n_regions, kernel, kernel, taps.shape[-1])  # 0 for the region itself
        regions = torch.arange(n_regions, device=taps.device)[:, None]
        whole = whole.index_put((regions, self.others), self.context.transpose(1, 2))
        context = torch.einsum("btskw,rsjkw->btrj", taps, whole) + self.context_bias
        normed: Tensor = self.context_norm(context.flatten(0, 1).flatten(1))
        return normed.view(*taps.shape[:2], n_regions, kernel)


class _Layer(nn.Module):
    """A residual block: convolutions over three frames and over one frame, each with batch norm."""

    def __init__(self, regions: int, width: int, dilation: int, recombine: str) -> None:
        super().__init__()
        self.conv1 = RegionConvolution(regions, width, KERNEL, dilation, recombine)
        self.norm1 = nn.BatchNorm1d(regions * width)
        self.conv2 = RegionConvolution(regions, width, 1, 1, recombine)
        self.norm2 = nn.BatchNorm1d(regions * width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, R, W) -> (B, T, R, W)."""
        inner = self._active(self.norm1, self.conv1(states))
        return states + self._active(self.norm2, self.conv2(inner))

    def _active(self, norm: nn.Module, states: Tensor) -> Tensor:
        normed = norm(states.flatten(2).flatten(0, 1)).view_as(states)
        out: Tensor = self.dropout(functional.leaky_relu(normed))
        return out


class RegionDecoder(nn.Module):
    """Features of frames -> states of regions, (B, T, F) -> (B, T, R, W)."""

    def __init__(self, n_features: int, regions: int, width: int, recombine: str) -> None:
        super().__init__()
        self.regions = regions
        self.split = nn.Linear(n_features, regions * width)
        for one in self.split.weight.data.view(regions, width, n_features):
            nn.init.xavier_uniform_(one)
        nn.init.zeros_(self.split.bias)
        self.layers = nn.ModuleList(_Layer(regions, width, dilation, recombine) for dilation in DILATIONS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, R, W)."""
        states = functional.leaky_relu(self.split(features)).view(*features.shape[:2], self.regions, -1)
        for layer in self.layers:
            states = layer(states)
        return states
