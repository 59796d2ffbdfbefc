"""HMR2.0's checkpoint as a model: bodies in clips without training, on random numbers by the
published names.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import cache
from pipeline.extras.streams import hmr2
from pipeline.features.streams import network
from pipeline.files.raw import MARKER
from tasks.__main__ import main
from tests.pipeline.features.made_hmr2 import TINY, made_up
from tests.tasks.prediction.conftest import SHORT, bodies_of, summary, the_body
from vibe_model.trained import Trained

Tensors = dict[str, torch.Tensor]
SIZES = {
    "decpose": 144,
    "decshape": 10,
    "deccam": 3,
    "init_body_pose": 144,
    "init_betas": 10,
    "init_cam": 3,
}


def heads(seed=5):
    """Random ones, small beside a mean that stands upright in the middle of its crop."""
    drawn, tensors = torch.Generator().manual_seed(seed), {}
    for name, size in SIZES.items():
        if name.startswith("dec"):
            tensors[f"smpl_head.{name}.weight"] = torch.randn((size, 1024), generator=drawn) / 500
            tensors[f"smpl_head.{name}.bias"] = torch.randn((size,), generator=drawn) / 20
    pose = [1, 0, 0, 0, -1, 0] + 23 * [1, 0, 0, 0, 1, 0]
    mean = {"init_body_pose": pose, "init_betas": 10 * [0.25], "init_cam": [0.9, 0, 0]}
    return tensors | {
        f"smpl_head.{name}": torch.tensor([value], dtype=torch.float32)
        for name, value in mean.items()
    }


def plain_heads(tensors, token):
    """Rotations (24, 3, 3), betas (10,) and camera (3,) of one token, by loops in float64."""
    w = {name.removeprefix("smpl_head."): value.double().numpy() for name, value in tensors.items()}
    pose, betas, camera = (
        w[f"{layer}.weight"] @ token + w[f"{layer}.bias"] + w[mean][0]
        for layer, mean in (
            ("decpose", "init_body_pose"),
            ("decshape", "init_betas"),
            ("deccam", "init_cam"),
        )
    )
    rotations = []
    for a, b in pose.reshape(24, 2, 3):
        x = a / np.linalg.norm(a)
        y = b - (x @ b) * x
        y /= np.linalg.norm(y)
        rotations.append(np.stack([x, y, np.cross(x, y)], axis=1))
    return np.stack(rotations), betas, camera


def save(file, seed=5, **facts):
    tensors = heads(seed)
    torch.save({"epoch": 35, "state_dict": made_up(TINY) | tensors, **facts}, file)
    return tensors


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """The stream takes checkpoints of a tiny network, no network is left to others, and there is no
    luigi.cfg.
    """
    load = hmr2.load
    monkeypatch.setattr(hmr2, "load", lambda checkpoint: load(checkpoint, TINY))
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    network._loaded_network.cache_clear()
    yield
    network._loaded_network.cache_clear()


@pytest.fixture
def real_body(monkeypatch):
    """The demo body, in place of SMPL."""
    monkeypatch.setattr(the_body(), "is_stand_in", False)
    return the_body()


def test_bodies_and_cameras_are_those_of_the_published_heads(real_body, tmp_path):
    tensors = save(tmp_path / "hmr2a.ckpt")
    trained = Trained.load(tmp_path / "hmr2a.ckpt", None, "cpu")
    assert (trained.title, trained.stream, trained.stand_in) == ("HMR2.0", "hmr2", False)
    tokens = torch.randn((1, 3, 1024), generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        estimate = trained.generator.regress(tokens)
        posed = trained.generator.pose(estimate, vertices=False)
    for i, token in enumerate(tokens[0].double().numpy()):
        rotations, betas, camera = plain_heads(tensors, token)
        assert_allclose(estimate.rotmat[0, i], rotations, atol=1e-4)
        assert_allclose(estimate.shape[0, i], betas, atol=1e-4)
        assert_allclose(estimate.camera[0, i], camera, atol=1e-4)
        # 4D-Humans' camera: 5000 px of a crop of 256 px, so far away that a metre is scale / 2 of
        # that crop.
        translation = np.array([camera[1], camera[2], 2 * 5000 / (256 * camera[0])])
        points = posed["kp_3d"][0, i].double().numpy() + translation
        in_crop = 5000 * points[:, :2] / points[:, 2:] / 256  # [-0.5, 0.5]
        assert_allclose(posed["kp_2d"][0, i], 2 * in_crop, atol=1e-5)


def predict(*words):
    return main(["predict", *map(str, words), "--device", "cpu", *SHORT])


def steps_of(shown):
    """Step -> was there anything to do?"""
    return {
        line.split()[1]: line[0] != "·"
        for line in shown.splitlines()
        if line.startswith(("·", "✓"))
    }


def test_clips_to_bodies_with_one_checkpoint_and_smpl(world, real_body, tmp_path, capsys):
    save(tmp_path / "hmr2a.ckpt")
    clip, out = world.clips(tmp_path / "raw"), tmp_path / "out"
    (clip / MARKER).unlink()
    in_cache = ("--cache", out / "cache")
    words = ("--checkpoint", tmp_path / "hmr2a.ckpt", "--body", tmp_path, "--out", out, *in_cache)
    assert predict(clip, *words, "--export") == 0
    shown = capsys.readouterr()
    assert "demo data" not in shown.out
    assert not shown.err.strip()
    assert (out / "overlay.html").is_file()
    assert len([*out.glob("motions/*_stageii.npz")]) == len(bodies_of(out)) == 2
    about = summary(out)
    assert about["checkpoint"]["kind"] == "hmr2.0"
    assert about["features"]["weights"]["file_sha256"] == about["checkpoint"]["sha256"]
    split = cache.open(out / "cache")["videos/train"]
    assert split.open_stream("hmr2").crop.size == 256
    model = Trained.load(tmp_path / "hmr2a.ckpt", None, "cpu").generator
    for track in split.tracks:
        rows = np.array([[track.start, track.stop]])
        read = split.read(rows, stream="hmr2", fields=("features", "bbox"))
        body = bodies_of(out)[track.name]
        estimate = model.regress(torch.from_numpy(read["features"]))
        assert_allclose(body["camera"], estimate.camera[0].detach(), atol=1e-4)
        # The crop is 0.84 of the usual side.
        assert_allclose(body["bbox"][:, 2:], 0.84 * read["bbox"][0, :, 2:], rtol=1e-5)

    assert predict(clip, *words, "--no-overlay") == 0
    assert {"convert", "extract"}.isdisjoint(steps_of(capsys.readouterr().out))
    save(tmp_path / "hmr2b.ckpt", seed=6)
    files_of_b = ("--checkpoint", tmp_path / "hmr2b.ckpt", "--body", tmp_path)
    of_b = (*files_of_b, *in_cache, "--out", tmp_path / "b", "--no-overlay")
    # heads of another file than the tokens
    assert predict("videos/train", *of_b) == 2
    assert "expected features as those that" in capsys.readouterr().err
    assert predict(clip, *of_b) == 2
    assert predict(clip, *words, "--weights", "untrained:0") == 2
    assert "hmr2a.ckpt has its own network" in capsys.readouterr().err
