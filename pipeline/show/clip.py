"""Draw a video's people over all of its frames: boxes, joints, names, bodies.  tracks -> [clip]

`write_clip` draws the tracks of `pipeline.show.command`. The clip has every frame of the video, so
that dropped frames are seen, too. Only one frame is in memory at a time. Clips of predictions use
`frames_of` and `caption`, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Frame, FrameSource, Image, Pictures, Video
from pipeline.show.bodies import COLOURS, LabelledBodies, SeenBody
from pipeline.show.drawing import CAPTION_FOR, SIDE_COLOURS, Skeleton, flat, rgb
from pipeline.show.tracks import PageContent, ShownTrack
from pipeline.show.video_file import DEFAULT_FPS, video_writer
from pipeline.skeletons import Array

DEMO_MARK: Final = "DEMO DATA"  # in the corner of images made with demo data
OVER: Final = frozenset({"video_ended", "video_unreadable"})  # problems that end a video
# colours of tracks; those similar to the sides' come last
PEOPLE: Final = (*COLOURS[2:], *COLOURS[:2])
DIMMED: Final = 0.5  # brightness of the grey frames without rows
FURTHEST: Final = 2.0**15  # px, largest coordinate that OpenCV draws
SUBPIXELS: Final = 3  # fractional bits of OpenCV's points
BAND_PX: Final = 16  # height of a caption's band at that size


def frames_of(
    source: FrameSource, first: int = 0, step: int = 1, stop: int = 0
) -> Iterator[tuple[Frame, Image]]:
    """Yield a source's frames from `first` on, `step` apart, each with an image of the source's
    size.

    A frame that cannot be decoded gets the image before it. Images of another size are cropped, or
    padded with black. stop: End of a source that is neither a video nor numbered images. Raises
    RawDataError if no image can be read.
    """
    width, height = source.size()
    shown = np.zeros((height, width, 3), np.uint8)
    indices: Iterable[int]
    if isinstance(source, Video):
        indices = itertools.count(first, step)
    else:
        end = source.count_frames() if isinstance(source, Pictures) else stop
        indices = range(first, end, step)
    for frame in source.read(indices):
        if frame.kind in OVER:
            return
        if frame.image is not None:
            shown = _fit(frame.image, (height, width))
        yield frame, shown


def rate_of(source: FrameSource, fps: float = math.nan) -> float:
    """Frames per second at which the source is played; of images `fps`, or DEFAULT_FPS. Decodes a
    video.
    """
    if isinstance(source, Video):
        fps = source.record().played_fps
    return fps if math.isfinite(fps) else DEFAULT_FPS


def caption(image: Image, text: str, *, top: bool = False) -> None:
    """Draw a short text into the lower left corner, in place. top: on a grey band at the top.

    Lengths here and in the legend are px of an image whose shorter side is CAPTION_FOR.
    """
    size = _caption_size(image)
    margin = round(5 * size)
    bottom = image.shape[0] - margin
    if top:
        image[: round(BAND_PX * size)] = 96
        bottom = round((BAND_PX - 5) * size)
    _draw_text(image, text, round(4 * size), bottom, size)


def _caption_size(image: Image) -> float:
    """Factor by which an image's captions and lines are enlarged."""
    smaller: int = min(image.shape[:2])
    return max(1.0, smaller / CAPTION_FOR)


def _draw_legend(image: Image, size: float) -> None:
    """Draw a legend of the sides' colours in the lower right corner, in place, if the image is wide
    enough.
    """
    height, width = image.shape[:2]
    left = width - round(80 * size)
    bottom = height - round(5 * size)
    if left < round(220 * size):
        return
    for side in ("right", "left"):
        _draw_text(image, side, left, bottom, size, rgb(SIDE_COLOURS[side]))
        left += round(42 * size)


