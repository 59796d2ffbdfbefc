"""Writes the demo data: small datasets in their official layouts, from rendered bodies.

    motion -> pixels and labels -> raw, and then like any download: raw -> tracks -> features -> windows

`body` is a procedural body in SMPL's format, `motion` moves it, `scene` renders it with labels, `layouts` writes each
dataset's files. The marker file STAND_IN.json identifies demo data.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.cli.progress import Progress, silent
from pipeline.errors import ConfigError, PipelineError
from pipeline.files.raw import MARKER
from pipeline.plug_ins import load
from pipeline.processes import Failed
from pipeline.processes.pool import ordered_map
from vibe_extensions.demo import body as procedural_body
from vibe_extensions.demo.layouts import ReleaseLayout, Request
from vibe_extensions.demo.scene import Take

MODULES: Final = (  # of the layouts, in order
    *("penn_action", "posetrack", "insta_variety", "kinetics", "mpi_inf_3dhp"),
    *("h36m", "threedpw", "emdb", "bedlam", "amass", "videos"),
)
_LOADED: Final = [load(f"vibe_extensions.demo.layouts.{module}:LAYOUT") for module in MODULES]
LAYOUTS: Final[Mapping[str, ReleaseLayout]] = {layout.name: layout for layout in _LOADED}
VERSION: Final = 2  # raised whenever the same seed would give different files
BODY_WHAT: Final = "A procedural body in SMPL's file format, with no measured person in it: for the embedded data only."


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
    """Write `raw/<dataset>/` for each dataset, and the procedural body's files into `body/`.

    The same seed and size give the same bytes for any number of `workers` (processes; default: all cores). Replaces
    demo data of another seed, size or version; each folder appears when it is complete. Progress counts videos. Raises
    PipelineError, before writing, if a folder contains other files.
    """
    request, layouts = Request(seed, size), {name: _layout(name) for name in datasets}
    for folder in (body, *(raw / name for name in layouts)):
        _refuse_foreign(folder)
    missing = [layout for name, layout in layouts.items() if _read_marker(raw / name) != _marker(layout, request)]
    total = sum(len(list(layout.plan(request))) for layout in missing)
    if _read_marker(body) != _marker():
        write_body(body)
    n_written, cores = 0, workers or len(os.sched_getaffinity(0))
    for layout in missing:
        for take in _record(layout, raw / layout.name, request, cores):
            n_written += 1
            progress(n_written, total, f"{layout.name} {take.shot.name}")


def is_current(raw: Path, body: Path, datasets: Iterable[str], *, seed: int = 0, size: str = "default") -> bool:
    """Whether `synthesize` would have nothing to do. Reads the marker files only."""
    request = Request(seed, size)
    return _read_marker(body) == _marker() and all(
        _read_marker(raw / name) == _marker(_layout(name), request) for name in datasets
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
    """Write one dataset into `folder` (such as `raw/penn_action`), and return the ground truth of every video.

    Always writes. A `Take` has the shot (split, name, fps, image size), the camera, and for every person pose, betas,
    trans in the world (AMASS: its own, z up) and the 49 projected joints, with pixel centres at integers from 0.

    Args:
        n_videos: Videos per split.
        n_frames: Frames per video.

    Raises:
        PipelineError: the folder contains anything but demo data.
    """
    return list(_record(_layout(name), folder, Request(seed, size, n_videos, n_frames), workers))


def write_body(folder: Path) -> None:
    """Write the procedural body's folder, which does not depend on the seed. Raises as `write_dataset`."""
    with new_folder(folder, _marker()) as partial:
        procedural_body.write_files(partial)


@contextmanager
def new_folder(folder: Path, marker: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; then mark it as demo data and replace `folder`.

    A kill leaves the old folder, the new one or none; an error leaves the old one. Raises PipelineError if `folder`
    contains files that are not marked as demo data.
    """
    folder = folder.absolute()
    _refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "replaced"))
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other writers wait; released if the process is killed
        for left_over in (partial, replaced):  # left by a killed run
            shutil.rmtree(left_over, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)


def _read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker's content (seed, version, ...); None if missing or unreadable."""
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return marker


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    marker = _read_marker(folder)
    if marker is None or marker.get("stand_in") is not True:
        raise PipelineError(
            f"{folder}: expected no folder, or demo data with {MARKER}; found other files, which are not changed. "
            "Choose another --out, or disable demo data ([embedded] enabled = false)."
        )


def _record(layout: ReleaseLayout, folder: Path, request: Request, workers: int) -> Iterator[Take]:
    """Write a dataset's folder, and yield its takes; the folder appears after the last one."""
    shots = list(layout.plan(request))
    with new_folder(folder, _marker(layout, request)) as partial:
        record = functools.partial(layout.record, folder=partial)
        takes: Iterable[Take | Failed]
        if workers == 1 or len(shots) == 1:
            takes = map(record, shots)
        else:
            takes = ordered_map(record, shots, workers, preload=procedural_body.procedural)
        for shot, take in zip(shots, takes, strict=True):
            if isinstance(take, Failed):
                raise PipelineError(f"{layout.name}: the process that wrote {shot.name} {take.message}")
            yield take
        if layout.finish is not None:
            layout.finish(partial, shots)


def _marker(layout: ReleaseLayout | None = None, request: Request | None = None) -> dict[str, Any]:
    """Content of a dataset's marker file, which identifies its files; without arguments, of the body's."""
    versions = {"version": VERSION, "body_version": procedural_body.VERSION}
    if layout is None or request is None:
        return {"stand_in": True, "what": BODY_WHAT, "seed": None, **versions}
    amount = {"size": request.size, "n_videos": request.n_videos, "n_frames": request.n_frames}
    return {"stand_in": True, "what": layout.what, "seed": request.seed, **versions, **amount}


def _layout(name: str) -> ReleaseLayout:
    if name not in LAYOUTS:
        raise ConfigError(
            f"no demo data for {name!r}; supported: {', '.join(LAYOUTS)}. Remove it from the list of datasets, or use "
            "the official download and disable demo data ([embedded] enabled = false)."
        )
    return LAYOUTS[name]
