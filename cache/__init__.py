"""The feature cache: plain Zarr v3 on disk, atomic commits, windows at memory speed.

This package is the public interface: import names from here, not from the modules below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cache.crop_policy import CropPolicy, Jitter
from cache.errors import AccessDenied, Busy, CacheChanged, CacheError, ForeignStream, MissingSplit
from cache.format.extra import ExtraColumn, Mirror, find_mirrors_by
from cache.format.layout import (
    COLUMNS,
    COMPUTED,
    GENDERS,
    ROWS_PER_CHUNK,
    ROWS_PER_SHARD,
    UNDECODABLE,
    UNDEFINED,
    StreamForm,
    fingerprint,
)
from cache.format.records import TrackRows, VideoEntry, check_track
from cache.format.track_tables import TrackRecord
from cache.read.batches import mirror
from cache.read.open_split import DEFAULT_STREAM, DefaultStream
from cache.read.split import FeatureCache, Split, open  # noqa: A004  it reads as cache.open
from cache.storage import local_folder, store_at
from cache.storage.base import Root

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, DTypeLike

    from cache.mixture import MixturePart
    from cache.mixture_loader import TorchMixture, torch_mixture
    from cache.read.digest import content_digest
    from cache.read.torch_windows import TorchWindows
    from cache.repairs import Repaired, repair
    from cache.verification import Damage, VerifyReport, verify
    from cache.windows import Tail
    from cache.write.base import finish_commits
    from cache.write.copy import Copied, copy_split
    from cache.write.erase import Erasure, erase_rows
    from cache.write.gc import Collected, gc
    from cache.write.next_commit import NextCommit, SplitState
    from cache.write.removal import delete_stream, invalidate
    from cache.write.split_writer import SplitWriter
    from cache.write.stream_shards import StreamShards
    from cache.write.stream_writer import StreamWriter
    from cache.write.tags import delete_tag, tag

# reading
__all__ = ["FeatureCache", "Root", "Split", "local_folder", "open", "store_at"]
__all__ += ["MixturePart", "TorchMixture", "mirror", "torch_mixture", "torch_windows"]
# records
__all__ += ["CropPolicy", "Jitter", "TrackRecord", "TrackRows", "VideoEntry"]
# a dataset's own columns
__all__ += ["ExtraColumn", "Mirror", "find_mirrors_by"]
# writing
__all__ += ["NextCommit", "SplitState", "SplitWriter"]
__all__ += ["StreamForm", "StreamShards", "StreamWriter"]
__all__ += ["check_track", "fingerprint"]
# copies and removal
__all__ += ["Copied", "copy_split"]
__all__ += ["Collected", "delete_stream", "finish_commits", "gc", "invalidate"]
__all__ += ["Erasure", "erase_rows"]
# states that have a name
__all__ += ["delete_tag", "tag"]
# checks of what is stored
__all__ += ["Damage", "Repaired", "VerifyReport", "content_digest", "repair", "verify"]
# format
__all__ += ["COLUMNS", "GENDERS", "ROWS_PER_CHUNK", "ROWS_PER_SHARD"]
__all__ += ["COMPUTED", "UNDECODABLE", "UNDEFINED"]
# errors
__all__ += ["AccessDenied", "Busy", "CacheChanged", "CacheError", "ForeignStream", "MissingSplit"]

# module -> its names: what writes, checks and removes is imported when it is first used
_HOMES: Final = {
    "mixture": "MixturePart",
    "mixture_loader": "TorchMixture torch_mixture",
    "read.digest": "content_digest",
    "repairs": "Repaired repair",
    "verification": "Damage VerifyReport verify",
    "write.base": "finish_commits",
    "write.copy": "Copied copy_split",
    "write.erase": "Erasure erase_rows",
    "write.gc": "Collected gc",
    "write.next_commit": "NextCommit SplitState",
    "write.removal": "delete_stream invalidate",
    "write.split_writer": "SplitWriter",
    "write.stream_shards": "StreamShards",
    "write.stream_writer": "StreamWriter",
    "write.tags": "delete_tag tag",
}
if not TYPE_CHECKING:  # type checkers know all names

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names.split():
                return getattr(import_module(f"cache.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


def torch_windows(
    splits: Split | Sequence[Split],
    seqlen: int | None = None,
    stride: int | None = None,
    stream: str | DefaultStream | None = DEFAULT_STREAM,
    fields: Sequence[str] | None = None,
    dtype: DTypeLike | torch.dtype = "float32",
    *,
    streams: Sequence[str] | None = None,
    history: Mapping[str, int] | None = None,
    tail: Tail = "drop",
    windows: ArrayLike | Sequence[ArrayLike] | None = None,
    seconds: float | None = None,
    rate: float | None = None,
) -> TorchWindows:
    """Make a map-style dataset for PyTorch's DataLoader from the windows of one or several splits.

    An item is a dict of tensors: what `Split.read` returns for one window of `Split.windows`, such
    as `features` (T, dim) and `kp_2d` (T, 49, 3). The windows of a batch are read together.
    DataLoader's default `collate_fn` and any number of workers work, also after later commits. For
    a cache in an object store, start workers by spawn or forkserver.

    Args:
        splits: of several, the windows follow one another in this order. With the field `rows`,
            items then also have `split`, the number of their split.
        dtype: of features, also torch.float16, bfloat16, float32 or float64.
        windows: the windows (W, 2) or (W, T) to take, in place of those of `Split.windows`; of
            several splits a sequence with those of each.

    Warns of rows without features that a stream will have, and of splits with different rates.
    Raises TypeError for another thing than splits; ValueError for splits whose items differ, such
    as `kp_3d` with 49 joints and 14 in evaluation splits; the errors of `Split.windows` and
    `Split.read`.
    """
    from cache.read.torch_windows import TorchWindows, tell_lag, tell_rates

    opened: Any = splits
    given: Any = windows
    if isinstance(splits, Split):
        opened = [splits]
        given = [windows]
    if not isinstance(opened, Sequence) or {*map(type, opened)} != {Split}:
        raise TypeError(
            "expected a split, such as cache.open(root)['3dpw/train'], or a list of splits, found "
            f"{splits!r}"
        )
    if windows is None:
        how: Any = {"streams": streams, "seconds": seconds, "rate": rate}
        given = [split.windows(seqlen, stride, stream, tail, **how) for split in opened]
    if len(given) != len(opened):
        raise ValueError(f"windows: expected those of {len(opened)} splits, found {len(given)}")
    chosen = [np.asarray(array) for array in given]
    made = TorchWindows(
        opened, chosen, dtype, stream=stream, fields=fields, streams=streams, history=history
    )
    if windows is None:
        tell_lag(opened, made.streams)
    if chosen[0].shape[1] == 2:  # windows of rows are of one rate
        tell_rates(opened)
    return made
