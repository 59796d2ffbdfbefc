"""Splits of one video each, and streams whose numbers are known."""

import numpy as np

import cache
from tests.made_splits import DEMO, track_of, write_split, write_stream


def add_stream(root, name, stream, kind, dim, lost=(), weights=None):
    """Features that are an eighth of the row's number, without those of the rows `lost`; of demo
    data.
    """
    terms = {"licence": "MIT", "source": "a.b", "sha256": "ab"}
    recorded = {
        "identity": {"kind": kind, "weights": weights},
        "backbone": {"weights": weights, **terms, **DEMO},
        **DEMO,
    }
    write_stream(
        root,
        name,
        stream,
        lambda rows: np.repeat(rows[:, None] / 8, dim, axis=1),
        lambda rows: ~np.isin(rows, lost),
        recorded,
        dim=dim,
    )


def add_video(root, name, columns, step=1, video="v", fps=25.0, stand_in=True):
    """One track of one video, of numbered pictures."""
    n_rows = len(next(iter(columns.values())))
    whole = {
        "frame_index": np.arange(n_rows) * step,
        "bbox": np.full((n_rows, 4), 100, np.float32),
        "kp_2d": np.ones((n_rows, 49, 3), np.float32),
    } | columns
    track = track_of(f"{video}/0", whole, step=step, fps=fps)
    entry = cache.VideoEntry(
        name=video, source=f"pictures:{video}/{{:04d}}.jpg+0", width=640, height=480
    )
    write_split(root, name, [(entry, [track])], {"stand_in": stand_in, "reader": {}}, plan=video)


def add_features(root, name, lost=()):
    weights = {"kind": "untrained", "argument": "0"}
    add_stream(root, name, "resnet50", "resnet50", 2048, lost, weights)


def add_tokens(root, name):
    add_stream(root, name, "tokens", "hmr2", 1024)
