import os
import pickle
import sys
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline.errors import CheckpointError
from tests.hostile import Call
from tests.vibe_model.builders import small_vibe
from vibe_model import load_published
from vibe_model.checkpoints import Checkpoint


@pytest.fixture
def model():
    return small_vibe()


def other_weights(model, seed=1):
    random = torch.Generator().manual_seed(seed)
    return OrderedDict(
        (name, torch.randn(value.shape, generator=random))
        for name, value in model.state_dict().items()
    )


def published(model, **changes):
    """What VIBE's authors saved: body data among the generator's tensors, a NumPy number beside
    them.
    """
    weights = other_weights(model)
    weights["regressor.smpl.betas"] = torch.zeros(1, 10)
    weights["regressor.smpl.J_regressor_extra"] = torch.zeros(9, 30)
    weights["regressor.smpl.faces_tensor"] = torch.zeros(4, 3, dtype=torch.int64)
    weights.update(changes)
    return {
        "epoch": 23,
        "gen_state_dict": weights,
        "performance": np.float64(56.56),
        "gen_optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 5e-5, "params": [0]}]},
        "disc_motion_state_dict": OrderedDict(a=torch.zeros(2)),
        "disc_motion_optimizer": {"state": {}, "param_groups": []},
    }


def spin(model):
    weights = {name: value for name, value in other_weights(model).items() if "regressor" in name}
    regressor = {name.removeprefix("regressor."): value for name, value in weights.items()}
    backbone = {"conv1.weight": torch.zeros(2), "bn1.num_batches_tracked": torch.tensor(3)}
    backbone["layer4.2.conv3.weight"] = torch.ones(1)
    return {"model": {**backbone, **regressor}, "optimizer": {}, "epoch": 1}


def write(path, content, legacy=True, numpy1=True):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    if legacy and numpy1:  # as NumPy 1 named it, when these files were written
        path.write_bytes(
            path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
        )
    return path


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("legacy", "numpy1"), [(True, True), (True, False), (False, False)])
def test_vibes_checkpoint_fills_the_model_and_reports_the_body_data(
    model, tmp_path, legacy, numpy1
):
    file = write(tmp_path / "vibe.pth.tar", published(model), legacy, numpy1)
    if legacy:
        assert not file.read_bytes().startswith(b"PK")
    report = load_published(model, file)
    assert_equal(model.state_dict(), other_weights(model))
    assert report.kind == "vibe"
    assert set(report.used) == set(model.state_dict())
    assert set(report.ignored) == {
        f"regressor.smpl.{name}" for name in ("betas", "J_regressor_extra", "faces_tensor")
    }
    performance = Checkpoint.read(file).content["performance"]
    assert (type(performance), performance) == (float, 56.56)


def test_spins_checkpoint_fills_the_regressor_alone(model, tmp_path):
    before, weights = snapshot(model), other_weights(model)
    report = load_published(model, write(tmp_path / "spin.pt", spin(model)))
    assert_equal(
        model.state_dict(),
        {n: weights[n] if n.startswith("regressor.") else before[n] for n in before},
    )
    assert set(report.ignored) == {
        "conv1.weight",
        "bn1.num_batches_tracked",
        "layer4.2.conv3.weight",
    }


def without(content, name):
    del content["gen_state_dict"][name]
    return content


BAD = {
    "missing": lambda m: without(published(m), "regressor.fc2.bias"),
    "extra": lambda m: published(m, **{"regressor.fc3.bias": torch.zeros(2)}),
    "misshapen": lambda m: published(m, **{"regressor.fc2.bias": torch.zeros(8)}),
    "whole numbers": lambda m: published(
        m, **{"regressor.fc2.bias": torch.zeros(7, dtype=torch.int32)}
    ),
    "sparse": lambda m: published(m, **{"regressor.fc2.bias": torch.zeros(7).to_sparse()}),
    "meta": lambda m: published(m, **{"regressor.fc2.bias": torch.zeros(7, device="meta")}),
    "nan": lambda m: published(m, **{"regressor.fc2.bias": torch.full((7,), torch.nan)}),
    "not a tensor": lambda m: published(m, **{"regressor.fc2.bias": [0.0] * 7}),
    "a name that is no text": lambda m: {"gen_state_dict": {**other_weights(m), 3: torch.zeros(1)}},
    "no weights": lambda m: {"epoch": 3},
    "two sets of weights": lambda m: {**published(m), **spin(m)},
}


