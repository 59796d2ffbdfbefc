"""Detections without a track: each is drawn with the accounting's reason, and no other one. The
report lists clips.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.__main__ import main
from pipeline.accounting import VideoAccount
from pipeline.datasets.detected.people import Rules, people
from pipeline.demo.files import mp4_writer
from pipeline.files.formats.people.detections import CORNERS, Detections
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import RawVideo
from pipeline.linking import Cleaning
from pipeline.show.shown import Choice
from pipeline.show.tracks import from_cache
from pipeline.show.untracked import COLOURS, DrawnAccount, Untracked
from tasks.report.data import examples_section, open_splits
from tasks.report.page import write_page
from tests.html_pages import Page
from tests.pipeline.datasets.by_hand import standing
from tests.pipeline.show.made_tracks import pictures
from tests.tasks.report.conftest import kept, person, write_split

CLIP = RawVideo("a.mp4", (Path("a.mp4"),))


@given(data=st.data(), boxes=st.booleans(), identified=st.booleans(), cleaned=st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_detection_is_in_a_track_or_has_a_reason(data, boxes, identified, cleaned) -> None:
    n, rng = data.draw(st.integers(1, 40)), np.random.default_rng(data.draw(st.integers(0, 99)))
    persons, identity = [], []
    for t in range(n):
        one = (
            standing("coco", 60 + t, 60)
            if not boxes
            else np.array([[20 + t, 20, 0.9], [60 + t, 110, 0.9]])
        )
        few = np.stack(
            [one + np.array([90 * p, 0, 0]) for p in range(data.draw(st.integers(1, 2)))]
        )
        few[..., 2] *= rng.uniform(0, 1, (len(few), 1) if boxes else few.shape[:2]) < rng.uniform(
            0.2, 1.2
        )
        persons.append(few + rng.normal(size=few.shape) * [1e-3, 1e-3, 0])
        identity.append(rng.integers(0, 2, len(few)))
    skeleton = CORNERS if boxes else "coco"
    found = Detections(skeleton, np.arange(n), persons, identity if identified else None, range(n))
    account = DrawnAccount("a.mp4", found=found.n_persons)
    cleaning = Cleaning(min_frames=5, max_frames=20) if cleaned else None
    tracks = list(people(found, account, Rules(5, cleaning=cleaning)))
    account.check()
    untracked = Untracked.from_account(account, Path(), CLIP, "")
    assert (untracked is None) == (account.kept == account.found)
    if untracked is not None:
        assert Counter(untracked.reasons) == account.dropped
        frames = Counter(untracked.frame_index.tolist())
        frames.update(frame for track in tracks for frame in track.frame_index.tolist())
        assert frames == {t: len(few) for t, few in enumerate(persons)}
        left = np.concatenate([few[..., 0].min(axis=1) for few in persons])
        # near somebody
        assert (np.abs(untracked.boxes[:, 0, 0, None] - left).min(axis=1) < 70).all()


def write_world(raw: Path) -> None:
    """Clips of 160 x 120: in `kept`, one person stays and another one leaves; in `short`, one
    leaves.
    """
    (raw / "keypoints").mkdir(parents=True)
    for name, spans in {"kept": {40: 60, 110: 20}, "short": {40: 30}}.items():
        with mp4_writer(raw / f"{name}.mp4", 25.0, 160, 120) as writer:
            for _ in range(60):
                writer.write(np.full((120, 160, 3), 120, np.uint8))
        results = [
            {
                "image_id": f"{t}.jpg",
                "keypoints": standing("coco", x, 60).ravel().tolist(),
                "score": 2.0,
            }
            for x, stop in spans.items()
            for t in range(stop)
        ]
        (raw / f"keypoints/{name}.json").write_text(json.dumps(results))


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    raw, root = tmp_path / "raw", tmp_path / "cache"
    write_world(raw)
    assert main(["convert", "videos", "train", "--raw", str(raw), "--cache", str(root)]) == 0
    return raw, root


def is_coloured(image: np.ndarray[Any, Any], colour: str) -> np.ndarray[Any, Any]:
    return np.abs(image.astype(int) - list(bytes.fromhex(colour[1:]))).max(axis=-1) < 70


def test_pages_and_clips_draw_them_where_they_are(
    clips: Any, page: Any, tmp_path: Path, capsys: Any
) -> None:
    raw, root = clips
    for place in (("--cache", root), ("--raw", raw)):
        shown = page("videos", "train", "--video", "kept.mp4", *place)
        assert (
            "1 track and 20 detections without a track (track_too_short)" in capsys.readouterr().out
        )
        assert "too few frames are left of the person for training" in shown.main.text
        images = pictures(shown)[-10:]
        assert len(images) == 10
        for image in images:
            x = np.flatnonzero(is_coloured(image[..., ::-1], COLOURS[0]).any(axis=0))
            # about the person at 110 px, and not the other one at 40 px
            assert x.min() > 60 and x.max() > 110
    without = page("videos", "train", "--video", "short.mp4", "--cache", root)
    assert (
        "No tracks to show." in without.source
        and "30 detections of short.mp4 without a track" in without.source
    )
    out = tmp_path / "clip.mp4"
    assert (
        main(
            [
                "show",
                "videos",
                "train",
                "--video",
                "short.mp4",
                "--cache",
                str(root),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    frames = [frame.image for frame in Video(tmp_path, "clip.mp4").read(range(60))]
    coloured = [
        frame is not None and bool(is_coloured(frame, COLOURS[0]).any()) for frame in frames
    ]
    assert coloured == [True] * 30 + [False] * 30


def test_changed_files_are_named_and_their_detections_not_drawn(clips: Any) -> None:
    raw, root = clips
    file = raw / "keypoints/kept.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:-1]))
    shown = from_cache(root, "videos/train", Choice(video="kept.mp4"))
    assert shown.untracked is None and len(shown.tracks) == 1
    assert (
        "kept.mp4: detections without a track are not drawn, because its files have changed"
        in shown.warnings[0]
    )


def test_all_clips_are_listed_with_their_tracks_and_some_are_drawn(tmp_path: Path) -> None:
    clips = {f"{video:04}/0": person(10 + video) for video in range(1, 9)}
    rejected = VideoAccount("0009", found=5)
    rejected.reject("video_unreadable", "0009: no frame")
    write_split(tmp_path, "videos/train", clips, accounts=[*kept(8), rejected])
    section = examples_section(open_splits(tmp_path), raw=None, body=None)
    (split,) = section.data["datasets"]["videos"]
    assert [tracks for _, tracks in split.clips] == [
        *([(f"{v:04}/0", 0, 9 + v)] for v in range(1, 9)),
        [],
    ]
    write_page(tmp_path / "page.html", [section], title="clips", mark="", facts={})
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert section.unfolded
    titles = [title.text for svg in page.root.of_class("tracks") for title in svg.all("title")]
    assert titles == [f"{v:04}/0: frames 0 to {9 + v}" for v in range(1, 9)]
    assert "5 video_unreadable" in page.main.text
    headings = [heading.text for heading in page.main.all("h4")]
    assert headings == [f"videos/train: {v:04}/0" for v in (1, 2, 4, 5, 7, 8)]  # of eight, six
