"""Overview pictures in training: the same windows every time, bodies where they are predicted, never an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import cache
from pipeline.crops import crop_person
from pipeline.pixels import sources
from tasks.prediction import pictures as drawn
from tasks.prediction.drawing import STAND_IN, caption
from tasks.prediction.job import Job
from tasks.prediction.pictures import TILE_PX, Pictures, spread_windows
from tests.tasks.prediction.conftest import SPLIT, small_config
from vibe_model.vibe.config import TrainConfig

FIELDS = ("features", "frame_index", "bbox")


@pytest.fixture
def raw(monkeypatch) -> SimpleNamespace:
    """The raw folder of luigi.cfg; a folder that there is not: that of the conversion."""
    place = SimpleNamespace(folder=Path("nowhere"), warned=[])
    monkeypatch.setattr(drawn, "settings", lambda: SimpleNamespace(raw=lambda name: place.folder))
    monkeypatch.setattr(drawn, "warn", place.warned.append)
    return place


def config(job: Job, **changes) -> TrainConfig:
    return small_config(cache=job.root, validation=(SPLIT,), seqlen=8, **changes)


def test_a_mark_is_as_large_a_part_of_a_large_picture_as_of_a_small_one() -> None:
    heights = []
    for height, width in ((480, 640), (1920, 2160)):
        image = np.full((height, width, 3), 128, np.uint8)
        caption(image, STAND_IN)
        rows = np.flatnonzero((image != 128).any(axis=(1, 2)))
        heights.append((rows[-1] - rows[0]) / height)
    assert heights[1] == pytest.approx(heights[0], rel=0.15)
    assert heights[0] > 0.01


def test_every_epoch_shows_the_same_windows_and_leaves_the_model_unchanged(job, raw) -> None:
    draw, generator = Pictures(config(job)), job.trained.generator
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    state = torch.get_rng_state()
    generator.train()
    try:
        first, second = (draw(generator, epoch) for epoch in range(2))
        assert generator.training
    finally:
        generator.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert len(first) == 2
    assert {name.split()[0] for name in first} == {f"{SPLIT}/{track.name}" for track in job.split().tracks}
    for name, image in first.items():
        assert image.shape == (2 * TILE_PX, 6 * TILE_PX, 3)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, second[name])
    assert raw.warned == []


def test_the_lower_strip_shows_a_body_on_each_frame_where_the_model_predicts_it(job, raw) -> None:
    draw = Pictures(config(job))
    image = draw(job.trained.generator, 0)
    split = cache.open(job.root)[SPLIT]
    source = sources.parse(job.raw, split.videos[0].source)
    for number, (track, picture) in enumerate(zip(split.tracks, image.values(), strict=True)):
        window = np.array([[track.start, track.start + 8]])
        read = {name: array[0] for name, array in split.read(window, "resnet50", FIELDS).items()}
        with torch.no_grad():
            kp_2d = job.trained.generator(torch.from_numpy(read["features"][None]))["kp_2d"][0].numpy()
        shown = draw.examples[number].shown
        frames = list(source.read(read["frame_index"][shown].tolist()))
        for i, (t, frame) in enumerate(zip(shown, frames, strict=True)):
            tile = picture[TILE_PX:, i * TILE_PX : (i + 1) * TILE_PX].astype(int)
            crop = crop_person(frame.image, read["bbox"][t], track.crop_scale, TILE_PX)
            differs = np.abs(tile - crop).max(axis=2) > 0
            x, y = np.rint((kp_2d[t].T + 1) * TILE_PX / 2).astype(int)
            inside = (x >= 0) & (y >= 0) & (x < TILE_PX) & (y < TILE_PX)
            near = cv2.distanceTransform(1 - differs.astype(np.uint8), cv2.DIST_L2, 5)  # px to the body
            assert near[y[inside], x[inside]].max() < 2  # all joints are in the body, or at its surface
            assert not differs[: max(y.min() - 25, 0)].any()  # a hand's breadth of flesh and headroom around them
            assert not differs[:-20, : max(x.min() - 25, 0)].any()


def test_what_is_missing_is_reported_once_and_never_raised(job, raw, tmp_path) -> None:
    raw.folder = tmp_path  # there, and empty
    draw = Pictures(config(job))
    for epoch in range(3):
        images = draw(job.trained.generator, epoch)
    assert len(raw.warned) == 1
    assert "on grey" in raw.warned[0]
    for image in images.values():
        assert (image[:20] == drawn.GREY).all()
        assert (image[TILE_PX:] != drawn.GREY).any(axis=2).mean() > 0.05
    draw = Pictures(config(job, stream="another"))
    assert [draw(job.trained.generator, epoch) for epoch in range(3)] == [{}, {}, {}]
    assert len(raw.warned) == 2


def test_windows_are_spread_over_the_tracks_one_of_each(job) -> None:
    split = cache.open(job.root)[SPLIT]
    starts = [track.start for track in split.tracks]
    eight, hundred = (replace(config(job), stream="resnet50", seqlen=n) for n in (8, 100))
    assert spread_windows(split, eight, 5) == [(start, start + 8) for start in starts]
    assert spread_windows(split, eight, 1) == [(starts[0], starts[0] + 8)]
    assert spread_windows(split, hundred, 5) == []
