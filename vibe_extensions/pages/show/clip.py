"""A clip of a video's people: boxes, joints, identities, bodies, and frames without rows.  tracks -> [clip]

Every frame of the video is in it, so that what was left out is seen, too; one is in memory at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Frame, FrameSource, Image, Pictures, Video
from pipeline.files.pixels.sources import n_frames
from vibe_extensions.pages.show.bodies import COLOURS, LabelledBodies, SeenBody
from vibe_extensions.pages.show.drawing import SIDE_COLOURS, Skeleton, flat
from vibe_extensions.pages.show.tracks import Shown, ShownTrack
from vibe_extensions.pages.video_file import DEFAULT_FPS, H264_ENCODERS, best_format, video_writer

DEMO_MARK: Final = "DEMO DATA"  # in the corner of pictures that are made with demo data
CAPTION_FOR: Final = 480  # px, a picture's smaller side up to which a caption's letters have their smallest size
BAND_PX: Final = 16  # behind a caption at the top, at that size
OVER: Final = frozenset({"video_ended", "video_unreadable"})  # problems after which no frame comes
PEOPLE: Final = (*COLOURS[2:], *COLOURS[:2])  # a colour a track: those of the sides come last
DIMMED: Final = 0.5  # brightness of frames without any row, grey besides
FURTHEST: Final = 2.0**15  # px: OpenCV draws no lines to points beyond
SUBPIXELS: Final = 3  # bits: OpenCV's points are whole numbers of eighths of a pixel


def frames_of(source: FrameSource, first: int = 0, step: int = 1, stop: int = 0) -> Iterator[tuple[Frame, Image]]:
    """Frames of a source from `first` on, `step` apart, to its end, each with what is shown: all of one size.

    Instead of a frame that cannot be decoded the one before is shown, so that all others keep their time.
    stop: the end of a source that is neither a video nor numbered pictures. A picture of another size than the source's
    is cut, or has black beside it. Raises RawDataError where no picture can be read.
    """
    width, height = source.size()
    shown = np.zeros((height, width, 3), np.uint8)
    end = n_frames(source) if isinstance(source, Pictures) else stop
    indices = itertools.count(first, step) if isinstance(source, Video) else range(first, end, step)
    for frame in itertools.takewhile(lambda frame: frame.kind not in OVER, source.read(indices)):
        if frame.image is not None:
            shown = _fitted(frame.image, (height, width))
        yield frame, shown


def rate_of(source: FrameSource) -> float:
    """Frames a second of the source, or DEFAULT_FPS where it has none."""
    fps = source.header().fps if isinstance(source, Video) else math.nan
    return fps if math.isfinite(fps) else DEFAULT_FPS


def caption(image: Image, text: str, *, top: bool = False) -> None:
    """Write a short text into the lower left corner, in place; larger in large ones. top: on a grey band at the top."""
    size = max(1.0, min(image.shape[:2]) / CAPTION_FOR)
    if top:
        image[: round(BAND_PX * size)] = 96
    bottom = round((BAND_PX - 5) * size) if top else image.shape[0] - round(5 * size)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # readable on anything
        thick, letters = round(thickness * size), 0.4 * size
        position = (round(4 * size), bottom)
        cv2.putText(image, text, position, cv2.FONT_HERSHEY_SIMPLEX, letters, colour, thick, cv2.LINE_AA)


def _draw_legend(image: Image, size: float) -> None:
    """Name the sides' colours in the lower right corner, in place, where there is room beside the caption."""
    font, letters, left = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, image.shape[1] - round(80 * size)
    if left < round(220 * size):
        return
    for side in ("right", "left"):
        place = (left, image.shape[0] - round(5 * size))
        for colour, thickness in (((0, 0, 0), 3), (_rgb(SIDE_COLOURS[side]), 1)):
            cv2.putText(image, side, place, font, letters, colour, round(thickness * size), cv2.LINE_AA)
        left += round(42 * size)


def draw_skeleton(image: Image, skeleton: Skeleton, size: float) -> None:
    """Bones and joints in the colours of their sides, in place: right joints are squares, left ones round. size: px."""
    thick, radius = max(1, round(size)), max(1, round(1.5 * size))
    for line in skeleton.lines:
        ends = (_point(line.x1, line.y1), _point(line.x2, line.y2))
        cv2.line(image, *ends, _rgb(SIDE_COLOURS[line.side]), thick, cv2.LINE_AA, SUBPIXELS)
    for dot in skeleton.dots:
        colour, (x, y) = _rgb(SIDE_COLOURS[dot.side]), _point(dot.x, dot.y)
        if dot.side == "right":
            half = radius << SUBPIXELS
            cv2.rectangle(image, (x - half, y - half), (x + half, y + half), colour, -1, cv2.LINE_AA, SUBPIXELS)
        else:
            cv2.circle(image, (x, y), radius << SUBPIXELS, colour, -1, cv2.LINE_AA, SUBPIXELS)


