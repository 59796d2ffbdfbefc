"""Sources of crops: raw images and videos.  [pixels] -> crops -> features"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy, Split
from cache.read.labels import in_crop, mirrored
from pipeline import crops
from pipeline.conversion import committed
from pipeline.errors import PipelineError
from pipeline.features.streams.base import ROW_RATE, Labels, Reads
from pipeline.files.pixels import sources
from pipeline.files.pixels.by_pyav import another_decoder
from pipeline.files.pixels.frames import Frame, FrameSource, Image, nothing
from pipeline.files.raw.files import MIB, names_in, open_regular, passes
from pipeline.reasons import NOT_NOW

RAW: Final = "Name the dataset's own raw folder: --raw DIR, or [paths] raw in luigi.cfg."


class Cut(NamedTuple):
    """The box that a crop shows of a picture."""

    bbox: tuple[float, float, float, float]  # cxcywh px
    scale: float
    mirrored: bool = False


def labels_in(labels: Labels, cut: Cut) -> Labels:
    """A row's labels as readers of such crops have them: `kp_2d` in [-1, 1] across, mirrored where the crop is."""
    if "kp_2d" not in labels:
        return labels
    kp_2d, bbox = labels["kp_2d"], np.array(cut.bbox, np.float32)
    placed = np.zeros_like(kp_2d)[None, None]
    in_crop(kp_2d[None, None], bbox[None, None], np.array([cut.scale]), placed)
    (shown,) = mirrored("kp_2d", placed[0]) if cut.mirrored else placed[0]
    return {**labels, "kp_2d": shown}


