"""Windows as tar files for webdataset: crops and labels.  tracks, pixels -> [shards of training samples]

A sample is a window: an image file per crop, an array file per label, and a JSON file that describes it. A video's
frames are decoded once, in order; a crop is kept in memory until the last window that contains it is written.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as validated

import cache
from cache import CropPolicy
from cache.read.labels import EVAL_JOINTS, FIELDS
from cache.windows import windows_of
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.crops import CROP_SIZE
from pipeline.errors import PipelineError
from pipeline.features.pixel_sources import Pixels, column, cuts, pixels
from pipeline.files.pixels.frames import Image
from vibe_extensions.exchange.formats import Exported, new_folder
from vibe_extensions.exchange.rows import origin_of

Rows = NDArray[np.int64]
CropsOf = Callable[[int, Rows], Iterator[tuple[int, bytes | None]]]  # video, its rows -> (row, encoded crop)

BLOCK: Final = 1024  # rows per read of boxes
UNDECODABLE: Final = "a frame that cannot be decoded"


@validated(frozen=True, config={"extra": "forbid"})
class WindowOptions:
    """Options of `export --format webdataset`, set by `--set NAME=VALUE`."""

    seqlen: PositiveInt = 16  # frames per window
    stride: PositiveInt = 16  # frames between the starts of two windows
    shard_mb: PositiveInt = 1000  # 10^6 bytes after which a new shard starts
    encoding: Literal["jpg", "png"] = "jpg"  # of crops
    quality: Annotated[int, Field(ge=1, le=100)] = 95  # of JPEG
    raw: Path | None = None  # the raw folder; None: as recorded at conversion


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    stream: str = "",
    replace: bool = False,
    progress: Progress = silent,
    options: WindowOptions = WindowOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write the windows of the split `name` in the cache `root` into the folder `out`, with provenance.json.

    Raises:
        cache.CacheError: the split is missing.
        PipelineError: the split has no images or no window; the raw folder is missing; `stream` is given (no features
            are written); `out` is not new or empty and `replace` is False.
    """
    if stream:
        raise PipelineError(f"--stream {stream}: this format has no features. Omit --stream.")
    split = cache.open(root)[name]
    if "bbox" not in split.columns:
        raise PipelineError(f"{name}: has no images, so no crops. Export its labels with --format parquet.")
    source = pixels(split, options.raw, require=np.flatnonzero(split.rows_by_shard()).tolist())
    windows = windows_of(split.runs_with([]), seqlen=options.seqlen, stride=options.stride)
    if not len(windows):
        longest = np.diff(split.runs).max(initial=0)
        raise PipelineError(f"{name}: no window of {options.seqlen} frames; the longest run has {longest}")
    crops_of = functools.partial(_cut, split, source, options)
    origin = origin_of(split) | {key: getattr(options, key) for key in ("seqlen", "stride", "encoding", "quality")}
    stand_in = origin["stand_in"]
    prefix = name.replace("/", "-").replace(".", "_")  # a key ends at its first dot
    counts = Counter[str]()  # windows, rows, undecodable rows
    n_rows = int((split.tracks.stop - split.tracks.start).sum())
    with new_folder(out, replace=replace) as (folder, provenance):
        write = _Shards(folder, prefix, options.shard_mb * 10**6)
        with contextlib.closing(write):
            for window, crops in _complete(split, windows, options.stride, crops_of, counts):
                write.add(f"{prefix}-{window[0]:010d}", _files(split, window, crops, options, stand_in))
                progress(counts["rows"], n_rows)
        if not write.number:
            raise PipelineError(f"{name}: nothing to export: each of {count(len(windows), 'window')} has {UNDECODABLE}")
        provenance |= {"format": "webdataset", **origin, "samples": counts["windows"], "rows": counts["rows"]}
    n_lost = counts["undecodable"]
    left_out = {UNDECODABLE: n_lost, f"no full window of {options.seqlen}": n_rows - n_lost - counts["rows"]}
    summary = f"{count(counts['windows'], 'window')} of {options.seqlen} frames in {count(write.number, 'shard')}"
    return Exported(out, counts["rows"], summary, {}, {what: n for what, n in left_out.items() if n}, stand_in)


def _cut(
    split: cache.Split, source: Callable[[int], Pixels], options: WindowOptions, video: int, rows: Rows
) -> Iterator[tuple[int, bytes | None]]:
    """Yield (row, encoded crop) of a video, frame by frame; None if the frame cannot be decoded."""
    place, frame = source(video), column(split.rows, "frame_index", rows)
    place.check()
    order = np.lexsort((rows, frame))
    rows, frame = rows[order], frame[order]

    def cut_rows() -> Iterator[tuple[int, int, Any]]:
        for first in range(0, len(rows), BLOCK):
            block = slice(first, first + BLOCK)
            boxes = cuts(split, CropPolicy(), rows[block])
            yield from zip(frame[block].tolist(), rows[block].tolist(), boxes, strict=True)

    by_frame = itertools.groupby(cut_rows(), key=lambda row: row[0])
    decoded = place.decode(iter(np.unique(frame).tolist()))
    for decoded_frame, (_, persons) in zip(decoded, by_frame, strict=True):
        for _, row, box in persons:
            is_decoded = decoded_frame.image is not None
            yield row, _encode(place.crop(decoded_frame, box, CROP_SIZE), options) if is_decoded else None


