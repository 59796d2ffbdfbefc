"""Write tracks as one self-contained HTML page without scripts.  tracks -> [page]

`write_page` draws the content that `from_cache` or `from_raw` has read: a `_Portrait` of each
track, a `_Card` of each of its frames, and on it an `_Overlay` of the frame and one of the crop. In
this order: writing pages, drawing tracks, drawing frames, finding out what a page shows, and the
templates.

Crops come from `crop_person`, and the joints on them from `normalise_keypoints`, as in training, so
that the page shows the same errors. Names and messages come from untrusted files: the templates
escape them, and the page's content security policy forbids scripts and external addresses.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.environment import TemplateStream

from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import as_called, count
from pipeline.files.outputs import mark_of
from pipeline.files.pixels.frames import Frame, Image
from pipeline.files.places import is_whole_page, write_aside
from pipeline.files.raw.corrections import quoted
from pipeline.files.raw.files import open_regular
from pipeline.people.boxes import CROP_SIZE, crop_person, normalise_keypoints
from pipeline.people.skeletons import Array
from pipeline.show.bodies import projected_joints
from pipeline.show.drawing import SIDE_COLOURS, Skeleton, SkeletonView, flat, joints_3d, views
from pipeline.show.tracks import PageContent, Present, ShownTrack, read_frames
from pipeline.show.video_file import encode_jpeg

VERSION: Final = 6  # of a page's content: `prepare` and `try` replace pages of others
LONGEST_PX: Final = 480  # longer side of a full frame on the page
QUALITY: Final = 80  # of the page's JPEGs
REPORTED: Final = 100  # frames of a video from one report of progress to the next
# Radius of a joint's dot on a crop: this share of its side. On the full frame: this share of the
# side of the crop's square, so that small people get small dots, but at least SMALLEST_DOT and at
# most DOT of the frame's longer side.
DOT: Final = 1 / 75
SMALLEST_DOT: Final = 1 / 250
MARGIN_M: Final = 0.1  # around 3D skeletons
GRID_M: Final = 0.5  # distance of the grid lines behind 3D joints


class _Rect(NamedTuple):
    """A person's box, or the part of the frame that the crop shows."""

    kind: str  # "box" or "crop"
    x: float  # px of the frame
    y: float
    width: float
    height: float


class _Picture(NamedTuple):
    """An image as the page has it; that of a frame may be smaller than the frame."""

    uri: str
    width: int
    height: int


class _Overlay(NamedTuple):
    """An image and its drawings, in px of the frame or of the crop."""

    image: _Picture
    width: int  # of the frame or the crop
    height: int
    rects: tuple[_Rect, ...]
    skeleton: Skeleton
    estimated: Skeleton  # joints of an estimated body
    radius: float  # of a joint's dot
    outside: int  # visible joints outside the image


class _Drawn(NamedTuple):
    """The images of a frame."""

    full: _Overlay
    crop: _Overlay


class _DrawingError(Exception):
    """A frame cannot be decoded or cropped."""


class _Card(NamedTuple):
    """One frame of a track."""

    number: int  # frame number in the video, from 0
    n_visible: int | None  # joints; None without 2D labels
    flags: tuple[str, ...]  # those of has_3d, has_smpl, valid that are not set
    problem: str | None  # why it cannot be drawn
    drawn: _Drawn | None  # also None for a track without images or boxes
    views: tuple[SkeletonView, ...]


class _Joints(NamedTuple):
    """2D joints in one frame, (49, 3) px of the frame and confidence."""

    labelled: Array
    estimated: Array  # projected from the estimated body


class ViewBox(NamedTuple):
    """The part of its coordinates that an SVG shows."""

    x: float
    y: float
    width: float
    height: float


class _Portrait(NamedTuple):
    """A drawn track."""

    track: ShownTrack
    what_3d: str  # description of the 3D joints, or why there are none
    view_box: ViewBox | None  # of all 3D views
    cards: tuple[_Card, ...]


def write_page(
    shown: PageContent, out: Path, *, by: str = "show", progress: Progress = silent
) -> None:
    """Draw the tracks, those of a video at once, and write the page, which appears as a whole.

    by: The command that writes it.
    """
    portraits = _draw_portraits(shown, progress)  # drawn while the template is rendered
    content = {"shown": shown, "version": VERSION, "portraits": portraits}
    write(templates(by).get_template("page.html").stream(content), out)