def column(rows_of: Callable[[str, int, int], NDArray[Any]], name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """(n, ...) of a column as stored, of any rows. `rows_of`: `Split.rows`, or of its open shards."""
    if not len(rows):
        return rows_of(name, 0, 0)
    different, inverse = np.unique(rows, return_inverse=True)
    runs = np.split(different, np.flatnonzero(np.diff(different) != 1) + 1)
    return np.concatenate([rows_of(name, int(run[0]), int(run[-1]) + 1) for run in runs])[inverse]


def label(split: Split, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """(n, ...) of what a stream of labels reads of any rows: a column as stored, or `ROW_RATE`."""
    if name != ROW_RATE:
        return column(split.rows, name, rows)
    track = split.track_of(rows)
    return np.asarray(split.tracks.fps[track] / split.tracks.step[track], np.float64)


def fill_of(dtype: np.dtype[Any]) -> Any:
    """What stands for the labels of a row that there is not: NaN, an integer far from any label, False."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min
    return np.nan if dtype.kind == "f" else False


def windows_in_run(
    runs: NDArray[np.int64], rows: NDArray[np.int64], reads: Reads
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n, window) the rows about each of (n,), and whether they are in its run. `runs` (R, 2): [start, stop) rows."""
    around = rows[:, None] + np.arange(-reads.history, reads.future + 1)
    start, stop = runs[np.searchsorted(runs[:, 0], rows, side="right") - 1].T
    return around, (around >= start[:, None]) & (around < stop[:, None])


def label_batch(split: Split, rows: NDArray[np.int64], reads: Reads) -> Labels:
    """The labels of (n,) rows as a stream's computer is given them: see `LabelComputer`."""
    if reads.window == 1:
        return {name: label(split, name, rows) for name in reads.labels}
    around, in_run = windows_in_run(split.runs, rows, reads)
    labels: dict[str, NDArray[Any]] = {}
    for name in reads.labels:
        values = label(split, name, around[in_run])
        labels[name] = np.full((*around.shape, *values.shape[1:]), fill_of(values.dtype), values.dtype)
        labels[name][in_run] = values
    return {**labels, "in_run": in_run}


def cuts(split: Split, policy: CropPolicy, rows: NDArray[np.int64]) -> list[Cut]:
    """What the crops of (n,) rows show."""
    track = split.track_of(rows)
    scale = np.asarray(split.tracks.crop_scale[track], np.float64)
    keys = policy.keys(split.tracks[number].name for number in track.tolist())
    frame, bbox = (column(split.rows, name, rows) for name in ("frame_index", "bbox"))
    boxes, mirrored = policy.boxes(bbox, scale, keys, frame)
    values = zip(boxes.tolist(), scale.tolist(), mirrored.tolist(), strict=True)
    return [Cut(tuple(box), of_track, flipped) for box, of_track, flipped in values]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Images or a video below the raw folder. Picklable."""

    source: FrameSource
    split: str
    name: str  # of the video, for messages
    digest: str = ""  # of the pixels at conversion; "": not known
    decoder: str = "OpenCV"  # for messages

    @property
    def in_order(self) -> bool:
        """Whether going back, or starting in the middle, costs what comes before."""
        return not self.source.random_access

    def check(self) -> None:
        """Raise PipelineError where these are not the pixels that were converted, or cannot be read now."""
        if self.digest and self.source.digest() != self.digest:
            self._require_readable(nothing)
            raise PipelineError(
                f"{self.split}: {self.name}: {self.source.place} does not hold the pictures that were converted. If "
                "those are elsewhere, name it: --raw DIR, or [paths] raw in luigi.cfg. If they were changed, convert "
                f"again, after `touch '{self.source.place}'`: conversion compares again what has another time."
            )

    def decode(self, frames: Iterator[int], alive: Callable[[], None]) -> Iterator[Frame]:
        """Each of the frames, which are ascending. `alive` is called whenever progress is made."""
        compared = False
        for frame in self.source.read(frames, alive=alive):
            if frame.image is None:
                if frame.kind == NOT_NOW:
                    raise self._not_now(f"frame {frame.index}: {frame.problem}")
                if not compared:  # a row without features stays so: the file must be to blame, not its disk
                    self.check()
                    self._require_readable(alive)
                    compared = True
                yield replace(frame, problem=f"{self.name}, frame {frame.index}: {frame.problem}")
            else:
                yield frame

    def crop(self, frame: Frame, cut: Cut, size: int) -> Image:
        """(size, size, 3) of a decoded frame."""
        assert frame.image is not None
        return crops.crop_person(frame.image, np.array(cut.bbox), cut.scale, size, mirrored=cut.mirrored)

    def _require_readable(self, alive: Callable[[], None]) -> None:
        """Raise PipelineError for a picture that cannot be opened now, or a video that cannot be read to its end."""
        place = self.source.place
        try:
            for file in [place / name for name in names_in(place)] if place.is_dir() else [place]:
                alive()
                with open_regular(file) as stream:
                    while file == place and stream.read(MIB):
                        alive()
        except OSError as error:
            if passes(error) or not place.exists():
                raise self._not_now(f"{error.filename or place} cannot be read: {error.strerror}") from error

    def _not_now(self, problem: str) -> PipelineError:
        return PipelineError(
            f"{self.split}: {self.name}: {problem}. Its rows were not computed. Run the same command again when it can "
            "be read; what is computed is kept. If it never can be, let its rows go: remove the file where it is still "
            "there, and convert again with --drop-removed."
        )

    def by_another_decoder(self) -> Pixels:
        """The same pixels; of a video decoded otherwise than an extraction does, where that is installed."""
        source, decoder = another_decoder(self.source)
        return replace(self, source=source, decoder=decoder)


def pixels(split: Split, raw: Path | None, *, require: Sequence[int] = ()) -> Callable[[int], Pixels]:
    """Number of a video -> its images below the raw folder.

    `require`: shards of which every video's pictures must exist. A video of an imported split whose pixels have no
    recorded digest is not compared. Raises PipelineError when the raw folder does not exist, or lacks something.
    """
    folder = raw_folder(split, raw)
    _require_all(split, folder, require)

    def of_video(number: int) -> Pixels:
        entry = split.videos[number]
        return Pixels(sources.parse(folder, entry.source), split.name, entry.name, entry.pixels)

    return of_video


def raw_folder(split: Split, given: Path | None) -> Path:
    """As `committed.raw_folder`; of an imported split the given one. Raises PipelineError."""
    if imported := split.manifest.get("reader", {}).get("imported"):
        if not all(split.videos[number].source for number in np.unique(split.tracks.video).tolist()):
            raise PipelineError(
                f"{split.name}: was imported from {imported['file']}, which does not name its pictures. "
                "Convert the dataset into another cache to extract from it."
            )
        if given is None:
            raise PipelineError(f"{split.name}: was imported from {imported['file']}. {RAW}")
    return committed.raw_folder(split, given)


def _require_all(split: Split, raw: Path, shards: Sequence[int]) -> None:
    """A wrong raw folder must not pass: every row of these shards would be marked as undecodable, for good."""
    target = np.append(np.sort(np.asarray(shards, np.int64)), np.iinfo(np.int64).max)
    size = int(split.manifest["geometry"]["rows_per_shard"])
    reached = target[np.searchsorted(target, split.tracks.start // size)] <= (split.tracks.stop - 1) // size
    entries = [split.videos[number] for number in np.unique(split.tracks.video[reached]).tolist()]
    absent = [entry for entry in entries if entry.source and not sources.parse(raw, entry.source).place.exists()]
    if absent:
        place = sources.parse(raw, absent[0].source).place
        raise PipelineError(
            f"{split.name}: the pictures of {len(absent)} of its {len(entries)} videos are not below {raw}, first "
            f"{absent[0].name}: there is no {place}. {RAW} If they were removed on purpose, convert again."
        )
