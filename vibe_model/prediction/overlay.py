"""Overlays: predicted bodies, by frame, drawn over the frames of a player.  windows -> [bodies] ->
[images]

VIBE's weak perspective camera (s, tx, ty) over the crop is drawn as the perspective camera that the
model projects with: focal length 5000 px in a crop of 224 px, the body moved by (tx, ty, 2 * 5000 /
(224 s)). HMR2.0's crops have 256 px; its bodies are drawn within a pixel of its own projection.
"""

from __future__ import annotations

import functools
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

import cv2
import numpy as np

from pipeline.files.pixels.frames import Frame, Image
from pipeline.people.skeletons import Array, Float32s, Floats, Ints
from pipeline.show.bodies import OPACITY, BodyPainter, SeenBody
from pipeline.show.canvas import Canvas
from pipeline.show.clip import PEOPLE
from pipeline.show.player import Paint
from vibe_model.cameras import CROP_PX, FOCAL_LENGTH_PX
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import TrackBodies

GROUND: Final = 60  # grey background of views without an image
SMALLER: Final = 4  # sides of an image / sides of such a view in it
FRAMES_AT_ONCE: Final = 16  # read and posed together


def _record_type(n_steps: int = 0) -> np.dtype[Any]:
    """The dtype of a body in a frame. `moved`: its rotations at each step, for the same shape and
    camera.
    """
    return np.dtype(
        [
            ("frame", "<i8"),
            ("track", "<i4"),
            ("crop_scale", "<f4"),
            ("bbox", "<f4", 4),
            ("camera", "<f4", 3),
            ("shape", "<f4", 10),
            ("rotmat", "<f4", (24, 3, 3)),
            ("moved", "<f4", (n_steps, 24, 3, 3)),
        ]
    )


