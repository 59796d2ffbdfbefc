"""Splits of pictures whose features are known."""

from __future__ import annotations

import cv2
import numpy as np

import cache
from pipeline.files.pixels import sources
from tests import made_splits

SPLIT = "penn_action/train"


LENGTHS = (30, 7, 8, 50, 21)  # frames of the videos; their tracks go across the ends of shards
FEW = (12, 3, 4, 20, 8)


def convert_noise(folder, rows_per_shard, *, cut_short=True, lengths=LENGTHS):
    """A cache of small noisy pictures, with a second person in every video; one picture may be cut
    short.
    """
    raw, root, rng = folder / "raw", folder / "cache", np.random.default_rng(5)
    for number, n_frames in enumerate(lengths):
        (raw / f"{number}").mkdir(parents=True)
        for frame in range(n_frames):
            picture = rng.integers(0, 256, (40, 40, 3), np.uint8)
            cv2.imwrite(str(raw / f"{number}/{frame:06d}.jpg"), picture)
    cut = raw / "3/000005.jpg"
    if cut_short:
        cut.write_bytes(cut.read_bytes()[:-50])

    def track(video, person, length):
        bbox = np.tile(np.array([20 + person, 20, 20, 30], np.float32), (length, 1))
        columns = {"frame_index": np.arange(length), "bbox": bbox}
        return made_splits.track_of(f"{video}/{person}", columns, fps=30.0, crop_scale=1.2)

    tracks = {f"{i}": [track(i, 0, n), track(i, 1, n // 3)] for i, n in enumerate(lengths)}
    write_split(root, SPLIT, raw, tracks, rows_per_shard=rows_per_shard)
    return root


N = 7  # frames a video


SIZES = {"a": (120, 90), "b": (64, 100)}  # width, height px


SCALES = {"a/0": 1.2, "a/1": 1.3, "b/0": 1.0}


NOTHING = {}


def box_of(name):
    """(N, 4) of a track: it moves."""
    person, t = float(name[-1]), np.arange(N)
    side = 20 + 3 * t
    return np.column_stack([30 + 20 * person + 4 * t, 40 + 5 * t, side, side]).astype(np.float32)


def camera_of(name, focal):
    """focal: of b's camera."""
    width, height = SIZES[name[0]]
    y = focal if name[0] == "b" else 510.0
    return np.array([[500 + 10 * float(name[-1]), 0, width / 2], [0, y, height / 2], [0, 0, 1]])


def convert(folder, boxes=NOTHING, *, focal=510.0):
    """Videos `a` of two persons and `b` of one, in shards of 8 rows. focal: of b's camera; None: no
    cameras.
    """
    root, raw = folder / "cache", folder / "raw"
    tracks = {video: [] for video in SIZES}
    for video, (width, height) in {} if raw.exists() else SIZES.items():
        (raw / video).mkdir(parents=True)
        for frame in range(N):
            scene = np.random.default_rng(frame).integers(
                0, 256, (height // 10, width // 8, 3), np.uint8
            )
            cv2.imwrite(str(raw / f"{video}/{frame:06d}.png"), cv2.resize(scene, (width, height)))
    for name, scale in SCALES.items():
        columns = {"frame_index": np.arange(N), "bbox": boxes.get(name, box_of(name))}
        camera = None if focal is None else camera_of(name, focal)
        about = {"intrinsics": camera, "fps": 30.0, "crop_scale": scale}
        tracks[name[0]].append(made_splits.track_of(name, columns, **about))
    write_split(root, SPLIT, raw, tracks, plan=f"{boxes} {focal}")
    return root


def expected(boxes=NOTHING, focal=510.0):
    """(3 * N, DIM - 3) columns of all rows."""
    return np.array(
        [
            [
                *box,
                scale,
                *SIZES[name[0]],
                *camera_of(name, focal).ravel(),
            ]
            for name, scale in SCALES.items()
            for box in boxes.get(name, box_of(name))
        ]
    )


def write_split(root, split, raw, tracks, plan="", rows_per_shard=8):
    """A split of 8 rows a shard, in place of what is there: tracks by video, with pictures in
    `raw`.
    """
    videos = []
    for video, of_video in tracks.items():
        suffix = next((raw / video).iterdir()).suffix
        pixels = sources.parse(raw, f"pictures:{video}/{{:06d}}{suffix}+0")
        width, height = pixels.size()
        about = {"source": pixels.spec, "pixels": pixels.digest(), "width": width, "height": height}
        videos.append((cache.VideoEntry(name=video, **about), of_video))
    about = {
        "plan": plan,
        "provenance": {"raw": str(raw)},
        "rows_per_shard": rows_per_shard,
        "rows_per_chunk": 8,
    }
    made_splits.write_split(
        root, split, videos, drop=list(tracks) if (root / split).exists() else [], **about
    )
