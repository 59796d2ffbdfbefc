"""The models' bodies in the same frames, one below the other.  evaluation -> report: [bodies] ->
page

`portraits` draws people of the data, whatever was trained. For the section, in come training runs
with the predictions that evaluation wrote, and the images of the evaluated
splits. Out goes the report's section "Bodies": for each split, the worst and the median track
of the first run. A track is drawn as strips of tiles, one strip below the
other: its frames as they are, then the same frames with the bodies of one run each. No network runs
here.

One that cannot be drawn does not stop the others: it costs a message in `problems`, the list of the
section, to which several functions here append.
"""

from __future__ import annotations

import itertools
import json
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

import cache
from pipeline.cli.system_errors import error_text
from pipeline.errors import PipelineError
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource, Image
from pipeline.people.boxes import crop_person
from pipeline.people.skeletons import Float32s, Ints
from pipeline.show.bodies import COLOURS, DISTANCE_M, Colour, LabelledBodies, SeenBody
from pipeline.steps.raw_images import raw_folder
from tasks.report import PageSection
from tasks.report.data import UNREADABLE, OpenedCache
from tasks.report.runs import TrainingRun

TILE_PX: Final = 200  # side of a frame
N_FRAMES: Final = 6  # per window
PORTRAITS: Final = 8
GREY: Final = 96  # for a missing frame
# Arrays of predictions before and after a frame: "pose_minus5" is the pose 5 rows before it.
_STEP_POSE: Final = re.compile(r"pose_(minus|plus)(\d+)")
# errors of damaged files, which are reported while the rest is drawn
BROKEN: Final = (*UNREADABLE, PipelineError, ValueError, LookupError, zipfile.BadZipFile)


class _TrackWindow(NamedTuple):
    """Consecutive frames of a track, which are drawn together, and the reason for showing them."""

    split: str
    track: str
    first: int  # frames of the source, both included
    last: int
    why: str


class _Strip(NamedTuple):
    """Tiles side by side as one image, with the label that stands above it on the page."""

    label: str
    image: Image


@dataclass(frozen=True, eq=False)
class _PredictedTrack:
    """One run's bodies in the F frames of one track."""

    frame_index: Ints  # (F,)
    bbox: Float32s  # (F, 4) cxcywh px
    scale: float  # crop side / box side
    camera: Float32s  # (F, 3) scale, tx, ty
    betas: Float32s  # (F, 10)
    # Offset -> (F, 72) rad, the poses that were predicted at each frame for so many rows after it
    # (0: at it, below 0: before it). Only HMMR predicts other offsets than 0.
    pose: Mapping[int, Float32s]

    @classmethod
    def read(cls, run: TrainingRun, window: _TrackWindow) -> _PredictedTrack | None:
        """Read the run's predictions for this track; None if there are none. Raises OSError,
        ValueError, KeyError.
        """
        file = _predictions_file(run, window)
        if file is None:
            return None
        with np.load(file, allow_pickle=False) as arrays:
            pose = {0: arrays["pose"]}
            for name in arrays.files:
                match = _STEP_POSE.fullmatch(name)
                if match is not None:
                    sign = -1 if match[1] == "minus" else 1
                    pose[sign * int(match[2])] = arrays[name]
            about = json.loads(str(arrays["about"]))
            return cls(
                arrays["frame_index"],
                arrays["bbox"],
                float(about["crop_scale"]),
                arrays["camera"],
                arrays["betas"],
                dict(sorted(pose.items())),
            )

    def rows_of(self, frames: ArrayLike) -> NDArray[np.intp]:
        """Where these frames stand in the arrays; all of them must have been predicted."""
        return np.searchsorted(self.frame_index, frames)

    def tile(self, frame: int, image: Image | None) -> Image:
        """Crop the image by the box of a frame; a grey tile if there is no image."""
        if image is None:
            return np.full((TILE_PX, TILE_PX, 3), GREY, np.uint8)
        return crop_person(image, self.bbox[self.rows_of(frame)], self.scale, TILE_PX)


def _predictions_file(run: TrainingRun, window: _TrackWindow) -> Path | None:
    """The run's predictions for this track, below its folder; None if there are none."""
    for result in run.tracks_of(window.split):
        if result.track == window.track and result.predictions is not None:
            file = (run.folder / result.predictions).resolve()
            return file if file.is_relative_to(run.folder.resolve()) else None
    return None


class Portraits(NamedTuple):
    """People of the data, side by side."""

    splits: list[str]  # that they are of
    image: Image


