"""The feature cache: plain Zarr v3 on disk, atomic commits, windows at memory speed.

raw -> tracks -> features -> windows -> training: the pipeline writes it, the models read it, and it knows neither.
"""

from cache.crop_policy import CropPolicy, Jitter
from cache.errors import CacheChanged, CacheError, MissingSplit
from cache.fingerprint import fingerprint
from cache.format.extra import ExtraColumn, Mirror, find_mirrors_by
from cache.format.layout import COLUMNS, COMPUTED, GENDERS, ROWS_PER_CHUNK, ROWS_PER_SHARD, UNDECODABLE, UNDEFINED
from cache.format.records import TrackRecord, TrackRows, VideoEntry
from cache.read.split import FeatureCache, Split, open  # noqa: A004  it reads as cache.open
from cache.storage import place_of, store_at
from cache.storage.base import Root
from cache.verification.repair import Repaired, repair
from cache.verification.verify import Damage, VerifyReport, verify
from cache.write.base import delete_stream, invalidate
from cache.write.copy import Copied, copy_split
from cache.write.gc import Collected, gc
from cache.write.split_writer import SplitWriter, check_track
from cache.write.stream_shards import Staged, StreamShards
from cache.write.stream_writer import StreamWriter

__all__ = [
    "COLUMNS",
    "COMPUTED",
    "GENDERS",
    "ROWS_PER_CHUNK",
    "ROWS_PER_SHARD",
    "UNDECODABLE",
    "UNDEFINED",
    "CacheChanged",
    "CacheError",
    "Collected",
    "Copied",
    "CropPolicy",
    "Damage",
    "ExtraColumn",
    "FeatureCache",
    "Jitter",
    "Mirror",
    "MissingSplit",
    "Repaired",
    "Root",
    "Split",
    "SplitWriter",
    "Staged",
    "StreamShards",
    "StreamWriter",
    "TrackRecord",
    "TrackRows",
    "VerifyReport",
    "VideoEntry",
    "check_track",
    "copy_split",
    "delete_stream",
    "find_mirrors_by",
    "fingerprint",
    "gc",
    "invalidate",
    "open",
    "place_of",
    "repair",
    "store_at",
    "verify",
]
