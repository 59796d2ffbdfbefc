"""Predicted bodies over the frames that they were predicted from.  features -> windows -> prediction -> [pictures]

VIBE's camera is a weak perspective one, (scale, tx, ty) over the crop; it is drawn by the perspective camera that the
model itself projects with: focal length 5000 px in a crop of 224 px, the body moved by (tx, ty, 2 * 5000 / (224 s)).
"""

from __future__ import annotations

import itertools
import math
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError, RawDataError
from pipeline.pixels.frames import Image, Pictures, Video
from pipeline.pixels.numbered import n_frames
from pipeline.show.painted_bodies import COLOURS, OPACITY, Painter, SeenBody
from pipeline.synthetic.files import mp4_writer
from vibe_model.cameras import CROP_PX, FOCAL_LENGTH_PX
from vibe_model.networks.video_model import Estimate, VideoModel
from vibe_model.prediction.predict import TrackBodies, device_of

if TYPE_CHECKING:
    from pipeline.pixels.frames import FrameSource

Floats = NDArray[np.floating[Any]]

FRAMES_AT_ONCE: Final = 16  # read, posed and painted together
BODIES_AT_ONCE: Final = 32  # posed together: their vertices are 3 MB
STAND_IN: Final = "DEMO DATA"  # in the corner of pictures that are made with demo data
DEFAULT_FPS: Final = 25.0  # of pictures, or where the video's header has none
OVER: Final = frozenset({"video_ended", "video_unreadable"})  # problems after which no frame comes
RECORD: Final = np.dtype(
    [
        ("frame", "<i8"),
        ("track", "<i4"),
        ("crop_scale", "<f4"),
        ("bbox", "<f4", 4),
        ("camera", "<f4", 3),
        ("shape", "<f4", 10),
        ("rotmat", "<f4", (24, 3, 3)),
    ]
)


class PredictedBodies:
    """All bodies of a video, by frame. They are kept on disk: an hour of a crowd has gigabytes of them."""

    def __init__(self, folder: Path) -> None:
        """folder: on the disk to use. The file has no name, and is deleted with this object."""
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._frames: list[NDArray[np.int64]] = []
        self._sorted: tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]] | None = None

    def add(self, bodies: TrackBodies) -> None:
        """The next track."""
        records = np.zeros(len(bodies), RECORD)
        records["track"], records["crop_scale"] = len(self._frames), bodies.track.crop_scale
        records["frame"] = bodies.frame_index
        for name in ("bbox", "camera", "shape", "rotmat"):
            records[name] = getattr(bodies, name)
        self._file.write(records.tobytes())
        self._frames.append(bodies.frame_index)
        self._sorted = None

    def __len__(self) -> int:
        return sum(map(len, self._frames))

    def of_frames(self, start: int, stop: int) -> NDArray[Any]:
        """(N,) RECORD of the frames [start, stop), by frame and then by track."""
        if not len(self):
            return np.zeros(0, RECORD)
        if self._sorted is None:
            self._file.flush()
            frames = np.concatenate(self._frames)
            order = np.argsort(frames, kind="stable")
            self._sorted = np.memmap(self._file, RECORD, mode="r"), frames[order], order
        records, frames, order = self._sorted
        first, last = np.searchsorted(frames, (start, stop))
        return np.asarray(records[order[first:last]])


@dataclass(frozen=True, slots=True, eq=False)
class BodyDrawing:
    """Poses bodies and paints them into the source's pictures."""

    generator: VideoModel
    painter: Painter
    opacity: float = OPACITY

    @classmethod
    def of(cls, generator: VideoModel, opacity: float = OPACITY) -> BodyDrawing:
        return cls(generator, Painter(generator.body.faces.cpu().numpy()), opacity)

    def vertices(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """(N,) RECORD -> (N, V, 3) m, camera axes, without the camera's translation."""
        parts = []
        for start in range(0, len(records), BODIES_AT_ONCE):
            part = records[start : start + BODIES_AT_ONCE]
            arrays = (np.ascontiguousarray(part[name]) for name in Estimate._fields)
            tensors = (torch.as_tensor(array, device=device_of(self.generator)) for array in arrays)
            with torch.no_grad():
                posed = self.generator.pose(Estimate(*tensors))
            parts.append(posed["verts"].float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 0, 3), np.float32)

    def paint(self, image: Image, records: NDArray[Any], verts: Floats) -> Image:
        """All bodies of one frame over its picture, the far ones first. records (N,), verts (N, V, 3)."""
        # Each body has a camera of its own; seen through one camera, the larger a metre is in the picture the nearer.
        nearness = records["camera"][:, 0] * records["bbox"][:, 2] * records["crop_scale"]
        bodies = [seen(records[i], verts[i]) for i in np.argsort(nearness, kind="stable").tolist()]
        return self.painter.paint(image, bodies, self.opacity)


