"""Checkpoints of HMR2.0's encoder, with made-up numbers."""

import math

import torch

from pipeline.features.networks import hmr2

TINY = hmr2.Shape(
    width=32, depth=2, heads=4, hidden=48, layers=2, decoder_heads=2, head_dim=8, decoder_hidden=24
)


Tensors = dict[str, torch.Tensor]


def published(shape=hmr2.PUBLISHED):
    """Name -> shape of all tensors that the token needs, as in 4D-Humans' checkpoint."""
    width, hidden, dim, inner = (
        shape.width,
        shape.hidden,
        shape.dim,
        shape.decoder_heads * shape.head_dim,
    )
    found = {
        "backbone.pos_embed": (1, 16 * 12 + 1, width),
        "backbone.patch_embed.proj.weight": (width, 3, 16, 16),
        "backbone.patch_embed.proj.bias": (width,),
        "smpl_head.transformer.to_token_embedding.weight": (dim, 1),
        "smpl_head.transformer.to_token_embedding.bias": (dim,),
        "smpl_head.transformer.pos_embedding": (1, 1, dim),
    }

    def linear(name, n_in, n_out, *, bias=True):
        found[f"{name}.weight"] = (n_out, n_in)
        if bias:
            found[f"{name}.bias"] = (n_out,)

    def norm(name, n):
        found[f"{name}.weight"] = found[f"{name}.bias"] = (n,)

    for i in range(shape.depth):
        block = f"backbone.blocks.{i}"
        norm(f"{block}.norm1", width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.attn.qkv", width, 3 * width)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", width, hidden)
        linear(f"{block}.mlp.fc2", hidden, width)
    norm("backbone.last_norm", width)
    for i in range(shape.layers):
        layer = f"smpl_head.transformer.transformer.layers.{i}"
        for part in range(3):
            norm(f"{layer}.{part}.norm", dim)
        linear(f"{layer}.0.fn.to_qkv", dim, 3 * inner, bias=False)
        linear(f"{layer}.0.fn.to_out.0", inner, dim)
        linear(f"{layer}.1.fn.to_kv", width, 2 * inner, bias=False)
        linear(f"{layer}.1.fn.to_q", dim, inner, bias=False)
        linear(f"{layer}.1.fn.to_out.0", inner, dim)
        linear(f"{layer}.2.fn.net.0", dim, shape.decoder_hidden)
        linear(f"{layer}.2.fn.net.3", shape.decoder_hidden, dim)
    return found


def made_up(shape, dtype=torch.float32):
    """Random tensors by the published names, of such sizes that numbers neither vanish nor grow."""
    drawn, tensors = torch.Generator().manual_seed(1), {}
    for name, size in published(shape).items():
        spread = math.prod(size[1:]) ** -0.5 if len(size) > 1 and "pos_embed" not in name else 0.3
        value = torch.randn(size, generator=drawn) * spread
        tensors[name] = (value + 1 if "norm" in name and name.endswith("weight") else value).to(
            dtype
        )
    return tensors