def _draw_skeleton(image: Image, skeleton: Skeleton, size: float) -> None:
    """Draw bones and joints in their sides' colours, in place; right joints are squares, left ones
    circles.
    """
    thick = max(1, round(size))
    radius = max(1, round(1.5 * size)) << SUBPIXELS
    for line in skeleton.lines:
        start = _point(line.x1, line.y1)
        end = _point(line.x2, line.y2)
        colour = rgb(SIDE_COLOURS[line.side])
        cv2.line(image, start, end, colour, thick, cv2.LINE_AA, SUBPIXELS)
    for dot in skeleton.dots:
        x, y = _point(dot.x, dot.y)
        colour = rgb(SIDE_COLOURS[dot.side])
        if dot.side == "right":
            corner = (x - radius, y - radius)
            opposite = (x + radius, y + radius)
            cv2.rectangle(image, corner, opposite, colour, -1, cv2.LINE_AA, SUBPIXELS)
        else:
            cv2.circle(image, (x, y), radius, colour, -1, cv2.LINE_AA, SUBPIXELS)


class _Person:
    """Draws one track.

    Attributes:
        track: The track.
        colour: Of its box, name and body.
        name: Of the track in its video.
        rows: Frame number -> row of the track.
    """

    def __init__(self, track: ShownTrack, number: int) -> None:
        self.track = track
        self.colour = PEOPLE[number % len(PEOPLE)]
        self.name = track.record.name.removeprefix(f"{track.record.video}/")
        self.rows = {int(frame): row for row, frame in enumerate(track.rows["frame_index"])}

    def draw(self, image: Image, row: int, size: float, taken: list[Array]) -> None:
        """Draw box, joints and name in the track's colour, in place. taken: see `_draw_label`."""
        rows = self.track.rows
        colour = [round(255 * share) for share in self.colour]
        centre_x, centre_y = rows["bbox"][row][:2].tolist()
        half_width, half_height = (rows["bbox"][row][2:] / 2).tolist()
        left = centre_x - half_width
        top = centre_y - half_height
        corner = _point(left, top)
        opposite = _point(centre_x + half_width, centre_y + half_height)
        cv2.rectangle(image, corner, opposite, colour, max(1, round(size)), cv2.LINE_AA, SUBPIXELS)
        _draw_label(image, self.name, left, top - 3 * size, size, colour, taken)
        if "kp_2d" in rows:
            _draw_skeleton(image, flat(rows["kp_2d"][row]), size)


def write_clip(shown: PageContent, out: Path, *, progress: Progress = silent) -> tuple[int, int]:
    """Write all frames of the tracks' video with the tracks drawn over them.

    `out` appears when it is complete. If rows are several frames apart, so are the clip's frames;
    the duration stays.

    Returns:
        Number of frames, and number of frames with a row.

    Raises:
        PipelineError: no tracks; tracks of several videos or without images; H.264 cannot be
            written.
    """
    video, source = _only_video(shown, out)
    people = [_Person(track, number) for number, track in enumerate(shown.tracks)]
    bodies = LabelledBodies(shown.body) if shown.body is not None else None

    frame_index = [track.rows["frame_index"] for track in shown.tracks]
    indices = np.unique(np.concatenate(frame_index))
    # The largest step that reaches every row's frame, such as 2 for rows of frames 1, 5 and 7; then
    # the clip has frames 1, 3, 5, ... No difference (one frame) gives 0.
    step = int(np.gcd.reduce(np.diff(indices))) or 1
    first = int(indices[0]) % step
    stop = int(indices[-1]) + 1

    fps = shown.tracks[0].record.fps
    n_written = 0
    with_rows = 0
    with video_writer(out, rate_of(source, fps) / step, source.size()) as write:
        for frame, image in frames_of(source, first, step, stop):
            write(_draw_frame(frame, image, people, bodies, shown))
            n_written += 1
            with_rows += any(frame.index in person.rows for person in people)
            progress(frame.index, max(stop, frame.index), video)
    return n_written, with_rows


def _only_video(shown: PageContent, out: Path) -> tuple[str, FrameSource]:
    """The name and the images of the tracks' video. Raises PipelineError as `write_clip` does."""
    if not shown.tracks:
        raise PipelineError(f"{shown.name}: no track for a clip. A page shows why: --out PAGE.html")
    videos = {track.record.video: track.source for track in shown.tracks}
    if len(videos) != 1:
        raise PipelineError(
            f"{out}: a clip shows one video, found {len(videos)}. Name one: --video NAME"
        )
    ((video, source),) = videos.items()
    if source is None or any("bbox" not in track.rows for track in shown.tracks):
        raise PipelineError(
            f"{shown.name}: {video} has no images for a clip. Draw a page instead: --out PAGE.html"
        )
    return video, source


