"""The page itself: one HTML file without a script, that opens from disk and fetches nothing.  tracks -> [page]

Crops come from `crop_person` and the joints on them from `normalise_keypoints`, as for training: where pixels and
labels disagree there, they disagree here. Names and messages come from untrusted files: the templates escape all of
them, and the page's own policy forbids scripts and addresses besides.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.environment import TemplateStream
from numpy.typing import NDArray

from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.crops import CROP_SIZE, crop_person, normalise_keypoints
from pipeline.pixels.frames import Frame, Image
from pipeline.raw.stand_in import refuse_mixture
from pipeline.show.drawing import (
    BODY_25,
    COMMON,
    NAMES,
    Skeleton,
    View,
    ViewBox,
    flat,
    joints_3d,
    layer,
    view_box,
    views,
)
from pipeline.show.tracks import Shown, ShownTrack
from pipeline.smpl import assets

Array = NDArray[Any]

LONGEST_PX: Final = 480  # longer side of a full frame on the page
QUALITY: Final = 80  # of the page's JPEGs
DOT: Final = 1 / 75  # half a joint's size / side of the crop: about an eye's
GRID_M: Final = 0.5  # between the lines behind 3D joints


class Rect(NamedTuple):
    """A box drawn on a frame, px of the frame."""

    kind: str  # "box", or "crop": the box larger by the crop scale
    x: float
    y: float
    width: float
    height: float


class Overlay(NamedTuple):
    """A picture with what is drawn on it, in the coordinates of its labels."""

    uri: str  # data:image/jpeg
    shown: tuple[int, int]  # width and height of the JPEG
    width: int  # of the picture that the labels count in
    height: int
    rects: tuple[Rect, ...]
    skeleton: Skeleton
    radius: float  # of a joint's dot
    outside: int  # visible joints outside the picture


class Card(NamedTuple):
    """One frame of a track."""

    number: int  # the video's own, from 0
    n_visible: int | None  # joints; None where there are no 2D labels
    flags: tuple[str, ...]  # those of has_3d, has_smpl, valid that are not set here
    problem: str  # why there is no picture; "" where there is one, or never was one
    full: Overlay | None
    crop: Overlay | None
    views: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class Portrait:
    """A track as it is drawn."""

    track: ShownTrack
    what_3d: str
    view_box: ViewBox | None  # of all 3D views
    cards: tuple[Card, ...]


def portrait(track: ShownTrack, body: Path | None) -> Portrait:
    """Decode the track's frames, one at a time, and draw them. `body`: the folder of a body model, to pose it.

    A frame that cannot be decoded becomes a card with the reason. Raises as `Body.load` does.
    """
    rows = track.rows
    joints, what = joints_3d(rows, body)
    indices = [int(index) for index in rows["frame_index"]]
    solid: list[tuple[View, ...]] = [()] * len(indices)
    if joints is not None:
        solid = [views(j, camera="bbox" in rows) if (j[:, 3] > 0).any() else () for j in joints]
    frames = (Frame(i, None, None) for i in indices) if track.source is None else track.source.read(indices)
    cards = []
    for i, frame in enumerate(frames):
        full, crop, problem = _pictures(frame, track, i)
        n_visible = int((rows["kp_2d"][i, :, 2] > 0).sum()) if "kp_2d" in rows else None
        flags = tuple(name for name in track.flags if rows[name][i] != 1)
        cards.append(Card(frame.index, n_visible, flags, problem, full, crop, solid[i]))
    return Portrait(track, what, view_box([view for of_frame in solid for view in of_frame]), tuple(cards))


def _pictures(frame: Frame, track: ShownTrack, i: int) -> tuple[Overlay | None, Overlay | None, str]:
    """The full frame and the crop of row i, or what is wrong with them."""
    image, scale = frame.image, track.record.crop_scale
    if image is None or "bbox" not in track.rows:
        return None, None, f"{frame.kind}: {frame.problem}" if frame.problem else ""
    bbox = track.rows["bbox"][i]
    kp_2d = track.rows["kp_2d"][i] if "kp_2d" in track.rows else np.zeros((49, 3))
    height, width = image.shape[:2]
    longest = max(width, height)
    try:
        crop = crop_person(image, bbox, scale)
    except ValueError as error:  # a box that no crop has
        return None, None, f"bad_box: {error}"
    rects = (_rect("crop", bbox, scale), _rect("box", bbox, 1.0))
    radius = min(max(rects[0].width * DOT, longest / 250), longest / 75)  # small people keep small dots
    if (shrink := LONGEST_PX / longest) < 1:
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    on_crop = (normalise_keypoints(kp_2d.astype(np.float64), bbox, scale)[:, :2] + 1) * CROP_SIZE / 2
    return (
        _overlay(image, (width, height), rects, kp_2d, kp_2d[:, :2], radius),
        _overlay(crop, (CROP_SIZE, CROP_SIZE), (), kp_2d, on_crop, CROP_SIZE * DOT),
        "",
    )


def _rect(kind: str, bbox: Array, scale: float) -> Rect:
    x, y, width, height = (float(v) for v in bbox)
    width, height = width * scale, height * scale
    return Rect(kind, x - width / 2, y - height / 2, width, height)


def _overlay(
    image: Image, size: tuple[int, int], rects: tuple[Rect, ...], kp_2d: Array, pixels: Array, radius: float
) -> Overlay:
    """An RGB picture and its joints at `pixels`, which count in a picture of `size`, with kp_2d's confidence."""
    coded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not coded:
        raise AssertionError(f"OpenCV cannot write a JPEG of {image.shape}")
    uri = "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
    inside = ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=1)
    outside = int(((kp_2d[:, 2] > 0) & ~inside).sum())
    return Overlay(uri, (image.shape[1], image.shape[0]), *size, rects, flat(kp_2d, pixels), radius, outside)


