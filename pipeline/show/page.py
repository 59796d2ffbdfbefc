"""The page itself: one HTML file without a script, that opens from disk and fetches nothing.  tracks -> [page]

Names and messages come from strangers' files: the templates escape all of them, and the page's own policy forbids
scripts and addresses besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.environment import TemplateStream

from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.raw.stand_in import refuse_mixture
from pipeline.show.drawing import BODY_25, COMMON, NAMES, grid, layer
from pipeline.show.posed import joints_3d
from pipeline.show.tracks import Shown
from pipeline.show.views import Portrait, portrait
from pipeline.smpl import assets


def write_page(shown: Shown, out: Path, *, body: Path | None = None, progress: Progress = silent) -> None:
    """Decode, draw and write: one track at a time is in memory. `out` appears when it is whole.

    `body`: the folder of a body model, which poses tracks that have SMPL parameters but no 3D joints. Raises
    StandInMixed when a stand-in and the real thing would meet, MissingAssets without the body's files.
    """
    if body is not None:
        refuse_other_body(shown, body)
    page = templates().get_template("page.html")
    write(page.stream(shown=shown, portraits=_portraits(shown, body, progress), needs=_needs(shown, body)), out)


def refuse_other_body(shown: Shown, body: Path) -> None:
    """Raise StandInMixed when a stand-in and the real thing would meet, MissingAssets without the body's files."""
    _, body_stands_in = assets.digest(body)
    refuse_mixture(shown.raw or Path(shown.name), shown.stand_in, body, body_stands_in)


def write(page: TemplateStream, out: Path) -> None:
    """Write as it is rendered, as UTF-8. `out` appears when it is whole; what stops it leaves nothing behind."""
    page.enable_buffering(64)
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as stream:
            page.dump(stream, "utf-8", "backslashreplace")  # names of raw files may be no UTF-8
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


class Needs(NamedTuple):
    """What of the legend belongs to something on the page."""

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


def _portraits(shown: Shown, body: Path | None, progress: Progress) -> Iterator[Portrait]:
    for done, track in enumerate(shown.tracks):
        progress(done, len(shown.tracks), track.name)
        yield portrait(track, body)
    progress(len(shown.tracks), len(shown.tracks))


def templates(*folders: Path) -> Environment:
    """What pages are made from: the templates of `folders`, before those of this package."""
    loader = FileSystemLoader([*folders, Path(__file__).parent / "templates"])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": number, "count": count}
    made.globals |= {"grid": grid, "isnan": math.isnan, "BODY_25": BODY_25, "COMMON": COMMON}
    return made


def number(value: float) -> str:
    """A coordinate, to a hundredth, or to a millimetre where it is in metres.

    >>> number(12.0), number(-0.3456), number(-0.0001)
    ('12', '-0.346', '0')
    """
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
