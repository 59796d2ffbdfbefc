"""The network HMR2.0 up to its token: a ViT-H/16 encoder and a transformer decoder.  crops ->
[network] -> features

Goel et al., "Humans in 4D: Reconstructing and Tracking Humans with Transformers", ICCV 2023,
section 3.1. WHAM, GVHMR and TRAM use this token. The stream `hmr2` calls `load`.

    crop (3, 256, 192) -> 16 x 12 patches of 16 px -> `_Backbone`: 32 blocks (192, 1280)
        -> `_Decoder`: a token attends to the patches in 6 layers (1024)

The modules have the names of the published checkpoint's tensors:

    backbone.{patch_embed.proj, pos_embed, blocks.0-31.{norm1, attn.{qkv, proj}, norm2, mlp.{fc1,
        fc2}}, last_norm}
    smpl_head.transformer.{to_token_embedding, pos_embedding, transformer.layers.0-5.{0, 1,
        2}.{norm, fn}}

Other tensors of the checkpoint compute a body from the token, or are only used in training; they
are ignored (`IGNORED`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from pipeline.features.networks.backbones import fill, tensor_digest
from pipeline.features.networks.base import Loaded, Normalisation
from pipeline.features.weights import KINDS, NetworkWeights
from pipeline.files.formats.checkpoints import load_checkpoint

REGION: Final = (256, 192)  # (height, width) px: the centre of a crop of 256 px
PATCH: Final = 16  # px, side of a patch
PADDING: Final = 2  # px around the crop
BACKBONE_EPS: Final = 1e-6  # epsilon of the ViT's layer norms; the decoder uses torch's default
# prefixes of names of tensors in the checkpoint
IGNORED: Final = (
    "smpl.",
    "discriminator.",
    "initialized",
    "smpl_head.decpose.",
    "smpl_head.decshape.",
    "smpl_head.deccam.",
    "smpl_head.init_body_pose",
    "smpl_head.init_betas",
    "smpl_head.init_cam",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network. The defaults are those of the published checkpoint, which has 670
    million parameters.
    """

    encoder_width: int = 1280  # numbers per patch
    encoder_layers: int = 32  # blocks of the ViT
    encoder_heads: int = 16
    encoder_hidden: int = 5120  # numbers between the two layers of a block's MLP
    decoder_width: int = 1024  # numbers of the token
    decoder_layers: int = 6
    decoder_heads: int = 8
    decoder_head_width: int = 64
    decoder_hidden: int = 1024


PUBLISHED: Final = Shape()


def load(checkpoint: Path, shape: Shape = PUBLISHED) -> Loaded:
    """Load the network with the checkpoint's weights, in fp32.

    Raises MissingAssets for a missing file, RawDataError for missing, unknown or wrongly shaped
    tensors.
    """
    weights = NetworkWeights("file", str(checkpoint))
    file = weights.file()
    state = load_checkpoint(file, settings=True)
    state = state.get("state_dict", state)
    with torch.device("meta"):
        network = _Hmr2Network(shape)
    fill(network, file, state, label="HMR2.0", ignored=IGNORED)
    provenance: dict[str, Any] = {
        "weights": weights.identity(),
        "licence": KINDS["spin"].licence,  # that of SMPL and its training data
        "source": "github.com/shubham-goel/4D-Humans",
        "sha256": tensor_digest(network),
        "stand_in": False,
        "network": "HMR2.0: ViT-H/16 and transformer decoder",
        "layer": "the decoder's token, before the heads that read pose, shape and camera",
        "library": f"torch {version('torch')}",
    }
    return Loaded(
        network.eval().requires_grad_(False),
        provenance,
        region=REGION,
        normalisation=Normalisation(REGION[1]),
    )


