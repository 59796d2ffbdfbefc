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
from cache.format.tables import Tables, TrackRecord
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
    tracks = split.tracks
    if stream is None:
        arrays = sorted(split.columns)
        ranges = np.stack([tracks.start, tracks.stop], axis=1)
        extra = {name: column.stored_as for name, column in split.extra.items()}
        form = dict[str, Any](columns=arrays, extra=extra)
    else:
        arrays = [f"{FEATURES}/{stream}", f"{FEATURES}/{stream}_ok"]
        ranges = split.runs_with([stream])
        manifest = split.stream_manifest(stream)
        crop = (manifest.get("identity") or {}).get("crop")
        form = {"dim": manifest["dim"], "dtype": manifest["dtype"], "crop": crop}

    starts = ranges[:, 0]
    begins = np.searchsorted(starts, tracks.start)
    ends = np.searchsorted(starts, tracks.stop)
    digests = []
    for number, track in enumerate(tracks):
        with_rows = ranges[begins[number] : ends[number]]
        facts = {"name": track.name, "rows": (with_rows - track.start).tolist()}
        if stream is None:
            facts |= _facts_of(track, tracks.tables, tracks.video[number])
        of_track = hashlib.sha256(_encode(facts))
        for array in arrays:
            of_track.update(_digest_rows(split, array, with_rows))
        digests.append(of_track.digest())
    content = _encode(form) + b"".join(sorted(digests))
    return hashlib.sha256(content).hexdigest()


def _facts_of(track: TrackRecord, tables: Tables, video: int) -> dict[str, Any]:
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


def _digest_rows(split: Split, array: str, ranges: Ranges) -> bytes:
    """SHA-256 of the bytes of an array's rows in these ranges."""
    digest = hashlib.sha256()
    for start, stop in ranges.tolist():
        for begin in range(start, stop, _ROWS_AT_ONCE):
            end = min(begin + _ROWS_AT_ONCE, stop)
            rows = split.rows(array, begin, end)
            digest.update(rows.data)
    return digest.digest()
