"""A few tracks of each dataset, drawn on their frames as `python -m pipeline show` draws them.  tracks -> [report]"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.cli.text import command
from pipeline.errors import MissingAssets, PipelineError
from pipeline.exchange.show.page import Portrait, portrait
from pipeline.exchange.show.tracks import Choice, from_cache
from pipeline.files.formats import smpl_files
from report.data.splits import UNREADABLE, Opened, problem
from report.page import Section

TRACKS: Final = 2  # of each dataset
FRAMES: Final = 3  # of each track
LINE: Final = "a few of each dataset, as they are in the cache: boxes, crops, joints"


class Drawn(NamedTuple):
    """Some tracks of one split."""

    split: str
    stand_in: bool
    portraits: Iterator[Portrait]  # drawn while the page is written: one at a time is in memory
    warnings: tuple[str, ...]
    more: str  # the command that shows more of them


def examples_section(opened: Opened, *, raw: Path | None, body: Path | None) -> Section:
    """`raw`: the folder that holds the datasets' raw folders now; None: each is where it was at conversion.

    `body`: the folder of a body model, which poses tracks that have SMPL parameters but no 3D joints.
    """
    problems: list[str] = []
    try:
        if body is not None:
            smpl_files.digest(body)
    except MissingAssets as error:
        problems.append(f"SMPL parameters without 3D joints are not drawn: {error}")
        body = None
    datasets: dict[str, list[Drawn]] = {}
    for dataset, splits in opened.datasets.items():
        # Training first, and two splits rather than one.
        of = sorted((s for s in splits if len(s.tracks)), key=lambda s: not s.name.endswith("/train"))[:TRACKS]
        for split in of:
            folder = None if raw is None else raw / dataset
            try:
                shown = from_cache(
                    opened.root, split.name, Choice(TRACKS // len(of), frames=FRAMES), raw=folder, body=body
                )
            except (*UNREADABLE, PipelineError) as error:
                problems.append(problem(split.name, error))
                continue
            portraits = (portrait(track, body) for track in shown.tracks)
            more = command("show", *shown.name.split("/"), "--cache", str(opened.root), "--out", "tracks.html")
            drawn = Drawn(shown.name, shown.stand_in, portraits, shown.warnings, more)
            datasets.setdefault(dataset, []).append(drawn)
    return Section("tracks", "Example tracks", "examples.html", {"datasets": datasets, "problems": problems}, LINE)