def write_page(shown: Shown, out: Path, *, body: Path | None = None, progress: Progress = silent) -> None:
    """Decode, draw and write: one track at a time is in memory. `out` appears when it is complete.

    `body`: the folder of a body model, which poses tracks that have SMPL parameters but no 3D joints. Raises
    StandInMixed when demo data would meet real data, MissingAssets without the body's files.
    """
    if body is not None:
        refuse_other_body(shown, body)

    def portraits() -> Iterator[Portrait]:
        for done, track in enumerate(shown.tracks):
            progress(done, len(shown.tracks), track.record.name)
            yield portrait(track, body)
        progress(len(shown.tracks), len(shown.tracks))

    page = templates().get_template("page.html")
    write(page.stream(shown=shown, portraits=portraits(), needs=_needs(shown, body)), out)


def refuse_other_body(shown: Shown, body: Path) -> None:
    """Raise StandInMixed when demo data would meet real data, MissingAssets without the body's files."""
    _, body_stands_in = assets.digest(body)
    refuse_mixture(shown.raw or Path(shown.name), shown.stand_in, body, body_stands_in)


def write(page: TemplateStream, out: Path) -> None:
    """Write while rendering, as UTF-8. `out` appears when it is complete; a failure leaves nothing behind."""
    page.enable_buffering(64)
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as stream:
            page.dump(stream, "utf-8", "backslashreplace")  # names of raw files may be no UTF-8
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


class Needs(NamedTuple):
    """Which entries of the legend belong to something on the page."""

    both_layers: bool  # joints of BODY_25 and others
    solid: bool  # 3D views


def _needs(shown: Shown, body: Path | None) -> Needs:
    seen, solid = np.zeros(len(NAMES), np.bool_), False
    for rows in (track.rows for track in shown.tracks):
        joints, _ = joints_3d(rows, None)  # posing takes time, and shows every joint
        in_space = (joints[..., 3] > 0).any(axis=0) if joints is not None else body is not None and "pose" in rows
        in_picture = (rows["kp_2d"][..., 2] > 0).any(axis=0) if "kp_2d" in rows else False
        solid |= bool(np.any(in_space))
        seen |= np.logical_or(in_space, in_picture)
    return Needs(len({layer(int(joint)) for joint in np.flatnonzero(seen)}) > 1, solid)


def templates(*folders: Path) -> Environment:
    """The templates of `folders`, before those of this package, with the filters and names that they use."""
    loader = FileSystemLoader([*folders, Path(__file__).parent / "templates"])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": number, "count": count}
    made.globals |= {"grid": grid, "isnan": math.isnan, "BODY_25": BODY_25, "COMMON": COMMON}
    return made


def grid(low: float, length: float) -> list[float]:
    """Multiples of GRID_M within [low, low + length].

    >>> grid(-0.8, 1.6)
    [-0.5, 0.0, 0.5]
    """
    first, last = int(np.ceil(low / GRID_M)), int(np.floor((low + length) / GRID_M))
    return [k * GRID_M for k in range(first, last + 1)]


def number(value: float) -> str:
    """A coordinate, to a hundredth, or to a millimetre where it is in metres.

    >>> number(12.0), number(-0.3456), number(-0.0001)
    ('12', '-0.346', '0')
    """
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
