"""The made-up split, streams and pixels of made_up.py, for these tests and for decoding processes;
a small network.
"""

import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from pipeline.features import networks
from pipeline.features.networks import backbones


@pytest.fixture
def root(penn):
    """A cache with the rows of Penn Action's train split, without features."""
    penn.converted()
    return penn.root


def make_small():
    """All that a ResNet-50 is made of, in a twentieth of the time: five blocks, a quarter as wide,
    2048 features.
    """
    return ResNet(Bottleneck, [2, 1, 1, 1], width_per_group=16)


@pytest.fixture(scope="session")
def small_resnet():
    """Makes a small network whose batch norms have seen something, so that folding them wrongly
    would show.
    """

    def make():
        torch.manual_seed(3)
        network = make_small()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
                torch.nn.init.uniform_(module.weight, 0.5, 1.0)
        return network.eval()

    return make


@pytest.fixture
def small_backbone(monkeypatch):
    """Networks that are loaded are small ones, and standardised over few crops."""
    usual = backbones.models.get_model

    def get_model(name, **options):
        is_small = name == "resnet50" and not options.get("weights")
        return make_small() if is_small else usual(name, **options)

    monkeypatch.setattr(backbones.models, "get_model", get_model)
    monkeypatch.setattr(networks.calibration, "CALIBRATION_CROPS", 4)
    monkeypatch.setattr(networks.cpu, "BATCH_SIZE", 4)
