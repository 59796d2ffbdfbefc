"""Inputs of a stream's rows: boxes, labels, and their keys.  tracks -> crops -> features

A stream computes a feature for each row of a split, which is a frame of a track. What it reads for
that are *inputs*: stored columns of the row and of its neighbours (labels), and crops of the
images, which `pixels.py` decodes. This module finds them for many rows at once, in three parts:

- labels: `column`, `label_batch`, `crop_labels`;
- crops: `find_crops`;
- keys: `row_keys` is a digest of all inputs of a row. A stored feature is valid while its key is.

Words:
    row: always by its number in the split, (n,) ascending unless said otherwise.
    run: rows of one track without a gap between two of them. A window does not go beyond its run.
    window: a row with `history` rows before and `future` rows after it, which some streams read.
    cut: the box of a crop, of the type CUT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import Split
from cache.arrays import Array, Bools, Ints, Keys
from cache.read.labels import mirror, normalise_keypoints
from pipeline.features.streams.base import ROW_RATE, Labels, Reads, Stream

CUT: Final = np.dtype(  # the box of a crop in an image
    [
        ("bbox", np.float32, 4),  # cxcywh, px
        ("scale", np.float64),  # side of the crop / side of the bbox
        ("mirrored", np.bool_),  # whether the crop is mirrored
    ]
)
CROP: Final = np.dtype(  # one stream's crop for one row
    [
        ("row", np.int64),  # of the split
        ("frame", np.int64),
        # the frame one step before, for a stream of pairs; the same frame if it is not needed
        ("previous", np.int64),
        ("slot", np.int64),  # where the crop of a network is to be written
        ("cut", CUT),  # how the crop is cut from the frame
    ]
)


def crop_labels(labels: Labels, cut: np.void) -> Labels:
    """A row's labels as they are in its crop: `kp_2d` in [-1, 1] across the crop, and mirrored if
    that is. Other labels stay.
    """
    if "kp_2d" not in labels:
        return labels
    kp_2d = labels["kp_2d"]
    placed = np.zeros_like(kp_2d)[None, None]
    normalise_keypoints(kp_2d[None, None], cut["bbox"][None, None], cut["scale"][None], placed)
    shown = placed[0]
    if cut["mirrored"]:
        shown = mirror("kp_2d", shown)
    return {**labels, "kp_2d": shown[0]}


def column(split: Split, name: str, rows: Ints) -> Array:
    """Stored values (n, ...) of a column, as of `Split.rows`, at any rows, in any order."""
    unique_rows, index = np.unique(rows, return_inverse=True)
    gaps = np.flatnonzero(np.diff(unique_rows) != 1)
    values = [split.rows(name, 0, 0)]  # of no row
    for part in np.split(unique_rows, gaps + 1):
        if len(part):
            values.append(split.rows(name, int(part[0]), int(part[-1]) + 1))
    return np.concatenate(values)[index]


def _label(split: Split, name: str, rows: Ints) -> Array:
    """Values (n, ...) of a label at any rows: a stored column, or `ROW_RATE`, rows a second."""
    if name != ROW_RATE:
        return column(split, name, rows)
    track = split.track_of(rows)
    return np.asarray(split.tracks.fps[track] / split.tracks.step[track], np.float64)


def _fill_value(dtype: np.dtype[Any]) -> Any:
    """The value of a label in rows that a window lacks: NaN, an extreme integer, or False."""
    match dtype.kind:
        case "f":
            return np.nan
        case "i":
            return np.iinfo(dtype).min
        case "u":
            return np.iinfo(dtype).max
    return False


def _windows_in_run(runs: Ints, rows: Ints, reads: Reads) -> tuple[Ints, Bools]:
    """The window of each row, (n, window) rows, and whether each of these is in the row's run.

    runs: (R, 2) first row, last row + 1. Rows outside the run may not even exist.
    """
    around = rows[:, None] + np.arange(-reads.history, reads.future + 1)
    run = np.searchsorted(runs[:, 0], rows, side="right") - 1
    start = runs[run, :1]  # (n, 1)
    stop = runs[run, 1:]
    in_run = (around >= start) & (around < stop)
    return around, in_run


def label_batch(split: Split, rows: Ints, reads: Reads) -> Labels:
    """The labels that a stream reads of (n,) rows, as a `LabelComputer` gets them.

    For a stream with a window, each label is (n, window, ...), and "in_run" (n, window) tells which
    rows of the window there are; the others have a fill value.
    """
    if reads.window == 1:
        return {name: _label(split, name, rows) for name in reads.labels}
    around, in_run = _windows_in_run(split.runs, rows, reads)
    labels: dict[str, Array] = {}
    for name in reads.labels:
        values = _label(split, name, around[in_run])
        shape = (*around.shape, *values.shape[1:])
        labels[name] = np.full(shape, _fill_value(values.dtype), values.dtype)
        labels[name][in_run] = values
    labels["in_run"] = in_run
    return labels


def find_crops(split: Split, stream: Stream, rows: Ints) -> NDArray[np.void]:
    """The crops (n,), of `CROP`, that a stream reads for rows of tracks, without slots."""
    policy = stream.policy
    tracks, track_index = np.unique(split.track_of(rows), return_inverse=True)
    frame = column(split, "frame_index", rows)
    bbox = column(split, "bbox", rows)
    crops = np.zeros(len(rows), CROP)
    crops["row"] = rows
    crops["frame"] = frame
    crops["previous"] = frame
    boxes = crops["cut"]
    boxes["bbox"] = bbox
    boxes["scale"] = split.tracks.crop_scale[tracks][track_index]
    if not policy.follows_box:
        names = (split.tracks[number].name for number in tracks.tolist())
        seeds = policy.seeds(names)[track_index]
        boxes["bbox"], boxes["mirrored"] = policy.boxes(bbox, boxes["scale"], seeds, frame)
    if stream.reads.crops > 1:  # the row before is one step before if it is in the same run
        _, in_run = _windows_in_run(split.runs, rows, Reads(history=1))
        is_pair = in_run[:, 0]
        crops["previous"][is_pair] = column(split, "frame_index", rows[is_pair] - 1)
    return crops


def row_keys(split: Split, stream: Stream, rows: Ints, crops: NDArray[np.void]) -> Keys:
    """Keys (n, 2) of rows for a stream: 128 bits that change with any input of the row.

    They are stored beside the features and are part of the cache's format. If this function gives
    other keys, all features are computed again.

    crops: (n,) those of `find_crops`; not used for a stream without crops.
    """
    reads = stream.reads
    if not reads.crops:
        return _label_keys(split, rows, reads)

    frame = crops["frame"]
    boxes = crops["cut"]
    parts = [frame, boxes["bbox"], boxes["scale"]]
    if not stream.policy.follows_box:
        parts.append(boxes["mirrored"])
    if reads.crops > 1:
        parts.append(np.where(crops["previous"] == frame, -1, crops["previous"]))
    parts += [_label(split, name, rows) for name in reads.labels]

    # the digest of a row begins with that of its video's pixels
    of_video = dict[int, Any]()
    videos = split.tracks.video[split.track_of(rows)].tolist()
    for number in set(videos):
        of_video[number] = hashlib.blake2b(split.videos[number].pixels.encode(), digest_size=16)
    return _digests(parts, [of_video[number] for number in videos])


def _label_keys(split: Split, rows: Ints, reads: Reads) -> Keys:
    """Keys (n, 2) of (n,) rows for a stream without crops: they change with any label in the row's
    window.
    """
    if reads.window == 1 or not len(rows):
        return _digests([_label(split, name, rows) for name in reads.labels])
    around, in_run = _windows_in_run(split.runs, rows, reads)
    read, of_window = np.unique(around[in_run], return_inverse=True)
    digests = _digests([_label(split, name, read) for name in reads.labels])
    # A window's key is the digest of its rows' digests: labels would need more memory.
    windows = np.zeros((*around.shape, 2), np.uint64)
    windows[in_run] = digests[of_window]
    return _digests([windows])


def _digests(columns: Sequence[Array], begun: Sequence[Any] | None = None) -> Keys:
    """Digests (n, 2) of each row of some columns (n, ...).

    begun: (n,) of each row, the hash object to which its bytes are added; rows may share one. By
    default, each row begins with an empty one.
    """
    rows = _bytes(columns)
    if begun is None:
        begun = [hashlib.blake2b(digest_size=16)] * len(rows)
    keys = []
    for shared, row in zip(begun, rows, strict=True):
        digest = shared.copy()
        digest.update(row)
        keys.append(digest.digest())
    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)


def _bytes(columns: Sequence[Array]) -> list[bytes]:
    """The bytes of each row of some columns (n, ...), in all of them."""
    parts = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in columns]
    joined = np.concatenate(parts, axis=1)
    if not len(joined):
        return []
    return joined.view(f"V{joined.shape[1]}").ravel().tolist()
