"""Names, columns and Zarr metadata of the cache, as docs/cache-format.md describes them.
[cache]

A column is a Zarr array with one entry per row of a split; a row is one person in one frame. Its
rows are cut into shards (one file each) and chunks (one checksum each). A table is a smaller array
about tracks, runs or videos; all tables of a split are in one file.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self

import numpy as np

from cache.arrays import Array
from cache.errors import CacheError

FORMAT: Final = "vibe-cache 3"
# A shard is one file, and the unit of work, recovery and checking. With 2048 float16 features it
# has 32 MiB.
ROWS_PER_SHARD: Final = 8192
ROWS_PER_CHUNK: Final = 64  # one checksum covers a chunk
_LARGEST_SHARD: Final = 1 << 24  # most rows of a shard
LARGEST_ROW: Final = 1 << 24  # most numbers of a row in one column
FEATURE_DTYPES: Final = ("float16", "float32")
# A stream stores a key of two 64-bit words per row, hashed from what the features were computed
# from. Both words have this value in rows without a track or still to be computed.
NO_KEY: Final = 2**64 - 1
# entry of a stream's manifest: the rows [start, stop) that are still to be computed, if any
PENDING_ROWS: Final = "pending_rows"
# A row's `ok` flag in a stream.
UNDECODABLE: Final = 0  # no value: the frame could not be decoded
COMPUTED: Final = 1
UNDEFINED: Final = 2  # a value that the stream defines, such as zeros, for rows without an input
HAS_VALUE: Final = (COMPUTED, UNDEFINED)
SKIPPED: Final = 255  # the fill value: the row was in no track when its shard was computed
GENDERS: Final = ("neutral", "male", "female")  # of a track; a batch holds the position in this
STREAM_ARRAYS: Final = ("", "_ok", "_key")  # suffixes of a stream's name

MANIFEST: Final = "manifest.json"
PROVENANCE: Final = "provenance.json"
MEASURES: Final = "measures.npz"  # numbers of each track, which its caller derives from commits
UNUSED: Final = "unused.json"  # of `gc`: since when it has found files that no manifest names
FEATURES: Final = "features"
WRITING: Final = ".writing"  # lock, temporary files and uncommitted work
STAGED: Final = "staged"  # in `.writing`: uncommitted work
SHARDS: Final = "c"  # folder of an array's shards
RUNNING: Final = "running-"  # prefix of files in `.writing` that running parts renew

NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"


# kind of a column's dtype (`np.dtype.kind`) -> kinds of arrays that may be written to it
_CONVERTIBLE: Final = {"f": "fiu", "i": "iu", "u": "bu"}
_FILLS: Final = {"f": math.nan, "i": -1, "u": 255}  # default fill value by kind of dtype


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a split or stream, and how it is stored."""

    name: str
    about: str  # its meaning, in one line
    unit: str = ""
    shape: tuple[int, ...] = ()  # of the value of one row or track
    dtype: Any = "float32"  # kept as a little-endian `np.dtype`; uint8 is for flags, 0 or 1
    # stands for a missing value, so no valid value may equal it; None: NaN for floats, -1 for
    # integers, 255 for flags
    fill: Any = None
    per: Literal["row", "track"] = "row"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype).newbyteorder("<"))
        if self.fill is None:
            object.__setattr__(self, "fill", _FILLS[self.dtype.kind])

    @property
    def row_bytes(self) -> int:
        return int(math.prod(self.shape) * self.dtype.itemsize)

    @property
    def description(self) -> str:
        """The column's meaning and unit, as its zarr.json has it."""
        return f"{self.about} [{self.unit}]" if self.unit else self.about

    @property
    def json_fill(self) -> float | int | str:
        """The fill value as JSON: "NaN" for NaN."""
        return "NaN" if math.isnan(self.fill) else self.fill

    def empty(self, n: int) -> Array:
        """A new array (n, *shape) of fill values."""
        return np.full((n, *self.shape), self.fill, self.dtype)

    def metadata(self, extent: int, geometry: Geometry) -> bytes:
        """The zarr.json of this column with `extent` rows. Chunks are not compressed; each chunk
        and the shard's index have a crc32c checksum.
        """
        configuration = {
            "chunk_shape": [geometry.rows_per_chunk, *self.shape],
            "codecs": [_bytes_codec(self.dtype), _CRC32C],
            "index_codecs": [_bytes_codec(np.dtype("<u8")), _CRC32C],
            "index_location": "end",
        }
        shard_shape = [geometry.rows_per_shard, *self.shape]
        return json_file(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": [extent, *self.shape],
                "data_type": self.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": self.json_fill,
                "codecs": [{"name": "sharding_indexed", "configuration": configuration}],
                "attributes": {"about": self.description},
            }
        )

    def problem(self, array: Any, n_rows: int) -> str:
        """Why an array cannot be this column's value for a track of `n_rows` rows; "" if it can.

        Floats may be rounded to the column's dtype; integers must fit exactly.
        """
        shape = (n_rows, *self.shape) if self.per == "row" else self.shape
        if not isinstance(array, np.ndarray | np.generic) or array.shape != shape:
            return f"is {getattr(array, 'shape', type(array).__name__)}, expected {shape}"
        if array.dtype.kind not in _CONVERTIBLE[self.dtype.kind]:
            return f"is {array.dtype}, expected {self.dtype}"
        if self.dtype.kind == "u" and np.greater(array, 1).any():
            return f"holds {int(array.max())}, expected 0 or 1"
        if self.dtype.kind == "i" and array.dtype != self.dtype and array.size:
            low = int(array.min())
            high = int(array.max())
            limits = np.iinfo(self.dtype)
            if low < limits.min or high > limits.max:
                return f"holds {low} to {high}, outside of the range of {self.dtype}"
        return ""


