"""Draw a video's people over all of its frames: boxes, joints, names, bodies.  tracks -> [clip]

`write_clip` draws the tracks of `pipeline.show.command`. The clip has every frame of the video, so
that dropped frames are seen, too. Only one frame is in memory at a time. Clips of predictions use
`frames_of`, too.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import FEW, first_few
from pipeline.errors import PipelineError
from pipeline.files.outputs import mark_of
from pipeline.files.pixels.frames import Frame, FrameSource, Image, Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.show.bodies import COLOURS, LabelledBodies, SeenBody
from pipeline.show.canvas import Canvas
from pipeline.show.drawing import flat
from pipeline.show.tracks import PageContent, ShownTrack
from pipeline.show.video_file import DEFAULT_FPS, video_writer

DEMO_MARK: Final = "DEMO DATA"  # in the corner of images made with demo data
OVER: Final = frozenset({"video_ended", "video_unreadable"})  # problems that end a video
# colours of tracks; those similar to the sides' come last
PEOPLE: Final = (*COLOURS[2:], *COLOURS[:2])
DIMMED: Final = 0.5  # brightness of the grey frames without rows


def frames_of(
    source: FrameSource, stop: int, *, first: int = 0, step: int = 1
) -> Iterator[tuple[Frame, Image]]:
    """Yield a source's frames from `first` on, `step` apart, each with an image of the source's
    size.

    A frame that cannot be decoded gets the image before it. Images of another size are cropped, or
    padded with black. stop: End of a source that is neither a video nor numbered images. Raises
    RawDataError if no image can be read.
    """
    width, height = source.size()
    shown = np.zeros((height, width, 3), np.uint8)
    indices: Iterable[int] = range(first, stop, step)
    if isinstance(source, Video):
        indices = itertools.count(first, step)
    elif isinstance(source, Pictures):
        indices = range(first, source.count_frames(), step)
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


class DrawnTrack:
    """A track that is drawn.

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

    def draw(self, canvas: Canvas, row: int) -> None:
        """Draw box, name and joints."""
        rows = self.track.rows
        bbox = rows["bbox"][row].astype(np.float64)
        half = bbox[2:] / 2
        colour = [round(255 * share) for share in self.colour]
        canvas.draw_box(bbox[:2] - half, bbox[:2] + half, self.name, colour)
        if "kp_2d" in rows:
            canvas.draw_skeleton(flat(rows["kp_2d"][row]))


def people_by_frame(people: Iterable[DrawnTrack]) -> defaultdict[int, list[DrawnTrack]]:
    """Frame number -> people with a row in it."""
    present_in = defaultdict[int, list[DrawnTrack]](list)
    for person in people:
        for index in person.rows:
            present_in[index].append(person)
    return present_in


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
    video, source = only_video(shown, out)
    people = [DrawnTrack(track, number) for number, track in enumerate(shown.tracks)]
    present_in = people_by_frame(people)
    bodies = None
    if shown.body is not None:
        bodies = LabelledBodies(shown.body)
    mark = f"{DEMO_MARK}  " if shown.stand_in else ""

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
    with video_writer(out, rate_of(source, fps) / step, source.size(), mark_of("show")) as write:
        for frame, image in frames_of(source, stop, first=first, step=step):
            present = present_in[frame.index]
            others = (person.name for person in people if person not in present)
            absent = list(itertools.islice(others, FEW + 1))  # of many tracks, most are elsewhere
            write(_draw_frame(frame, image, present, absent, bodies, mark))
            n_written += 1
            with_rows += bool(present)
            progress(frame.index, max(stop, frame.index), video)
    return n_written, with_rows


def only_video(shown: PageContent, out: Path) -> tuple[str, FrameSource]:
    """The name and the images of the tracks' video. Raises PipelineError as `write_clip` does."""
    if not shown.tracks:
        raise PipelineError(f"{shown.name}: no track for a clip. A page shows why: --out PAGE.html")
    videos = {track.record.video: track.source for track in shown.tracks}
    if len(videos) != 1:
        raise PipelineError(
            f"{out}: a clip shows one video, found {len(videos)}. Name one: --video NAME"
        )
    ((video, source),) = videos.items()
    if source is None or not all(track.has_images for track in shown.tracks):
        raise PipelineError(
            f"{shown.name}: {video} has no images for a clip. Draw a page instead: --out PAGE.html"
        )
    return video, source


def _draw_frame(
    frame: Frame,
    image: Image,
    present: Sequence[DrawnTrack],
    absent: Sequence[str],
    bodies: LabelledBodies | None,
    mark: str,
) -> Image:
    """Draw the people with a row in this frame, and the texts, over a copy of its image. absent:
    names of the others, at least the first ones; mark: start of the caption.
    """
    if present:
        image = paint_bodies(frame, image, present, bodies)
    else:
        grey = image.mean(axis=2, keepdims=True) * DIMMED
        image = np.broadcast_to(grey.astype(np.uint8), image.shape).copy()
    canvas = Canvas(image)
    for person in present:
        person.draw(canvas, person.rows[frame.index])
    texts = []
    if absent:
        texts.append(f"no row: {first_few(absent)}")
    if frame.problem:
        texts.append("not decoded, previous frame shown")
    if texts:
        canvas.draw_band("; ".join(texts))
    canvas.draw_caption(f"{mark}frame {frame.index}")
    if present:
        canvas.draw_legend()
    return image


def paint_bodies(
    frame: Frame, image: Image, people: Sequence[DrawnTrack], bodies: LabelledBodies | None
) -> Image:
    """A copy of the image, with the people's bodies over it if there is a body model."""
    if bodies is None:
        return image.copy()
    visible: list[SeenBody] = []
    for person in people:
        visible += bodies.project_body(person.track, person.rows[frame.index], person.colour)
    visible.sort(key=lambda body: -float(body.depth.mean()))  # the nearest one on top
    return bodies.painter.paint(image, visible)


def _fit(image: Image, shape: tuple[int, int]) -> Image:
    """Crop an image to this size (height, width), or pad it with black."""
    if image.shape[:2] == shape:
        return image
    fitted = np.zeros((*shape, 3), np.uint8)
    height = min(shape[0], image.shape[0])
    width = min(shape[1], image.shape[1])
    fitted[:height, :width] = image[:height, :width]
    return fitted