def seen(record: Any, verts: Floats) -> SeenBody:
    """One body in the source's picture: a RECORD and its vertices (V, 3) m."""
    scale, shift = float(record["camera"][0]), record["camera"][1:].astype(np.float64)
    side = float(record["bbox"][2]) * float(record["crop_scale"])  # px of the crop, in the picture
    translation = np.array([*shift, 2 * FOCAL_LENGTH_PX / (CROP_PX * scale + 1e-9)])  # m
    points = verts.astype(np.float64) + translation
    focal = FOCAL_LENGTH_PX * side / CROP_PX  # px of the picture
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = record["bbox"][:2] + focal * points[:, :2] / points[:, 2:]
    return SeenBody(verts, pixels, points[:, 2], COLOURS[int(record["track"]) % len(COLOURS)])


def write_overlay(
    file: Path,
    source: FrameSource,
    bodies: PredictedBodies,
    generator: VideoModel,
    *,
    fps: float | None = None,
    text: str = "",
    progress: Progress = silent,
) -> int:
    """A video (MPEG-4) of all the source's frames, bodies painted over them. Returns how many frames it has.

    fps: of the video; None: the source's own. A frame that cannot be decoded is shown as the one before it, so that all
    others keep their time. text: in the corner of every frame. The file appears when it is complete. Raises
    PipelineError when it cannot be written.
    """
    width, height = source.size()
    total = n_frames(source) if isinstance(source, Pictures) else 0
    if isinstance(source, Video):
        total = source.header().n_frames or 0
    drawing, written = BodyDrawing.of(generator), 0
    part = file.with_name(f".{file.stem}.part{file.suffix}")  # the suffix names the container
    try:
        with mp4_writer(part, fps or rate_of(source), width, height) as writer:
            for image in _overlaid(source, bodies, drawing, (height, width)):
                caption(image, text)
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                written += 1
                progress(min(written, total), total, "frames")
        try:  # OpenCV reports no error when the disk is full
            found = Video(part.parent.resolve(), part.name).header().n_frames if written else 0
        except RawDataError:
            found = 0
        if not found or found != written:
            raise PipelineError(f"{file}: expected a video of {written} frames, found {found or 0}. Is its disk full?")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return written


def caption(image: Image, text: str, line: int = 0) -> None:
    """Write a short text into the lower left corner, `line` lines above the lowest, in place."""
    at = (4, image.shape[0] - 5 - 16 * line)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # readable on anything
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA)


def rate_of(source: FrameSource) -> float:
    """Frames a second of the source, or DEFAULT_FPS where it has none."""
    fps = source.header().fps if isinstance(source, Video) else math.nan
    return fps if math.isfinite(fps) else DEFAULT_FPS


def _overlaid(
    source: FrameSource, bodies: PredictedBodies, drawing: BodyDrawing, shape: tuple[int, int]
) -> Iterator[Image]:
    """Every frame of the source in `shape` (height, width), with its bodies."""
    shown = np.zeros((*shape, 3), np.uint8)
    indices = range(n_frames(source)) if isinstance(source, Pictures) else itertools.count()
    every = itertools.takewhile(lambda frame: frame.kind not in OVER, source.read(indices))  # damaged ones, too
    while frames := list(itertools.islice(every, FRAMES_AT_ONCE)):
        records = bodies.of_frames(frames[0].index, frames[-1].index + 1)
        verts = drawing.vertices(records)
        for frame in frames:
            if frame.image is not None:
                shown = _fitted(frame.image, shape)
            here = records["frame"] == frame.index
            yield drawing.paint(shown, records[here], verts[here])


def _fitted(image: Image, shape: tuple[int, int]) -> Image:
    """A picture of another size than the first one, cut or with black beside it: a video has one size."""
    if image.shape[:2] == shape:
        return image
    fitted = np.zeros((*shape, 3), np.uint8)
    height, width = (min(a, b) for a, b in zip(shape, image.shape[:2], strict=True))
    fitted[:height, :width] = image[:height, :width]
    return fitted
