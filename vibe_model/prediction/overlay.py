"""Overlays: predicted bodies, by frame, drawn over the frames as a video.  windows -> [bodies] ->
[images]

VIBE's weak perspective camera (s, tx, ty) over the crop is drawn as the perspective camera that the
model projects with: focal length 5000 px in a crop of 224 px, the body moved by (tx, ty, 2 * 5000 /
(224 s)). HMR2.0's crops have 256 px; its bodies are drawn within a pixel of its own projection.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from cache.storage.durable import write_atomic
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array, Float32s, Floats, Ints
from pipeline.show.bodies import COLOURS, OPACITY, BodyPainter, SeenBody
from pipeline.show.canvas import Canvas
from pipeline.show.clip import frames_of, rate_of
from pipeline.show.video_file import video_writer
from vibe_model.cameras import CROP_PX, FOCAL_LENGTH_PX
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import TrackBodies

if TYPE_CHECKING:
    from pipeline.files.pixels.frames import FrameSource


GROUND: Final = 60  # grey background of views without an image
FRAMES_AT_ONCE: Final = 16  # read, posed and painted together


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

    @property
    def stop(self) -> int:
        """The frame after the last one with a body."""
        return max((int(frames[-1]) + 1 for frames in self._frames), default=0)

    def read_frames(self, start: int, stop: int) -> Array:
        """Records (N,) of frames [start, stop), ordered by frame, then track."""
        records, frames, order = self._by_frame
        first, last = np.searchsorted(frames, (start, stop))
        return np.asarray(records[order[first:last]])

    def write_overlay(
        self, file: Path, source: FrameSource, generator: VideoModel, *, text: str = ""
    ) -> tuple[Path, int]:
        """Write all the source's frames with the bodies drawn over them. Returns the file and its
        number of frames.

        Past and future bodies, if the model predicts them, are beside each frame. A frame that
        cannot be decoded repeats the one before it.

        Args:
            file: An mp4 file; a single frame is written as a png file of this name.
            text: Caption in the corner of every frame.

        Raises:
            PipelineError: the file cannot be written.
        """
        rate = rate_of(source)
        images = _draw_frames(source, self, _BodyDrawing(generator), rate)
        first = next(images, None)
        if first is None:
            raise PipelineError(f"{source.place}: no frame can be decoded, so there is no overlay")
        second = next(images, None)
        file.parent.mkdir(parents=True, exist_ok=True)
        if second is None:
            Canvas(first).draw_caption(text)
            _, encoded = cv2.imencode(".png", first[..., ::-1])
            image_file = file.with_suffix(".png")
            write_atomic(image_file, encoded.tobytes())
            return image_file, 1
        written = 0
        height, width = first.shape[:2]
        with video_writer(file, rate, (width, height)) as write:
            for image in itertools.chain((first, second), images):
                Canvas(image).draw_caption(text)
                write(image)
                written += 1
        return file, written

    @functools.cached_property
    def _by_frame(self) -> tuple[Array, Ints, Ints]:
        """All records, their frames in order, and the records' order by frame."""
        self._file.flush()
        frames = np.concatenate(self._frames)
        order = np.argsort(frames, kind="stable")
        records = np.memmap(self._file, self._type, mode="r")
        return records, frames[order], order


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

    def views(
        self, image: Image, records: Array, verts: Floats, moved: Mapping[str, Floats]
    ) -> Image:
        """Draw the bodies over the image, and beside it a column of views of `moved`.

        moved: caption -> (N, V, 3) m of the same bodies before or after.
        """
        painted = self.paint(image, records, verts)
        if not moved:
            return painted
        ground = np.full_like(image, GROUND)
        n = len(moved)
        views = [self._small(ground, records, xyz, text, n) for text, xyz in moved.items()]
        column = np.concatenate(views)
        n_missing = len(image) - len(column)  # rows of px: its height / n is rounded down
        column = np.pad(column, ((0, n_missing), (0, 0), (0, 0)), mode="edge")
        return np.concatenate([painted, column], axis=1)

    def _small(self, ground: Image, records: Array, verts: Floats, text: str, n: int) -> Image:
        """The bodies over `ground`, scaled down to 1 / n of its sides, with a caption."""
        height, width = ground.shape[:2]
        painted = self.paint(ground, records, verts)
        small_size = (width // n, height // n)
        resized = cv2.resize(painted, small_size, interpolation=cv2.INTER_AREA)
        small = np.asarray(resized, np.uint8)
        Canvas(small).draw_caption(text)
        return small


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
    colour = COLOURS[int(record["track"]) % len(COLOURS)]
    return SeenBody(verts, pixels, points[:, 2], colour)


def _time_label(step: int, fps: float) -> str:
    """Caption of the bodies at a step in frames.

    >>> _time_label(-5, 25.0)
    '0.2 s before'
    """
    return f"{abs(step) / fps:.2g} s {'before' if step < 0 else 'after'}"


def _draw_frames(
    source: FrameSource, bodies: PredictedBodies, drawing: _BodyDrawing, fps: float
) -> Iterator[Image]:
    """Yield every frame of the source with its bodies, and past and future ones beside it."""
    source_frames = frames_of(source, bodies.stop)  # includes damaged frames
    while frames := list(itertools.islice(source_frames, FRAMES_AT_ONCE)):
        first, _ = frames[0]
        last, _ = frames[-1]
        records = bodies.read_frames(first.index, last.index + 1)
        verts = drawing.vertices(records)
        moved: dict[str, Any] = {
            _time_label(step * bodies.step, fps): drawing.vertices(records, i)
            for i, step in enumerate(bodies.steps)
        }
        for frame, image in frames:
            in_frame = records["frame"] == frame.index
            around = {text: points[in_frame] for text, points in moved.items()}
            yield drawing.views(image, records[in_frame], verts[in_frame], around)
