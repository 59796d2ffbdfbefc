"""The models' bodies in the same frames, one below the other.  evaluation -> report: [bodies] ->
page

Drawn from the predictions that evaluation wrote, without running a network. Shows the worst window
of each run, and one window of the first run's median track.
"""

from __future__ import annotations

import itertools
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.text import error_text
from pipeline.crops import crop_person
from pipeline.errors import PipelineError
from pipeline.features.inputs import raw_folder
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Image
from pipeline.show.bodies import COLOURS, DISTANCE_M, LabelledBodies, SeenBody
from tasks.report.data import UNREADABLE, OpenedCache
from tasks.report.page import PageSection
from tasks.report.runs import TrainingRun

TILE_PX: Final = 200  # side of a frame
N_FRAMES: Final = 6  # per window
MOST_WORST: Final = 3  # windows per split
GREY: Final = 96  # for a missing frame
_MOVED: Final = re.compile(r"pose_(minus|plus)(\d+)")
BROKEN: Final = (*UNREADABLE, PipelineError, ValueError, KeyError, zipfile.BadZipFile)

Colour = tuple[float, float, float]


class _TrackWindow(NamedTuple):
    """Frames of a track, and why they are shown."""

    split: str
    track: str
    first: int  # frames of the source, both included
    last: int
    why: str


@dataclass(frozen=True, eq=False)
class _PredictedTrack:
    """One run's bodies in the F frames of one track."""

    frame_index: NDArray[np.int64]  # (F,)
    bbox: NDArray[np.float32]  # (F, 4) cxcywh px
    scale: float  # crop side / box side
    camera: NDArray[np.float32]  # (F, 3) scale, tx, ty
    betas: NDArray[np.float32]  # (F, 10)
    pose: Mapping[int, NDArray[np.float32]]  # frames later (0: now) -> (F, 72) rad

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
                match = _MOVED.fullmatch(name)
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

    def tile(self, row: int, image: Image | None) -> Image:
        """The crop of a row; grey if the frame is missing."""
        if image is None:
            return np.full((TILE_PX, TILE_PX, 3), GREY, np.uint8)
        return crop_person(image, self.bbox[row], self.scale, TILE_PX)


def _predictions_file(run: TrainingRun, window: _TrackWindow) -> Path | None:
    """The run's predictions for this track, below its folder; None if there are none."""
    for row in run.tracks_of(window.split):
        if row.get("track") == window.track and "predictions" in row:
            file = (run.folder / str(row["predictions"])).resolve()
            return file if file.is_relative_to(run.folder.resolve()) else None
    return None


def bodies_section(
    opened: OpenedCache, runs: Sequence[TrainingRun], *, raw: Path | None, body: Path | None
) -> PageSection:
    """The section of bodies.

    raw: The folder of the datasets' raw folders; None: as recorded at conversion. body: Folder of a
    body model.
    """
    predicted = [run for run in runs if any("predictions" in row for row in run.sequences)]
    problems: list[str] = []
    drawn: list[tuple[_TrackWindow, list[tuple[str, Image]]]] = []
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
    data = {"drawn": drawn, "without": without, "problems": problems}
    return PageSection("bodies", "Bodies", "bodies.html", data)


