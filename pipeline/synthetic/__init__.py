"""Writes each dataset's official layout, small, from rendered bodies: the demo data.

    motion -> pixels and labels -> raw, and from there like any download: raw -> tracks -> features -> windows

`body` is a procedural body in SMPL's format, `motion` moves it, `scene` films it and ties labels to pixels, `layouts`
writes each dataset's files. Nothing downstream knows which data it reads, except by the marker file STAND_IN.json.
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
from pipeline.synthetic.scene.scene import Actor, Shot, Take, calibration_crops

__all__ = [
    "LAYOUTS",
    "SIZES",
    "Actor",
    "Shot",
    "Take",
    "calibration_crops",
    "is_current",
    "synthesize",
    "write_dataset",
]

LAYOUTS: Final[Mapping[str, Layout]] = {
    module.LAYOUT.name: module.LAYOUT
    for module in (penn_action, posetrack, insta_variety, kinetics, mpi_inf_3dhp, h36m, threedpw, amass)
}


def synthesize(
    raw: Path,
    body: Path,
    datasets: Iterable[str] = tuple(LAYOUTS),
    *,
    seed: int = 0,
    size: str = "default",
    workers: int | None = None,
    progress: Progress = silent,
) -> None:
    """Write `raw/<dataset>/` for every one of the datasets, and the procedural body's files into `body/`.

    The same seed and size give the same bytes, whatever the number of `workers` (processes; all cores by default).
    Folders that are up to date stay as they are; demo data of another seed, size or version are replaced. Each folder
    appears at once, complete. Raises PipelineError, before anything is written, when a folder holds something else.
    Progress counts the videos of all datasets.
    """
    request, names = _request(seed, size), list(datasets)
    for folder in (body, *(raw / name for name in names)):
        writing.refuse_foreign(folder)
    missing = [name for name in names if read_marker(raw / name) != writing.marker(_layout(name), request)]
    total = sum(len(LAYOUTS[name].shots(request)) for name in missing)
    if read_marker(body) != writing.body_marker():
        writing.write_body(body)
    done, cores = 0, workers or len(os.sched_getaffinity(0))
    for name in missing:
        for take in writing.record_dataset(LAYOUTS[name], raw / name, request, workers=cores):
            done += 1
            progress(done, total, f"{name} {take.shot.name}")


def is_current(raw: Path, body: Path, datasets: Iterable[str], *, seed: int = 0, size: str = "default") -> bool:
    """Whether `synthesize` would have nothing to do. Reads the marker files only."""
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
    but demo data.
    """
    request = _request(seed, size, n_videos, n_frames)
    return list(writing.record_dataset(_layout(name), folder, request, workers=workers))


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ConfigError(
            f"no demo data for {name!r}: there are some for {', '.join(LAYOUTS)}. Take it out of the list of datasets, "
            "or supply the official download and switch the demo data off ([embedded] enabled = false)."
        )
    return LAYOUTS[name]


def _request(seed: int, size: str, n_videos: int | None = None, n_frames: int | None = None) -> Request:
    if size not in SIZES:
        raise ConfigError(f"size of the demo data: expected one of {', '.join(SIZES)}, found {size!r}")
    return Request(seed=seed, size=size, n_videos=n_videos, n_frames=n_frames)
