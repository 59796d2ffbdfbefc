"""The models' bodies in the same frames, below each other.  evaluation -> report: [bodies] -> page

Drawn from the files of predictions that evaluation wrote: no network runs. Which windows: the worst one of each run,
and one from the middle of the first run's tracks, which also moves.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

import cache
from pipeline.crops import crop_person
from pipeline.errors import PipelineError
from pipeline.exchange.show.page import jpeg_uri
from pipeline.exchange.show.painted_bodies import COLOURS, Painter, SeenBody
from pipeline.features.pixel_sources import raw_folder
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import Image
from report.data.splits import UNREADABLE, Opened, problem
from report.page import Section
from report.training.results import badness, of_split
from report.training.run import Run

TILE_PX: Final = 160  # side of a frame
N_FRAMES: Final = 6  # of a window
MOST_MOVING: Final = 24  # frames of the looping picture
MOST_WORST: Final = 3  # windows of a split
GREY: Final = 96  # of a frame without a picture
QUALITY: Final = 80
DEPTH_M: Final = 10.0  # any: the camera is a weak perspective one
FPS: Final = 25.0  # of the looping picture, where the track's is not known
_MOVED: Final = re.compile(r"pose_(minus|plus)(\d+)")
BROKEN: Final = (*UNREADABLE, PipelineError, ValueError, KeyError, zipfile.BadZipFile)

Colour = tuple[float, float, float]


class Strip(NamedTuple):
    """Frames side by side."""

    label: str
    source: str  # a data: address
    width: int
    height: int = TILE_PX


class Window(NamedTuple):
    """Some frames of a track, and why these."""

    split: str
    track: str
    first: int  # frames of the source, the last one included
    last: int
    why: str


class Drawn(NamedTuple):
    """A window with everything that is drawn of it."""

    window: Window
    strips: Sequence[Strip]
    moving: Strip | None


@dataclass(frozen=True, eq=False)
class Predicted:
    """One run's bodies in the F frames of one track."""

    frame_index: NDArray[np.int64]  # (F,)
    bbox: NDArray[np.float32]  # (F, 4) cxcywh px
    scale: float  # crop side / box side
    camera: NDArray[np.float32]  # (F, 3) scale, tx, ty
    betas: NDArray[np.float32]  # (F, 10)
    pose: Mapping[int, NDArray[np.float32]]  # (F, 72) rad, by how many frames later; 0: of the frame itself

    @classmethod
    def read(cls, run: Run, window: Window) -> Predicted | None:
        """What the run wrote of this track; None where it wrote nothing. Raises what reading such a file does."""
        rows = (row for row in of_split(run.sequences, window.split) if row.get("track") == window.track)
        name = next((str(row["predictions"]) for row in rows if "predictions" in row), "")
        file = (run.folder / name).resolve()
        if not name or not file.is_relative_to(run.folder.resolve()):
            return None
        with np.load(file, allow_pickle=False) as held:
            moved = (match for name in held.files if (match := _MOVED.fullmatch(name)))
            steps = {(-1 if one[1] == "minus" else 1) * int(one[2]): held[one[0]] for one in moved}
            index, bbox, camera, betas = (held[name] for name in ("frame_index", "bbox", "camera", "betas"))
            # The box and crop_scale are those that the camera belongs to.
            scale = float(re.findall(r'"crop_scale": ([\d.]+)', str(held["about"]))[0])
            pose = dict(sorted({0: held["pose"], **steps}.items()))
            return cls(index, bbox, scale, camera, betas, pose)


