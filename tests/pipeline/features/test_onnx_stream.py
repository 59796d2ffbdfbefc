"""Streams of kind `onnx`, by graphs whose outputs are known functions of crop and conditioning."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto

import cache
from cache import CropPolicy
from pipeline.errors import MissingAssets
from pipeline.features.streams.base import Machine
from pipeline.features.streams.onnx import Onnx, read_part
from pipeline.testing import StreamContract
from tests.onnx_graphs import Graph
from tests.oracles.features import SAME, differences
from tests.pipeline.features.made_pictures import SPLIT, N, convert, expected
from tests.raising import config_refuses, pipeline_refuses, raw_refuses

SHAPES = {
    "image": (3, 24, 16),
    "bbx_xys": (3,),
    "cliff_cond": (3,),
    "wh": (2,),
    "K_fullimg": (3, 3),
}
GIVEN = {"bbx_xys": "bbox", "cliff_cond": "cliff", "wh": "image_size", "K_fullimg": "intrinsics"}
INPUTS = " ".join(f"{name}={condition}" for name, condition in GIVEN.items())
CROP = CropPolicy(size=24, region=(24, 16))
CPU = Machine("cpu", 4, 1)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def made(file, names=tuple(SHAPES), kind=TensorProto.FLOAT, batch="batch", changed=()):
    """A graph with these inputs: outputs `colour`, the crop's mean (N, 3), and `of_<input>`, each
    input as it is.
    """
    graph, shapes = Graph(), {name: SHAPES.get(name, (3,)) for name in names} | dict(changed)
    outputs = {"colour": graph("ReduceMean", "image", axes=[2, 3], keepdims=0)}
    outputs |= {f"of_{name}": name for name in names if name != "image"}
    outputs["whole"] = graph("ReduceMean", "image", keepdims=0)
    return graph.write(
        file, {name: [batch, *shape] for name, shape in shapes.items()}, outputs, kind
    )


def stream_of(file, **options):
    outputs = " ".join(["colour", *(f"of_{name}" for name in GIVEN)])
    return Onnx(**{"weights": file, "inputs": INPUTS, "outputs": outputs, "crop": CROP, **options})


def conditions(crop_per_box, scale=1.0):
    """Conditionings of all rows of `convert`, by output, in their closed forms."""
    cx, cy, side, _, crop_scale, width, height, *camera = expected().T
    side = side * crop_scale * scale / crop_per_box
    cliff = [2 * cx / width - 1, 2 * cy / height - 1, side / np.maximum(width, height)]
    return {
        "of_bbx_xys": np.stack([cx, cy, side], 1),
        "of_cliff_cond": np.stack(cliff, 1),
        "of_wh": np.stack([width, height], 1),
        "of_K_fullimg": np.stack(camera, 1).reshape(-1, 3, 3),
    }


@pytest.mark.parametrize(
    ("kind", "batch", "options", "tolerance"),
    [
        (TensorProto.FLOAT, "batch", {}, 1e-6),
        (TensorProto.FLOAT, 1, {"crop_per_box": 1.2}, 1e-6),
        (TensorProto.FLOAT, 3, {"crop": CropPolicy(size=24, region=(24, 16), scale=0.8)}, 1e-6),
        (TensorProto.FLOAT16, None, {"mean": "0 0 0", "std": "1 1 1"}, 2e-3),
    ],
    ids=[
        "any number of rows",
        "one row at a time",
        "three rows at a time, larger crops",
        "float16",
    ],
)
def test_inputs_have_their_closed_forms(tmp_path, kind, batch, options, tolerance):
    stream = stream_of(made(tmp_path / "a.onnx", kind=kind, batch=batch), **options)
    computer = stream.load(CPU, None)
    rows, n = expected()[: computer.batch_size], computer.batch_size
    labels = {
        "bbox": rows[:, :4],
        "crop_scale": rows[:, 4],
        "image_size": rows[:, 5:7].astype(np.int32),
    }
    labels["intrinsics"] = rows[:, 7:].reshape(n, 3, 3)
    crops = np.random.default_rng(0).integers(0, 256, (n, 24, 16, 3), np.uint8)
    found = computer(crops, labels)
    mean, std = (MEAN, STD) if "mean" not in options else (0, 1)
    truth = {"colour": ((crops / 255).mean((1, 2)) - mean) / std}
    truth |= {
        name: of[:n] for name, of in conditions(stream.crop_per_box, stream.crop.scale).items()
    }
    assert found.shape == (n, stream.dim) and found.dtype == np.float32
    assert [part["name"] for part in computer.parts] == list(truth)
    for part in computer.parts:
        values = found[:, part["offset"] :][:, : np.prod(part["shape"])].reshape(n, *part["shape"])
        assert_allclose(
            values, truth[part["name"]], rtol=tolerance, atol=tolerance, err_msg=part["name"]
        )


def test_the_commands_extract_and_read_it(tmp_path, types):
    root = convert(tmp_path)
    made(tmp_path / "network.onnx")
    values = {
        "weights": "TMP/network.onnx",
        "inputs": INPUTS,
        "crop": "size:24,region:24x16",
        "crop_per_box": 1.2,
        "outputs": "of_K_fullimg of_cliff_cond of_bbx_xys of_wh colour",
    }
    options = " ".join(f"--set 'hmr.{name}={value}'" for name, value in values.items())
    extract = f"extract {SPLIT} --cache CACHE --stream hmr --kind onnx --workers 1 {options}"
    types(extract)
    types(extract, "up to date")
    split = cache.open(root)[SPLIT]
    found = differences(split, "hmr")
    assert (len(found), found.max() < SAME) == (3 * N, True)
    windows = np.array([[start, start + N] for start in split.tracks.start])
    for name, truth in conditions(1.2).items():
        part = read_part(split, windows, "hmr", name)
        assert_allclose(part.reshape(truth.shape), truth, rtol=1e-6, err_msg=name)
    with pipeline_refuses("no part 'joints'; it has: of_K_fullimg, of_cliff"):
        read_part(split, windows, "hmr", "joints")


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        (
            {},
            {"inputs": "cliff_cond=cliff"},
            r"inputs.*expected image.*cliff_cond.*found image.*K_fullimg",
        ),
        ({"changed": {"wh": (3,)}}, {}, r"inputs.*wh \['N', 2\].*wh \['batch', 3\]"),
        ({"kind": TensorProto.DOUBLE}, {}, r"float32 or float16.*tensor\(double\)"),
        ({}, {"crop": CropPolicy(size=32)}, r"'N', 3, 32, 32.*'batch', 3, 24, 16.*crop"),
        ({}, {"outputs": "joints"}, "outputs.*expected joints.*found colour"),
        ({}, {"outputs": "whole"}, r"outputs.*numbers \(N, ...\), found whole \(\)"),
        (None, {}, "one that ONNX Runtime loads.*Name an ONNX graph"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused_before_work(tmp_path, graph, options, message):
    file = tmp_path / "a.onnx"
    if graph is None:
        file.write_bytes(b"no graph")
    else:
        made(file, **graph)
    with raw_refuses(message) as error:
        stream_of(file, **options).load(CPU, None)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": Path()}, "weights is not set"),
        ({"inputs": "cliff_cond=clif"}, "inputs 'cliff_cond=clif'.*cliff, image_size"),
        ({"mean": "0.5"}, "mean '0.5': expected three"),
        ({"std": "1 1 0"}, "std '1 1 0'"),
        ({"crop_per_box": 0.0}, "crop_per_box 0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with config_refuses(message):
        stream_of(Path("a.onnx"), **options)


def test_files_are_identified_by_content(tmp_path):
    with pytest.raises(MissingAssets, match=r"weights: file .*a\.onnx not found"):
        stream_of(tmp_path / "a.onnx").identity()
    one, other = (
        stream_of(made(tmp_path / name, batch=batch))
        for name, batch in (("a.onnx", 1), ("b.onnx", 2))
    )
    assert one.identity() != other.identity()
    renamed = stream_of(one.weights.rename(tmp_path / "c.onnx"))
    assert Onnx.from_identity(one_identity := renamed.identity()) is None and "c.onnx" not in str(
        one_identity
    )


class TestContract(StreamContract):
    @pytest.fixture
    def stream(self, tmp_path):
        return stream_of(made(tmp_path / "a.onnx"))
