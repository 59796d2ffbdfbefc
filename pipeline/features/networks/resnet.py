"""What only a ResNet-50 has: folded batch norms, and the mean at its end.  crops -> [network] -> features"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck, ResNet


class GlobalMean(nn.Module):
    """(B, 2048, 7, 7) -> (B, 2048) float32, summed in float32 whatever the features are."""

    def forward(self, features: Tensor) -> Tensor:
        return features.float().mean((2, 3))


def folded(network: ResNet) -> ResNet:
    """A copy in which each convolution includes the scale and shift of the batch norm behind it.

    The same function, less work; folded in float64, so that it is no less exact than the two in a row.
    """
    network = copy.deepcopy(network).double()
    network.conv1, network.bn1 = fuse_conv_bn_eval(network.conv1, network.bn1), nn.Identity()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for k in (1, 2, 3):
                fused = fuse_conv_bn_eval(getattr(block, f"conv{k}"), getattr(block, f"bn{k}"))
                setattr(block, f"conv{k}", fused)
                setattr(block, f"bn{k}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(block.downsample[0], block.downsample[1]))
    network.avgpool, network.fc = GlobalMean(), nn.Identity()
    return network.float()