def _choose_windows(runs: Sequence[TrainingRun]) -> Iterator[_TrackWindow]:
    """For each split: a window of the first run's median track, then the worst one of each run."""
    splits: dict[str, list[TrainingRun]] = {}
    for run in runs:
        for split in dict.fromkeys(str(row.get("split")) for row in run.sequences):
            splits.setdefault(split, []).append(run)

    for split, of_split in splits.items():
        first = of_split[0]
        tracks = first.tracks_of(split)
        yield _window(tracks[len(tracks) // 2], f"median track by {first.name}'s errors")
        names: dict[_TrackWindow, list[str]] = {}
        for run in runs:
            for row in run.windows_of(split, 1):
                name = run.name
                if "pa_mpjpe" in row:
                    name += f" ({row['pa_mpjpe']:.0f} mm)"
                names.setdefault(_window(row, "the worst window of"), []).append(name)
        for worst, run_names in [*names.items()][:MOST_WORST]:
            yield worst._replace(why=f"{worst.why} {', '.join(run_names)}")


def _window(row: Mapping[str, Any], why: str) -> _TrackWindow:
    frames = int(row["first_frame"]), int(row["last_frame"])
    return _TrackWindow(str(row["split"]), str(row["track"]), *frames, why)


def _paint(
    bodies: LabelledBodies,
    predicted: _PredictedTrack,
    rows: NDArray[np.intp],
    tiles: Sequence[Image],
    colour: Colour,
    step: int = 0,
) -> list[Image]:
    """Draw the bodies of `step` frames later over the crops of rows, with their weak perspective
    cameras.
    """
    painted = []
    skinned = bodies.skin(predicted.pose[step][rows], predicted.betas[rows]).verts.numpy()
    for tile, verts, camera in zip(tiles, skinned, predicted.camera[rows], strict=True):
        pixels = (camera[0] * (verts[:, :2] + camera[1:]) + 1) * (TILE_PX / 2)
        seen = SeenBody(verts, pixels, verts[:, 2] + DISTANCE_M, colour)
        painted.append(bodies.painter.paint(tile, [seen]))
    return painted


def _draw(
    window: _TrackWindow,
    split: cache.Split,
    runs: Sequence[TrainingRun],
    bodies: LabelledBodies,
    raw: Path | None,
    problems: list[str],
) -> list[tuple[str, Image]]:
    """Label and image of each strip: the window's frames side by side, as they are and with each
    run's bodies.
    """
    predicted: dict[str, _PredictedTrack] = {}
    common = np.arange(window.first, window.last + 1)
    for run in runs:
        track = _PredictedTrack.read(run, window)
        if track is not None:
            predicted[run.name] = track
            common = np.intersect1d(common, track.frame_index)
    if not predicted or not len(common):
        raise ValueError("no frame was predicted by all runs: evaluate them again")

    chosen = common[np.unique(np.linspace(0, len(common) - 1, N_FRAMES).round().astype(int))]
    number = split.tracks.names.index(window.track)
    step = int(split.tracks.step[number])
    middle = int(chosen[len(chosen) // 2])
    frames = set(chosen.tolist())
    for track in predicted.values():
        frames.update(middle + step * later for later in track.pose)
    images = _images(split, number, sorted(frames), raw, problems)

    strips: list[tuple[str, list[Image]]] = []
    for (name, track), colour in zip(predicted.items(), itertools.cycle(COLOURS), strict=False):
        rows = np.searchsorted(track.frame_index, chosen)
        numbered = zip(rows, chosen.tolist(), strict=True)
        tiles = [track.tile(row, images.get(frame)) for row, frame in numbered]
        if not strips:
            strips.append(("frames", tiles))
        strips.append((name, _paint(bodies, track, rows, tiles, colour)))
        if len(track.pose) > 1:  # past and future at one frame, drawn over past and future frames
            rows = np.searchsorted(track.frame_index, [middle])
            painted = []
            for later in track.pose:
                tile = track.tile(rows[0], images.get(middle + step * later))
                painted += _paint(bodies, track, rows, [tile], colour, later)
            times = ", ".join(_time_label(step * later) for later in track.pose)
            strips.append((f"{name} at frame {middle}: {times}", painted))
    return [(label, np.concatenate(tiles, axis=1)) for label, tiles in strips]


def _images(
    split: cache.Split, number: int, frames: Sequence[int], raw: Path | None, problems: list[str]
) -> dict[int, Image | None]:
    """The source's frames; None for one that cannot be read, which is added to `problems`."""
    folder = None
    if raw is not None and (raw / split.name.partition("/")[0]).is_dir():
        folder = raw / split.name.partition("/")[0]
    entry = split.videos[int(split.tracks.video[number])]
    indices = [index for index in frames if index >= 0]
    try:
        source = sources.parse(raw_folder(split, folder), entry.source)
        read = zip(indices, source.read(indices), strict=False)
        return {index: frame.image for index, frame in read}
    except (PipelineError, OSError) as error:
        problems.append(f"Bodies of {split.name} are drawn on grey: {error}")
        return {}


def _time_label(n_frames: int) -> str:
    if not n_frames:
        return "now"
    side = "before" if n_frames < 0 else "later"
    return f"{abs(n_frames)} frames {side}"
