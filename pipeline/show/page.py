"""One self-contained HTML page without scripts.  tracks -> [page]

Crops come from `crop_person`, and the joints on them from `normalise_keypoints`, as in training, so
that the page shows the same errors. Names and messages come from untrusted files: the templates
escape them, and the page's content security policy forbids scripts and external addresses.
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.environment import TemplateStream
from numpy.typing import NDArray

import cache
from pipeline.accounting import reason
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.crops import CROP_SIZE, crop_person, normalise_keypoints
from pipeline.files.pixels.frames import Frame, Image
from pipeline.show.drawing import (
    SIDE_COLOURS,
    Skeleton,
    View,
    ViewBox,
    flat,
    joints_3d,
    view_box,
    views,
)
from pipeline.show.tracks import PAGE_FRAMES, Choice, Shown, ShownTrack, from_cache, spread
from pipeline.show.untracked import Untracked

Array = NDArray[Any]
# "box" or "crop"; x, y, width, height, px of the frame
Rect = tuple[str, float, float, float, float]

LONGEST_PX: Final = 480  # longer side of a full frame on the page
QUALITY: Final = 80  # of the page's JPEGs
DOT: Final = 1 / 75  # radius of a joint / side of the crop
GRID_M: Final = 0.5  # between grid lines behind 3D joints


class _Overlay(NamedTuple):
    """An image and its drawings, in the coordinates of the labels."""

    image: Image  # as shown
    width: int  # of the image in the labels' coordinates
    height: int
    rects: tuple[Rect, ...]
    skeleton: Skeleton
    radius: float  # of a joint's dot
    outside: int  # visible joints outside the image


class _Card(NamedTuple):
    """One frame of a track."""

    number: int  # frame number in the video, from 0
    n_visible: int | None  # joints; None without 2D labels
    flags: tuple[str, ...]  # those of has_3d, has_smpl, valid that are not set
    problem: str  # why there is no image; "" if there is one, or the track has none
    full: _Overlay | None
    crop: _Overlay | None
    views: tuple[View, ...]


class Portrait(NamedTuple):
    """A drawn track."""

    track: ShownTrack
    what_3d: str
    view_box: ViewBox | None  # of all 3D views
    cards: tuple[_Card, ...]


def portrait(track: ShownTrack, body: Path | None) -> Portrait:
    """Decode and draw the track's frames. `body`: folder of a body model for 3D joints.

    A frame that cannot be decoded becomes a card with the reason. Raises what `Body.load` raises.
    """
    rows = track.rows
    joints, caption = joints_3d(rows, body)
    indices = [int(index) for index in rows["frame_index"]]
    solid = [
        () if joints is None else views(joints[i], camera="bbox" in rows)
        for i in range(len(indices))
    ]
    frames = (
        (Frame(i, None, None) for i in indices)
        if track.source is None
        else track.source.read(indices)
    )
    cards = []
    for i, frame in enumerate(frames):
        n_visible = int((rows["kp_2d"][i, :, 2] > 0).sum()) if "kp_2d" in rows else None
        flags = tuple(name for name in track.flags if rows[name][i] != 1)
        cards.append(_Card(frame.index, n_visible, flags, *_overlays(frame, track, i), solid[i]))
    return Portrait(
        track,
        caption,
        view_box([view for frame_views in solid for view in frame_views]),
        tuple(cards),
    )


def _draw_untracked(untracked: Untracked) -> Iterator[tuple[int, int, str, Image | None]]:
    """Yield some frames with such detections: frame, number of detections, problem or "", image."""
    frames, sizes = np.unique(untracked.frame_index, return_counts=True)
    chosen = spread(len(frames), 2 * PAGE_FRAMES)
    for frame, size in zip(
        untracked.source.read(frames[chosen].tolist()), sizes[chosen].tolist(), strict=True
    ):
        image = None if frame.image is None else frame.image.copy()
        if image is not None:
            untracked.draw(image, frame.index, [])
            image = _shrink(image, 2 * LONGEST_PX)
        yield frame.index, size, f"{frame.kind}: {frame.problem}" if frame.problem else "", image


def _overlays(
    frame: Frame, track: ShownTrack, i: int
) -> tuple[str, _Overlay | None, _Overlay | None]:
    """The problem of row i's image or "", the full frame, and the crop."""
    image = frame.image
    scale = track.record.crop_scale
    if image is None or "bbox" not in track.rows:
        return f"{frame.kind}: {frame.problem}" if frame.problem else "", None, None
    bbox = track.rows["bbox"][i]
    kp_2d = track.rows["kp_2d"][i] if "kp_2d" in track.rows else np.zeros((49, 3))
    try:
        crop = crop_person(image, bbox, scale)
    except ValueError as error:  # invalid box
        return f"bad_box: {error}", None, None
    centre = bbox[:2].astype(np.float64)
    size = bbox[2:].astype(np.float64)
    rects = tuple(
        (kind, *(centre - side / 2).tolist(), *side.tolist())
        for kind, side in (("crop", size * scale), ("box", size))
    )
    (height, width), longest = image.shape[:2], max(image.shape[:2])
    # small people get small dots
    radius = min(max(float(size[0]) * scale * DOT, longest / 250), longest / 75)
    on_crop = (
        (normalise_keypoints(kp_2d.astype(np.float64), bbox, scale)[:, :2] + 1) * CROP_SIZE / 2
    )
    full = _overlay(_shrink(image, LONGEST_PX), (width, height), rects, kp_2d, kp_2d[:, :2], radius)
    return "", full, _overlay(crop, (CROP_SIZE, CROP_SIZE), (), kp_2d, on_crop, CROP_SIZE * DOT)


