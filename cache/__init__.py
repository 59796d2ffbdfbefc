"""The feature cache: plain Zarr v3 on disk, atomic commits, windows at memory speed.

raw -> tracks -> features -> windows -> training: the pipeline writes it, the models read it, and it knows neither.
"""

from cache.checked import interrupted
from cache.compaction import Compaction, compact
from cache.discarding import discard, forget
from cache.errors import CacheChanged, CacheError, MissingSplit
from cache.findings import Damage, Report
from cache.fingerprint import fingerprint
from cache.layout import COLUMNS, ROWS_PER_CHUNK, ROWS_PER_SHARD
from cache.left_overs import Collected, gc
from cache.reader import FeatureCache, Split, open  # noqa: A004  it reads as cache.open
from cache.records import TrackRecord, TrackRows, VideoEntry
from cache.repair import Repaired, put_aside, repair
from cache.stores import Root, place_of, store_at
from cache.stream_shards import Staged, StreamShards
from cache.streams import StreamWriter
from cache.verify import verify
from cache.writer import SplitWriter

__all__ = [
    "COLUMNS",
    "ROWS_PER_CHUNK",
    "ROWS_PER_SHARD",
    "CacheChanged",
    "CacheError",
    "Collected",
    "Compaction",
    "Damage",
    "FeatureCache",
    "MissingSplit",
    "Repaired",
    "Report",
    "Root",
    "Split",
    "SplitWriter",
    "Staged",
    "StreamShards",
    "StreamWriter",
    "TrackRecord",
    "TrackRows",
    "VideoEntry",
    "compact",
    "discard",
    "fingerprint",
    "forget",
    "gc",
    "interrupted",
    "open",
    "place_of",
    "put_aside",
    "repair",
    "store_at",
    "verify",
]