def _by_name(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


COLUMNS: Final[Mapping[str, Column]] = _by_name(
    Column("frame_index", "the video's own frame count, from 0", dtype="int64"),
    Column("bbox", "centre x, centre y, width, height: px of the full picture", shape=(4,)),
    Column("kp_2d", "x px, y px, confidence 0..1", shape=(49, 3)),
    Column("kp_2d_hands", "x px, y px, confidence 0..1; left, right", shape=(42, 3)),
    Column("kp_3d", "x m, y m, z m, confidence: camera axes, pelvis at 0", shape=(49, 4)),
    Column("kp_3d_eval", "x m, y m, z m: camera axes", shape=(14, 3)),
    Column("trans", "m", shape=(3,)),
    Column("pose", "SMPL axis-angle, rad, global orientation in the camera", shape=(72,)),
    Column("betas", "SMPL shape", shape=(10,)),
    Column("has_3d", "kp_3d is known in this row", dtype="uint8"),
    Column("has_smpl", "pose and betas are known in this row", dtype="uint8"),
    Column("valid", "evaluation may use this row", dtype="uint8"),
)


# tables that hold texts
TEXTS: Final = frozenset(
    {
        "track_name",
        "track_gender",
        "video_name",
        "video_source",
        "video_pixels",
        "video_fingerprint",
    }
)
# all other tables: name -> (dtype, shape of one entry)
TABLES: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "track_video": ("<i4", ()),  # number in the video table
    "track_start": ("<i8", ()),  # rows [start, stop) of the split
    "track_stop": ("<i8", ()),
    "track_step": ("<i4", ()),  # frames of the video from one row to the next
    "track_fps": ("<f8", ()),  # of the video's own frames; NaN where not known
    "track_crop_scale": ("<f8", ()),  # crop side / box side
    "track_intrinsics": ("<f8", (3, 3)),  # px; NaN where not known
    "run_start": ("<i8", ()),  # rows [start, stop) without a gap in the frame numbers
    "run_stop": ("<i8", ()),
    "video_width": ("<i4", ()),
    "video_height": ("<i4", ()),
    "video_account": ("u1", ()),  # the JSON of all accounts, one after the other
    "video_account_stop": ("<i8", ()),  # where each video's JSON ends in it
}
# A table for each of `VideoEntry.sums`, video_sum_<name>: "<f8", NaN where it is not recorded. The
# manifest's entry `sums` has their totals by name.
VIDEO_SUM: Final = "video_sum_"
SUMS: Final = "sums"


