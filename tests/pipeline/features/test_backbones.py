from urllib.error import URLError

import pytest
import torch

from pipeline.errors import MissingAssets
from pipeline.features.networks import backbones
from pipeline.features.weights import NetworkWeights, WeightsSpec
from tests.raising import config_refuses, raw_refuses

pytestmark = pytest.mark.usefixtures("small_backbone")


def load(text):
    loaded = backbones.load(WeightsSpec.parse(text), (224, 224))
    return loaded.network, loaded.provenance


@pytest.fixture(scope="module")
def network(small_resnet):
    return small_resnet()


def test_the_network_of_a_file_is_the_files_but_for_the_classifier(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "r.pt")
    loaded, provenance = load(f"file:{tmp_path / 'r.pt'}")
    expected = {
        name: value for name, value in network.state_dict().items() if not name.startswith("fc.")
    }
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert (provenance["stand_in"], len(provenance["sha256"])) == (False, 64)
    state = dict(network.state_dict())
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "r.pt")
    with raw_refuses(
        r"r\.pt: expected ResNet-50's tensors, found a file without 1 of them, such as "
        r"'layer3.0.conv1"
    ):
        load(f"file:{tmp_path / 'r.pt'}")
    (tmp_path / "r.pt").write_bytes(b"<!DOCTYPE html><html>")
    with raw_refuses(r"r\.pt: expected tensors and numbers only, found a web page"):
        load(f"file:{tmp_path / 'r.pt'}")


def test_spins_checkpoint_gives_its_resnet_and_leaves_its_regressor(network, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    regressor = {
        "fc1.weight": torch.zeros(2, 2),
        "init_pose": torch.zeros(1, 144),
        "smpl.faces": torch.zeros(3),
    }
    torch.save(
        {"model": state | regressor, "epoch": 5},
        tmp_path / "spin.pt",
        _use_new_zipfile_serialization=False,
    )
    loaded, _ = load(f"spin:{tmp_path / 'spin.pt'}")
    assert torch.equal(loaded.conv1.weight, network.conv1.weight)


def test_an_untrained_network_is_the_same_for_the_same_seed_and_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    _, first = load("untrained:0")
    assert torch.rand(1) == expected
    assert first == load("untrained:0")[1]
    assert first["sha256"] != load("untrained:1")[1]["sha256"]


@pytest.mark.parametrize("text", ["resnet", "spin:", "untrained:x", "torchvision:NO_SUCH"])
def test_weights_that_mean_nothing_are_refused_in_words(text):
    with config_refuses(text):
        load(text)
    with config_refuses(f"weights '{text}'"):
        NetworkWeights.parse(text)
    assert WeightsSpec.parse("untrained") == WeightsSpec.parse("untrained:0")
    with config_refuses("; did you mean 'IMAGENET1K_V2'"):
        load("torchvision:IMAGENET_V2")


def test_offline_it_says_which_file_to_put_where(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingAssets) as refused:
        load("torchvision:IMAGENET1K_V2")
    told = str(refused.value)
    for place in ("https://download.pytorch.org/models", f"{tmp_path}/hub/checkpoints"):
        assert f"{place}/resnet50-11ad3fa6.pth" in told
