"""Inputs of a stream's rows: boxes, labels, their keys, and pixels.  [pixels] -> crops ->
features

A stream computes a feature for each row of a split, which is a frame of a track. What it reads for
that are *inputs*: stored columns of the row and of its neighbours (labels), and crops of the
images. This module finds them for many rows at once, in five parts:

- labels: `column`, `label_batch`, `crop_labels`;
- crops: `find_crops`;
- keys: `row_keys` is a digest of all inputs of a row. A stored feature is valid while its key is;
- pixels: `Pixels` decodes a video;
- lost videos: `find_lost` finds them before an extraction.

Videos and shards are named by their numbers in the split.

Words:
    row: always by its number in the split, (n,) ascending unless said otherwise.
    run: rows of one track without a gap between two of them. A window does not go beyond its run.
    window: a row with `history` rows before and `future` rows after it, which some streams read.
    cut: the box of a crop, of the type CUT.
    lost: of a video, missing or changed since it was converted, or not readable now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import Split
from cache.arrays import Array, Bools, Ints, Keys
from cache.read.labels import mirror, normalise_keypoints
from pipeline.accounting import NOT_NOW
from pipeline.conversion import committed
from pipeline.errors import PipelineError, is_temporary
from pipeline.features.streams.base import ROW_RATE, Labels, Reads, Stream
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Frame, FrameSource
from pipeline.files.raw.files import MIB, is_there, list_names, open_regular
from pipeline.processes import alive

CUT: Final = np.dtype(  # the box of a crop in an image
    [
        ("bbox", np.float32, 4),  # cxcywh, px
        ("scale", np.float64),  # side of the crop / side of the bbox
        ("mirrored", np.bool_),  # whether the crop is mirrored
    ]
)
CROP: Final = np.dtype(  # one stream's crop for one row
    [
        ("row", np.int64),  # of the split
        ("frame", np.int64),
        # the frame one step before, for a stream of pairs; the same frame if it is not needed
        ("previous", np.int64),
        ("slot", np.int64),  # where the crop of a network is to be written
        ("cut", CUT),  # how the crop is cut from the frame
    ]
)
RAW: Final = "Name the dataset's raw folder: --raw DIR, or [paths] raw in luigi.cfg."


def crop_labels(labels: Labels, cut: np.void) -> Labels:
    """A row's labels as they are in its crop: `kp_2d` in [-1, 1] across the crop, and mirrored if
    that is. Other labels stay.
    """
    if "kp_2d" not in labels:
        return labels
    kp_2d = labels["kp_2d"]
    placed = np.zeros_like(kp_2d)[None, None]
    normalise_keypoints(kp_2d[None, None], cut["bbox"][None, None], cut["scale"][None], placed)
    shown = placed[0]
    if cut["mirrored"]:
        shown = mirror("kp_2d", shown)
    return {**labels, "kp_2d": shown[0]}


def column(split: Split, name: str, rows: Ints) -> Array:
    """Stored values (n, ...) of a column, as of `Split.rows`, at any rows, in any order."""
    unique_rows, index = np.unique(rows, return_inverse=True)
    gaps = np.flatnonzero(np.diff(unique_rows) != 1)
    values = [split.rows(name, 0, 0)]  # of no row
    for part in np.split(unique_rows, gaps + 1):
        if len(part):
            values.append(split.rows(name, int(part[0]), int(part[-1]) + 1))
    return np.concatenate(values)[index]


def _label(split: Split, name: str, rows: Ints) -> Array:
    """Values (n, ...) of a label at any rows: a stored column, or `ROW_RATE`, rows a second."""
    if name != ROW_RATE:
        return column(split, name, rows)
    track = split.track_of(rows)
    return np.asarray(split.tracks.fps[track] / split.tracks.step[track], np.float64)


def _fill_value(dtype: np.dtype[Any]) -> Any:
    """The value of a label in rows that a window lacks: NaN, an extreme integer, or False."""
    match dtype.kind:
        case "f":
            return np.nan
        case "i":
            return np.iinfo(dtype).min
        case "u":
            return np.iinfo(dtype).max
    return False


def _windows_in_run(runs: Ints, rows: Ints, reads: Reads) -> tuple[Ints, Bools]:
    """The window of each row, (n, window) rows, and whether each of these is in the row's run.

    runs: (R, 2) first row, last row + 1. Rows outside the run may not even exist.
    """
    around = rows[:, None] + np.arange(-reads.history, reads.future + 1)
    run = np.searchsorted(runs[:, 0], rows, side="right") - 1
    start = runs[run, :1]  # (n, 1)
    stop = runs[run, 1:]
    in_run = (around >= start) & (around < stop)
    return around, in_run


def label_batch(split: Split, rows: Ints, reads: Reads) -> Labels:
    """The labels that a stream reads of (n,) rows, as a `LabelComputer` gets them.

    For a stream with a window, each label is (n, window, ...), and "in_run" (n, window) tells which
    rows of the window there are; the others have a fill value.
    """
    if reads.window == 1:
        return {name: _label(split, name, rows) for name in reads.labels}
    around, in_run = _windows_in_run(split.runs, rows, reads)
    labels: dict[str, Array] = {}
    for name in reads.labels:
        values = _label(split, name, around[in_run])
        shape = (*around.shape, *values.shape[1:])
        labels[name] = np.full(shape, _fill_value(values.dtype), values.dtype)
        labels[name][in_run] = values
    labels["in_run"] = in_run
    return labels


def find_crops(split: Split, stream: Stream, rows: Ints) -> NDArray[np.void]:
    """The crops (n,), of `CROP`, that a stream reads for rows of tracks, without slots."""
    policy = stream.policy
    tracks, track_index = np.unique(split.track_of(rows), return_inverse=True)
    frame = column(split, "frame_index", rows)
    bbox = column(split, "bbox", rows)
    crops = np.zeros(len(rows), CROP)
    crops["row"] = rows
    crops["frame"] = frame
    crops["previous"] = frame
    boxes = crops["cut"]
    boxes["bbox"] = bbox
    boxes["scale"] = split.tracks.crop_scale[tracks][track_index]
    if not policy.follows_box:
        names = (split.tracks[number].name for number in tracks.tolist())
        seeds = policy.seeds(names)[track_index]
        boxes["bbox"], boxes["mirrored"] = policy.boxes(bbox, boxes["scale"], seeds, frame)
    if stream.reads.crops > 1:  # the row before is one step before if it is in the same run
        _, in_run = _windows_in_run(split.runs, rows, Reads(history=1))
        is_pair = in_run[:, 0]
        crops["previous"][is_pair] = column(split, "frame_index", rows[is_pair] - 1)
    return crops


def row_keys(split: Split, stream: Stream, rows: Ints, crops: NDArray[np.void]) -> Keys:
    """Keys (n, 2) of rows for a stream: 128 bits that change with any input of the row.

    They are stored beside the features and are part of the cache's format. If this function gives
    other keys, all features are computed again.

    crops: (n,) those of `find_crops`; not used for a stream without crops.
    """
    reads = stream.reads
    if not reads.crops:
        return _label_keys(split, rows, reads)

    frame = crops["frame"]
    boxes = crops["cut"]
    parts = [frame, boxes["bbox"], boxes["scale"]]
    if not stream.policy.follows_box:
        parts.append(boxes["mirrored"])
    if reads.crops > 1:
        parts.append(np.where(crops["previous"] == frame, -1, crops["previous"]))
    parts += [_label(split, name, rows) for name in reads.labels]

    # the digest of a row begins with that of its video's pixels
    of_video = dict[int, Any]()
    videos = split.tracks.video[split.track_of(rows)].tolist()
    for number in set(videos):
        of_video[number] = hashlib.blake2b(split.videos[number].pixels.encode(), digest_size=16)
    return _digests(parts, [of_video[number] for number in videos])


def _label_keys(split: Split, rows: Ints, reads: Reads) -> Keys:
    """Keys (n, 2) of (n,) rows for a stream without crops: they change with any label in the row's
    window.
    """
    if reads.window == 1 or not len(rows):
        return _digests([_label(split, name, rows) for name in reads.labels])
    around, in_run = _windows_in_run(split.runs, rows, reads)
    read, of_window = np.unique(around[in_run], return_inverse=True)
    digests = _digests([_label(split, name, read) for name in reads.labels])
    # A window's key is the digest of its rows' digests: labels would need more memory.
    windows = np.zeros((*around.shape, 2), np.uint64)
    windows[in_run] = digests[of_window]
    return _digests([windows])


def _digests(columns: Sequence[Array], begun: Sequence[Any] | None = None) -> Keys:
    """Digests (n, 2) of each row of some columns (n, ...).

    begun: (n,) of each row, the hash object to which its bytes are added; rows may share one. By
    default, each row begins with an empty one.
    """
    rows = _bytes(columns)
    if begun is None:
        begun = [hashlib.blake2b(digest_size=16)] * len(rows)
    keys = []
    for shared, row in zip(begun, rows, strict=True):
        digest = shared.copy()
        digest.update(row)
        keys.append(digest.digest())
    return np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)


def _bytes(columns: Sequence[Array]) -> list[bytes]:
    """The bytes of each row of some columns (n, ...), in all of them."""
    parts = [np.ascontiguousarray(part).view(np.uint8).reshape(len(part), -1) for part in columns]
    joined = np.concatenate(parts, axis=1)
    if not len(joined):
        return []
    return joined.view(f"V{joined.shape[1]}").ravel().tolist()


class Pixels(NamedTuple):
    """The images of one video of a split, in the raw folder. Picklable."""

    source: FrameSource
    name: str  # of the video, for messages
    digest: str = ""  # `pixels_digest` at the conversion; "": unknown

    @property
    def in_order(self) -> bool:
        """Whether a frame can only be decoded after all frames before it, as in a video file."""
        return not self.source.random_access

    def check(self) -> None:
        """Raise VideoLost if the files are missing, have changed since the conversion, or cannot be
        read.
        """
        self.require_place()
        if self.digest and self.source.digest() != sources.file_part(self.digest):
            self._require_readable()
            raise VideoLost(
                f"{self.source.place} has other images than those that were converted. If they "
                "have moved, name their folder: --raw DIR, or [paths] raw in luigi.cfg. If "
                f"they have changed, run `touch '{self.source.place}'`, and convert again"
            )

    def decode(self, frames: Iterator[int]) -> Iterator[Frame]:
        """Decode ascending frames. A frame without an image has its problem, which names the video.

        Raises VideoLost if the problem is not the frame's: its row would stay without a feature for
        good, while the file is damaged only on a failing disk, or has changed.
        """
        is_checked = False
        for frame in self.source.read(frames):
            if frame.image is not None:
                yield frame
                continue
            if frame.kind == NOT_NOW:
                raise VideoLost(f"frame {frame.index}: {frame.problem}")
            if not is_checked:
                self.check()
                self._require_readable()
                is_checked = True
            yield replace(frame, problem=f"{self.name}, frame {frame.index}: {frame.problem}")

    def require_place(self) -> None:
        """Raise VideoLost if the video's file or folder is missing."""
        if not is_there(self.source.place):
            raise VideoLost(f"no {self.source.place}")

    def _require_readable(self) -> None:
        """Raise VideoLost if an image of the folder cannot be opened now, or the video file cannot
        be read to its end.
        """
        path = self.source.place  # a folder of images, or a video file
        try:
            if path.is_dir():
                for name in list_names(path):
                    alive()
                    open_regular(path / name).close()
                return
            alive()
            with open_regular(path) as stream:
                while stream.read(MIB):
                    alive()
        except OSError as error:
            if is_temporary(error) or not is_there(path):
                file = error.filename or path
                raise VideoLost(f"{file} cannot be read: {error.strerror}") from error


