"""VIBE's encoder and regressor with a decoder for body regions in between.  features -> windows ->
[training]

After Lee and Lee, "Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D
Dynamics" (ICCV 2021). Details that the available slides and note do not give are ours
(docs/part-dynamics.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError
from vibe_model.cameras import project_orthographic
from vibe_model.constants import constant
from vibe_model.networks import xavier
from vibe_model.networks.video_model import FEATURE_SIZE, Estimate, VideoModel, pose_estimate
from vibe_model.vibe.networks import VIBE, Regressor, TemporalEncoder

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.part_dynamics.config import PartDynamicsConfig


RECOMBINE: Final = ("multiply", "add", "none")
KERNEL: Final = 3
DILATIONS: Final = (1, 3)  # a state depends on 9 frames
DROPOUT: Final = 0.1


class RegionConvolution(nn.Module):
    """A temporal convolution of each region, recombined with the other regions: (B, T, R, W) -> (B,
    T, R, W).

    The window's ends are repeated. No bias, since a batch norm follows.
    """

    def __init__(
        self, regions: int, width: int, kernel: int, dilation: int, recombine: str
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.recombine = recombine
        # (region, tap, in, out)
        self.weight = nn.Parameter(torch.empty(regions, kernel, width, width))
        for one in self.weight.data:
            nn.init.xavier_uniform_(one.view(kernel * width, width))
        if recombine != "none":
            # (region, its tap, other region, other's tap, channel). Initially 0, which makes each
            # factor 0.5.
            self.context = nn.Parameter(torch.zeros(regions, kernel, regions - 1, kernel, width))
            self.context_bias = nn.Parameter(torch.zeros(regions, kernel))
            self.context_norm = nn.BatchNorm1d(regions * kernel)
            other_regions = [
                [one for one in range(regions) if one != region] for region in range(regions)
            ]
            self.register_buffer("others", torch.tensor(other_regions), persistent=False)

    others: Tensor

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, R, W) -> (B, T, R, W)."""
        n_frames = states.shape[1]
        margin = (self.kernel - 1) // 2 * self.dilation
        frames = torch.arange(-margin, n_frames + margin, device=states.device).clamp(
            0, n_frames - 1
        )
        padded = states[:, frames]
        starts = (tap * self.dilation for tap in range(self.kernel))
        # (B, T, R, K, W)
        taps = torch.stack([padded[:, start : start + n_frames] for start in starts], dim=3)
        if self.recombine == "multiply":
            taps = taps * self._context(taps).sigmoid()[..., None]
        elif self.recombine == "add":
            taps = taps + self._context(taps)[..., None]
        rows = taps.flatten(3).flatten(0, 1).transpose(0, 1)  # (R, B T, K W)
        return torch.bmm(rows, self.weight.flatten(1, 2)).transpose(0, 1).view_as(states)

    def _context(self, taps: Tensor) -> Tensor:
        """Context of each region from the others, batch-normed: (B, T, R, K, W) -> (B, T, R, K)."""
        n_regions, kernel = self.context_bias.shape
        # 0 for the region itself
        whole = self.context.new_zeros(n_regions, n_regions, kernel, kernel, taps.shape[-1])
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
    """Features of frames -> states of regions, (B, T, F) -> (B, T, R, W).

    SRNet (Zeng et al., ECCV 2020), the decoder of Lee and Lee. With "multiply", a convolution of
    the other regions yields one factor per frame and tap for the region's channels. Sizes are ours.
    """

    def __init__(self, n_features: int, regions: int, width: int, recombine: str) -> None:
        super().__init__()
        self.regions = regions
        self.split = nn.Linear(n_features, regions * width)
        for one in self.split.weight.data.view(regions, width, n_features):
            nn.init.xavier_uniform_(one)
        nn.init.zeros_(self.split.bias)
        self.layers = nn.ModuleList(
            _Layer(regions, width, dilation, recombine) for dilation in DILATIONS
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, R, W)."""
        states = functional.leaky_relu(self.split(features)).view(
            *features.shape[:2], self.regions, -1
        )
        for layer in self.layers:
            states = layer(states)
        return states


REGIONS: Final = (  # SMPL's joints in each
    (0, 3, 6, 9, 12, 15),  # pelvis, spine, neck, head
    (1, 4, 7, 10),  # left leg
    (2, 5, 8, 11),  # right leg
    (13, 16, 18, 20, 22),  # left arm
    (14, 17, 19, 21, 23),  # right arm
)
WIDTHS: Final = {5: 256, 1: 572}  # of a region's state: one region has as many parameters as five
SIZES: Final = {"pr_vipe": 64, "homography": 135}  # of additional inputs
LARGEST_MOTION: Final = 5.0  # of a homography's entries, in standard deviations
SMALL: Final = 0.01  # initial Xavier gain of residuals

Prediction = dict[str, Any]  # VIBE's dict of tensors, and "deltas": the same by step in frames


class _Neighbour(nn.Module):
    """Predicts how a region's rotations change over some frames."""

    def __init__(self, width: int, n_joints: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width + 6 * n_joints, hidden_size)
        self.out = xavier(hidden_size, 6 * n_joints, SMALL)

    def forward(self, state: Tensor, rotations: Tensor) -> Tensor:
        """(N, width), (N, 6 n) -> (N, 6 n)."""
        out: Tensor = self.out(self.hidden(torch.cat((state, rotations), dim=-1)).relu())
        return out


