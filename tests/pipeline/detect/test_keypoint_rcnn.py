from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models.detection import keypointrcnn_resnet50_fpn

from pipeline import detect
from pipeline.detect.keypoint_rcnn import confidence
from pipeline.errors import ConfigError, MissingAssets, RawDataError


def test_the_logit_from_which_detectron_draws_a_joint_is_the_confidence_from_which_readers_believe_it() -> None:
    assert confidence(np.array([2.0])) == pytest.approx(0.3)
    found = confidence(np.linspace(-1e4, 1e4, 50))
    assert (np.diff(found) >= 0).all()
    assert found[0] == pytest.approx(0)
    assert found[-1] == pytest.approx(1)


def test_weights_must_be_named_and_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--weights"):
        detect.get("keypoint_rcnn")
    with pytest.raises(MissingAssets, match="no such file"):
        detect.get("keypoint_rcnn", weights=str(tmp_path / "absent.pth")).identity()


def test_without_a_network_the_message_names_file_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(MissingAssets) as error:
        detect.get("keypoint_rcnn", weights="pretrained").identity()
    for part in ("https://", "keypointrcnn_resnet50_fpn_coco-", str(tmp_path), "--weights FILE"):
        assert part in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no pickle", [1, 2], pytest.param({"a": 1}, marks=pytest.mark.slow)])
def test_a_file_of_another_kind_is_refused(content: object, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(RawDataError, match="keypointrcnn_resnet50_fpn"):
        detect.get("keypoint_rcnn", weights=str(file)).load("cpu")


@pytest.mark.slow
def test_it_gives_what_torchvision_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"min_size": 64, "max_size": 107, "box_score_thresh": 0.0}
    network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, **options).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    detector = detect.get("keypoint_rcnn", weights=str(tmp_path / "w.pth"), min_score=0.0, size=64)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 64, 3), np.uint8), rng.integers(0, 256, (64, 40, 3), np.uint8)]
    with torch.inference_mode():
        expected = network([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images])
    for people, one in zip(detector.load("cpu")(images), expected, strict=True):
        assert len(people.boxes) > 0
        np.testing.assert_allclose(people.boxes, one["boxes"].numpy(), rtol=1e-5)
        np.testing.assert_allclose(people.keypoints[..., :2], one["keypoints"][..., :2].numpy(), rtol=1e-5)
        np.testing.assert_allclose(people.keypoints[..., 2], confidence(one["keypoints_scores"].numpy()), rtol=1e-5)
    assert len(str(detector.identity()["weights"])) == 64
