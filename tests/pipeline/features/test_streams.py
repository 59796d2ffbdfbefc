"""Feature streams by name: their options and identities, and what those give that need no
extraction.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from cache import CropPolicy
from pipeline.errors import ConfigError
from pipeline.features import streams
from tests.packages import install_page
from tests.raising import pipeline_refuses


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("resnet50", {"size": 3}, "resnet50 has no option size; it has crop, weights, precision"),
        ("resnet50", {"precision": "medium"}, "precision 'medium': expected exact or fast"),
        ("homography", {"crop": CropPolicy(size=91)}, "crop of 91 px: too small to compute flow"),
        (
            "homography",
            {"crop": CropPolicy(size=256, region=(256, 192))},
            "a homography needs the whole crop",
        ),
        ("resnet", {}, "no stream is called 'resnet'; did you mean 'resnet50'.* known: .*resnet50"),
    ],
)
def test_kinds_and_options_that_mean_nothing_are_refused_in_words(kind, options, told):
    with pipeline_refuses(told) as caught:
        streams.get(kind, **options)
    assert isinstance(caught.value, ConfigError) == bool(options)
    with pipeline_refuses("no stream is called 'colours'"):
        streams.of_identity({"kind": "colours", "version": 1})


def test_what_fails_in_a_stream_of_another_package_is_called_by_its_name_and_its_package(
    site, penn, types, monkeypatch
):
    install_page(site, "stream")
    penn.convert()
    streams.find("pose_2d")
    small = sys.modules["small_streams"]
    extract = "extract penn_action/train --cache CACHE --kind pose_2d --stream odd"
    whose = "stream 'pose_2d' of package example-streams"

    def numbers(n):
        return np.zeros((n, 26), np.float32)

    for made, expected in (
        (lambda n: 1 / 0, "failed in the function that load returned: ZeroDivisionError"),
        (numbers, "failed in the function that load returned: ValueError"),
        (lambda n: (numbers(n).tolist(), np.ones(n, bool)), "26) numbers of a batch, found a list"),
        (lambda n: (numbers(n), np.ones(1, bool)), "flags of a batch, found (1,)"),
    ):
        monkeypatch.setattr(
            small.Pose2D, "__call__", lambda _, labels, made=made: made(len(labels["kp_2d"]))
        )
        assert "defect of" not in types(extract, whose, expected, code=2)
    monkeypatch.setattr(small.Pose2D, "load", lambda *_: Path("/none").read_bytes())
    types(extract, whose, "failed in load: FileNotFoundError", code=2)
