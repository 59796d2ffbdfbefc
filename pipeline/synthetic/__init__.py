"""Writes each dataset's official layout, small, from rendered bodies: the embedded default data.

    motion -> pixels and labels -> raw, and from there like any download: raw -> tracks -> features -> windows

`anatomy`, `actions` and `motion` make a body move; `camera`, `backdrop`, `outfit`, `raster` and `render` turn it into
pictures; `scene` ties labels to pixels; a file for each dataset writes its layout; `writing` puts folders in place.
Nothing downstream knows which data it reads, except by the marker file STAND_IN.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pipeline.cli.progress import Progress, silent
from pipeline.errors import ConfigError
from pipeline.raw.stand_in import read_marker
from pipeline.synthetic.layouts import (
    amass,
    h36m,
    insta_variety,
    kinetics,
    mpi_inf_3dhp,
    penn_action,
    posetrack,
    threedpw,
    writing,
)
from pipeline.synthetic.layouts.layout import SIZES, Layout, Request
from pipeline.synthetic.scene.calibration import calibration_crops
from pipeline.synthetic.scene.scene import Actor, Shot, Take

__all__ = [
    "LAYOUTS",
    "SIZES",
    "Actor",
    "Shot",
    "Take",
    "calibration_crops",
    "is_current",
    "synthesize",
    "synthesize_into",
    "write_dataset",
]

LAYOUTS: Final[Mapping[str, Layout]] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (penn_action, posetrack, insta_variety, kinetics, mpi_inf_3dhp, h36m, threedpw, amass)
}


def synthesize(
    out: Path, *, seed: int = 0, size: str = "default", workers: int | None = None, progress: Progress | None = None
) -> None:
    """Write `out/raw/<dataset>/` for every dataset that has a layout here, and `out/body/`.

    The same seed and size give the same bytes, whatever the number of `workers` (processes; all cores by default).
    What is there already is left alone; embedded data of another seed, size or version is replaced. Each folder
    appears at once and whole. Raises PipelineError, before anything is written, when a folder holds something else.
    """
    synthesize_into(out / "raw", out / "body", LAYOUTS, seed=seed, size=size, workers=workers, progress=progress)


def synthesize_into(
    raw: Path,
    body: Path,
    datasets: Iterable[str],
    *,
    seed: int = 0,
    size: str = "default",
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """The same for some datasets, into `raw/<dataset>/` and `body/`. Progress counts the videos of all of them."""
    request, told = _request(seed, size), progress or silent
    names = list(datasets)
    for folder in (body, *(raw / name for name in names)):
        writing.refuse_foreign(folder)
    wanted = [name for name in names if read_marker(raw / name) != writing.marker(_layout(name), request)]
    total = sum(len(LAYOUTS[name].shots(request)) for name in wanted)
    if read_marker(body) != writing.body_marker():
        writing.write_body(body)
    done = 0
    for name in wanted:
        cores = workers or len(os.sched_getaffinity(0))
        takes = writing.write_dataset(
            LAYOUTS[name], raw / name, request, workers=cores, progress=_after(done, total, told)
        )
        done += len(takes)


def is_current(raw: Path, body: Path, datasets: Iterable[str], *, seed: int = 0, size: str = "default") -> bool:
    """Whether `synthesize_into` would have nothing to do. Reads the marker files only."""
    request = _request(seed, size)
    return read_marker(body) == writing.body_marker() and all(
        read_marker(raw / name) == writing.marker(_layout(name), request) for name in datasets
    )


def write_dataset(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    size: str = "default",
    n_videos: int | None = None,
    n_frames: int | None = None,
    workers: int = 1,
) -> list[Take]:
    """Write one dataset into `folder` (its own, e.g. `raw/penn_action`) and return the truth behind every video.

    `n_videos` in each split, `n_frames` in each video. Always writes. A `Take` has the shot (split, name, fps, picture
    size), the camera, and for every person pose, betas, trans in the world (AMASS: in its own, z up) and the 49
    projected joints, with pixel centres at whole numbers from 0. Raises PipelineError when the folder holds anything
    but embedded data.
    """
    return writing.write_dataset(_layout(name), folder, _request(seed, size, n_videos, n_frames), workers=workers)


def _after(before: int, whole: int, progress: Progress) -> Progress:
    """Progress of a part of the work: `before` of `whole` units are done already."""

    def tell(done: int, total: int, message: str = "") -> None:  # noqa: ARG001 - the signature is Progress's
        progress(before + done, whole, message)

    return tell


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ConfigError(
            f"no embedded data for {name!r}: there is some for {', '.join(LAYOUTS)}. Take it out of the list of "
            "datasets, or supply the official download and switch the embedded data off ([embedded] enabled = false)."
        )
    return LAYOUTS[name]


def _request(seed: int, size: str, n_videos: int | None = None, n_frames: int | None = None) -> Request:
    if size not in SIZES:
        raise ConfigError(f"size of the embedded data: expected one of {', '.join(SIZES)}, found {size!r}")
    return Request(seed=seed, size=size, n_videos=n_videos, n_frames=n_frames)
