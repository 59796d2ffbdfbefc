"""Whole datasets onto the disk: all or nothing, marked as what they are, in parallel.  shots -> [raw]"""

from __future__ import annotations

import fcntl
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.cli.progress import Progress, silent
from pipeline.errors import PipelineError
from pipeline.processes import Failed, ordered_map
from pipeline.raw.stand_in import MARKER, read_marker
from pipeline.synthetic.body import body
from pipeline.synthetic.layouts.layout import Layout, Request
from pipeline.synthetic.scene.scene import Shot, Take

VERSION: Final = 1  # raised by hand whenever the same seed would give other files

BODY_WHAT: Final = "A procedural body in SMPL's file format, with no measured person in it: for the embedded data only."


def marker(layout: Layout, request: Request) -> dict[str, Any]:
    """What the marker file of a dataset says: all that its files depend on."""
    return {
        "stand_in": True,
        "what": layout.what,
        "seed": request.seed,
        "version": VERSION,
        "body_version": body.VERSION,
        "size": request.size,
        "n_videos": request.n_videos,
        "n_frames": request.n_frames,
    }


def body_marker() -> dict[str, Any]:
    """What the marker file of the body's folder says. The body is the same for every seed."""
    return {"stand_in": True, "what": BODY_WHAT, "seed": None, "version": VERSION, "body_version": body.VERSION}


def write_dataset(
    layout: Layout, folder: Path, request: Request, *, workers: int = 1, progress: Progress = silent
) -> list[Take]:
    """Write a dataset's folder; return what was played, shot by shot. Replaces embedded data, refuses anything else."""
    shots = layout.shots(request)
    takes: list[Take] = []

    def fill(below: Path) -> None:
        for take in _record_all(layout, shots, below, workers):
            takes.append(take)
            progress(len(takes), len(shots), f"{layout.name} {take.shot.name}")
        layout.finish(below, shots)

    write_folder(folder, marker(layout, request), fill)
    return takes


def write_body(folder: Path) -> None:
    """The stand-in body's folder, likewise."""
    write_folder(folder, body_marker(), body.write)


def write_folder(folder: Path, says: dict[str, Any], fill: Callable[[Path], None]) -> None:
    """Fill a folder beside `folder`, mark it, and put it in its place: a kill leaves the old one, the new one or none.

    Raises PipelineError when something lies there that is not marked as embedded data.
    """
    folder = folder.absolute()
    refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        partial, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "replaced"))
        for left_over in (partial, replaced):
            shutil.rmtree(left_over, ignore_errors=True)  # of a killed run: nobody else is at work here
        partial.mkdir()
        try:
            fill(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / MARKER).write_text(json.dumps(says, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)


def refuse_foreign(folder: Path) -> None:
    """Raise PipelineError when `folder` holds files that are not embedded data."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    found = read_marker(folder)
    if found is None or found.get("stand_in") is not True:
        raise PipelineError(
            f"{folder}: expected nothing, or embedded data with its {MARKER}; found other files, and they stay as they "
            "are. Choose another --out, or switch the embedded data off ([embedded] enabled = false)."
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer of a folder at a time: others wait. The system lets go of the lock when its holder is killed."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _record_all(layout: Layout, shots: list[Shot], folder: Path, workers: int) -> Iterator[Take]:
    if workers == 1 or len(shots) == 1:
        yield from (layout.record(body.procedural(), shot, folder) for shot in shots)
        return
    record = functools.partial(_record, layout, folder)
    for shot, take in zip(shots, ordered_map(record, shots, workers, preload=body.procedural), strict=True):
        if isinstance(take, Failed):
            raise PipelineError(f"{layout.name}: the process that wrote {shot.name} {take.message}")
        yield take


def _record(layout: Layout, folder: Path, shot: Shot) -> Take:
    return layout.record(body.procedural(), shot, folder)
