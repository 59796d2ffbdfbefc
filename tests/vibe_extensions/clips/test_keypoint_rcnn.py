import functools
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.models.detection import KeypointRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from pipeline import detect
from pipeline.errors import MissingAssets, RawDataError
from pipeline.files.raw.files import whole_file_digest
from vibe_extensions.clips.detectors import keypoint_rcnn
from vibe_extensions.clips.detectors.rcnn import confidence


def test_the_logit_from_which_detectron_draws_a_joint_is_the_confidence_from_which_readers_believe_it() -> None:
    assert confidence(np.array([2.0])) == pytest.approx(0.3)
    found = confidence(np.linspace(-1e4, 1e4, 50))
    assert (np.diff(found) >= 0).all()
    assert found[0] == pytest.approx(0)
    assert found[-1] == pytest.approx(1)


def test_weights_are_the_published_ones_or_a_file_that_is_there(tmp_path: Path) -> None:
    assert detect.get("keypoint_rcnn") == detect.get("keypoint_rcnn", weights="pretrained")
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


@pytest.mark.parametrize(
    "content", [b"no pickle", *(pytest.param(one, marks=pytest.mark.slow) for one in (b"", [1, 2]))]
)
def test_a_file_of_another_kind_is_refused(content: object, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(RawDataError, match="keypointrcnn_resnet50_fpn"):
        detect.get("keypoint_rcnn", weights=str(file)).load("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("published", [False, True])
def test_it_gives_what_torchvision_gives(published: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    size = {"min_size": 64, "max_size": 107, "box_score_thresh": 0.0}
    network = seeded(published, **size)
    file = tmp_path / "w.pth"
    torch.save(network.state_dict(), file)
    if published:  # as torchvision does with its own file, which is known by the beginning of its digest
        monkeypatch.setattr(keypoint_rcnn, "PUBLISHED", whole_file_digest(file)[:8])
    detector = detect.get("keypoint_rcnn", weights=str(file), min_score=0.0, size=64)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 64, 3), np.uint8), rng.integers(0, 256, (64, 40, 3), np.uint8)]
    with torch.inference_mode():
        expected = [network([torch.from_numpy(image).permute(2, 0, 1) / 255])[0] for image in images]
    for people, one in zip(detector.load("cpu")(images), expected, strict=True):
        assert len(people.boxes) > 0
        np.testing.assert_allclose(people.boxes, one["boxes"].numpy(), atol=1e-2)
        np.testing.assert_allclose(people.scores, one["scores"].numpy(), atol=1e-5)
        np.testing.assert_allclose(people.keypoints[..., 2], confidence(one["keypoints_scores"].numpy()), atol=1e-4)
        apart = np.linalg.norm(people.keypoints[..., :2] - one["keypoints"][..., :2].numpy(), axis=-1)
        assert (apart < 0.01).mean() > 0.99, "two maxima of a heat map may be equally high"
    assert len(str(detector.identity()["weights"])) == 64


def seeded(published: bool, **options: Any) -> KeypointRCNN:
    """torchvision's network as it builds it for weights of its own, with other numbers."""
    norm = functools.partial(FrozenBatchNorm2d, eps=0.0 if published else 1e-5)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm)
    network = KeypointRCNN(backbone, 2, num_keypoints=17, **options).eval()
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):  # so small that eps counts
            module.running_var.uniform_(5e-6, 2e-5)
            module.weight.mul_(3e-3)
    return network
