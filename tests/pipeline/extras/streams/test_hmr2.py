"""HMR2.0's encoder: its published tensors, and the numbers that they mean, recomputed in NumPy."""

import hashlib
import io
import json
import math
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from cache import CropPolicy
from pipeline.errors import MissingAssets, RawDataError
from pipeline.extras.streams import hmr2
from pipeline.extras.streams.world import Hmr2
from pipeline.features import networks, streams
from pipeline.features.streams import network
from pipeline.features.streams.base import Machine
from tests.hostile import Call
from tests.pipeline.features.made_hmr2 import TINY, made_up, sizes
from tests.raising import config_refuses, raw_refuses

CPU = Machine(device="cpu", threads=1, batch_size=2)


BODY = {  # what the published files hold besides
    "smpl.faces": torch.zeros(3, dtype=torch.int64),
    "smpl_head.decpose.weight": torch.zeros(144, 4),
    "smpl_head.init_betas": torch.zeros(1, 10),
    "discriminator.fc.bias": torch.zeros(2),
    "initialized": torch.tensor(True),
}


@pytest.fixture
def tensors():
    return made_up(TINY)


@pytest.fixture
def file(tensors, tmp_path):
    torch.save({"epoch": 35, "state_dict": tensors | BODY, "loops": {}}, tmp_path / "hmr2a.ckpt")
    return tmp_path / "hmr2a.ckpt"


@pytest.fixture
def crops():
    return np.random.default_rng(2).integers(0, 256, (3, 256, 192, 3), dtype=np.uint8)


@pytest.fixture
def tiny(monkeypatch):
    """The stream takes checkpoints of the tiny shape, and no network is left to others."""
    load = hmr2.load
    monkeypatch.setattr(hmr2, "load", lambda checkpoint: load(checkpoint, TINY))
    network._loaded_network.cache_clear()
    yield
    network._loaded_network.cache_clear()


# -------------------------------------------------------------------------------------------- the
# numbers


# Every 128th of the token's numbers for two crops, as an implementation in NumPy's float64 has them:
# by loops over patches and heads, after the papers and 4D-Humans' code.
TOKENS = """
2.196352 -0.700807 0.101318 -1.322450 -1.070403 0.944297 2.194632 -3.518866
2.393460 -0.619518 0.047237 -1.166888 -1.227256 0.927852 1.882274 -3.424086
"""


def test_the_token_is_that_of_the_published_architecture(tiny, file, crops):
    computer = Hmr2(checkpoint=file).load(CPU, None)
    features = computer.compute_crops(crops)
    assert features.shape == (3, 1024)
    expected = [[float(number) for number in line.split()] for line in TOKENS.split("\n")[1:-1]]
    assert_allclose(features[:2, ::128], expected, atol=1e-4)
    assert_array_equal(computer.compute_crops(crops[::-1])[::-1], features)
    assert_array_equal(computer.compute_crops(crops[2:])[0], features[2])


def test_in_bf16_it_points_the_same_way_or_is_refused(tiny, file, crops, monkeypatch):
    monkeypatch.setattr(networks.arithmetic, "has_bf16", lambda device: True)
    exact, fast = (
        Hmr2(checkpoint=file, precision=one).load(CPU, None) for one in ("exact", "fast")
    )
    assert fast.provenance["arithmetic"].startswith("bf16")
    a, b = (network.compute_crops(crops).astype(np.float64) for network in (exact, fast))
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.9999
    monkeypatch.setattr(networks.calibration, "LEAST_COSINE", 1 - 1e-12)
    network._loaded_network.cache_clear()
    with config_refuses(r"HMR2\.0.* in bf16 differs too much.*Set precision = exact"):
        Hmr2(checkpoint=file, precision="fast").load(CPU, None)


def test_its_tensors_have_the_published_names_and_shapes():
    lines = [f"{name} {size}" for name, size in sizes(hmr2.PUBLISHED).items()]
    assert len(lines) == 494
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "4767573f6dc35216ce1a239668786943172216922c3fecc0d8efe8bc01b4bdf7"


# -------------------------------------------------------------------------------------------
# checkpoints


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "backbone.blocks.1.attn.qkv.bias",
            None,
            "file without 1 of them, such as 'backbone.blocks.1.attn",
        ),
        ("backbone.cls_token", torch.zeros(1), "file with 1 others, such as 'backbone.cls_token'"),
        (
            "backbone.pos_embed",
            torch.zeros(1, 192, 32),
            r"'backbone.pos_embed': expected \(1, 193, 32\), found \(1, ",
        ),
        (
            "backbone.last_norm.bias",
            torch.full((32,), math.nan),
            "'backbone.last_norm.bias': expected finite numbers",
        ),
        (
            "backbone.last_norm.bias",
            "zeros",
            r"'backbone.last_norm.bias': expected \(32,\), found str",
        ),
    ],
)
def test_another_networks_checkpoint_is_refused_by_the_tensors_name(
    name, value, expected, tensors, tmp_path
):
    state = {key: tensor for key, tensor in tensors.items() if key != name} | (
        {} if value is None else {name: value}
    )
    torch.save({"state_dict": state}, tmp_path / "other.ckpt")
    with raw_refuses(expected):
        hmr2.load(tmp_path / "other.ckpt", TINY)
    with pytest.raises(MissingAssets, match=r"nowhere\.ckpt: file not found"):
        hmr2.load(tmp_path / "nowhere.ckpt", TINY)