class PredictedBodies:
    """All bodies of a video by frame, on disk (an hour of a crowd takes gigabytes)."""

    def __init__(self, folder: Path, steps: tuple[int, ...] = ()) -> None:
        """Create an unnamed file in `folder`, which is deleted with this object. `steps`: the
        model's.
        """
        self.steps = steps
        self.step = 1  # frames between two rows of a track
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._type = _record_type(len(steps))
        self._frames: list[Ints] = []

    def add(self, bodies: TrackBodies) -> None:
        """Append a track, before frames are read."""
        self.step = bodies.track.step
        records = np.zeros(len(bodies), self._type)
        records["track"] = len(self._frames)
        records["crop_scale"] = bodies.track.crop_scale
        records["frame"] = bodies.frame_index
        for name in ("bbox", "camera", "shape", "rotmat"):
            records[name] = getattr(bodies, name)
        for i, step in enumerate(self.steps):
            records["moved"][:, i] = bodies.step_rotmats[step]
        self._file.write(records.tobytes())
        self._frames.append(bodies.frame_index)

    def read_frames(self, start: int, stop: int) -> Array:
        """Records (N,) of frames [start, stop), ordered by frame, then track."""
        records, frames, order = self._by_frame
        first, last = np.searchsorted(frames, (start, stop))
        return np.asarray(records[order[first:last]])

    def drawing(self, generator: VideoModel, fps: float) -> Paint:
        """Draws the bodies of frames of a video over their images. Past and future bodies, if the
        model predicts them, are small, in the upper corners.
        """
        drawing = _BodyDrawing(generator)

        @functools.lru_cache(1)
        def pose(block: int) -> _PosedBodies:
            first = block * FRAMES_AT_ONCE
            records = self.read_frames(first, first + FRAMES_AT_ONCE)
            moved = {}
            for i, step in enumerate(self.steps):
                label = _time_label(step * self.step, fps)
                moved[label] = drawing.vertices(records, i)
            verts = drawing.vertices(records)
            return _PosedBodies(records, verts, moved)

        def paint(frame: Frame, image: Image) -> Image:
            posed = pose(frame.index // FRAMES_AT_ONCE)
            in_frame = posed.take(frame.index)
            return drawing.views(image, in_frame)

        return paint

    @functools.cached_property
    def _by_frame(self) -> tuple[Array, Ints, Ints]:
        """All records, their frames in order, and the records' order by frame."""
        self._file.flush()
        frames = np.concatenate(self._frames)
        order = np.argsort(frames, kind="stable")
        records = np.memmap(self._file, self._type, mode="r")
        return records, frames[order], order


class _PosedBodies(NamedTuple):
    """N bodies with their vertices, (N, V, 3) m in camera axes, without translation."""

    records: Array  # (N,)
    verts: Float32s
    moved: Mapping[str, Float32s]  # caption -> the same bodies some frames before or after

    def take(self, frame: int) -> Self:
        """Those in a frame."""
        is_in = self.records["frame"] == frame
        moved = {text: verts[is_in] for text, verts in self.moved.items()}
        return type(self)(self.records[is_in], self.verts[is_in], moved)


class _BodyDrawing:
    """Poses bodies and draws them into the source's images."""

    def __init__(self, generator: VideoModel) -> None:
        self.generator = generator
        self.painter = BodyPainter(generator.body.faces.cpu().numpy())

    def vertices(self, records: Array, moved: int | None = None) -> Float32s:
        """Vertices (N, V, 3) m of records (N,), in camera axes, without translation.

        moved: index of the step before or after; None: now.
        """
        if not len(records):
            return np.zeros((0, 0, 3), np.float32)
        rotmat = records["rotmat"] if moved is None else records["moved"][:, moved]
        (verts,) = self.generator.pose_arrays(
            (rotmat, records["shape"], records["camera"]), "verts"
        )
        return verts

    def paint(self, image: Image, records: Array, verts: Floats) -> Image:
        """Draw all bodies of a frame over its image, the farthest first. records (N,), verts (N, V,
        3).
        """
        # Each body has its own camera. In a common camera, a body is nearer the more pixels a metre
        # has.
        nearness = records["camera"][:, 0] * records["bbox"][:, 2] * records["crop_scale"]
        farthest_first = np.argsort(nearness, kind="stable").tolist()
        bodies = [_project_body(records[i], verts[i]) for i in farthest_first]
        return self.painter.paint(image, bodies, OPACITY)

    def views(self, image: Image, bodies: _PosedBodies) -> Image:
        """Draw the bodies over the image, and along its upper edge views of past and future."""
        painted = self.paint(image, bodies.records, bodies.verts)
        ground = np.full_like(image, GROUND)
        height = max(1, image.shape[0] // SMALLER)
        width = max(1, image.shape[1] // SMALLER)
        lefts = np.linspace(0, image.shape[1] - width, len(bodies.moved))
        corners = zip(lefts.astype(int), bodies.moved.items(), strict=True)
        for left, (text, verts) in corners:
            view = self.paint(ground, bodies.records, verts)
            resized = cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA)
            small = np.asarray(resized, np.uint8)
            Canvas(small).draw_caption(text)
            painted[:height, left : left + width] = small
        return painted


def _project_body(record: Any, verts: Floats) -> SeenBody:
    """Project the vertices (V, 3) m of a record's body into the source's image."""
    scale = float(record["camera"][0])
    shift = record["camera"][1:].astype(np.float64)
    side = float(record["bbox"][2]) * float(record["crop_scale"])  # of the crop, in image px
    depth = 2 * FOCAL_LENGTH_PX / (CROP_PX * scale + 1e-9)  # m
    translation = np.array([*shift, depth])
    points = verts.astype(np.float64) + translation
    focal = FOCAL_LENGTH_PX * side / CROP_PX  # image px
    with np.errstate(divide="ignore", invalid="ignore"):
        from_centre = focal * points[:, :2] / points[:, 2:]
        pixels = record["bbox"][:2] + from_centre
    colour = PEOPLE[int(record["track"]) % len(PEOPLE)]
    return SeenBody(verts, pixels, points[:, 2], colour)


def _time_label(step: int, fps: float) -> str:
    """Caption of the bodies at a step in frames.

    >>> _time_label(-5, 25.0)
    '0.2 s before'
    """
    return f"{abs(step) / fps:.2g} s {'before' if step < 0 else 'after'}"
