"""Networks by name give what their library gives in front of its classifier, whatever the batch."""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torchvision import models

from cache import CropPolicy
from pipeline.features import streams
from pipeline.features.streams import network
from pipeline.features.streams.base import Machine, NumberStream
from pipeline.features.weights import NetworkWeights
from tests.raising import config_refuses, pipeline_refuses

CPU = Machine(device="cpu", threads=1, batch_size=3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HAS_TIMM = importlib.util.find_spec("timm") is not None
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
needs_timm = pytest.mark.skipif(
    not HAS_TIMM, reason="timm is not installed: pip install 'vibe-pipeline[timm]'"
)


@pytest.fixture(autouse=True)
def forgotten():
    """No network is left to other tests."""
    yield
    network._loaded_network.cache_clear()


def stream(kind, weights="untrained:3", **options):
    made = streams.get(kind, weights=NetworkWeights.parse(weights), **options)
    assert isinstance(made, NumberStream)
    return made


def noise(height, width, n=3):
    return np.random.default_rng(5).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def normalised(crops, mean=MEAN, std=STD):
    return torch.from_numpy(((crops / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))


def in_front_of(network, layer, pixels):
    """What a layer is called with."""
    seen = []
    network.get_submodule(layer).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        network.eval()(pixels)
    return seen[0].numpy()


def check(found, crops, expected):
    """A network gives these features, each row's bits by its crop alone. Returns its provenance."""
    assert streams.of_identity(json.loads(json.dumps(found.identity()))) == found
    computer = found.load(CPU, None)
    features = computer(crops)
    assert (features.shape, features.dtype) == ((3, found.dim), np.float32)
    assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert_array_equal(computer(crops[::-1].copy())[::-1], features)
    others = np.concatenate([np.zeros_like(crops[:2]), crops[:1]])
    assert_array_equal(computer(others)[2], features[0])
    return json.loads(json.dumps(computer.provenance))


@pytest.mark.parametrize(
    ("name", "crop", "classifier", "dim", "options"),
    [
        ("resnet18", CropPolicy(size=64, region=(64, 48)), "fc", 512, {}),
        ("mobilenet_v3_small", CropPolicy(size=96), "classifier.3", 1024, {}),
        slow("vit_b_32", CropPolicy(size=64), "heads.head", 768, {"image_size": 64}),
        slow("maxvit_t", CropPolicy(), "classifier.5", 512, {}),
    ],
)
def test_features_are_what_torchvision_gives_its_classifier(name, crop, classifier, dim, options):
    found = stream("torchvision", network=name, crop=crop)
    assert found.dim == dim
    crops = noise(*(crop.region or (crop.size, crop.size)))
    torch.manual_seed(3)
    plain = models.get_model(name, weights=None, **options)
    provenance = check(found, crops, in_front_of(plain, classifier, normalised(crops)))
    region = crop.region and [*crop.region]
    expected = {
        "network": f"torchvision {name}",
        "layer": f"input of {classifier}",
        "crop": {"size": crop.size, "region": region, "scale": 1.0, "jitter": None},
        "normalisation": {"mean": [*MEAN], "std": [*STD]},
        "stand_in": True,
        "arithmetic": "fp32, layer by layer",
    }
    assert {key: provenance[key] for key in expected} == expected
    assert provenance["library"].startswith("torchvision 0.")
    assert len(provenance["sha256"]) == 64


def test_a_stream_is_found_again_by_its_identity_and_needs_no_torch_for_it():
    code = (
        "import json, sys; from pipeline.features import streams; from "
        "pipeline.features.weights import NetworkWeights;made = [streams.get(kind, "
        "network='vit_b_16', weights=NetworkWeights.parse(weights), dim=768) for kind in "
        "('torchvision', 'timm') for weights in ('pretrained', 'untrained:1')];assert "
        "all(streams.of_identity(json.loads(json.dumps(one.identity()))) == one for one in "
        "made);sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3]
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("options", "weights", "expected"),
    [
        ({}, "untrained:3", "torchvision: set network"),
        ({"network": "vit_b16"}, "untrained:3", "no network 'vit_b16'.*did you mean .*vit_b_16"),
        ({"network": "squeezenet1_0"}, "untrained:3", "squeezenet1_0 has no linear layer"),
        (
            {"network": "vit_b_16", "crop": CropPolicy(size=64, region=(64, 48))},
            "untrained:3",
            "no crops of 64 x 48",
        ),
        (
            {"network": "resnet18", "dim": 2048},
            "untrained:0",
            "dim 2048: torchvision resnet18 gives 512 numbers",
        ),
        (
            {"network": "resnet18", "dim": 512},
            "pretrained:NONE",
            "no weights 'NONE'; it has IMAGENET1K_V1, DEFAULT",
        ),
        (
            {"network": "vit_b_16", "crop": CropPolicy(size=64)},
            "pretrained",
            "'image_size' expected value 224 but got",
        ),
    ],
)
def test_what_the_library_does_not_have_is_refused(options, weights, expected):
    with config_refuses(expected):
        stream("torchvision", weights, **options).load(CPU, None)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(11)
    torch.save(models.shufflenet_v2_x0_5(weights=None).state_dict(), tmp_path / "small.pt")
    return tmp_path / "small.pt"


def small(file, **options):
    named = {"network": "shufflenet_v2_x0_5", "crop": CropPolicy(size=64), "dim": 1024}
    return stream("torchvision", f"file:{file}", **named, **options)


def test_a_file_of_weights_is_known_by_its_digest_and_another_one_is_another_network(file):
    found, crops = small(file), noise(64, 64)
    before = found.identity()
    assert str(file) not in json.dumps(before)
    assert streams.of_identity(before) is None  # where the file is now, only its user knows
    network = models.shufflenet_v2_x0_5(weights=None)
    network.load_state_dict(torch.load(file, weights_only=True))
    computer = found.load(CPU, None)
    expected = in_front_of(network, "fc", normalised(crops))
    assert_allclose(computer(crops), expected, rtol=1e-4, atol=1e-5 * expected.max())
    assert not computer.provenance["stand_in"]
    assert small(file).load(CPU, None) is computer

    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save({"state_dict": half}, file)
    assert small(file).identity() != before
    again = small(file).load(CPU, None)
    assert again.provenance["sha256"] != computer.provenance["sha256"]
    assert 0 < np.abs(again(crops) - expected).max() < 0.01 * expected.max()
    assert small(file).load(CPU, again.provenance).provenance == again.provenance
    with pipeline_refuses(r"sha256 000000000000 of torchvision 0\.1, now.*--replace"):
        small(file).load(CPU, {"sha256": "0" * 64, "library": "torchvision 0.1"})


def test_torchvisions_own_record_says_whose_weights_they_are(monkeypatch):
    monkeypatch.setattr(models, "get_model", lambda *_, **__: models.resnet18())
    weights = "pretrained:IMAGENET1K_SWAG_LINEAR_V1"
    swag = stream("torchvision", weights, network="vit_b_16", dim=512)
    terms = swag.load(CPU, None).provenance
    assert terms["licence"].startswith("https://github.com/facebookresearch/SWAG")
    assert "vit_b_16_lc_swag" in terms["source"]


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with config_refuses(
        r"timm resnet18 needs the package timm: pip install 'vibe-pipeline\[timm\]'"
    ):
        stream("timm", network="resnet18")
    planned = stream("timm", network="resnet18", dim=512)  # which needs no library
    with config_refuses("pip install"):
        planned.load(CPU, None)


@needs_timm
@pytest.mark.parametrize(
    ("name", "crop", "mean", "std"),
    [
        ("resnet18", CropPolicy(size=64, region=(64, 48)), MEAN, STD),
        ("vit_tiny_patch16_224", CropPolicy(size=64, region=(64, 48)), (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_timms_features_are_its_pooled_ones(name, crop, mean, std):
    import timm

    found, crops = stream("timm", network=name, crop=crop), noise(64, 48)
    torch.manual_seed(3)
    size = {"img_size": (64, 48)} if name.startswith("vit") else {}
    plain = timm.create_model(name, num_classes=0, **size).eval()
    with torch.inference_mode():
        expected = plain(normalised(crops, mean, std)).numpy()
    assert check(found, crops, expected)["library"] == f"timm {timm.__version__}"


@needs_timm
def test_what_timm_does_not_have_is_refused():
    with config_refuses(r"timm 1.* has no network 'resnet_18'.*did you mean .*resnet18"):
        stream("timm", network="resnet_18")
    with config_refuses("Invalid pretrained tag"):
        stream("timm", "pretrained:none", network="resnet18", dim=512).load(CPU, None)
