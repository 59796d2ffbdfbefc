"""Inputs of a stream's rows: boxes, labels, their keys, and pixels.  [pixels] -> crops ->
features
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy, Split
from cache.arrays import Array, Bools, Ints, Keys
from cache.read.labels import mirror, normalise_keypoints
from pipeline import crops
from pipeline.accounting import NOT_NOW
from pipeline.conversion import committed
from pipeline.errors import PipelineError
from pipeline.features.streams.base import ROW_RATE, Labels, Reads, Stream
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Frame, FrameSource, Image
from pipeline.files.raw.files import MIB, is_there, list_names, open_regular
from pipeline.files.raw.opening import is_temporary
from pipeline.processes import alive

# name of a column, first row, last row + 1 -> stored values
RowsOf = Callable[[str, int, int], Array]

# A crop's box in an image: cxcywh px, its scale, and whether the crop is mirrored
CUT: Final = np.dtype([("bbox", np.float32, 4), ("scale", np.float64), ("mirrored", np.bool_)])
COMPARED: Final = 8  # rows whose stored keys are compared, or videos whose digests are
_NO_BYTES: Final = itertools.repeat(hashlib.blake2b(digest_size=16))
RAW: Final = "Name the dataset's raw folder: --raw DIR, or [paths] raw in luigi.cfg."


def crop_labels(labels: Labels, cut: np.void) -> Labels:
    """A row's labels in the crop: `kp_2d` in [-1, 1] across it, mirrored with it. cut: of `CUT`."""
    if "kp_2d" not in labels:
        return labels
    kp_2d = labels["kp_2d"]
    placed = np.zeros_like(kp_2d)[None, None]
    normalise_keypoints(kp_2d[None, None], cut["bbox"][None, None], cut["scale"][None], placed)
    shown = placed[0]
    if cut["mirrored"]:
        shown = mirror("kp_2d", shown)
    return {**labels, "kp_2d": shown[0]}


def column(rows_of: RowsOf, name: str, rows: Ints) -> Array:
    """Stored values (n, ...) of a column at any rows. rows_of: `Split.rows`, or
    `OpenShards.rows`.
    """
    if not len(rows):
        return rows_of(name, 0, 0)
    if (np.diff(rows.ravel()) == 1).all():
        return rows_of(name, int(rows[0]), int(rows[-1]) + 1)
    different, inverse = np.unique(rows, return_inverse=True)
    gaps = np.flatnonzero(np.diff(different) != 1)
    runs = np.split(different, gaps + 1)
    values = [rows_of(name, int(run[0]), int(run[-1]) + 1) for run in runs]
    return np.concatenate(values)[inverse]


def label(split: Split, name: str, rows: Ints) -> Array:
    """Stored values (n, ...) of a column at any rows, or `ROW_RATE`."""
    if name != ROW_RATE:
        return column(split.rows, name, rows)
    track = split.track_of(rows)
    return np.asarray(split.tracks.fps[track] / split.tracks.step[track], np.float64)


def _fill_value(dtype: np.dtype[Any]) -> Any:
    """Fill value for missing rows: NaN, an extreme integer, or False."""
    match dtype.kind:
        case "f":
            return np.nan
        case "i":
            return np.iinfo(dtype).min
        case "u":
            return np.iinfo(dtype).max
    return False


def _windows_in_run(runs: Ints, rows: Ints, reads: Reads) -> tuple[Ints, Bools]:
    """(n, window) rows around each of (n,), and whether they are in its run. runs (R, 2): [start,
    stop).
    """
    around = rows[:, None] + np.arange(-reads.history, reads.future + 1)
    run = np.searchsorted(runs[:, :1].ravel(), rows, side="right") - 1
    start, stop = runs[run, :, None].swapaxes(0, 1)
    return around, (around >= start) & (around < stop)


def label_batch(split: Split, rows: Ints, reads: Reads) -> Labels:
    """Labels of (n,) rows that a stream reads, as a `LabelComputer` gets them."""
    if reads.window == 1:
        return {name: label(split, name, rows) for name in reads.labels}
    around, in_run = _windows_in_run(split.runs, rows, reads)
    labels: dict[str, Array] = {}
    for name in reads.labels:
        values = label(split, name, around[in_run])
        shape = (*around.shape, *values.shape[1:])
        labels[name] = np.full(shape, _fill_value(values.dtype), values.dtype)
        labels[name][in_run] = values
    labels["in_run"] = in_run
    return labels


def cuts(
    split: Split, policy: CropPolicy, rows: Ints, rows_of: RowsOf | None = None
) -> NDArray[np.void]:
    """Boxes of the crops of (n,) rows, of `CUT`. rows_of: as for `column`."""
    rows_of = rows_of or split.rows
    track, which = np.unique(split.track_of(rows), return_inverse=True)
    bbox = column(rows_of, "bbox", rows)
    boxes = np.zeros(len(rows), CUT)
    boxes["bbox"] = bbox
    boxes["scale"] = split.tracks.crop_scale[track][which]
    if not policy.follows_box:
        frame = column(rows_of, "frame_index", rows)
        names = (split.tracks[number].name for number in track.tolist())
        seeds = policy.seeds(names)[which]
        boxes["bbox"], boxes["mirrored"] = policy.boxes(bbox, boxes["scale"], seeds, frame)
    return boxes


