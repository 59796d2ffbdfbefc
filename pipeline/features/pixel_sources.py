"""Where the crops of rows come from: the raw pictures, or a stream of crops.  [pixels] -> crops -> features"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from cache import Split
from pipeline.errors import PipelineError
from pipeline.features.engine.pieces import Frames, Pixels, StoredCrops, digests
from pipeline.features.missing_rows import pending
from pipeline.features.streams.base import BYTES
from pipeline.features.streams.crops import Crops
from pipeline.pixels import sources

SAY: Final = "Say where the dataset's own raw folder is: --raw DIR, or [paths] raw in luigi.cfg."


def pixels(split: Split, crops: str, raw: Path | None, *, require: Sequence[int] = ()) -> Callable[[int], Pixels]:
    """Number of a video -> where its crops come from: the raw pictures, or the stream of that name.

    `require`: shards of which every video's pictures must be there. An entry of somebody else's writing that does not
    name its pixels is taken as it is. Raises PipelineError when the raw folder or the stream of crops is not there, or
    lacks something.
    """
    if crops:
        lacks = pending(split, crops)
        if lacks.shards:
            raise PipelineError(
                f"{split.name}: the stream of crops {crops!r} lacks {lacks.rows} of the rows. Extract those "
                f"first: --stream {crops} --kind {Crops.kind}"
            )
        stored = StoredCrops(split.root, split.name, crops, digests(split, crops))
        return lambda _: stored
    folder = raw_folder(split, raw)
    _require_all(split, folder, require)

    def of_video(number: int) -> Pixels:
        entry = split.videos[number]
        return Frames(sources.parse(folder, entry.source), split.name, entry.name, entry.pixels)

    return of_video


def stored_crops(split: Split, name: str) -> Mapping[str, Any]:
    """The manifest of a stream of crops. Raises PipelineError where there is none of that name."""
    extract = f"Extract it first: --stream {name} --kind {Crops.kind}"
    if name not in split.streams:
        raise PipelineError(f"{split.name}: there is no stream of crops {name!r}. {extract}")
    found = split.stream_manifest(name)
    if found["dtype"] != BYTES or found.get("identity", {}).get("kind") != Crops.kind:
        raise PipelineError(f"{split.name}: the stream {name!r} holds no crops. {extract}")
    return found


def raw_folder(split: Split, given: Path | None) -> Path:
    """The dataset's raw folder: the given one, or where it lay at conversion. Raises PipelineError where it is not."""
    recorded = split.provenance.get("raw")
    if imported := split.manifest.get("reader", {}).get("imported"):
        unknown = not all(split.videos[number].source for number in np.unique(split.tracks.video).tolist())
        if unknown:
            raise PipelineError(
                f"{split.name}: was imported from {imported['file']}, which does not say where its pictures are. "
                "Convert the dataset into another cache to extract from it."
            )
        if given is None:
            raise PipelineError(f"{split.name}: was imported from {imported['file']}. {SAY}")
    if given is None and recorded is None:
        raise PipelineError(f"{split.name}: where its pictures are is not known, provenance.json is lost. {SAY}")
    raw = given or Path(str(recorded))
    if not raw.is_dir():
        was = f"its pictures were in {recorded} when it was converted" if given is None else f"--raw is {raw}"
        raise PipelineError(f"{split.name}: {was}, and that folder is not there now. {SAY}")
    return raw


def _require_all(split: Split, raw: Path, shards: Sequence[int]) -> None:
    """A wrong raw folder must not pass: every row of these shards would be marked as undecodable, for good."""
    wanted = np.append(np.sort(np.asarray(shards, np.int64)), np.iinfo(np.int64).max)
    size = int(split.manifest["geometry"]["rows_per_shard"])
    reached = wanted[np.searchsorted(wanted, split.tracks.start // size)] <= (split.tracks.stop - 1) // size
    entries = [split.videos[number] for number in np.unique(split.tracks.video[reached]).tolist()]
    absent = [entry for entry in entries if entry.source and not sources.parse(raw, entry.source).place.exists()]
    if absent:
        place = sources.parse(raw, absent[0].source).place
        raise PipelineError(
            f"{split.name}: the pictures of {len(absent)} of its {len(entries)} videos are not below {raw}, first "
            f"{absent[0].name}: there is no {place}. {SAY} If they were removed on purpose, convert again."
        )
