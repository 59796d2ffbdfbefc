"""VIBE's encoder and regressor with a decoder for body regions in between.  features -> windows ->
[training]

After Lee and Lee, "Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D
Dynamics" (ICCV 2021). Details that the available slides and note do not give are ours
(docs/part-dynamics.md). `PartDynamics` is the model:

1. `TemporalEncoder` (VIBE's) encodes the features of a window.
2. `RegionDecoder` makes a state for each body region in each frame.
3. `Regressor` (VIBE's) regresses the frame's body from the encoded features, corrected by the
   states.
4. `_Neighbour` predicts how a region's rotations change to a frame before or after.

Axes in shapes: B windows, T frames, R regions, K taps of a convolution, W channels of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import require_option
from vibe_model.cameras import project_orthographic
from vibe_model.devices import constant
from vibe_model.networks import xavier
from vibe_model.networks.video_model import FEATURE_SIZE, Estimate, VideoModel
from vibe_model.part_dynamics.config import HISTORY, HOMOGRAPHY_SIZE, PR_VIPE_SIZE
from vibe_model.vibe.networks import VIBE, Regressor, TemporalEncoder

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from vibe_model.part_dynamics.config import PartDynamicsConfig


REGIONS: Final = (  # SMPL's joints in each
    (0, 3, 6, 9, 12, 15),  # pelvis, spine, neck, head
    (1, 4, 7, 10),  # left leg
    (2, 5, 8, 11),  # right leg
    (13, 16, 18, 20, 22),  # left arm
    (14, 17, 19, 21, 23),  # right arm
)
# Number of regions -> channels of a region's state: one region has as many parameters as five
WIDTHS: Final = {5: 256, 1: 572}
HEAD_SIZE: Final = 256  # of the hidden layer that predicts a neighbouring frame
SIZES: Final = {  # numbers per frame of the streams besides the features
    "pr_vipe": PR_VIPE_SIZE,
    "homography": (HISTORY + 1) * HOMOGRAPHY_SIZE,
}
LARGEST_MOTION: Final = 5.0  # of a homography's entries, in standard deviations
SMALL: Final = 0.01  # initial Xavier gain of residuals

Recombine = Literal["multiply", "add", "none"]  # how a region reads the others
KERNEL: Final = 3
DILATIONS: Final = (1, 3)  # a state depends on 9 frames
DROPOUT: Final = 0.1

# The tensors of `VideoModel.pose`, and "deltas": the same tensors by step in frames
Prediction = dict[str, Any]


class _RegionConvolution(nn.Module):
    """A temporal convolution of each region, recombined with the other regions: (B, T, R, W) -> (B,
    T, R, W).

    The window's ends are repeated. No bias, since a batch norm follows.
    """

    def __init__(
        self, regions: int, width: int, kernel: int, dilation: int, recombine: Recombine
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.recombine = recombine
        # (region, tap, in, out)
        self.weight = nn.Parameter(torch.empty(regions, kernel, width, width))
        for region in self.weight.data:
            nn.init.xavier_uniform_(region.view(kernel * width, width))
        if recombine != "none":
            # (region, its tap, other region, other's tap, channel). Initially 0, which makes each
            # factor 0.5.
            self.context = nn.Parameter(torch.zeros(regions, kernel, regions - 1, kernel, width))
            self.context_bias = nn.Parameter(torch.zeros(regions, kernel))
            self.context_norm = nn.BatchNorm1d(regions * kernel)
            # (R, R - 1) numbers of the other regions: row r counts up and skips r
            numbers = torch.arange(regions - 1)
            other_regions = numbers + (numbers >= torch.arange(regions)[:, None])
            self.register_buffer("other_regions", other_regions, persistent=False)

    other_regions: Tensor

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, R, W) -> (B, T, R, W)."""
        n_frames = states.shape[1]
        margin = (self.kernel - 1) // 2 * self.dilation
        frames = torch.arange(-margin, n_frames + margin, device=states.device)
        padded = states[:, frames.clamp(0, n_frames - 1)]
        shifted = []
        for tap in range(self.kernel):
            start = tap * self.dilation
            shifted.append(padded[:, start : start + n_frames])
        taps = torch.stack(shifted, dim=3)  # (B, T, R, K, W)

        if self.recombine == "multiply":
            taps = taps * self._context(taps).sigmoid()
        elif self.recombine == "add":
            taps = taps + self._context(taps)

        # One product for each region: (R, B T, K W) x (R, K W, W) -> (R, B T, W)
        by_region = taps.flatten(3).flatten(0, 1).transpose(0, 1)
        weight = self.weight.flatten(1, 2)
        convolved = torch.bmm(by_region, weight).transpose(0, 1)  # (B T, R, W)
        return convolved.view_as(states)

    def _context(self, taps: Tensor) -> Tensor:
        """Context of each region from the others, batch-normed.

        (B, T, R, K, W) -> (B, T, R, K, 1): one number for all channels of a region's tap.
        """
        n_regions, kernel, _, _, width = self.context.shape
        regions = torch.arange(n_regions, device=taps.device)
        # (region r, region o, tap k of r, tap l of o, channel w): `context` where o is another
        # region, and 0 where o is r
        weight = self.context.new_zeros(n_regions, n_regions, kernel, kernel, width)
        context_weight = self.context.transpose(1, 2)  # (r, R - 1, k, l, w)
        weight = weight.index_put((regions[:, None], self.other_regions), context_weight)
        context = torch.einsum("btolw,roklw->btrk", taps, weight) + self.context_bias
        normed: Tensor = self.context_norm(context.flatten(0, 1).flatten(1))  # of (B T, R K)
        return normed.view(*taps.shape[:-1], 1)