def _encode(crop: Image, options: WindowOptions) -> bytes:
    """Encode a crop; JPEG at full colour resolution (4:4:4)."""
    bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    if options.encoding == "png":
        return cv2.imencode(".png", bgr)[1].tobytes()
    flags = [cv2.IMWRITE_JPEG_QUALITY, options.quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", bgr, flags)[1].tobytes()


# ------------------------------------------------------------------------------------------------------- samples


def _complete(
    split: cache.Split, windows: Rows, stride: int, crops_of: CropsOf, counts: Counter[str]
) -> Iterator[tuple[Rows, list[bytes]]]:
    """Yield complete windows with their crops, video by video, in the order of their last frames."""
    video = split.tracks.video[split.track_of(windows[:, 0])]
    first = np.flatnonzero(np.diff(video, prepend=-1))
    for video_number, video_windows in zip(video[first].tolist(), np.split(windows, first[1:]), strict=True):
        by_last = {int(window[1]) - 1: window for window in video_windows}
        starts, held, exported = {*video_windows[:, 0].tolist()}, dict[int, bytes | None](), list[int]()
        rows = np.unique(video_windows[:, :1] + np.arange(video_windows[0, 1] - video_windows[0, 0]))
        for row, data in crops_of(video_number, rows):
            held[row] = data
            counts["undecodable"] += data is None
            if (window := by_last.get(row)) is None:
                continue
            start, stop = window.tolist()
            crops = [crop for number in range(start, stop) if (crop := held[number]) is not None]
            if len(crops) == stop - start:
                exported.append(start)
                counts["windows"] += 1
                yield window, crops
            for number in range(start, min(start + stride, stop) if start + stride in starts else stop):
                del held[number]
        steps = np.diff(np.sort(exported), append=np.iinfo(np.int64).max)
        counts["rows"] += int(np.minimum(steps, video_windows[0, 1] - video_windows[0, 0]).sum())


def _files(
    split: cache.Split, window: Rows, crops: Sequence[bytes], options: WindowOptions, stand_in: bool
) -> dict[str, bytes]:
    """The files of a sample by extension: its JSON description, a crop for each frame, an array for each label."""
    track = split.tracks[int(split.track_of(window[:1])[0])]
    own = [name for name, column in split.extra.items() if column.per == "row"]
    fields = ["frame_index", *FIELDS, *({EVAL_JOINTS} & {*split.columns}), "bbox", *own]
    batch = split.read(window[None], stream=None, fields=fields)
    labels = {name: values[0] for name, values in batch.items()}
    about = {
        "split": split.name,
        "track": track.name,
        "video": track.video,
        "rows": window.tolist(),
        "frames": labels.pop("frame_index").tolist(),
        "step": track.step,
        "crop_scale": track.crop_scale,
        "fps": None if np.isnan(track.fps) else track.fps,
        "gender": track.gender,
        "stand_in": stand_in,
        "intrinsics": None if track.intrinsics is None else track.intrinsics.tolist(),
    }
    files = {"json": json.dumps(about, ensure_ascii=False).encode()}
    files |= {f"{number:03d}.{options.encoding}": crop for number, crop in enumerate(crops)}
    for name, values in labels.items():
        array = io.BytesIO()
        np.save(array, values)
        files[f"{name}.npy"] = array.getvalue()
    return files


class _Shards:
    """Writes reproducible tar files of about `limit` bytes in `folder`: `<prefix>-000000.tar`, ..."""

    def __init__(self, folder: Path, prefix: str, limit: int) -> None:
        self._folder, self._prefix, self._limit = folder, prefix, limit
        self._tar: tarfile.TarFile | None = None
        self.number = 0

    def add(self, key: str, files: Mapping[str, bytes]) -> None:
        """Add a sample; all its files go to one shard."""
        if self._tar is None or self._tar.offset >= self._limit:
            self.close()
            self._tar = tarfile.open(self._folder / f"{self._prefix}-{self.number:06d}.tar", "w")  # noqa: SIM115
            self.number += 1
        for extension, data in files.items():
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        self._tar.getmembers().clear()  # frees memory

    def close(self) -> None:
        """End the last shard."""
        if self._tar is not None:
            self._tar.close()