def lightning(tensors, monkeypatch):
    """As PyTorch Lightning keeps it, with settings of classes that are installed where it was
    written.
    """
    module = types.ModuleType("yacs.config")
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    monkeypatch.setattr(module, "CfgNode", node, raising=False)
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    settings = node({"MODEL": node({"IMAGE_SIZE": 256})})
    vars(settings)["__immutable__"] = True
    return {
        "pytorch-lightning_version": "1.8.1",
        "hyper_parameters": {"cfg": settings},
        "state_dict": tensors | BODY,
    }


def test_settings_in_a_checkpoint_are_left_out(tiny, tensors, tmp_path, crops, monkeypatch):
    with monkeypatch.context() as installed:
        torch.save(lightning(tensors, installed), tmp_path / "lightning.ckpt")
    assert "yacs" not in sys.modules
    torch.save(tensors, tmp_path / "plain.pt")
    features = [
        Hmr2(checkpoint=one).load(CPU, None).compute_crops(crops) for one in tmp_path.iterdir()
    ]
    assert_array_equal(*features)


def test_a_checkpoint_cannot_run_code(tensors, tmp_path):
    ran = tmp_path / "ran"
    beside = [Call(exec, f"open({str(ran)!r}, 'w')"), Call(io.open, str(ran), "w")]
    torch.save({"hyper_parameters": beside, "state_dict": tensors}, tmp_path / "beside.ckpt")
    hmr2.load(tmp_path / "beside.ckpt", TINY)  # what it names is neither imported nor called
    instead = tensors | {"backbone.last_norm.bias": Call(torch.hub.load, "a", "b")}
    torch.save({"state_dict": instead}, tmp_path / "instead.ckpt")
    with raw_refuses(r"'backbone.last_norm.bias': expected \(32,\), found OrderedDict"):
        hmr2.load(tmp_path / "instead.ckpt", TINY)
    refused = {
        "call": Call(os.system, f"touch {ran}"),
        "method": Call(Path.touch, ran),
        "list": [1],
    }
    for name, content in refused.items():
        torch.save(content, tmp_path / f"{name}.ckpt")
        with pytest.raises(RawDataError):
            hmr2.load(tmp_path / f"{name}.ckpt", TINY)
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(beside[0]))
    with pytest.raises(RawDataError):
        hmr2.load(tmp_path / "pickle.ckpt", TINY)
    assert not ran.exists()


# --------------------------------------------------------------------------------------------- the
# stream


def test_its_manifest_answers_which_encoder_which_layer_and_which_crop(tiny, file):
    stream = streams.get("hmr2", checkpoint=file)
    identity = json.loads(json.dumps(stream.identity()))
    assert identity["crop"] == {"size": 256, "region": [256, 192], "scale": 0.84}
    assert str(file) not in json.dumps(identity)
    assert streams.of_identity(identity) is None  # where the file is now, only its user knows
    provenance = json.loads(json.dumps(stream.load(CPU, None).provenance))
    assert provenance["network"] == "HMR2.0: ViT-H/16 and transformer decoder"
    assert provenance["crop"] == identity["crop"] | {"jitter": None}
    assert provenance["weights"] == identity["weights"]
    assert provenance["weights"]["file_sha256"] != provenance["sha256"]
    assert provenance["licence"].startswith("non-commercial")
    assert not provenance["stand_in"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "checkpoint is not set"),
        (
            {"checkpoint": Path("a.ckpt"), "crop": CropPolicy(jitter=None)},
            "size:256 region:256x192",
        ),
        ({"checkpoint": Path("a.ckpt"), "crop": CropPolicy(size=256)}, "size:256 region:256x192"),
    ],
)
def test_options_that_hmr2_cannot_have_are_refused(options, expected):
    with config_refuses(expected):
        streams.get("hmr2", **options)
    with pytest.raises(
        MissingAssets, match=r"^checkpoint: file a\.ckpt not found\. HMR2\.0's \.ckpt: .*4D-Humans"
    ):
        Hmr2(checkpoint=Path("a.ckpt")).identity()
