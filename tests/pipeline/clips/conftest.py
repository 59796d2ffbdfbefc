"""What tests of detectors share: planted graphs, and a detector that has seen nothing."""

import pytest

from tests.pipeline.clips.blobs import blob_detector, blob_pose
from tests.pipeline.clips.bright import Bright


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(Bright, "calls", [])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    return {
        "detector": str(blob_detector(folder / "yolox.onnx")),
        "weights": str(blob_pose(folder / "rtmpose.onnx")),
    }