# The old format has no way to write sparse and meta tensors.
@pytest.mark.parametrize(
    ("what", "legacy"),
    [*((w, False) for w in BAD), *((w, True) for w in BAD if w not in ("sparse", "meta"))],
)
def test_a_bad_file_is_refused_by_name_and_leaves_the_model_as_it_was(
    model, tmp_path, what, legacy
):
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        load_published(model, write(tmp_path / "bad.pt", BAD[what](model), legacy))
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("kind", ["legacy", "zip", "pickle"])
def test_a_malicious_file_runs_nothing(model, tmp_path, kind):
    before, content, file = snapshot(model), published(model), tmp_path / "evil.pt"
    content["performance"] = evil = Call(os.mkdir, str(tmp_path / "pwned"))
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"gen_state_dict": evil}, protocol=2))
    else:
        write(file, content, kind == "legacy")
    with pytest.raises(CheckpointError, match="evil") as refused:
        load_published(model, file)
    message = str(refused.value)
    assert ("mkdir" in message) or kind == "pickle"
    assert not [
        advice for advice in ("weights_only", "add_safe_globals", "\033", "\n") if advice in message
    ]
    assert not (tmp_path / "pwned").exists()
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("legacy", [False, True])
def test_settings_of_a_library_in_a_checkpoint_are_named_and_not_taken_for_a_damaged_download(
    model, tmp_path, monkeypatch, legacy
):
    library = ModuleType("omegaconf")
    library.DictConfig = type("DictConfig", (), {"__module__": "omegaconf"})
    monkeypatch.setitem(sys.modules, "omegaconf", library)
    file = write(tmp_path / "hydra.pt", {**published(model), "cfg": library.DictConfig()}, legacy)
    monkeypatch.delitem(sys.modules, "omegaconf")
    with pytest.raises(
        CheckpointError, match=r"found omegaconf objects\. .* save its state_dict alone"
    ) as refused:
        load_published(model, file)
    assert "download" not in str(refused.value)


class ScalarOf:
    """A NumPy scalar's recipe with other ingredients than a number's."""

    def __init__(self, dtype, data):
        self.recipe = dtype, data

    def __reduce__(self):
        return np.float64(0).__reduce__()[0], self.recipe


@pytest.mark.parametrize(
    "number",
    [
        ScalarOf(np.dtype("O"), b""),
        ScalarOf(np.dtype("f8"), bytes(4)),
        ScalarOf("f8", bytes(8)),
        ScalarOf(np.dtype("f8"), "text"),
    ],
)
def test_a_numpy_number_of_anything_but_a_plain_number_is_refused(model, tmp_path, number):
    with pytest.raises(CheckpointError, match="odd"):
        load_published(
            model, write(tmp_path / "odd.pt", {**published(model), "performance": number})
        )


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "tar", "folder", "pipe", "absent"])
def test_a_damaged_file_is_refused(model, tmp_path, damage):
    file = tmp_path / "damaged.pt"
    if damage == "cut":
        whole = write(file, published(model)).read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "tar":
        file.write_bytes(b"ustar".rjust(262, b"\0").ljust(1024, b"\0"))
    elif damage == "folder":
        file.mkdir()
    elif damage == "pipe":
        os.mkfifo(file)  # must not make it wait
    elif damage != "absent":
        file.write_bytes(b"" if damage == "empty" else b"<html>not found</html>")
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        load_published(model, file)
    assert_equal(model.state_dict(), before)


def test_reading_leaves_no_type_allowed_behind(model, tmp_path):
    before = set(torch.serialization.get_safe_globals())
    load_published(model, write(tmp_path / "vibe.pt", published(model)))
    assert set(torch.serialization.get_safe_globals()) == before