def _draw_portraits(shown: PageContent, progress: Progress) -> Iterator[_Portrait]:
    n_tracks = len(shown.tracks)
    n_drawn = 0
    for _, group in itertools.groupby(
        shown.tracks, lambda track: (track.record.video, track.source is None)
    ):
        tracks = [*group]
        progress(n_drawn, n_tracks, tracks[0].record.name)
        sketches = {track: _Sketch(track, shown.body) for track in tracks}
        for frame, present in _read_frames(tracks, progress):
            for track, row in present:
                sketches[track].add(frame, row)
        for sketch in sketches.values():
            progress(n_drawn, n_tracks, sketch.track.record.name)
            yield sketch.portrait()
            n_drawn += 1
    progress(n_tracks, n_tracks)


class _Sketch:
    """A track while its frames are drawn. `body`: folder of a body model for 3D joints.

    Raises what `Body.load` raises.
    """

    def __init__(self, track: ShownTrack, body: Path | None) -> None:
        self.track = track
        self._joints, self._caption = joints_3d(track.rows, body)
        self._estimated = projected_joints(track, body)
        self._cards: list[_Card] = []

    def add(self, frame: Frame, i: int) -> None:
        """Draw row i, the next one. A frame that cannot be decoded becomes a card with the
        reason.
        """
        track = self.track
        rows = track.rows
        n_visible = None
        if "kp_2d" in rows:
            n_visible = int((rows["kp_2d"][i, :, 2] > 0).sum())
        unset = tuple(name for name in track.flags if rows[name][i] != 1)
        problem = None
        drawn = None
        try:
            drawn = _draw_frame(frame, track, i, self._estimated[i])
        except _DrawingError as error:
            problem = str(error)
        shown: tuple[SkeletonView, ...] = ()
        if self._joints is not None:
            shown = views(self._joints[i], camera=track.has_images)
        self._cards.append(_Card(frame.index, n_visible, unset, problem, drawn, shown))

    def portrait(self) -> _Portrait:
        """The track, when all of its frames are drawn."""
        box = view_box([view for card in self._cards for view in card.views])
        return _Portrait(self.track, self._caption, box, tuple(self._cards))


def _read_frames(
    tracks: Sequence[ShownTrack], progress: Progress
) -> Iterator[tuple[Frame, Present]]:
    """As `read_frames`; reports how much of a video is decoded."""
    source = tracks[0].source
    if source is None or source.random_access:
        yield from read_frames(tracks)
        return
    last = max(int(track.rows["frame_index"][-1]) for track in tracks)
    # frames between them are decoded, too, and tell how far it is
    for frame, present in read_frames(tracks, range(0, last, REPORTED)):
        progress(frame.index, last, tracks[0].record.video, unit="frame")
        yield frame, present


def view_box(shown: Sequence[SkeletonView]) -> ViewBox | None:
    """A common box for all views, symmetric in x about the pelvis; None without a joint."""
    dots = list(itertools.chain.from_iterable(view.skeleton.dots for view in shown))
    if not dots:
        return None
    half = max(abs(dot.x) for dot in dots) + MARGIN_M
    top = min(dot.y for dot in dots)
    bottom = max(dot.y for dot in dots)
    return ViewBox(-half, top - MARGIN_M, 2 * half, bottom - top + 2 * MARGIN_M)


def _draw_frame(frame: Frame, track: ShownTrack, i: int, estimated: Array) -> _Drawn | None:
    """Draw row i of a track; None for a track without images or boxes. Raises _DrawingError.

    estimated: (49, 3) px and 1, the projected joints of its estimated body.
    """
    if frame.problem is not None:
        raise _DrawingError(f"{frame.kind}: {frame.problem}")
    image = frame.image
    if image is None or not track.has_images:
        return None
    bbox = track.rows["bbox"][i]
    scale = track.record.crop_scale
    try:
        crop = crop_person(image, bbox, scale)
    except ValueError as error:  # invalid box
        raise _DrawingError(f"bad_box: {error}") from error
    kp_2d = np.zeros((49, 3))
    if "kp_2d" in track.rows:
        kp_2d = track.rows["kp_2d"][i]

    joints = _Joints(kp_2d, estimated)
    on_crop = _Joints(_on_crop(kp_2d, bbox, scale), _on_crop(estimated, bbox, scale))
    return _Drawn(
        _draw_full(image, bbox, scale, joints),
        _overlay(crop, (CROP_SIZE, CROP_SIZE), (), joints, on_crop, CROP_SIZE * DOT),
    )