def _shrink(image: Image, longest: int) -> Image:
    """The image, at most so large."""
    scale, (height, width) = longest / max(image.shape[:2]), image.shape[:2]
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    return (
        image
        if scale >= 1
        else np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    )


def _overlay(
    image: Image,
    size: tuple[int, int],
    rects: tuple[Rect, ...],
    kp_2d: Array,
    pixels: Array,
    radius: float,
) -> _Overlay:
    """An RGB image with joints at `pixels`, in the coordinates of an image of `size`, with kp_2d's
    confidence.
    """
    inside = ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=1)
    outside = int(((kp_2d[:, 2] > 0) & ~inside).sum())
    return _Overlay(image, *size, rects, flat(kp_2d, pixels), radius, outside)


def _jpeg_uri(image: Image) -> str:
    """An RGB image as a data URI with a JPEG."""
    coded, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    assert coded, f"OpenCV cannot write a JPEG of {image.shape}"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def write_page(shown: Shown, out: Path, *, progress: Progress = silent) -> None:
    """Draw the tracks one at a time, and write the page. `out` appears when it is complete."""

    def portraits() -> Iterator[Portrait]:
        for n_drawn, track in enumerate(shown.tracks):
            progress(n_drawn, len(shown.tracks), track.record.name)
            yield portrait(track, shown.body)
        progress(len(shown.tracks), len(shown.tracks))

    untracked = () if shown.untracked is None else _draw_untracked(shown.untracked)
    content = {"shown": shown, "portraits": portraits(), "untracked": untracked}
    write(templates().get_template("page.html").stream(content), out)


def write_split_page(
    root: cache.Root, name: str, page: Path, *, raw: Path, body: Path | None, progress: Progress
) -> int:
    """Write a page of some tracks of a split. Returns their number."""
    shown = from_cache(root, name, Choice(), raw=raw, body=body)
    write_page(shown, page, progress=progress)
    return len(shown.tracks)


def split_of(page: Path) -> str:
    """The digest of the committed split that a page shows; "" if there is no such page."""
    head = b""
    with contextlib.suppress(OSError), page.open("rb") as stream:
        head = stream.read(2000)
    match = re.search(rb'<meta name="split" content="(\w*)">', head)
    return match[1].decode() if match else ""


def write(page: TemplateStream, out: Path) -> None:
    """Render into a file. `out` appears when it is complete; a failure leaves no file."""
    page.enable_buffering(64)
    part = out.with_name(f".{out.name}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as stream:
            page.dump(stream, "utf-8", "backslashreplace")  # file names may be invalid UTF-8
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def templates(*folders: Path) -> Environment:
    """The environment for templates in `folders` and in this package."""
    loader = FileSystemLoader([*folders, Path(__file__).parent / "templates"])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "count": count,
        "jpeg_uri": _jpeg_uri,
        "reason": reason,
    }
    on_photo = " ".join(f"--{side}: {colour};" for side, colour in SIDE_COLOURS.items())
    environment.globals |= {"grid": _grid, "isnan": math.isnan, "on_photo": on_photo}
    return environment


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
