"""Files of RTMPose's graphs: what is refused, and published weights."""

import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.clips import detectors
from pipeline.clips.detectors import rtmpose
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.errors import MissingAssets
from tests.pipeline.clips.blobs import blob_pose, constant, scene
from tests.raising import config_refuses, raw_refuses


def bomb(file):
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.onnx", "w") as stream,
    ):
        for _ in range(65):
            stream.write(bytes(1 << 20))


BOX = {"dets": np.zeros((1, 2, 5)), "labels": np.zeros((1, 2), np.int64)}
# which option, what writes the file, words of the message
REFUSED = {
    "a pointer": (
        "detector",
        lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\n"),
        "found a Git LFS pointer",
    ),
    "no graph": ("detector", lambda file: file.write_bytes(b"no graph"), "ONNX Runtime loads"),
    "a picture of another layout": (
        "detector",
        lambda f: constant(f, BOX, (1, 96, 96, 3)),
        r"\[1, 96, 96, 3\]",
    ),
    "a size that is not said": (
        "detector",
        lambda f: constant(f, BOX, (1, 3, "h", "w")),
        "'h', 'w'",
    ),
    "batches of two": ("weights", lambda f: blob_pose(f, batch=2), r"\[2, 3, 256, 192\]"),
    "boxes without labels": (
        "detector",
        lambda f: constant(f, {"dets": BOX["dets"]}),
        r"\(1, 2, 5\)",
    ),
    "rows of another size": (
        "detector",
        lambda f: constant(f, {"o": np.zeros((1, 7, 85))}),
        r"found \(1, 7, 85\)",
    ),
    "26 joints": (
        "weights",
        lambda f: constant(f, {"x": np.zeros((1, 26, 384))}, (1, 3, 256, 192)),
        "26, 384",
    ),
    "other bins": ("weights", lambda f: blob_pose(f, bins=3), r"\(1, 17, 384\)"),
    "a zip that grows": (
        "weights",
        lambda f: bomb(f),
        r"at most 8 times as large.*a\.onnx \(68,157,440 bytes\)",
    ),
    "a zip of pictures": (
        "weights",
        lambda f: zipfile.ZipFile(f, "w").writestr("a.jpg", "a"),
        "one ONNX graph",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_file_is_refused_with_what_was_expected_and_found(case, graphs, tmp_path):
    option, write, words = REFUSED[case]
    file = tmp_path / "other.onnx"
    write(file)
    with raw_refuses(words) as error:
        RTMPose(**(graphs | {option: str(file)}), family="yolox").load("cpu")
    assert str(file) in str(error.value)


@pytest.mark.parametrize("place", ["secret.bin", "{folder}/secret.bin", "../secret.bin"])
def test_a_graph_reads_no_other_file(place, graphs, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        np.zeros(10, np.float32).tofile(folder / "secret.bin")
    monkeypatch.chdir(tmp_path / "below")
    file = constant(tmp_path / "below" / "yolox.onnx", BOX)
    model = onnx.load(file)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", place.format(folder=tmp_path)
    file.write_bytes(model.SerializeToString())
    with raw_refuses("other files"):
        RTMPose(**(graphs | {"detector": str(file)})).load("cpu")
    # and where the key is written in another way: with lengths of two bytes
    del model.graph.initializer[0]
    weight.ClearField("external_data")

    def field(number, content):
        return bytes([number << 3 | 2, len(content) & 127 | 128, len(content) >> 7]) + content

    key = field(1, b"location") + field(2, place.format(folder=tmp_path).encode())
    file.write_bytes(
        model.SerializeToString() + field(7, field(5, weight.SerializeToString() + field(13, key)))
    )
    assert (
        onnx.load(file, load_external_data=False).graph.initializer[-1].external_data[0].key
        == "location"
    )
    with raw_refuses("External data path"):
        RTMPose(**(graphs | {"detector": str(file)})).load("cpu")


# ------------------------------------------------------------------------------------------------
# published weights


def test_published_weights_are_downloaded_once_and_compared_with_their_digest(
    graphs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(rtmpose, "ADDRESS", f"{tmp_path.as_uri()}/")
    detector = RTMPose(weights=graphs["weights"])
    assert detector.downloads
    with pytest.raises(
        MissingAssets,
        match=r"yolox_tiny.*zip.*--set rtmpose.weights=FILE --set rtmpose.detector=FILE.*blaze_pose",
    ):
        detector.identity()
    assert not capsys.readouterr().err
    published = rtmpose.PUBLISHED["detector"]["yolox-tiny"]
    zipped = tmp_path / published.file
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.write(graphs["detector"], "yolox_tiny/end2end.onnx")
    with pytest.raises(MissingAssets, match=published.sha256):
        detector.identity()
    size = f"{zipped.stat().st_size / 1024:.1f} KiB"
    assert f"downloading yolox-tiny ({size}, licence Apache-2.0, trained" in capsys.readouterr().err
    assert not detector.downloads
    digest = RTMPose(**graphs).identity()["detector"]
    monkeypatch.setitem(
        rtmpose.PUBLISHED, "detector", {"yolox-tiny": published._replace(sha256=digest)}
    )
    zipped.unlink()
    assert detector.identity() == RTMPose(**graphs).identity()
    assert not capsys.readouterr().err
    person, pose = detector.terms()
    assert (person["sha256"], person["licence"][:10]) == (digest, "Apache-2.0")
    assert person["source"].endswith(published.file)
    assert (pose["sha256"], pose["licence"]) == (detector.identity()["weights"], "not known")
    assert len(detector.load("cpu")([scene((90, 90), (40, 40))])[0].boxes) == 1


def test_paths_of_the_settings_are_below_their_folder_and_names_stay(tmp_path):
    written = RTMPose(weights="pose.zip", detector="yolox-m", min_score=0.5)
    assert written.below(tmp_path) == RTMPose(
        weights=str(tmp_path / "pose.zip"), detector="yolox-m", min_score=0.5
    )
    assert RTMPose().below(tmp_path) == RTMPose()
    with config_refuses("family"):
        detectors.get("rtmpose", family="ssd")
