"""Checkpoints of HMR2.0's encoder, with made-up numbers."""

import math

import torch

from pipeline.extras.streams import hmr2

TINY = hmr2.Shape(
    encoder_width=32,
    encoder_layers=2,
    encoder_heads=4,
    encoder_hidden=48,
    decoder_layers=2,
    decoder_heads=2,
    decoder_head_width=8,
    decoder_hidden=24,
)


def sizes(shape):
    """Name -> shape of all tensors of the network."""
    with torch.device("meta"):
        network = hmr2._Hmr2Network(shape)
    return {name: tuple(tensor.shape) for name, tensor in sorted(network.state_dict().items())}


def made_up(shape):
    """Random tensors by their names, of such sizes that numbers neither vanish nor grow."""
    drawn, tensors = torch.Generator().manual_seed(1), {}
    for name, size in sizes(shape).items():
        spread = math.prod(size[1:]) ** -0.5 if len(size) > 1 and "pos_embed" not in name else 0.3
        is_scale = "norm" in name and name.endswith("weight")
        tensors[name] = torch.randn(size, generator=drawn) * spread + is_scale
    return tensors
