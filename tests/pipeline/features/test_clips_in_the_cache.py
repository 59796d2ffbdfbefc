"""Clips of all kinds from their files to the cache: each row has the pixels of its own frame, and
damage is named.
"""

from __future__ import annotations

import numpy as np
import pytest

import cache
from pipeline.__main__ import main
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels.frames import Video
from pipeline.processes.settings import Resources
from pipeline.steps.extraction.extract import extract_together
from pipeline.steps.extraction.plan import plan_extraction
from tests.pipeline.files.made_clips import DAMAGED, WHOLE, N, content, write_keypoints, zero

SPLIT = "videos/train"
DAMAGE = 17  # the packet, in decoding order


def run(command, raw, root):
    return main(
        [
            *command.split(),
            SPLIT,
            "--raw",
            str(raw),
            "--cache",
            str(root),
            "--set",
            "videos.min_frames=5",
        ]
    )


def extract(root, made_up):
    """Computes `painted`. Returns the number of rows computed."""
    plan = plan_extraction(root, SPLIT, StreamSpec("painted", made_up.Painted()))
    (done,) = extract_together([plan], Resources(workers=2, batch_size=64))
    return done.computed


@pytest.mark.promise("problems of All datasets")
@pytest.mark.promise("pixels")
def test_every_row_of_every_kind_of_clip_has_the_pixels_of_its_own_frame(tmp_path, made_up, capsys):
    raw = tmp_path / "raw"
    root = tmp_path / "cache"
    raw.mkdir()
    for clip in WHOLE:
        (raw / clip.name).write_bytes(content(clip.name))
    damaged = {f"damaged_{name}" for name in DAMAGED}
    for name in DAMAGED:
        (raw / f"damaged_{name}").write_bytes(zero(content(name), DAMAGE))
    clips = sorted(file.name for file in raw.iterdir())
    for name in clips:
        write_keypoints(raw, name, Video(raw, name).view().unstretched)
    assert len(clips) > 70

    assert run("convert", raw, root) == 1  # for the damaged clips
    said = capsys.readouterr().out
    assert "rejected" not in said
    assert "the file is damaged" in said
    extract(root, made_up)
    split = cache.open(root)[SPLIT]
    assert sorted({track.video for track in split.tracks}) == clips
    assert [track.name for track in split.tracks if track.video == "pause.mkv"] == [
        "pause.mkv/0",
        "pause.mkv/1",
    ]
    for video in split.videos:
        tracks = [track for track in split.tracks if track.video == video.name]
        frames = np.concatenate(
            [split.rows("frame_index", track.start, track.stop) for track in tracks]
        )
        painted = np.concatenate(
            [split.rows("features/painted", track.start, track.stop) for track in tracks]
        )
        lost = video.account["clip"]["lost"]
        assert sorted([*frames.tolist(), *lost]) == list(range(N)), video.name
        assert bool(lost) == (video.name in damaged)
        assert video.account["dropped"] == ({"frame_damaged": len(lost)} if lost else {})
        is_right = painted[:, 0] == frames
        if video.name in damaged:  # images up to the next key frame may be drawn over a lost one
            is_right |= frames // 10 == DAMAGE // 10
        assert is_right.all(), (video.name, painted[:, 0].tolist())

    assert run("convert", raw, root) == 0  # the second time, nothing is new
    assert extract(root, made_up) == 0
