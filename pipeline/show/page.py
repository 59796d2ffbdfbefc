"""Pages: their templates, what they show, and the page of motions.  tracks -> [page]

`write_motions` draws motions without images, each in some frames. Pages with images are
those of `player` and `split`.

Names and messages come from untrusted files: the templates escape them, and a page's content
security policy allows its own style and script alone, by their hashes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.environment import TemplateStream

from pipeline.cli.text import as_called, count
from pipeline.files.outputs import HEAD, mark_of
from pipeline.files.pixels.frames import Image
from pipeline.files.places import is_whole_page, write_aside
from pipeline.files.raw.corrections import quote
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import Array
from pipeline.show.drawing import SkeletonView, joints_3d, views
from pipeline.show.tracks import PageContent, ShownTrack
from pipeline.show.video_file import encode_jpeg

VERSION: Final = 6  # of a page's content: `prepare` and `try` replace pages of others
QUALITY: Final = 80  # of the page's JPEGs
PORTRAIT_QUALITY: Final = 75
FRAMES: Final = 5  # of a motion
MARGIN_M: Final = 0.1  # around 3D skeletons
GRID_M: Final = 0.5  # distance of the grid lines behind 3D joints
TEMPLATES: Final = Path(__file__).parent / "templates"


class _ViewBox(NamedTuple):
    """The part of its coordinates that an SVG shows."""

    x: float
    y: float
    width: float
    height: float


class Solid(NamedTuple):
    """3D joints of a track in some frames."""

    what: str  # description of the joints, or why there are none
    frames: list[tuple[int, tuple[SkeletonView, ...]]]
    box: _ViewBox | None  # common to all views, symmetric in x about the pelvis

    @classmethod
    def from_rows(cls, rows: Mapping[str, Array], body: Path | None) -> Solid:
        """The 3D joints of a track's rows. body: folder of a body model, for poses."""
        joints, what = joints_3d(rows, body)
        if joints is None:
            return cls(what, [], None)
        drawn = [views(of_row, camera="bbox" in rows) for of_row in joints]
        frames = [*zip(rows["frame_index"].tolist(), drawn, strict=True)]
        dots = [dot for view in itertools.chain(*drawn) for dot in view.skeleton.dots]
        if not dots:
            return cls(what, [], None)
        half = max(abs(dot.x) for dot in dots) + MARGIN_M
        top = min(dot.y for dot in dots) - MARGIN_M
        bottom = max(dot.y for dot in dots) + MARGIN_M
        return cls(what, frames, _ViewBox(-half, top, 2 * half, bottom - top))


def write_motions(shown: PageContent, out: Path) -> None:
    """Write the page of motions without images. It appears as a whole."""
    style = (TEMPLATES / "player.css").read_text()
    content = {
        "title": shown.name,
        "policy": policy_of(style),
        "shown": shown,
        "style": style,
        "tracks": [(track, _sample(track, shown.body)) for track in shown.tracks],
    }
    write(templates("show").get_template("motions.html").stream(content), out)


def _sample(track: ShownTrack, body: Path | None) -> Solid:
    """The joints of a motion in some frames, evenly spaced from the first to the last."""
    n_drawn = min(FRAMES, track.n_frames)
    chosen = np.linspace(0, track.n_frames - 1, n_drawn).round().astype(int)
    return Solid.from_rows({name: column[chosen] for name, column in track.rows.items()}, body)


def policy_of(style: str, script: str = "", images: str = "data:") -> str:
    """The content security policy of a page with this style and script, which reach nothing."""
    return (
        f"default-src 'none'; img-src {images}; media-src data:; style-src {_hash_source(style)}; "
        f"script-src {_hash_source(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash_source(text: str) -> str:
    """A script or style in a content security policy.

    >>> _hash_source("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def shows(page: Path, digest: str) -> bool:
    """Whether a whole page of this version shows the split of this digest."""
    mark = f'<meta name="split" content="{digest} {VERSION}">'
    with contextlib.suppress(OSError), open_regular(page) as stream:
        return mark.encode() in stream.read(HEAD) and is_whole_page(stream)
    return False


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
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["count"] = count
    environment.filters["jpeg_uri"] = _jpeg_uri
    environment.globals["version"] = VERSION
    environment.globals["portrait_quality"] = PORTRAIT_QUALITY
    environment.globals["generator"] = mark_of(by)
    environment.globals["grid"] = _grid
    environment.globals["isnan"] = math.isnan
    environment.filters["quoted"] = quote
    return environment


def _jpeg_uri(image: Image, quality: int = QUALITY) -> str:
    """An RGB image as a data URI with a JPEG."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(image, quality)).decode()}"


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
