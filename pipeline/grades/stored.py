"""Numbers of grades that are stored: `measures.npz` beside a split's manifest.  [tracks]

The file follows from commits of the split, and of the stream whose joints are graded. No manifest
names it: numbers that it lacks are computed from rows. Its arrays, for N tracks and M measures:

    about       JSON: `commits`, their digests; `form`, the numbers' version and the measures' names
    track_key   (N, 2) uint64: a hash of all that decides a track's rows; 0 if it has no numbers
    numbers     (N, M) float64; NaN if one is unknown

By its key, a track that later commits leave as it is keeps its numbers. Behind the arrays, which
`np.load` reads, are the 4 bytes of a checksum.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from cache.format import layout
from cache.format.shard import crc32c
from cache.format.tables import Tables
from cache.storage.base import Store
from pipeline.grades import BLAZE_JOINTS
from pipeline.grades.words import ALWAYS_KNOWN, MEASURES, NUMBERS_VERSION
from pipeline.people.skeletons import Array, Bools, Doubles, Ints

_NONE: Final = {"": "", BLAZE_JOINTS: ""}  # in place of digests: the file is outdated
_FORM: Final = [NUMBERS_VERSION, *MEASURES]
# what a file from anywhere may raise
_DAMAGED: Final = (
    LookupError,
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    PermissionError,
)


class _File(NamedTuple):
    """The content of the file."""

    # "" -> digest of the split's manifest, the stream -> that of its own; "" if there was none
    commits: Mapping[str, str]
    keys: Array
    numbers: Doubles

    @classmethod
    def read(cls, store: Store, split: str) -> _File | None:
        """Read the file of a split; None if it is missing, damaged, or of another form."""
        key = f"{split}/{layout.MEASURES}"
        try:
            data = store.read_many([key])[key]
            arrays = Tables.decode(data)
            about = json.loads(arrays["about"].tobytes())
            commits = dict(about["commits"])
            keys = np.asarray(arrays["track_key"], "<u8").reshape(-1, 2)
            numbers = np.asarray(arrays["numbers"], "<f8").reshape(len(keys), len(MEASURES))
            has_form = about["form"] == _FORM
        except _DAMAGED:
            return None
        is_intact = crc32c(data[:-4]) == data[-4:].tobytes()
        if not (has_form and is_intact):
            return None
        return cls(commits, keys, numbers)

    def write(self, store: Store, split: str) -> None:
        """Write or replace the file of a split."""
        about = layout.canonical({"commits": self.commits, "form": _FORM})
        arrays = Tables(about=np.frombuffer(about, np.uint8))
        arrays["track_key"] = self.keys
        arrays["numbers"] = self.numbers
        data = arrays.encode()
        store.put_small({f"{split}/{layout.MEASURES}": data + crc32c(data)}, split)


class StoredGrades:
    """The numbers of the grades of a split's N tracks, as far as they are stored.

    Attributes:
        numbers: (N, M), in the order of MEASURES; nan if unknown.
        is_known: (N,) whether the numbers of a track are stored, or were added here.
        is_current: whether the file follows from the newest commits. A track has no numbers there
            if they could not be computed.
    """

    def __init__(self, split: cache.Split) -> None:
        n_tracks = len(split.tracks)
        self.numbers = np.full((n_tracks, len(MEASURES)), np.nan)
        self.is_known = np.zeros(n_tracks, np.bool_)
        self.is_current = False
        self._split = split
        self._stream = _manifest_of_stream(split)
        self._commits = _commits(split, self._stream)
        file = _File.read(split.store, split.name)
        if file is None:
            return
        self.is_current = file.commits == self._commits and len(file.keys) == n_tracks
        if self.is_current:
            self.numbers = file.numbers
            self.is_known[:] = file.keys.any(axis=1)
            return
        in_file = self._find_tracks(file.keys)
        is_there = in_file >= 0
        in_file = in_file[is_there]
        self.is_known[is_there] = file.keys[in_file].any(axis=1)
        self.numbers[is_there] = file.numbers[in_file]

    def _find_tracks(self, keys: Array) -> Ints:
        """(N,) the number of each track among these keys; -1 if it is not there."""
        numbers = {bytes(key): number for number, key in enumerate(keys)}
        return np.array([numbers.get(bytes(key), -1) for key in self._keys], np.int64)

    @functools.cached_property
    def _keys(self) -> Array:
        """(N, 2). A row keeps its number as long as it is committed."""
        size = self._split.rows_per_shard
        describe = functools.cache(self._describe_shard)
        digests = []
        for start, stop in self._split.tables.track_rows.tolist():
            shards = range(start // size, (stop - 1) // size + 1)
            text = " ".join([f"{start} {stop}", *map(describe, shards)])
            digest = hashlib.blake2b(text.encode(), digest_size=16)
            digests.append(digest.digest())
        return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)

    def _describe_shard(self, shard: int) -> str:
        """The records of a shard: of all columns, and of the stream if it has that shard."""
        number = str(shard)
        records = [self._split.commit.rows_record(shard)]
        if number in self._stream["rows"]:
            records.append(self._stream["rows"][number])
            records += [of_array[number] for of_array in self._stream["shards"].values()]
        return " ".join(records)

    def write(self, *, is_complete: bool) -> None:
        """Write the numbers that are known. The caller holds the lock of the split's writer.

        is_complete: False: others are still computed, and until then the file is outdated.
        """
        keys = np.where(self.is_known[:, None], self._keys, np.uint64(0))
        commits = self._commits if is_complete else _NONE
        _File(commits, keys, self.numbers).write(self._split.store, self._split.name)


def are_outdated(split: cache.Split) -> bool:
    """Whether the file is of an earlier commit, as after a run that was killed. A stream that
    cannot be read, as on a disk that is not mounted, has no newer commit.
    """
    file = _File.read(split.store, split.name)
    commits = _commits(split, _manifest_of_stream(split))
    readable = {name: digest for name, digest in commits.items() if digest}
    return file is not None and file.commits != {**file.commits, **readable}


def _commits(split: cache.Split, stream: Mapping[str, Any]) -> dict[str, str]:
    """As in the file of this split, whose stream has this manifest."""
    return {"": split.commit.digest, BLAZE_JOINTS: stream["digest"]}


def _manifest_of_stream(split: cache.Split) -> Mapping[str, Any]:
    """The manifest of the stream whose joints are graded; an empty one if it cannot be read."""
    with suppress(cache.CacheError):
        if BLAZE_JOINTS in split.streams:
            return split.open_stream(BLAZE_JOINTS).manifest
    return {"digest": "", "rows": {}}


def announce(root: cache.Root, split: str) -> None:
    """Write an outdated file without numbers, if there is none. One without a commit is of another
    split of that name.
    """
    store = cache.store_at(root)
    is_committed = store.exists(f"{split}/{layout.MANIFEST}")
    if not is_committed or _File.read(store, split) is None:
        no_keys = np.empty((0, 2), "<u8")
        no_numbers = np.empty((0, len(MEASURES)))
        _File(_NONE, no_keys, no_numbers).write(store, split)


def count_words(numbers: Doubles) -> dict[str, int]:
    """How many tracks are good, doubtful, bad and unknown, by today's limits.

    numbers: (N, M), in the order of MEASURES; nan if unknown.
    """
    judged = _judge(numbers)
    words = np.select(
        [judged.is_unknown, judged.n_bad > 0, judged.n_doubtful > 0],
        ["unknown", "bad", "doubtful"],
        "good",
    )
    counts = Counter(words.tolist())
    return {word: counts[word] for word in ("good", "doubtful", "bad", "unknown")}


def worst_first(numbers: Doubles) -> Ints:
    """Tracks (N,) in the order of their words, and then of how many numbers are beyond a limit;
    those without a word are last. numbers: as of `count_words`.
    """
    judged = _judge(numbers)
    keys = (-judged.n_doubtful, judged.n_bad == 0, judged.is_unknown)
    return np.lexsort(keys)


class _Judged(NamedTuple):
    """Numbers of N tracks against today's limits."""

    is_unknown: Bools  # (N,) has no word
    n_bad: Ints  # (N,) numbers beyond the limit of bad tracks
    n_doubtful: Ints  # (N,) numbers beyond a limit


def _judge(numbers: Doubles) -> _Judged:
    columns = dict(zip(MEASURES, numbers.T, strict=True))
    n_bad = np.zeros(len(numbers), np.int64)
    n_doubtful = n_bad.copy()
    for name, measure in MEASURES.items():
        is_bad = measure.is_worse(columns[name], measure.bad)
        n_bad += is_bad
        n_doubtful += is_bad | measure.is_worse(columns[name], measure.doubtful)
    is_unknown = np.logical_and.reduce([np.isnan(columns[name]) for name in ALWAYS_KNOWN])
    return _Judged(is_unknown, n_bad, n_doubtful)