class _Layer(nn.Module):
    """A residual block: convolutions over three frames and over one frame, each with batch norm."""

    def __init__(self, regions: int, width: int, dilation: int, recombine: Recombine) -> None:
        super().__init__()
        self.conv1 = _RegionConvolution(regions, width, KERNEL, dilation, recombine)
        self.norm1 = nn.BatchNorm1d(regions * width)
        self.conv2 = _RegionConvolution(regions, width, 1, 1, recombine)
        self.norm2 = nn.BatchNorm1d(regions * width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, R, W) -> (B, T, R, W)."""
        inner = self._activate(self.norm1, self.conv1(states))
        return states + self._activate(self.norm2, self.conv2(inner))

    def _activate(self, norm: nn.Module, states: Tensor) -> Tensor:
        normed = norm(states.flatten(2).flatten(0, 1))
        active: Tensor = self.dropout(functional.leaky_relu(normed))
        return active.view_as(states)


class RegionDecoder(nn.Module):
    """Features of frames -> states of regions, (B, T, F) -> (B, T, R, W).

    SRNet (Zeng et al., ECCV 2020), the decoder of Lee and Lee. With "multiply", a convolution of
    the other regions yields one factor per frame and tap for the region's channels. Sizes are ours.
    """

    def __init__(self, n_features: int, regions: int, width: int, recombine: Recombine) -> None:
        super().__init__()
        self.regions = regions
        self.split = nn.Linear(n_features, regions * width)
        for region in self.split.weight.data.view(regions, width, n_features):
            nn.init.xavier_uniform_(region)
        nn.init.zeros_(self.split.bias)
        self.layers = nn.ModuleList(
            _Layer(regions, width, dilation, recombine) for dilation in DILATIONS
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) -> (B, T, R, W)."""
        active = functional.leaky_relu(self.split(features))
        states = active.view(*features.shape[:2], self.regions, -1)
        for layer in self.layers:
            states = layer(states)
        return states