class _Person:
    """One track, and what is drawn of it."""

    def __init__(self, track: ShownTrack, number: int) -> None:
        self.track, self.colour = track, PEOPLE[number % len(PEOPLE)]
        self.name = track.record.name.removeprefix(f"{track.record.video}/")
        self.rows = {int(frame): row for row, frame in enumerate(track.rows["frame_index"])}

    def draw(self, image: Image, row: int, size: float) -> None:
        """Box, joints and name in the track's colour, in place."""
        rows, colour = self.track.rows, [round(255 * share) for share in self.colour]
        (x, y), (half_width, half_height) = rows["bbox"][row][:2].tolist(), (rows["bbox"][row][2:] / 2).tolist()
        corner = _point(x - half_width, y - half_height)
        opposite = _point(x + half_width, y + half_height)
        cv2.rectangle(image, corner, opposite, colour, max(1, round(size)), cv2.LINE_AA, SUBPIXELS)
        font, letters, thick = cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, max(1, round(size))
        width, lowest = cv2.getTextSize(self.name, font, letters, thick)[0][0], image.shape[0] - round(BAND_PX * size)
        left = max(0, min(corner[0] >> SUBPIXELS, image.shape[1] - width))  # inside the picture, between its captions
        bottom = max(round(2 * BAND_PX * size), min((corner[1] >> SUBPIXELS) - round(3 * size), lowest))
        cv2.putText(image, self.name, (left, bottom), font, letters, colour, thick, cv2.LINE_AA)
        if "kp_2d" in rows:
            draw_skeleton(image, flat(rows["kp_2d"][row]), size)


def write_clip(shown: Shown, out: Path, *, progress: Progress = silent) -> tuple[int, int]:
    """All frames of the tracks' one video, with what the tracks have in each: how many, and how many have a row.

    `out` appears when it is complete. Where rows are some frames apart, so are the clip's frames, at so many a second
    that time is kept. Raises PipelineError for no tracks, for those of several videos or without pictures, and where
    H.264 cannot be written.
    """
    if not shown.tracks:
        raise PipelineError(f"{shown.name}: no track to make a clip of. A page says why: --out PAGE.html")
    videos = {track.record.video: track.source for track in shown.tracks}
    if len(videos) != 1:
        raise PipelineError(f"{out}: a clip is of one video, found {len(videos)}. Name one: --video NAME")
    ((video, source),) = videos.items()
    if source is None or any("bbox" not in track.rows for track in shown.tracks):
        raise PipelineError(f"{shown.name}: {video} has no pictures to make a clip of. Draw a page: --out PAGE.html")
    require_h264(out)
    people = [_Person(track, number) for number, track in enumerate(shown.tracks)]
    bodies = LabelledBodies(shown.body) if shown.body is not None else None
    indices = np.unique(np.concatenate([track.rows["frame_index"] for track in shown.tracks]))
    step = int(np.gcd.reduce(np.diff(indices))) or 1  # the largest with which every row has its frame
    fps = shown.tracks[0].record.fps
    total = (source.header().n_frames or 0) if isinstance(source, Video) else int(indices[-1]) + 1
    n_written = with_rows = 0
    with video_writer(out, (fps if math.isfinite(fps) else rate_of(source)) / step, source.size()) as write:
        for frame, picture in frames_of(source, int(indices[0]) % step, step, int(indices[-1]) + 1):
            present = [(person, person.rows[frame.index]) for person in people if frame.index in person.rows]
            write(_drawn(frame, picture, people, present, bodies, shown.stand_in))
            n_written, with_rows = n_written + 1, with_rows + bool(present)
            progress(frame.index, max(total, frame.index), video)
    return n_written, with_rows


def require_h264(out: Path) -> None:
    """Raise PipelineError where H.264 cannot be written here, with what to install."""
    if best_format().codec not in H264_ENCODERS:
        found = "an FFmpeg without an encoder of it" if find_spec("av") else "none"
        do = "pip install 'vibe-pipeline[pages]', in a clone .venv/bin/pip install -e '.[pages]'"
        raise PipelineError(f"{out}: H.264 is written by the package av, found {found}: {do}")


def _drawn(
    frame: Frame,
    picture: Image,
    people: list[_Person],
    present: list[tuple[_Person, int]],
    bodies: LabelledBodies | None,
    stand_in: bool,
) -> Image:
    """A frame with the people who have a row in it."""
    image, size = picture.copy(), max(1.0, min(picture.shape[:2]) / CAPTION_FOR)
    if not present:
        image[...] = (image.mean(axis=2, keepdims=True) * DIMMED).astype(np.uint8)
    if bodies is not None:
        seen: list[SeenBody] = []
        for person, row in present:
            seen += bodies.seen(person.track, row, person.colour)
        image = bodies.painter.paint(image, sorted(seen, key=lambda body: -float(body.depth.mean())))
    for person, row in present:
        person.draw(image, row, size)
    marks = [person.name for person in people if frame.index not in person.rows]
    texts = ["no row: " + ", ".join(marks)] if marks else []
    if frame.problem:
        texts.append("not decoded: the frame before")
    if texts:
        caption(image, "; ".join(texts), top=True)
    caption(image, f"{f'{DEMO_MARK}  ' if stand_in else ''}frame {frame.index}")
    if present:
        _draw_legend(image, size)
    return image


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _point(x: float, y: float) -> tuple[int, int]:
    """As OpenCV takes points."""
    x, y = (round(min(max(value, -FURTHEST), FURTHEST) * 2**SUBPIXELS) for value in (x, y))
    return x, y


def _fitted(image: Image, shape: tuple[int, int]) -> Image:
    """A picture of another size than the first one, cut or with black beside it: a video has one size."""
    if image.shape[:2] == shape:
        return image
    fitted = np.zeros((*shape, 3), np.uint8)
    height, width = (min(a, b) for a, b in zip(shape, image.shape[:2], strict=True))
    fitted[:height, :width] = image[:height, :width]
    return fitted