class VideoLost(PipelineError):
    """A committed video is missing, has changed, or cannot be read now. Its rows get no features
    until it is back.
    """


def pixels(split: Split, raw: Path | None) -> Callable[[int], Pixels]:
    """A function from the number of a video to its `Pixels`. Raises PipelineError if there is no
    raw folder.
    """
    folder = raw_folder(split, raw)

    def pixels_of(number: int) -> Pixels:
        entry = split.videos[number]
        source = sources.parse(folder, entry.source)
        return Pixels(source, entry.name, entry.pixels)

    return pixels_of


def raw_folder(split: Split, given: Path | None) -> Path:
    """The split's raw folder: the given one, or the one of its conversion. A split that was
    imported has none of its own, so it must be given. Raises PipelineError if there is none.
    """
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
    """Numbers of the videos with rows in these shards, ascending."""
    size = split.rows_per_shard
    tracks = split.tracks  # sorted by row, and disjoint
    videos = set[int]()
    for shard in shards:
        first = np.searchsorted(tracks.stop, shard * size, side="right")
        last = np.searchsorted(tracks.start, (shard + 1) * size)
        videos.update(tracks.video[first:last].tolist())
    return sorted(videos)


def find_lost(
    pixels_of: Callable[[int], Pixels],
    videos: Iterable[int],
    check: Callable[[Pixels], None] = Pixels.require_place,
) -> dict[int, str]:
    """Those of the videos that are lost -> why.

    check: raises VideoLost. By default, it finds missing videos alone; `Pixels.check` finds changed
    and unreadable ones, too, and takes longer.
    """
    lost = {}
    for video in videos:
        try:
            check(pixels_of(video))
        except VideoLost as error:
            lost[video] = str(error)
    return lost


def require_videos(split: Split, raw: Path | None, shards: Sequence[int]) -> None:
    """Raise PipelineError unless the files of all videos of these shards exist. To be called before
    stored features are replaced: those of a missing video could not be computed again.
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