def _draw_frame(
    frame: Frame,
    image: Image,
    people: list[_Person],
    bodies: LabelledBodies | None,
    shown: PageContent,
) -> Image:
    """Draw the people with a row in this frame over a copy of its image."""
    image = image.copy()
    size = _caption_size(image)
    present = [person for person in people if frame.index in person.rows]
    if not present:
        image[...] = (image.mean(axis=2, keepdims=True) * DIMMED).astype(np.uint8)
    if bodies is not None:
        visible_bodies: list[SeenBody] = []
        for person in present:
            visible_bodies += bodies.project_body(
                person.track, person.rows[frame.index], person.colour
            )
        visible_bodies.sort(key=lambda body: -float(body.depth.mean()))  # the nearest one on top
        image = bodies.painter.paint(image, visible_bodies)
    label_boxes: list[Array] = []
    for person in present:
        person.draw(image, person.rows[frame.index], size, label_boxes)

    texts = []
    absent = [person.name for person in people if person not in present]
    if absent:
        texts.append("no row: " + ", ".join(absent))
    if frame.problem:
        texts.append("not decoded, previous frame shown")
    if texts:
        caption(image, "; ".join(texts), top=True)
    mark = f"{DEMO_MARK}  " if shown.stand_in else ""
    caption(image, f"{mark}frame {frame.index}")
    if present:
        _draw_legend(image, size)
    return image


def _point(x: float, y: float) -> tuple[int, int]:
    """A point in OpenCV's fixed-point format."""
    fixed = np.clip([x, y], -FURTHEST, FURTHEST) * 2**SUBPIXELS
    return round(fixed[0]), round(fixed[1])


def _fit(image: Image, shape: tuple[int, int]) -> Image:
    """Crop an image to this size (height, width), or pad it with black."""
    if image.shape[:2] == shape:
        return image
    fitted = np.zeros((*shape, 3), np.uint8)
    height = min(shape[0], image.shape[0])
    width = min(shape[1], image.shape[1])
    fitted[:height, :width] = image[:height, :width]
    return fitted


def _draw_label(
    image: Image,
    text: str,
    left: float,
    bottom: float,
    size: float,
    colour: Sequence[int],
    taken: list[Array],
) -> None:
    """Draw the label of a box, inside the image and between its captions.

    left, bottom: The preferred place. taken: Boxes (x, y, x, y) of labels drawn before; the label
    moves up or down by whole lines to avoid them. Its own box is added.
    """
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * size, 1)
    line = height + round(4 * size)
    first = round(2 * BAND_PX * size)
    last = image.shape[0] - round(BAND_PX * size)
    left = max(0, min(left, image.shape[1] - width))
    bottom = round(max(first, min(bottom, last)))

    boxes = []
    for n_lines in sorted(range(-len(taken), len(taken) + 1), key=abs):  # 0 lines down, 1, -1, ...
        y = bottom + n_lines * line
        if n_lines == 0 or first <= y <= last:
            boxes.append(np.array([left, y - line, left + width, y]))
    chosen = boxes[0]  # if all overlap
    for box in boxes:
        if not any(_overlap(box, label_box) for label_box in taken):
            chosen = box
            break
    taken.append(chosen)
    _draw_text(image, text, round(left), int(chosen[3]), size, colour)


def _overlap(box: Array, other: Array) -> bool:
    """Whether two boxes (x, y, x, y) overlap."""
    starts_before = (box[:2] < other[2:]).all()
    ends_after = (other[:2] < box[2:]).all()
    return bool(starts_before and ends_after)


def _draw_text(
    image: Image,
    text: str,
    left: int,
    bottom: int,
    size: float,
    colour: Sequence[int] = (255, 255, 255),
) -> None:
    """Draw a text with a black outline, readable on anything, in place."""
    width = round(size)

    def draw(x: int, y: int, colour: Sequence[int]) -> None:
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(image, text, (x, y), font, 0.4 * size, colour, width, cv2.LINE_AA)

    # Thick letters are no outline in OpenCV 5, where they are wider.
    for x, y in itertools.product((left - width, left + width), (bottom - width, bottom + width)):
        draw(x, y, (0, 0, 0))
    draw(left, bottom, colour)