def _draw_full(image: Image, bbox: Array, scale: float, joints: _Joints) -> _Overlay:
    """Draw the whole frame: smaller, but in px of the frame."""
    centre = bbox[:2].astype(np.float64)
    size = bbox[2:].astype(np.float64)
    rects = (_rect("crop", centre, size * scale), _rect("box", centre, size))
    height, width = image.shape[:2]
    longest = max(height, width)
    crop_side = float(size[0]) * scale
    radius = min(max(crop_side * DOT, longest * SMALLEST_DOT), longest * DOT)
    return _overlay(_shrink(image), (width, height), rects, joints, joints, radius)


def _on_crop(kp_2d: Array, bbox: Array, scale: float) -> Array:
    """Convert joints to pixels of the crop, (49, 3)."""
    on_crop = normalise_keypoints(kp_2d.astype(np.float64), bbox, scale)
    on_crop[:, :2] = (on_crop[:, :2] + 1) * CROP_SIZE / 2
    return on_crop


def _rect(kind: str, centre: Array, size: Array) -> _Rect:
    x, y = (centre - size / 2).tolist()
    width, height = size.tolist()
    return _Rect(kind, x, y, width, height)


def _shrink(image: Image) -> Image:
    """Shrink an image so that its longer side is at most LONGEST_PX."""
    height, width = image.shape[:2]
    scale = LONGEST_PX / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _overlay(
    image: Image,
    size: tuple[int, int],
    rects: tuple[_Rect, ...],
    joints: _Joints,
    drawn: _Joints,
    radius: float,
) -> _Overlay:
    """Put joints over an RGB image. Coordinates are px of an image of this `size` (width, height),
    although the image shown may be smaller. drawn: the joints in these px.
    """
    pixels = drawn.labelled[:, :2]
    is_inside = ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=1)
    is_visible = joints.labelled[:, 2] > 0
    outside = int((is_visible & ~is_inside).sum())
    labelled = flat(joints.labelled, pixels)
    estimated = flat(joints.estimated, drawn.estimated[:, :2])
    picture = _Picture(_jpeg_uri(image), image.shape[1], image.shape[0])
    return _Overlay(picture, *size, rects, labelled, estimated, radius, outside)


def is_page(file: Path) -> bool:
    """Whether it is a page of tracks, of any version and command."""
    return _mark_of(file) is not None


def shows(page: Path, digest: str) -> bool:
    """Whether a whole page of this version shows the split of this digest."""
    if _mark_of(page) != f"{digest} {VERSION}":
        return False
    with contextlib.suppress(OSError), open_regular(page) as stream:
        return is_whole_page(stream)
    return False


def _mark_of(page: Path) -> str | None:
    """The digest and the version in a page's head; None if it is no page of tracks."""
    head = b""
    with contextlib.suppress(OSError), open_regular(page) as stream:
        head = stream.read(2000)
    match = re.search(rb'<meta name="split" content="(\w[\w ]*)">', head)
    if match is None:
        return None
    return match[1].decode()


def write(page: TemplateStream, out: Path) -> None:
    """Render into a file. `out` appears when it is complete; a failure leaves no file."""
    page.enable_buffering(64)
    with write_aside(out) as part, part.open("xb") as stream:
        for text in page:  # file names may be invalid UTF-8
            stream.write(as_called(text).encode("utf-8", "backslashreplace"))


def templates(by: str, *folders: Path) -> Environment:
    """The environment for templates in `folders` and in this package. by: The command that writes
    the page.
    """
    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["count"] = count
    environment.filters["jpeg_uri"] = _jpeg_uri
    environment.globals["generator"] = mark_of(by)
    environment.globals["grid"] = _grid
    environment.globals["isnan"] = math.isnan
    environment.filters["quoted"] = quoted
    colours = [f"--{side}: {colour};" for side, colour in SIDE_COLOURS.items()]
    environment.globals["on_photo"] = " ".join(colours)
    return environment


def _jpeg_uri(image: Image) -> str:
    """An RGB image as a data URI with a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, QUALITY)).decode()


def _grid(low: float, length: float) -> list[float]:
    """Multiples of GRID_M within [low, low + length].

    >>> _grid(-0.8, 1.6)
    [-0.5, 0.0, 0.5]
    """
    first = math.ceil(low / GRID_M)
    last = math.floor((low + length) / GRID_M)
    return [k * GRID_M for k in range(first, last + 1)]


def _number(value: float) -> str:
    """A coordinate with up to three decimals.

    >>> _number(12.0), _number(-0.3456), _number(-0.0001)
    ('12', '-0.346', '0')
    """
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
