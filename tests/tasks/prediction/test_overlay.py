"""The overlay: a player whose picture has the bodies as its lower half."""

import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from numpy.testing import assert_allclose

import cache
from pipeline.files.pixels.frames import Video
from tests.html_pages import Page
from tests.pipeline.files.made_clips import Clip
from tests.tasks.prediction.conftest import SEQLEN, halves_of, the_body
from vibe_model.cameras import crop_to_image, project
from vibe_model.prediction import overlay
from vibe_model.prediction.motions import write_motion
from vibe_model.prediction.overlay import PredictedBodies, _BodyDrawing, _project_body, _record_type
from vibe_model.prediction.predict import TrackBodies, predict_tracks
from vibe_model.prediction.videos import predict_videos
from vibe_model.prediction.windows import ModelStreams


def bodies_of(job):
    bodies = PredictedBodies(job.out)
    split = job.split
    for (track,) in predict_tracks(
        job.trained.generator, split, split.tracks, streams=ModelStreams(job.stream), seqlen=SEQLEN
    ):
        bodies.add(track)
    return bodies


def frames_of(video):
    found = [
        frame.image
        for frame in Video(video.parent, video.name).read(range(1000))
        if frame.image is not None
    ]
    assert found
    return found


def test_the_overlay_has_the_frames_of_the_video_and_bodies_on_them(job, world):
    halves = halves_of(job.out / "overlay.html")
    for (shown, with_bodies), image in zip(halves, frames_of(world.video), strict=True):
        assert shown.shape == with_bodies.shape == image.shape
        assert np.abs(shown.astype(int) - image).mean() < 5
        differs = np.abs(with_bodies.astype(int) - shown).max(axis=2)
        assert 0.005 < (differs > 60).mean() < 0.5


def test_the_overlay_shows_the_bodies_and_has_the_rows_of_the_predicted_tracks_alone(job, tmp_path):
    names = [track.name for track in job.split.tracks]
    predict_videos(replace(job, out=tmp_path, tracks=names[1]), lambda *_: None)
    page = Page((tmp_path / "overlay.html").read_text())
    (bodies,) = [box for box in page.root.all("input") if box.attributes.get("value") == "bodies"]
    assert "checked" in bodies.attributes
    (row,) = page.main.of_class("row")
    assert row.all("h2")[0].text.startswith(f"{names[1].rpartition('/')[2]}: ")
    assert "DEMO DATA" in page.header.text


def test_vertices_are_where_the_model_projects_them():
    rng = default_rng(0)
    points = rng.normal(0, 0.5, (2, 30, 3)).astype(np.float32)
    camera = np.array([[0.9, 0.1, -0.2], [0.5, -0.3, 0.4]], np.float32)
    bbox = np.array([[120, 80, 60, 60], [300, 200, 240, 240]], np.float32)
    crop = project(torch.from_numpy(points), torch.from_numpy(camera)).numpy()
    expected = crop_to_image(crop, bbox, crop_scale=1.3)
    for i in range(2):
        record = np.zeros((), _record_type())
        record["camera"], record["bbox"], record["crop_scale"] = camera[i], bbox[i], 1.3
        assert_allclose(_project_body(record, points[i]).pixels, expected[i], atol=1e-2)


def test_near_bodies_are_painted_over_far_ones(job, monkeypatch):
    record = bodies_of(job).read_frames(0, 1)[:1]
    both = np.concatenate([record, record])
    both["track"] = (0, 1)
    both["camera"][1, 0] *= 0.8  # smaller, so further away
    monkeypatch.setattr(overlay, "_project_body", lambda record, verts: record["track"])
    drawing = _BodyDrawing(job.trained.generator)
    monkeypatch.setattr(drawing, "painter", Mock(paint=lambda image, bodies, opacity: bodies))
    for records in (both, both[::-1]):
        assert drawing.paint(None, records, records) == [1, 0]


def track_of(frames, *, fps=25.0, **arrays):
    """Bodies of one person in these frames, one after the other."""
    n = len(frames)
    rows = np.arange(n)
    arrays = {
        "bbox": np.tile(np.float32([100, 100, 50, 50]), (n, 1)),
        "rotmat": np.tile(np.eye(3, dtype=np.float32), (n, 24, 1, 1)),
        "shape": np.zeros((n, 10), np.float32),
    } | arrays
    record = cache.TrackRecord("a", "a", 0, n, fps, 1, 1.3)
    return TrackBodies(track=record, rows=rows, run=rows, frame_index=frames, **arrays)


def test_bodies_come_by_frame_whatever_the_order_of_tracks(tmp_path):
    bodies = PredictedBodies(tmp_path)
    for track, frames in enumerate(([4, 5, 9], [0, 4], [9])):
        camera = np.full((len(frames), 3), track, np.float32)
        bodies.add(track_of(np.array(frames), camera=camera))
    found = [(r["frame"], r["track"]) for r in bodies.read_frames(4, 10)]
    assert found == [(4, 0), (4, 1), (5, 0), (9, 0), (9, 2)]
    assert all(r["camera"][0] == r["track"] for r in bodies.read_frames(0, 10))
    assert len(bodies.read_frames(10, 20)) == 0


def test_a_motion_of_a_clip_with_a_pause_is_as_long_as_the_clip(tmp_path):
    clip = Clip("pause.mkv", rate=30, times=[33 * t + 2000 * (t > 20) for t in range(40)])
    (tmp_path / clip.name).write_bytes(clip.encode())
    record = Video(tmp_path, clip.name).record()
    n = record.n_frames
    rows = np.arange(n)
    camera = np.column_stack([np.ones(n), rows / n, np.zeros(n)]).astype(np.float32)
    bodies = track_of(rows, fps=record.fps, camera=camera, picture=(200, 200))
    stored = np.load(write_motion(tmp_path, bodies, the_body(), record.fps, record))
    rate = stored["mocap_framerate"].item()
    assert (len(stored["trans"]) - 1) / rate == pytest.approx(39 * 0.033 + 2, abs=0.05)
    across = stored["trans"][:, 0]
    in_pause = across[round(1.66 * rate)]
    assert across.max() > in_pause > across.min()
    assert json.loads(stored["about"].item())["first_frame"] == 0