class _Neighbour(nn.Module):
    """Predicts how a region's rotations change to a neighbouring frame."""

    def __init__(self, width: int, n_joints: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width + 6 * n_joints, HEAD_SIZE)
        self.out = xavier(HEAD_SIZE, 6 * n_joints, SMALL)

    def forward(self, state: Tensor, rotations: Tensor) -> Tensor:
        """A region's state (..., W), rotations of its n joints (..., 6 n) -> changes (..., 6 n)."""
        hidden = self.hidden(torch.cat((state, rotations), dim=-1))
        change: Tensor = self.out(hidden.relu())
        return change


class _Regressed(NamedTuple):
    """The regressor's results, and the states of the regions from which they were computed."""

    pose: Tensor  # (B, T, 144)
    shape: Tensor  # (B, T, 10)
    camera: Tensor  # (B, T, 3)
    states: Tensor  # (B, T, R, W) of the regions


class PartDynamics(VideoModel):
    """Video features, 2D pose embeddings and image motion -> one body per frame, and its
    neighbours.

    A homography H is given as the 9 numbers of H - I, so 0 is no motion. `sigma` holds their
    standard deviations, which normalise them.

    Args:
        regions: 5, or 1 for a plain convolution with as many parameters.
        recombine: "multiply", "add" or "none"; one region has no others to read.
        extra_streams: Streams to read besides the features, of SIZES.
        delta: Frames to the predicted neighbours before and after; 0: no neighbours.
        width: Channels of a region's state; 0: as in `WIDTHS`.
    """

    __call__: Callable[..., Prediction]  # of `forward`; torch declares Any

    sigma: Tensor

    def __init__(
        self,
        body: Body,
        *,
        regions: int = 5,
        recombine: Recombine = "multiply",
        extra_streams: tuple[str, ...] = ("pr_vipe", "homography"),
        delta: int = 5,
        width: int = 0,
        hidden_size: int = 1024,
        feature_size: int = FEATURE_SIZE,
        regressor_size: int = 1024,
    ) -> None:
        super().__init__()
        require_option("recombine", recombine, Recombine)
        self.extra_streams = extra_streams
        self.joints: tuple[tuple[int, ...], ...] = REGIONS  # of each region
        if regions == 1:
            self.joints = (tuple(range(24)),)
            recombine = "none"
        width = width or WIDTHS[regions]
        n_inputs = feature_size + sum(SIZES[name] for name in extra_streams)
        self.encoder = TemporalEncoder(hidden_size=hidden_size, feature_size=feature_size)
        self.decoder = RegionDecoder(n_inputs, regions, width, recombine)
        self.current = xavier(regions * width, feature_size, SMALL)  # corrects the encoded features
        self.regressor = Regressor(body, feature_size=feature_size, hidden_size=regressor_size)
        # Neighbour's side -> the head of each region, in the order of `steps`. Without neighbours,
        # both are empty (`VideoModel.steps`).
        self.deltas = nn.ModuleDict()
        if delta:
            self.steps = (-delta, delta)
            for side in ("before", "after"):
                heads = nn.ModuleList()
                for joints in self.joints:
                    heads.append(_Neighbour(width, len(joints)))
                self.deltas[side] = heads
        self.register_buffer("sigma", torch.ones(HOMOGRAPHY_SIZE))
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
        dict by step in frames, as in `steps`, indexed by the frame that predicts them, with the
        camera (1, 0, 0) and that frame's shape. Raises ValueError if one of `extra_streams` is
        None.
        """
        by_step = self.regress_around(features, pr_vipe, homography)
        bodies = self.pose(by_step.pop(0), eval_joints, vertices)
        deltas = self.pose_neighbours(by_step, eval_joints=eval_joints, vertices=vertices)
        return {**bodies, "deltas": deltas}

    def pose_neighbours(
        self, by_step: Mapping[int, Estimate], *, eval_joints: bool = False, vertices: bool = True
    ) -> dict[int, dict[str, Tensor]]:
        """Bodies of neighbouring frames by step, each (B, T, ...), with the orthographic camera (1,
        0, 0).
        """
        neighbours = {}
        for step, estimate in by_step.items():
            camera = constant((1.0, 0.0, 0.0), estimate.camera).expand_as(estimate.camera)
            neighbours[step] = estimate._replace(camera=camera).pose(
                self.body, project_orthographic, eval_joints=eval_joints, vertices=vertices
            )
        return neighbours

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
        by_step = {0: Estimate.of_6d(pose, shape, camera)}
        for step, heads in zip(self.steps, self.deltas.values(), strict=True):
            neighbour = self._neighbour_pose(heads, states, pose)
            by_step[step] = Estimate.of_6d(neighbour, shape, camera)
        return by_step

    def regress_stills(
        self, features: Tensor, pr_vipe: Tensor | None = None, homography: Tensor | None = None
    ) -> dict[int, Estimate]:
        """`regress_around` for still images: no motion, so that all homographies are 0."""
        if homography is not None:
            homography = torch.zeros_like(homography)
        return self.regress_around(features, pr_vipe, homography)

    def _regress_parts(
        self, features: Tensor, pr_vipe: Tensor | None, homography: Tensor | None
    ) -> _Regressed:
        encoded: Tensor = self.encoder(features)
        inputs = [encoded]
        if "pr_vipe" in self.extra_streams:
            inputs.append(_require_stream("pr_vipe", pr_vipe))
        if "homography" in self.extra_streams:
            inputs.append(self._normalise(_require_stream("homography", homography)))
        states: Tensor = self.decoder(torch.cat(inputs, dim=-1))
        corrected = encoded + self.current(states.flatten(2))
        regressed = self.regressor(corrected.flatten(0, 1))
        # Back to the features' dtype after autocast.
        pose, shape, camera = (
            part.to(features.dtype).view(*features.shape[:2], -1) for part in regressed
        )
        return _Regressed(pose, shape, camera, states.to(features.dtype))

    def _normalise(self, homography: Tensor) -> Tensor:
        """Divide homographies (B, T, 135) by their standard deviations, and clip them."""
        by_pair = homography.reshape(*homography.shape[:2], -1, HOMOGRAPHY_SIZE)
        deviations = by_pair / self.sigma.clamp(min=1e-6)
        return deviations.clamp(-LARGEST_MOTION, LARGEST_MOTION).flatten(-2)

    def _neighbour_pose(self, heads: nn.Module, states: Tensor, pose: Tensor) -> Tensor:
        """The pose of a neighbouring frame, (B, T, 144). heads: those of one side, by region."""
        assert isinstance(heads, nn.ModuleList)
        rotations = pose.view(*pose.shape[:2], 24, 6)
        moved = torch.zeros_like(rotations)
        for region, head in enumerate(heads):
            joints = constant(self.joints[region], rotations)
            of_region = rotations[..., joints, :]
            change = head(states[..., region, :], of_region.flatten(-2))
            moved[..., joints, :] = of_region + change.view_as(of_region)
        return moved.flatten(-2)


def _require_stream(name: str, stream: Tensor | None) -> Tensor:
    if stream is None:
        raise ValueError(
            f"{name}: expected (B, T, {SIZES[name]}), which this model reads; found None"
        )
    return stream


def build_generator(config: PartDynamicsConfig, body: Body) -> VideoModel:
    """Build a generator with new parameters; without `temporal`, only VIBE's regressor."""
    sizes: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "feature_size": config.feature_size,
        "regressor_size": config.regressor_size,
    }
    if not config.temporal:
        return VIBE(body, n_layers=0, **sizes)
    return PartDynamics(
        body,
        extra_streams=tuple(config.extra_streams),
        regions=config.regions,
        recombine=config.recombine,
        delta=config.delta,
        width=config.width,
        **sizes,
    )