def has_previous(split: Split, rows: Ints) -> Bools:
    """(n,) rows of tracks -> whether the row before is in the same run: one step before in the same
    track.
    """
    _, in_run = _windows_in_run(split.runs, rows, Reads(history=1))
    return in_run[:, 0]


def row_keys(split: Split, stream: Stream, rows: Ints) -> Keys:
    """Keys (n, 2) of ascending rows of tracks: 128 bits that change with any input.

    They are part of the cache's format: if they change, all features are computed again.
    """
    reads = stream.reads
    if not reads.crops:
        return _label_keys(split, rows, reads)

    frame = label(split, "frame_index", rows)
    boxes = cuts(split, stream.policy, rows)
    parts = [frame, boxes["bbox"], boxes["scale"]]
    if not stream.policy.follows_box:
        parts.append(boxes["mirrored"])
    if reads.crops > 1:
        previous = np.full(len(rows), -1)
        compared = has_previous(split, rows)
        previous[compared] = column(split.rows, "frame_index", rows[compared] - 1)
        parts.append(previous)
    parts += [label(split, name, rows) for name in reads.labels]

    begun = dict[int, Any]()
    videos = split.tracks.video[split.track_of(rows)].tolist()
    for number in set(videos):
        begun[number] = hashlib.blake2b(split.videos[number].pixels.encode(), digest_size=16)
    return _digests(parts, map(begun.__getitem__, videos))


def has_current_keys(split: Split, name: str, stream: Stream) -> bool:
    """Whether a stream's stored keys equal `row_keys`, for the first rows of a few tracks."""
    start = split.tracks.start
    size = split.rows_per_shard
    has_features = np.isin(start // size, split.stream_shards(name))
    rows = start[has_features][:COMPARED]
    stored = column(split.rows, f"features/{name}_key", rows)
    return np.array_equal(stored, row_keys(split, stream, rows))


def _label_keys(split: Split, rows: Ints, reads: Reads) -> Keys:
    """Keys (n, 2) of (n,) rows: 128 bits that change with any label of the row's window."""
    if reads.window == 1 or not len(rows):
        return _digests([label(split, name, rows) for name in reads.labels])
    around, in_run = _windows_in_run(split.runs, rows, reads)
    read, of_window = np.unique(around[in_run], return_inverse=True)
    digests = _digests([label(split, name, read) for name in reads.labels])
    # of digests, which need less memory than labels
    windows = np.zeros((*around.shape, 2), np.uint64)
    windows[in_run] = digests[of_window]
    return _digests([windows])


def _digests(columns: Sequence[Array], begun: Iterable[Any] = _NO_BYTES) -> Keys:
    """Columns (n, ...) -> digests (n, 2). begun: digest of each row that its bytes are added to."""
    keys = []
    for digest, row in zip(begun, _bytes(columns), strict=False):
        digest = digest.copy()
        digest.update(row)
        keys.append(digest.digest())
    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)


def _bytes(columns: Sequence[Array]) -> list[bytes]:
    """All bytes of each row of columns (n, ...)."""
    parts = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in columns]
    joined = np.concatenate(parts, axis=1)
    if not len(joined):
        return []
    return joined.view(f"V{joined.shape[1]}").ravel().tolist()


class Pixels(NamedTuple):
    """Images or a video below the raw folder. Picklable."""

    source: FrameSource
    split: str
    name: str  # of the video, for messages
    digest: str = ""  # of the pixels at conversion; "": unknown

    @property
    def in_order(self) -> bool:
        """Whether a frame can only be decoded after the ones before."""
        return not self.source.random_access

    def check(self) -> None:
        """Raise VideoLost if the pixels have changed since the conversion, or cannot be read."""
        if self.digest and self.source.digest() != sources.file_part(self.digest):
            self._require_readable()
            raise VideoLost(
                f"{self.source.place} has other images than those that were converted. If they "
                "have moved, name their folder: --raw DIR, or [paths] raw in luigi.cfg. If "
                f"they have changed, run `touch '{self.source.place}'`, and convert again"
            )

    def decode(self, frames: Iterator[int]) -> Iterator[Frame]:
        """Decode ascending frames."""
        compared = False
        for frame in self.source.read(frames):
            if frame.image is None:
                if frame.kind == NOT_NOW:
                    raise VideoLost(f"frame {frame.index}: {frame.problem}")
                # rows stay without features, so make sure that the file is damaged, not its disk
                if not compared:
                    self.check()
                    self._require_readable()
                    compared = True
                yield replace(frame, problem=f"{self.name}, frame {frame.index}: {frame.problem}")
            else:
                yield frame

    def crop(self, frame: Frame, cut: np.void, size: int, *, is_whole: bool = False) -> Image:
        """Crop (size, size, 3) of a decoded frame, or the frame itself. cut: of `CUT`."""
        assert frame.image is not None
        if is_whole:
            return frame.image
        return crops.crop_person(
            frame.image, cut["bbox"], cut["scale"], size, mirrored=cut["mirrored"]
        )

    def require_place(self) -> None:
        """Raise VideoLost if the video's file or folder is missing."""
        if not is_there(self.source.place):
            raise VideoLost(f"no {self.source.place}")

    def _require_readable(self) -> None:
        """Raise VideoLost for an image that cannot be opened, or a video that cannot be read to its
        end.
        """
        place = self.source.place
        files = [place]
        try:
            if place.is_dir():
                files = [place / name for name in list_names(place)]
            for file in files:
                alive()
                with open_regular(file) as stream:
                    while file == place and stream.read(MIB):
                        alive()
        except OSError as error:
            if is_temporary(error) or not is_there(place):
                file = error.filename or place
                raise VideoLost(f"{file} cannot be read: {error.strerror}") from error