def bodies_section(opened: Opened, runs: Sequence[Run], *, raw: Path | None, body: Path | None) -> Section:
    """raw: the folder of the datasets' raw folders; None: each is where it was at conversion. body: a folder."""
    having = [run for run in runs if any("predictions" in row for row in run.sequences)]
    problems: list[str] = []
    drawn: list[Drawn] = []
    try:
        painted = Bodies(body) if body is not None and having else None
    except BROKEN as error:
        painted = None
        problems.append(f"Bodies are not drawn: {error}")
    splits = {split.name: split for split in opened.splits}
    for window in windows_of(having):
        if painted is None:
            break
        try:
            drawn.append(_draw(window, splits[window.split], having, painted, raw, problems))
        except BROKEN as error:
            problems.append(problem(f"{window.split}, {window.track}", error))
    without = [run.name for run in runs if run not in having]
    return Section("bodies", "Bodies", "bodies.html", {"drawn": drawn, "without": without, "problems": problems})


def windows_of(runs: Sequence[Run]) -> Iterator[Window]:
    """For each split: a window from the middle of the first run's tracks, then the worst one of each run."""
    for split in dict.fromkeys(str(row.get("split")) for run in runs for row in run.sequences):
        named = next(run for run in runs if of_split(run.sequences, split))
        tracks = sorted(of_split(named.sequences, split), key=badness)
        yield _window(tracks[len(tracks) // 2], f"from the middle of the tracks, by {named.name}'s errors")
        worst: dict[tuple[str, int], Mapping[str, Any]] = {}
        names: dict[tuple[str, int], list[str]] = {}
        for run in runs:
            for row in of_split(run.worst_windows, split)[:1]:
                key = (str(row["track"]), int(row["first_frame"]))
                worst.setdefault(key, row)
                error = f" ({row['pa_mpjpe']:.0f} mm)" if "pa_mpjpe" in row else ""
                names.setdefault(key, []).append(f"{run.name}{error}")
        for key in list(worst)[:MOST_WORST]:
            yield _window(worst[key], f"the worst window of {', '.join(names[key])}")


def _window(row: Mapping[str, Any], why: str) -> Window:
    return Window(str(row["split"]), str(row["track"]), int(row["first_frame"]), int(row["last_frame"]), why)


class Bodies:
    """The body model of a folder, and what paints it. Raises as `Body.load` does."""

    def __init__(self, folder: Path) -> None:
        from pipeline.body import Body  # imports torch: a page without bodies needs none

        self._body = Body.load(folder)
        self._painter = Painter(self._body.faces.numpy())

    def verts(self, found: Predicted, rows: NDArray[np.intp], step: int = 0) -> NDArray[np.float32]:
        """(N, V, 3) m of some frames, camera axes, without the camera's shift."""
        import torch

        from vibe_model.rotations import axis_angle_to_matrix

        with torch.no_grad():
            rotmat = axis_angle_to_matrix(torch.as_tensor(found.pose[step][rows]).reshape(-1, 24, 3))
            return np.asarray(self._body(betas=torch.as_tensor(found.betas[rows]), rotmat=rotmat).verts)

    def over(self, tile: Image, verts: NDArray[np.float32], camera: NDArray[np.float32], colour: Colour) -> Image:
        """A crop with a body (V, 3) over it, by its weak perspective camera (3,)."""
        pixels = (camera[0] * (verts[:, :2] + camera[1:]) + 1) * (len(tile) / 2)
        return self._painter.paint(tile, [SeenBody(verts, pixels, verts[:, 2] + DEPTH_M, colour)])


def _draw(
    window: Window, split: cache.Split, runs: Sequence[Run], painted: Bodies, raw: Path | None, problems: list[str]
) -> Drawn:
    found = {run.name: one for run in runs if (one := Predicted.read(run, window)) is not None}
    window_frames = np.arange(window.first, window.last + 1)
    common = functools.reduce(np.intersect1d, (one.frame_index for one in found.values()), window_frames)
    if not found or not len(common):
        raise ValueError("expected frames that the runs predicted, found none: evaluate them again")
    chosen = common[np.unique(np.linspace(0, len(common) - 1, N_FRAMES).round().astype(int))]
    moving = common[:MOST_MOVING] if window.why.startswith("from") else common[:0]
    number = split.tracks.names.index(window.track)
    step, at = int(split.tracks.step[number]), int(chosen[len(chosen) // 2])
    around = [at + step * by for one in found.values() for by in one.pose]
    frames = _frames(split, number, sorted({*chosen.tolist(), *moving.tolist(), *around}), raw, problems)

    def tiles(one: Predicted, which: NDArray[np.int64], colour: Colour | None = None) -> list[Image]:
        """A run's crops of these frames; with a colour, its bodies over them."""
        rows = np.searchsorted(one.frame_index, which)
        plain = [_tile(one, frames.get(frame), row) for frame, row in zip(which.tolist(), rows.tolist(), strict=True)]
        if colour is None or not len(rows):
            return plain
        bodies = zip(plain, painted.verts(one, rows), one.camera[rows], strict=True)
        return [painted.over(tile, verts, camera, colour) for tile, verts, camera in bodies]

    first = next(iter(found.values()))
    strips, loops = [_strip("frames", tiles(first, chosen))], [tiles(first, moving)]
    for (name, one), colour in zip(found.items(), COLOURS, strict=False):
        strips.append(_strip(name, tiles(one, chosen, colour)))
        loops.append(tiles(one, moving, colour))
        if len(one.pose) > 1:  # past and future at one frame, over the frames that they are of
            row = int(np.searchsorted(one.frame_index, at))
            verts = (painted.verts(one, np.array([row]), by)[0] for by in one.pose)
            under = (_tile(one, frames.get(at + step * by), row) for by in one.pose)
            bodies = [painted.over(*each, one.camera[row], colour) for each in zip(under, verts, strict=True)]
            strips.append(_strip(f"{name} at frame {at}: {', '.join(map(_when, one.pose))}", bodies))
    rate = float(split.tracks.fps[number]) / step
    return Drawn(window, strips, _moving(", ".join(("frames", *found)), loops, rate) if len(moving) > 1 else None)


def _frames(
    split: cache.Split, number: int, wanted: Sequence[int], raw: Path | None, problems: list[str]
) -> dict[int, Image | None]:
    """The source's pictures; None for one that cannot be read, which is reported."""
    place = None if raw is None else raw / split.name.partition("/")[0]
    entry = split.videos[int(split.tracks.video[number])]
    indices = [index for index in wanted if index >= 0]
    try:
        source = sources.parse(raw_folder(split, place if place is not None and place.is_dir() else None), entry.source)
        return {index: frame.image for index, frame in zip(indices, source.read(indices), strict=False)}
    except (PipelineError, OSError) as error:
        problems.append(f"Bodies of {split.name} are on grey: {error}")
        return {}


def _tile(one: Predicted, image: Image | None, row: int) -> Image:
    if image is None:
        return np.full((TILE_PX, TILE_PX, 3), GREY, np.uint8)
    return crop_person(image, one.bbox[row], one.scale, TILE_PX)


def _when(step: int) -> str:
    return "now" if not step else f"{abs(step)} frames {'before' if step < 0 else 'later'}"


def _strip(label: str, tiles: Sequence[Image]) -> Strip:
    return Strip(label, jpeg_uri(np.concatenate([*tiles], axis=1), QUALITY), TILE_PX * len(tiles))


def _moving(label: str, rows: Sequence[Sequence[Image]], fps: float) -> Strip:
    """A looping picture: the frames, and beside them each run's bodies."""
    first, *others = (Pillow.fromarray(np.concatenate(tiles, axis=1)) for tiles in zip(*rows, strict=True))
    written = io.BytesIO()
    ms = round(1000 / (fps if np.isfinite(fps) and fps > 0 else FPS))
    first.save(written, "WEBP", save_all=True, append_images=others, duration=ms, loop=0, quality=QUALITY)
    uri = "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()
    return Strip(label, uri, TILE_PX * len(rows))
