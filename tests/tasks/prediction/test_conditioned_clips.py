"""Clips whose features are computed by a network that needs more than the crop."""

import shutil

import numpy as np

import cache
from pipeline.files.raw import MARKER
from tasks.__main__ import main
from tests.onnx_graphs import Graph
from tests.tasks.prediction.conftest import SHORT, save_checkpoint
from vibe_model.hmmr.config import PRESETS


def write_graph(file, shape):
    """2048 times the mean of the input `cond`."""
    graph = Graph()
    mean = graph("ReduceMean", graph("Flatten", "cond"), axes=[1])
    inputs = {"image": ("n", 3, 224, 224), "cond": ("n", *shape)}
    graph.write(file, inputs, {"out": graph("Add", mean, np.zeros((1, 2048)))})


def test_a_network_gets_the_image_size_of_clips_but_their_camera_is_unknown(
    world, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    clips, checkpoint, graph = tmp_path / "clips", tmp_path / "hmmr.pt", tmp_path / "hmr.onnx"
    clips.mkdir()
    shutil.copy(world.raw / MARKER, clips)
    shutil.copy(world.video, clips / "dance.mp4")
    save_checkpoint(checkpoint, PRESETS["embedded"](regressor_size=8, width=32, regressor="hmr"))
    words = [
        clips,
        "--checkpoint",
        checkpoint,
        "--body",
        clips,
        "--device",
        "cpu",
        "--cache",
        "cache",
        "--no-overlay",
    ]
    for code, condition, shape in ((1, "intrinsics", (3, 3)), (0, "cliff", (3,))):
        write_graph(graph, shape)
        values = {"kind": "onnx", "weights": graph, "inputs": f"cond={condition}"}
        options = [
            word for key, value in values.items() for word in ("--set", f"hmr.{key}={value}")
        ]
        options += ["--set", "features.streams=hmr", *SHORT]
        assert main(["predict", *map(str, words), *map(str, options)]) == code
        shown = " ".join(" ".join(capsys.readouterr()).split())
        assert ("stream 'hmr' reads intrinsics, which this split does not have" in shown) == (
            code == 1
        ), shown
    split = cache.open("cache")["videos/train"]
    for track in split.tracks:
        bbox, sizes = (split.rows(name, track.start, track.stop) for name in ("bbox", "image_size"))
        width, height = sizes[0]
        side = bbox[:, 2] * track.crop_scale / max(width, height)
        means = (2 * bbox[:, 0] / width - 1 + 2 * bbox[:, 1] / height - 1 + side) / 3
        found = split.rows("features/hmr", track.start, track.stop)
        np.testing.assert_allclose(
            found, np.repeat(means[:, None], 2048, axis=1), rtol=1e-4, atol=1e-6
        )