class VideoLost(PipelineError):
    """A committed video is missing, changed, or cannot be read now: its rows are computed once it
    is back.
    """


def pixels(split: Split, raw: Path | None) -> Callable[[int], Pixels]:
    """Number of a video -> its pixels below the raw folder. Raises PipelineError if that is
    missing.
    """
    folder = raw_folder(split, raw)

    def pixels_of(number: int) -> Pixels:
        entry = split.videos[number]
        source = sources.parse(folder, entry.source)
        return Pixels(source, split.name, entry.name, entry.pixels)

    return pixels_of


def raw_folder(split: Split, given: Path | None) -> Path:
    """As `committed.raw_folder`; for an imported split, the given one. Raises PipelineError."""
    imported = split.manifest.get("reader", {}).get("imported")
    if imported:
        origin = f"{split.name}: imported from {imported['file']}"
        videos = np.unique(split.tracks.video).tolist()
        if not all(split.videos[number].source for number in videos):
            raise PipelineError(
                f"{origin}, which does not name its images. "
                "To extract features, convert the dataset into another cache."
            )
        if given is None:
            raise PipelineError(f"{origin}. {RAW}")
    return committed.raw_folder(split, given)


def videos_of(split: Split, shards: Sequence[int]) -> list[int]:
    """Numbers of the videos with rows in these shards."""
    target = np.append(np.sort(np.asarray(shards, np.int64)), np.iinfo(np.int64).max)
    size = split.rows_per_shard
    first = split.tracks.start // size
    last = (split.tracks.stop - 1) // size
    next_target = target[np.searchsorted(target, first)]
    return np.unique(split.tracks.video[next_target <= last]).tolist()  # type: ignore[no-any-return]


def unusual_clips(split: Split, shards: Sequence[int]) -> list[str]:
    """Videos with rows in these shards whose images earlier versions decoded otherwise: "a.mp4
    (interlaced)".
    """
    described = []
    for number in videos_of(split, shards):
        entry = split.videos[number]
        _, _, otherwise = entry.pixels.partition(":")
        if otherwise:
            described.append(f"{entry.name} ({otherwise})")
    return described


def find_lost(
    pixels_of: Callable[[int], Pixels],
    videos: Iterable[int],
    check: Callable[[Pixels], None] = Pixels.require_place,
) -> dict[int, str]:
    """Videos that are missing -> why. check: `Pixels.check` finds changed and unreadable ones,
    too.
    """
    lost = {}
    for video in videos:
        try:
            check(pixels_of(video))
        except VideoLost as error:
            lost[video] = str(error)
    return lost


def skip_lost_shards(split: Split, lost: Collection[int], shards: Sequence[int]) -> list[int]:
    """Those of the shards with rows of other videos than the lost ones."""
    size = split.rows_per_shard
    is_there = ~np.isin(split.tracks.video, [*lost])
    n_bins = len(split.rows_by_shard()) + 1
    first = split.tracks.start[is_there] // size
    after = (split.tracks.stop[is_there] - 1) // size + 1
    begin = np.bincount(first, minlength=n_bins)
    end = np.bincount(after, minlength=n_bins)
    n_tracks = np.cumsum(begin - end)
    return [shard for shard in shards if n_tracks[shard]]


def require_videos(split: Split, raw: Path | None, shards: Sequence[int]) -> None:
    """Raise PipelineError unless the files of all videos of these shards exist: their features
    would be lost.
    """
    pixels_of = pixels(split, raw)
    videos = videos_of(split, shards)
    lost = find_lost(pixels_of, videos)
    if lost:
        number, why = next(iter(lost.items()))
        folder = raw_folder(split, raw)
        drop = committed.drop_command(split, folder)
        raise PipelineError(
            f"{split.name}: {len(lost)} of {len(videos)} videos are missing from {folder}, "
            f"first {split.videos[number].name}: {why}. Restore them (is the disk mounted?), "
            f"or delete their rows: {drop}"
        )