def portraits(opened: OpenedCache, raw: Path | None) -> Portraits | None:
    """One person in each of PORTRAITS tracks, spread over the splits with images; None if no image
    can be read. raw: as in `bodies_section`.
    """
    splits = [split for split in opened.splits if "bbox" in split.columns and len(split.tracks)]
    tiles: list[Image] = []
    names: list[str] = []
    for place in range(PORTRAITS if splits else 0):
        split = splits[place * len(splits) // PORTRAITS]
        try:
            tile = _portrait(split, place, raw)
        except BROKEN:  # `status` and the sections name what cannot be read
            continue
        if tile is not None:
            tiles.append(tile)
            names.append(split.name)
    if not tiles:
        return None
    return Portraits([*dict.fromkeys(names)], np.concatenate(tiles, axis=1))


def _portrait(split: cache.Split, place: int, raw: Path | None) -> Image | None:
    """The crop of a row at this place of PORTRAITS; None if its frame cannot be decoded. Rows of
    different tracks, and of different parts of them.
    """
    number = place * len(split.tracks) // PORTRAITS
    track = split.tracks[number]
    row = track.start + place * (track.stop - track.start) // PORTRAITS
    (frame_index,) = split.rows("frame_index", row, row + 1)
    (bbox,) = split.rows("bbox", row, row + 1)
    for frame in _source(split, number, raw).read([int(frame_index)]):
        if frame.image is not None:
            return crop_person(frame.image, bbox, track.crop_scale, TILE_PX)
    return None


def bodies_section(
    opened: OpenedCache, runs: Sequence[TrainingRun], *, raw: Path | None, body: Path | None
) -> PageSection:
    """The report's section of bodies. What cannot be drawn is listed in its `problems`.

    raw: the folder of the datasets' raw folders; None: as recorded at conversion.
    body: the folder of a body model; without one, nothing is drawn.
    """
    predicted = [run for run in runs if any(track.predictions for track in run.tracks)]
    problems: list[str] = []
    drawn: list[tuple[_TrackWindow, list[_Strip]]] = []
    splits = {split.name: split for split in opened.splits}
    if body is not None and predicted:
        try:
            bodies = LabelledBodies(body)
        except BROKEN as error:
            problems.append(f"Bodies are not drawn: {error}")
        else:
            for window in _choose_windows(predicted):
                try:
                    strips = _draw(window, splits[window.split], predicted, bodies, raw, problems)
                    drawn.append((window, strips))
                except BROKEN as error:
                    problems.append(f"{window.split}, {window.track}: {error_text(error)}")
    without = [run.name for run in runs if run not in predicted]
    line = "" if drawn or problems else "no run has predictions to draw"
    data = {"drawn": drawn, "without": without, "problems": problems}
    return PageSection("bodies", "Bodies", data, line)


def _choose_windows(runs: Sequence[TrainingRun]) -> Iterator[_TrackWindow]:
    """Choose the windows of each split to draw."""
    first_runs: dict[str, TrainingRun] = {}  # split -> the first run that was evaluated on it
    for run in runs:
        for track in run.tracks:
            first_runs.setdefault(track.split, run)

    for split, first_run in first_runs.items():
        tracks = first_run.tracks_of(split)
        chosen = {"median": tracks[len(tracks) // 2]}
        if len(tracks) > 1:
            chosen["worst"] = tracks[0]
        for which, track in chosen.items():
            why = f"{which} track by {first_run.name}'s errors"
            yield _TrackWindow(split, track.track, track.first_frame, track.last_frame, why)


def _draw(
    window: _TrackWindow,
    split: cache.Split,
    runs: Sequence[TrainingRun],
    bodies: LabelledBodies,
    raw: Path | None,
    problems: list[str],
) -> list[_Strip]:
    """Draw a window: one strip of its frames as they are, and one or two for each run with its
    bodies over them.

    The second strip of a run has its predictions of the past and the future (`_paint_dynamics`), at
    the window's middle frame. Adds to `problems` why images are missing. Raises ValueError if no
    frame can be drawn.
    """
    predicted = _read_predictions(window, runs)
    frames = _choose_frames(window, predicted.values())
    middle = int(frames[len(frames) // 2])
    number = split.tracks.names.index(window.track)
    step = int(split.tracks.step[number])  # frames from one row to the next
    needed = set(frames.tolist())
    for track in predicted.values():
        needed.update(middle + step * offset for offset in track.pose)
    images = _images(split, number, sorted(needed), raw, problems)

    strips: list[_Strip] = []
    for (name, track), colour in zip(predicted.items(), itertools.cycle(COLOURS), strict=False):
        tiles = [track.tile(frame, images.get(frame)) for frame in frames.tolist()]
        if not strips:
            strips.append(_join("frames", tiles))
        strips.append(_join(name, _paint(bodies, track, frames, tiles, colour)))
        if len(track.pose) > 1:
            painted = _paint_dynamics(bodies, track, middle, step, images, colour)
            times = ", ".join(_time_label(step * offset) for offset in track.pose)
            strips.append(_join(f"{name} at frame {middle}: {times}", painted))
    return strips


def _paint_dynamics(
    bodies: LabelledBodies,
    track: _PredictedTrack,
    middle: int,
    step: int,
    images: Mapping[int, Image | None],
    colour: Colour,
) -> list[Image]:
    """Draw the bodies that were predicted at the frame `middle` for times before and after it, each
    over the image of its time, cropped as `middle` is. step: frames from one row to the next.
    """
    painted = []
    for offset in track.pose:
        tile = track.tile(middle, images.get(middle + step * offset))
        painted += _paint(bodies, track, [middle], [tile], colour, offset)
    return painted


def _read_predictions(
    window: _TrackWindow, runs: Sequence[TrainingRun]
) -> dict[str, _PredictedTrack]:
    """What runs predicted for the window's track, by the run's name; runs that did not predict it
    are left out.
    """
    predicted: dict[str, _PredictedTrack] = {}
    for run in runs:
        track = _PredictedTrack.read(run, window)
        if track is not None:
            predicted[run.name] = track
    return predicted


def _choose_frames(window: _TrackWindow, predicted: Collection[_PredictedTrack]) -> Ints:
    """At most N_FRAMES frames that all runs predicted, spread evenly over the window. Raises
    ValueError if there are none.
    """
    common = np.arange(window.first, window.last + 1)
    for track in predicted:
        common = np.intersect1d(common, track.frame_index)
    if not predicted or not len(common):
        raise ValueError("no frame was predicted by all runs: evaluate them again")
    spread = np.linspace(0, len(common) - 1, N_FRAMES)
    chosen: Ints = common[np.unique(spread.round().astype(int))]
    return chosen


def _join(label: str, tiles: Sequence[Image]) -> _Strip:
    """Put tiles side by side."""
    return _Strip(label, np.concatenate(tiles, axis=1))


def _paint(
    bodies: LabelledBodies,
    track: _PredictedTrack,
    frames: ArrayLike,
    tiles: Sequence[Image],
    colour: Colour,
    offset: int = 0,
) -> list[Image]:
    """Draw the bodies that were predicted at these frames over their tiles, with the weak
    perspective cameras of the frames.

    offset: which of the poses that were predicted at a frame, a key of `_PredictedTrack.pose`.
    """
    painted = []
    rows = track.rows_of(frames)
    skinned = bodies.skin(track.pose[offset][rows], track.betas[rows]).verts.numpy()
    for tile, verts, camera in zip(tiles, skinned, track.camera[rows], strict=True):
        scale = camera[0]
        in_crop = scale * (verts[:, :2] + camera[1:])  # (V, 2), -1 to 1 across the tile
        pixels = (in_crop + 1) * (TILE_PX / 2)
        body = SeenBody(verts, pixels, verts[:, 2] + DISTANCE_M, colour)
        painted.append(bodies.painter.paint(tile, [body]))
    return painted


def _images(
    split: cache.Split, number: int, frames: Sequence[int], raw: Path | None, problems: list[str]
) -> dict[int, Image | None]:
    """Read frames of a track's video: index -> image, or None for a frame that cannot be read.

    If none can be read, it is empty, and `problems` says why.
    """
    indices = [index for index in frames if index >= 0]
    try:
        read = zip(indices, _source(split, number, raw).read(indices), strict=False)
        return {index: frame.image for index, frame in read}
    except (PipelineError, OSError) as error:
        problems.append(f"Bodies of {split.name} are drawn on grey: {error}")
        return {}


def _source(split: cache.Split, number: int, raw: Path | None) -> FrameSource:
    """The images of a track. Raises PipelineError if the raw folder is missing."""
    folder = None if raw is None else raw / split.name.partition("/")[0]
    if folder is not None and not folder.is_dir():
        folder = None
    entry = split.videos[int(split.tracks.video[number])]
    return sources.parse(raw_folder(split, folder), entry.source)


def _time_label(n_frames: int) -> str:
    """How far from a frame another one is, as text: `5 frames before`, `now`, `5 frames later`."""
    if not n_frames:
        return "now"
    side = "before" if n_frames < 0 else "later"
    return f"{abs(n_frames)} frames {side}"