class PartDynamics(VideoModel):
    """Video features, 2D pose embeddings and image motion -> one body per frame, and its
    neighbours.

    `sigma` holds the standard deviations of a homography's 9 numbers, which normalise them.

    Args:
        regions: 5, or 1 for a plain convolution with as many parameters.
        recombine: "multiply", "add" or "none".
        uses: Streams to read besides the features.
        delta: Frames to the predicted neighbours before and after; 0: no neighbours.

    Raises:
        ConfigError: an invalid option.
    """

    sigma: Tensor

    def __init__(
        self,
        body: Body,
        *,
        regions: int = 5,
        recombine: str = "multiply",
        uses: tuple[str, ...] = ("pr_vipe", "homography"),
        delta: int = 5,
        width: int = 0,
        hidden_size: int = 1024,
        feature_size: int = FEATURE_SIZE,
        regressor_size: int = 1024,
    ) -> None:
        super().__init__()
        if regions not in WIDTHS:
            raise ConfigError(f"regions: expected 5 or 1, found {regions}")
        if recombine not in RECOMBINE:
            raise ConfigError(
                f"recombine: expected one of {', '.join(RECOMBINE)}, found {recombine!r}"
            )
        if unknown := sorted(set(uses) - SIZES.keys()):
            raise ConfigError(
                f"uses: expected some of {', '.join(SIZES)}, found {', '.join(unknown)}"
            )
        if delta < 0:
            raise ConfigError(f"delta: expected 0 or more frames, found {delta}")
        self.uses = tuple(uses)
        self.steps = (-delta, delta) if delta else ()
        self.joints = REGIONS if regions == len(REGIONS) else (tuple(range(24)),)
        width = width or WIDTHS[regions]
        self.encoder = TemporalEncoder(hidden_size=hidden_size, feature_size=feature_size)
        self.decoder = RegionDecoder(
            feature_size + sum(SIZES[name] for name in uses),
            regions,
            width,
            recombine if regions > 1 else "none",
        )
        self.current = xavier(regions * width, feature_size, SMALL)
        self.regressor = Regressor(body, feature_size=feature_size, hidden_size=regressor_size)
        self.deltas = nn.ModuleDict(
            {
                side: nn.ModuleList(
                    _Neighbour(width, len(joints), WIDTHS[5]) for joints in self.joints
                )
                for side in (("before", "after") if delta else ())
            }
        )
        self.register_buffer("sigma", torch.ones(9))
        self.body = body

    def forward(
        self,
        features: Tensor,
        pr_vipe: Tensor | None = None,
        homography: Tensor | None = None,
        eval_joints: bool = False,
        vertices: bool = True,
    ) -> Prediction:
        """(B, T, feature_size), (B, T, 64), (B, T, 135) -> VIBE's dict, each (B, T, ...), and
        "deltas".

        homography: 15 successive rows of the stream as stored, oldest first. "deltas" has the same
        dict by step in frames, -5 and 5, indexed by the frame that predicts them, with the camera
        (1, 0, 0) and that frame's shape. Raises ValueError if a stream of `uses` is None.
        """
        every = self.regress_around(features, pr_vipe, homography)
        current = self.pose(every.pop(0), eval_joints, vertices)
        return {
            **current,
            "deltas": pose_neighbours(self.body, every, eval_joints=eval_joints, vertices=vertices),
        }

    def regress(
        self, features: Tensor, pr_vipe: Tensor | None = None, homography: Tensor | None = None
    ) -> Estimate:
        """Bodies and cameras of the frames; inputs as for `forward`."""
        pose, shape, camera, _ = self._regress_parts(features, pr_vipe, homography)
        return Estimate.of_6d(pose, shape, camera)

    def regress_around(
        self, features: Tensor, pr_vipe: Tensor | None = None, homography: Tensor | None = None
    ) -> dict[int, Estimate]:
        """Bodies by step (0: now), with the frame's shape and camera; inputs as for `forward`."""
        pose, shape, camera, states = self._regress_parts(features, pr_vipe, homography)
        moved = {
            step: self._move(heads, states, pose)
            for step, heads in zip(self.steps, self.deltas.values(), strict=True)
        }
        return {
            step: Estimate.of_6d(one, shape, camera) for step, one in ({0: pose} | moved).items()
        }

    def regress_stills(
        self, features: Tensor, pr_vipe: Tensor | None = None, homography: Tensor | None = None
    ) -> dict[int, Estimate]:
        """`regress_around` for still images: all homographies are the identity."""
        return self.regress_around(
            features, pr_vipe, None if homography is None else torch.zeros_like(homography)
        )

    def _regress_parts(
        self, features: Tensor, pr_vipe: Tensor | None, homography: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pose (B, T, 144), shape (B, T, 10), camera (B, T, 3), and the regions' states (B, T, R,
        W).
        """
        encoded: Tensor = self.encoder(features)
        read = [encoded]
        frames = features.shape[:2]
        for name, stream in (("pr_vipe", pr_vipe), ("homography", homography)):
            if name not in self.uses:
                continue
            if stream is None:
                raise ValueError(
                    f"{name}: expected (B, T, {SIZES[name]}), which this model reads; found None"
                )
            if name == "homography":  # in standard deviations
                by_pair = stream.reshape(*frames, -1, 9) / self.sigma.clamp(min=1e-6)
                stream = by_pair.clamp(-LARGEST_MOTION, LARGEST_MOTION).flatten(-2)
            read.append(stream)
        states: Tensor = self.decoder(torch.cat(read, dim=-1))
        regressed = self.regressor((encoded + self.current(states.flatten(2))).flatten(0, 1))
        # Back to the features' dtype after autocast.
        pose, shape, camera = (part.to(features.dtype).view(*frames, -1) for part in regressed)
        return pose, shape, camera, states.to(features.dtype)

    def _move(self, heads: nn.Module, states: Tensor, pose: Tensor) -> Tensor:
        """The pose of a neighbouring frame, (B, T, 144)."""
        rotations = pose.reshape(*pose.shape[:2], 24, 6)
        moved = torch.zeros_like(rotations)
        assert isinstance(heads, nn.ModuleList)
        for region, (head, joints) in enumerate(zip(heads, self.joints, strict=True)):
            chosen = constant(joints, rotations)
            region_rotations = rotations[..., chosen, :]
            moved[..., chosen, :] = region_rotations + head(
                states[..., region, :], region_rotations.flatten(-2)
            ).view_as(region_rotations)
        return moved.flatten(-2)


def pose_neighbours(
    body: Body, moved: Mapping[int, Estimate], *, eval_joints: bool = False, vertices: bool = True
) -> dict[int, dict[str, Tensor]]:
    """Bodies of neighbouring frames by step, each (B, T, ...), with the orthographic camera (1, 0,
    0).
    """
    neighbours = {}
    for step, estimate in moved.items():
        still = estimate._replace(
            camera=constant((1.0, 0.0, 0.0), estimate.camera).expand_as(estimate.camera)
        )
        options = {"eval_joints": eval_joints, "vertices": vertices}
        neighbours[step] = pose_estimate(body, still, project_orthographic, **options)
    return neighbours


def build_generator(config: PartDynamicsConfig, body: Body) -> VideoModel:
    """Build a generator with new parameters; without `temporal`, only VIBE's regressor."""
    sizes = {
        name: getattr(config, name) for name in ("hidden_size", "feature_size", "regressor_size")
    }
    if not config.temporal:
        return VIBE(body, n_layers=0, **sizes)
    options = {name: getattr(config, name) for name in ("regions", "recombine", "delta", "width")}
    return PartDynamics(body, uses=tuple(config.extra_streams), **options, **sizes)