class _Hmr2Network(nn.Module):
    """The whole network: normalised pixels (B, 3, 256, 192) -> tokens (B, dim). Its parameters have
    the names of the published checkpoint.

    Only matrix products are computed in the weights' dtype; all else is float32.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.backbone = _Backbone(shape)
        self.smpl_head = nn.ModuleDict({"transformer": _Decoder(shape)})

    def forward(self, pixels: Tensor) -> Tensor:
        token: Tensor = self.smpl_head["transformer"](self.backbone(pixels))
        return token


class _Backbone(nn.Module):
    """The ViT: pixels (B, 3, height, width) -> (B, patches, `shape.encoder_width`) float32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, shape.encoder_width, PATCH, stride=PATCH, padding=PADDING)}
        )
        patches = (REGION[0] // PATCH) * (REGION[1] // PATCH)
        # The first position belongs to a class token. The network has no such token, and adds its
        # position to all patches.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, shape.encoder_width))
        self.blocks = nn.ModuleList(_TransformerBlock(shape) for _ in range(shape.encoder_layers))
        self.last_norm = nn.LayerNorm(shape.encoder_width, BACKBONE_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        position = self.pos_embed.float()
        projected = _apply(self.patch_embed["proj"], pixels)  # (B, width, 16, 12)
        patches = projected.flatten(2).mT  # (B, 192, width)
        x = patches + position[:, 1:] + position[:, :1]
        for block in self.blocks:
            x = block(x)
        return _norm(self.last_norm, x)


class _TransformerBlock(nn.Module):
    """A pre-norm transformer block: (B, patches, width) float32 -> the same shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.encoder_width
        self.heads = shape.encoder_heads
        hidden = shape.encoder_hidden
        self.norm1 = nn.LayerNorm(width, BACKBONE_EPS)
        attention = {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        self.attn = nn.ModuleDict(attention)
        self.norm2 = nn.LayerNorm(width, BACKBONE_EPS)
        layers = {"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)}
        self.mlp = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        qkv = _apply(self.attn["qkv"], _norm(self.norm1, x))
        q, k, v = qkv.chunk(3, dim=-1)
        attended = _attention(q, k, v, self.heads)
        x = x + _apply(self.attn["proj"], attended)

        hidden = gelu(_apply(self.mlp["fc1"], _norm(self.norm2, x)))
        return x + _apply(self.mlp["fc2"], hidden)


def _decoder_layer(shape: Shape) -> nn.ModuleList:
    """The parameters of one decoder layer: self-attention, cross-attention and MLP, each with a
    norm before it. Names are those of the published checkpoint.
    """
    dim = shape.decoder_width
    inner = shape.decoder_heads * shape.decoder_head_width
    hidden = shape.decoder_hidden
    attention: dict[str, nn.Module] = {
        "to_qkv": nn.Linear(dim, 3 * inner, bias=False),
        "to_out": nn.Sequential(nn.Linear(inner, dim)),
    }
    cross: dict[str, nn.Module] = {
        "to_kv": nn.Linear(shape.encoder_width, 2 * inner, bias=False),
        "to_q": nn.Linear(dim, inner, bias=False),
        "to_out": nn.Sequential(nn.Linear(inner, dim)),
    }
    net = {"0": nn.Linear(dim, hidden), "3": nn.Linear(hidden, dim)}
    parts = nn.ModuleList()
    for part in (attention, cross, {"net": nn.ModuleDict(net)}):
        named = {"norm": nn.LayerNorm(dim), "fn": nn.ModuleDict(part)}
        parts.append(nn.ModuleDict(named))
    return parts


class _Decoder(nn.Module):
    """The decoder: patches (B, patches, width) float32 -> (B, dim) float32. A single token, which
    is 0 at first, attends to the patches.

    Each layer adds to the token: self-attention, cross-attention to the patches, and an MLP.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.decoder_heads
        self.to_token_embedding = nn.Linear(1, shape.decoder_width)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, shape.decoder_width))
        self.transformer = nn.ModuleDict(
            {"layers": nn.ModuleList(_decoder_layer(shape) for _ in range(shape.decoder_layers))}
        )

    def forward(self, patches: Tensor) -> Tensor:
        token = self.to_token_embedding.bias + self.pos_embedding  # the embedding of a token 0
        x = token.float().expand(len(patches), 1, -1)
        layers: Any = self.transformer["layers"]
        for attention, cross, mlp in layers:
            qkv = _apply(attention["fn"]["to_qkv"], _norm(attention["norm"], x))
            _, _, v = qkv.chunk(3, dim=-1)  # a single token attends to itself with weight 1
            x = x + _apply(attention["fn"]["to_out"][0], v)

            q = _apply(cross["fn"]["to_q"], _norm(cross["norm"], x))
            k, v = _apply(cross["fn"]["to_kv"], patches).chunk(2, dim=-1)
            attended = _attention(q, k, v, self.heads)
            x = x + _apply(cross["fn"]["to_out"][0], attended)

            net = mlp["fn"]["net"]
            hidden = gelu(_apply(net["0"], _norm(mlp["norm"], x)))
            x = x + _apply(net["3"], hidden)
        return x[:, 0]


def _apply(layer: Any, x: Tensor) -> Tensor:
    """Apply a linear layer or a convolution, in its weights' dtype."""
    output: Tensor = layer(x.to(layer.weight.dtype))
    return output


def _norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm in float32."""
    return layer_norm(
        x, layer.normalized_shape, layer.weight.float(), layer.bias.float(), layer.eps
    )


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention: q (B, n, heads * d), k and v (B, m, heads * d) -> (B, n, heads * d)."""

    def by_head(x: Tensor) -> Tensor:
        """(B, n, heads * d) -> (B, heads, n, d)."""
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    attended = scaled_dot_product_attention(by_head(q), by_head(k), by_head(v))
    return attended.transpose(1, 2).flatten(2)
