"""The network's stream against torchvision itself, and what every stream promises.  python -m pytest"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import torch
from resnet18_stream import ResNet18
from torchvision.models import resnet18

from pipeline.features import streams
from pipeline.features.streams import Machine
from pipeline.synthetic import calibration_crops


def test_it_gives_what_torchvision_does_whatever_the_other_rows_are() -> None:
    crops = calibration_crops(4)
    computer = ResNet18(weights="untrained").load(Machine(device="cpu", batch_size=4), None)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(*list(resnet18(weights=None).eval().children())[:-1])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        expected = plain((torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std).flatten(1).numpy()
    np.testing.assert_allclose(computer(crops), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(computer(crops[::-1].copy())[::-1], computer(crops))


def test_it_is_found_by_its_name_and_again_by_its_identity() -> None:
    for kind, options in (("resnet18", {"weights": "untrained"}), ("thumbnail", {"side": 2}), ("change", {})):
        stream = streams.get(kind, **options)
        assert streams.of_identity(json.loads(json.dumps(stream.identity()))) == stream


def test_planning_imports_no_torch() -> None:
    code = "import sys, resnet18_stream; resnet18_stream.ResNet18().identity(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own words
