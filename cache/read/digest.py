"""The digest of a split's content: equal on any machine and after any history.  [cache]

The digest covers what readers get from committed tracks: the tracks' fields (name, fps, gender and
others), names of columns, and rows as stored. The order of tracks does not matter. It does not
cover row numbers, rows of replaced tracks, accounts of videos, keys of features and notes on
commits. docs/digests.md gives the bytes that are hashed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import numpy as np

from cache.format.layout import FEATURES
from cache.format.tables import Tables
from cache.format.track_tables import TrackRecord
from cache.read.split import Split
from cache.windows import Ranges

_ROWS_AT_ONCE: Final = 4096


def content_digest(split: Split, stream: str | None = None) -> str:
    """SHA-256, in hex, of a split's tracks and labels, or of the features of a stream.

    For a stream, the digest tells rows with features from rows without; it does not matter whether
    a frame could not be decoded or is still to be computed. Every row is read and checked; memory
    does not grow with the number of rows.

    Raises CacheError for damaged shards and a stream that does not exist, CacheChanged when the
    split is replaced meanwhile.
    """
    # header: what all tracks have in common; arrays: the hashed ones; ranges: the hashed rows of
    # all tracks, ascending
    tracks = split.tracks
    if stream is None:
        arrays = sorted(split.columns)
        extra = {name: column.stored_as for name, column in split.extra.items()}
        header = dict[str, Any](columns=arrays, extra=extra)
        ranges = np.stack([tracks.start, tracks.stop], axis=1)
    else:
        arrays = [f"{FEATURES}/{stream}", f"{FEATURES}/{stream}_ok"]
        opened = split.open_stream(stream)
        crop = opened.identity.get("crop")
        header = {**opened.form.as_json(), "crop": crop}
        ranges = split.runs_with([stream])

    # No range crosses tracks, so those of a track start within it: ranges[first:stop] of each track
    range_starts = ranges[:, 0]
    first = np.searchsorted(range_starts, tracks.start)
    stop = np.searchsorted(range_starts, tracks.stop)
    digests = []
    for number, track in enumerate(tracks):
        track_ranges = ranges[first[number] : stop[number]]
        fields = {"name": track.name, "rows": (track_ranges - track.start).tolist()}
        if stream is None:
            fields |= _label_fields(track, tracks.tables, tracks.video[number])
        track_digest = hashlib.sha256(_encode(fields))
        for array in arrays:
            track_digest.update(digest_rows(split, array, track_ranges))
        digests.append(track_digest.digest())
    content = _encode(header) + b"".join(sorted(digests))
    return hashlib.sha256(content).hexdigest()


def _label_fields(track: TrackRecord, tables: Tables, video: int) -> dict[str, Any]:
    """The values of a track that a batch may hold besides its rows. `video`: its video's number."""
    intrinsics = track.intrinsics
    if intrinsics is not None:
        intrinsics = intrinsics.tolist()
    width = int(tables["video_width"][video])
    height = int(tables["video_height"][video])
    return {
        "video": track.video,
        "step": track.step,
        "fps": track.fps,
        "crop_scale": track.crop_scale,
        "gender": track.gender,
        "intrinsics": intrinsics,
        "image_size": [width, height],
        "extra": {name: values.tolist() for name, values in track.extra.items()},
    }


def _encode(value: dict[str, Any]) -> bytes:
    """Encode as JSON with sorted keys. NaN is allowed; a float is the shortest text that reads back
    as the same number.
    """
    return json.dumps(value, sort_keys=True).encode()


def digest_rows(split: Split, array: str, ranges: Ranges) -> bytes:
    """SHA-256 of the bytes of an array's rows in these ranges."""
    digest = hashlib.sha256()
    for start, stop in ranges.tolist():
        for begin in range(start, stop, _ROWS_AT_ONCE):
            end = min(begin + _ROWS_AT_ONCE, stop)
            rows = split.rows(array, begin, end)
            digest.update(rows.data)
    return digest.digest()
