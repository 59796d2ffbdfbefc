"""The contract of all streams, ResNet-18 compared with torchvision's, and poses and boxes by hand.
python -m pytest
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from small_streams import BoxSpeed, Change, Pose2D, ResNet18, Sharpness
from torchvision.models import resnet18

from pipeline.api import Machine, Stream, joint_names
from pipeline.testing import StreamContract


def test_a_row_is_torchvisions_feature_in_any_batch() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    computer = ResNet18(weights="untrained").load(Machine(device="cpu", batch_size=4), None)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(*list(resnet18(weights=None).eval().children())[:-1])
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    with torch.inference_mode():
        expected = (
            plain((torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std)
            .flatten(1)
            .numpy()
        )
    np.testing.assert_allclose(computer(crops), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(computer(crops[::-1].copy())[::-1], computer(crops))


STREAMS = [ResNet18(weights="untrained"), Sharpness(), Change(), Pose2D(), BoxSpeed()]


class TestContract(StreamContract):
    @pytest.fixture(params=STREAMS, ids=lambda stream: stream.kind)
    def stream(self, request: pytest.FixtureRequest) -> Stream:
        return request.param


STANDING = {  # x, y of a person in front view, its left side at larger x
    "nose": (0, -9), "lshoulder": (2, -6), "rshoulder": (-2, -6), "lelbow": (3, -3),
    "relbow": (-3, -3),
    "lwrist": (3, 0), "rwrist": (-3, 0), "lhip": (1, 0), "rhip": (-1, 0), "lknee": (1, 5),
    "rknee": (-1, 5),
    "lankle": (1, 10), "rankle": (-1, 10),
}  # fmt: skip


def test_a_pose_does_not_depend_on_place_and_size_and_is_unknown_without_its_torso() -> None:
    names, kp_2d = joint_names("spin49"), np.zeros((4, 49, 3), np.float32)
    for name, xy in STANDING.items():
        kp_2d[0, names.index(name)] = *xy, 1
    kp_2d[1:] = kp_2d[0] * [7, 7, 1] + [300, -40, 0] * (kp_2d[0, :, 2:] > 0)
    kp_2d[2, names.index("lwrist")] = 0
    kp_2d[3, names.index("lhip")] = 0
    values, known = Pose2D()({"kp_2d": kp_2d})
    # one shoulder to the other side's hip
    expected = np.array(list(STANDING.values())) / (2 * np.hypot(3, 6))
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_allclose(values[:2], [expected.ravel()] * 2, atol=1e-6)
    expected[list(STANDING).index("lwrist")] = 0
    np.testing.assert_allclose(values[2:], [expected.ravel(), 0 * expected.ravel()], atol=1e-6)


def test_a_speed_is_in_box_heights_and_unknown_where_a_run_begins() -> None:
    bbox = np.array(
        [[[np.nan] * 4, [50, 50, 20, 40]], [[50, 50, 20, 40], [60, 40, 20, 20]]], np.float32
    )
    labels = {"bbox": bbox, "in_run": np.array([[False, True], [True, True]])}
    speed, known = BoxSpeed()(labels)
    assert known.tolist() == [False, True]
    np.testing.assert_array_equal(speed, [[0, 0], [0.5, -0.5]])


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, small_streams; small_streams.ResNet18().identity(); sys.exit('torch' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own words