@dataclass(frozen=True)
class StreamForm:
    """The form of a stream's rows: `dim` numbers of a dtype, "float16" or "float32". Streams whose
    forms differ are different streams. Raises CacheError for a form that no stream has.
    """

    dim: int
    dtype: str = "float16"

    def __post_init__(self) -> None:
        is_count = type(self.dim) is int and 0 < self.dim <= LARGEST_ROW
        if not is_count or self.dtype not in FEATURE_DTYPES:
            expected = f"1 to {LARGEST_ROW:,} of {' or '.join(FEATURE_DTYPES)}"
            raise CacheError(f"a stream of {self}: expected {expected}")

    def __str__(self) -> str:
        return f"{self.dim} numbers of {self.dtype}"

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        return cls(manifest["dim"], manifest["dtype"])

    def as_json(self) -> dict[str, Any]:
        """The entries of the stream's manifest."""
        return asdict(self)

    def columns(self, stream: str) -> dict[str, Column]:
        """The three arrays of the stream by name: features, `ok` flags and keys."""
        about_ok = "1: features are there; 0: the picture was not readable"
        about_key = "what the features were computed from, hashed"
        return _by_name(
            Column(stream, "features", shape=(self.dim,), dtype=self.dtype),
            Column(f"{stream}_ok", about_ok, dtype="uint8"),
            Column(f"{stream}_key", about_key, shape=(2,), dtype="uint64", fill=NO_KEY),
        )


def stream_of(array: str) -> str:
    """The name of the stream that an array belongs to.

    >>> stream_of("resnet50_ok")
    'resnet50'
    """
    for part in STREAM_ARRAYS[1:]:
        if array.endswith(part):
            return array.removesuffix(part)
    return array


@dataclass(frozen=True, slots=True)
class Geometry:
    """How rows are cut into shards (files) and chunks (checksums)."""

    rows_per_shard: int = ROWS_PER_SHARD
    rows_per_chunk: int = ROWS_PER_CHUNK

    def __post_init__(self) -> None:
        is_possible = self.rows_per_chunk > 0 and 0 < self.rows_per_shard <= _LARGEST_SHARD
        if not is_possible or self.rows_per_shard % self.rows_per_chunk:
            raise CacheError(
                f"a shard of {self.rows_per_shard} rows cannot be cut into chunks of "
                f"{self.rows_per_chunk}: choose a positive multiple, up to {_LARGEST_SHARD:,}"
            )

    @property
    def chunks(self) -> int:
        return self.rows_per_shard // self.rows_per_chunk

    def shards(self, extent: int) -> int:
        """How many shards `extent` rows take; the last one may be partly filled.

        >>> Geometry(8, 4).shards(17)
        3
        """
        return -(-extent // self.rows_per_shard)


def check_names(split: str, stream: str | None = None) -> None:
    """Raise CacheError for names that leave the cache's folder or collide with its own files."""
    expected = "letters, digits and _ . + -"
    if not is_split_name(split):
        raise CacheError(f"{split!r} is no split's name: expected <dataset>/<split> of {expected}")
    if stream is not None and (not is_name(stream) or stream_of(stream) != stream):
        raise CacheError(
            f"{stream!r} is no stream's name: expected {expected}, not ending in _ok or _key"
        )


def is_name(name: str) -> bool:
    """Whether a dataset, split or stream may have this name."""
    return re.fullmatch(NAME, name) is not None and name != "lost+found"  # every ext4 disk has that


def is_split_name(name: str) -> bool:
    """Whether `name` has the form "<dataset>/<split>"."""
    parts = name.split("/")
    return len(parts) == 2 and all(is_name(part) for part in parts)


def shard_key(array: str, shard: int, trailing: tuple[int, ...]) -> str:
    """Zarr's default chunk key: c/<shard>/0/0, one number per dimension.

    >>> shard_key("kp_2d", 5, (49, 3))
    'kp_2d/c/5/0/0'
    """
    return f"{array}/c/{shard}" + "/0" * len(trailing)


_CRC32C: Final = {"name": "crc32c"}


def _bytes_codec(dtype: np.dtype[Any]) -> dict[str, Any]:
    codec: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        codec["configuration"] = {"endian": "little"}
    return codec


def json_file(value: Mapping[str, Any]) -> bytes:
    """Encode a JSON file of the cache: sorted, indented, newline at the end."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


# zarr.json of a group: the cache, a dataset, a split, its features
GROUP: Final = json_file({"zarr_format": 3, "node_type": "group", "attributes": {}})


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinity."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the canonical JSON of `parts`.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    True

    Raises TypeError for values that JSON cannot hold, ValueError for NaN and infinity.
    """
    return hashlib.sha256(canonical(dict(parts))).hexdigest()
