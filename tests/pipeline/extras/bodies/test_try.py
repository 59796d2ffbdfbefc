"""`make try`: a clip becomes a page, once; without a network, the command names the files that it
needs.
"""

import json
import re
import shlex
import subprocess
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest

from pipeline.__main__ import parser
from pipeline.api import Detector, NumberStream, People
from pipeline.clips.detectors import blaze_pose
from pipeline.extras.bodies import fitting
from pipeline.extras.bodies.body_file import FILE, body_file
from pipeline.extras.bodies.commands import try_clip
from pipeline.features.streams import blaze as blaze_stream
from tests.pipeline.datasets.by_hand import encode
from tests.pipeline.extras.bodies.made_body import make_body, plant
from tests.trees import everything
from tests.waiting import await_that

LICENCES = (
    "BSD-3-Clause",
    "perfanalytics",
    "Apache-2.0",
    "The MediaPipe Authors",
    "CC0",
    "MakeHuman",
)


@dataclass(frozen=True)
class PlantedPose(Detector):
    """A person who stands around the bright column of the image."""

    every: int = 1

    name: ClassVar[str] = "blaze_pose"
    loaded: ClassVar[list[str]] = []

    def terms(self):
        return blaze_pose.terms("full")

    def load(self, device):
        self.loaded.append(self.name)
        sides = np.where(np.arange(17) % 2, 6, -6) * (np.arange(17) > 0)
        heights = np.interp(np.arange(17), [0, 5, 11, 15, 16], [30, 45, 70, 110, 110])

        def find(image):
            x = np.flatnonzero(image[60, :, 1] > 128).mean()
            joints = np.column_stack([x + sides, heights, np.full(17, 0.9)])
            return People(
                np.float32([[x - 10, 25, x + 10, 115]]), np.float32([0.9]), np.float32([joints])
            )

        return lambda images, keys=(): [*map(find, images)]


class StandingJoints:
    """The joints of the made body for every crop."""

    lanes, batch_size = 1, 8
    provenance: Mapping[str, Any] = {"stand_in": False, "network": "planted"}

    def adopt(self, memory): ...

    def release(self): ...

    def __call__(self, crops):
        return (
            plant(make_body(), 1, {"height": 0.7})[0]
            .reshape(1, -1)
            .repeat(len(crops), 0)
            .astype(np.float32)
        )


@dataclass(frozen=True, kw_only=True)
class PlantedJoints(NumberStream):
    kind: ClassVar[str] = "blaze_joints"
    dtype: ClassVar[str] = "float32"
    dim: ClassVar[int] = 132

    def load(self, machine, recorded):
        PlantedPose.loaded.append(self.kind)
        return StandingJoints()


@pytest.fixture
def planted(home, monkeypatch):
    """A clip in the cache folder, and a detector and a stream in place of BlazePose's; the list of
    what is loaded.
    """
    images = [np.full((128, 160, 3), (110, 80, 60), np.uint8) for _ in range(50)]
    for t, image in enumerate(images):
        image[25:115, 35 + t : 46 + t] = 255
    file = encode(try_clip.CLIP.cached_path, images)
    monkeypatch.setattr(
        try_clip, "CLIP", try_clip.CLIP._replace(sha256=sha256(file.read_bytes()).hexdigest())
    )
    monkeypatch.setattr(PlantedPose, "loaded", [])
    monkeypatch.setattr(blaze_pose, "BlazePose", PlantedPose)
    monkeypatch.setattr(blaze_stream, "BlazeJoints", PlantedJoints)
    monkeypatch.setattr(fitting, "STEPS", 5)
    return PlantedPose.loaded


def has_bodies(page):
    """Whether the page's one video has bodies below the clip."""
    assert page.count("data:video/mp4;base64,") == 1
    data = re.search('<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(data[1])["has_bodies"]


def test_a_clip_becomes_a_page_once(planted, tmp_path, ran):
    out = tmp_path / "out"
    text, page = ran("try", "--out", out).out, (out / "try.html").read_text()
    assert {*planted} == {"blaze_pose", "blaze_joints"} and str(out / "try.html") in text
    (track,) = json.loads((out / "bodies/bodies.json").read_text())["tracks"]
    shown = (
        f"{track['height_m']:.2f} ± 0.08 m",
        "sports2d.mp4/0",
        "estimated",
        "100 % of 12 joints visible",
    )
    for expected in (*shown, *LICENCES):
        assert expected in page, expected
    assert has_bodies(page)
    assert "DEMO DATA" not in page + text
    own = re.findall(r"^  (\S+ -m pipeline (.*))$", text, re.MULTILINE)
    assert [words.split()[0] for _, words in own] == ["prepare", "bodies", "show"]
    for line, words in own:
        assert line in page and parser().parse_args(shlex.split(words))
    written = everything(out)
    planted.clear()
    assert str(out / "try.html") in ran("try", "--out", out).out
    assert (everything(out), planted) == (written, [])
    (out / "bodies/bodies.json").unlink()
    (out / "try.html").write_text("an earlier page")
    ran("try", "--out", out)
    assert has_bodies((out / "try.html").read_text())


def test_the_page_of_tracks_is_shown_while_the_body_is_fetched(planted, tmp_path, ran, monkeypatch):
    out = tmp_path / "out"
    seen = []
    opened = []

    def fetch_after_the_first_page():
        await_that(lambda: opened)
        seen.append((out / "try.html").read_text())
        assert not (out / "bodies").exists() and "blaze_joints" not in planted
        return body_file()

    monkeypatch.setattr(try_clip, "body_file", fetch_after_the_first_page)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(type(try_clip.out), "is_terminal", True)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    text = ran("try", "--out", out).out
    assert "bodies follow: reload" in text and opened == [(out / "try.html").as_uri()]
    (first,) = seen
    assert "Bodies follow: reload this page" in first
    assert not has_bodies(first)
    last = (out / "try.html").read_text()
    assert "Bodies follow" not in last and has_bodies(last)


@pytest.mark.parametrize("screen", ["terminal alone", "screen alone"])
def test_without_a_body_the_tracks_are_shown_and_nothing_is_opened(
    planted, home, tmp_path, types, monkeypatch, screen
):
    (home / FILE).unlink()
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=OSError))
    monkeypatch.setattr(webbrowser, "open", Mock(side_effect=AssertionError))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if screen == "terminal alone":
        monkeypatch.setattr(type(try_clip.out), "is_terminal", True)
    else:
        monkeypatch.setenv("DISPLAY", ":0")
    types("try --out TMP/out", "anny-0.6.2", code=2)
    page = tmp_path / "out/try.html"
    assert not has_bodies(page.read_text())
    before = everything(tmp_path / "out")
    types("try --out TMP/out", "anny-0.6.2", code=2)
    assert everything(tmp_path / "out") == before


def test_without_a_network_every_missing_file_is_named(tmp_path, monkeypatch, types):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=OSError))
    types("try --out TMP/out", "sports2d-0.8.34", "mediapipe-0.10.21", "anny-0.6.2", code=2)
    assert not (tmp_path / "out").exists()
