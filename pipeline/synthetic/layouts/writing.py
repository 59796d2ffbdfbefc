"""Whole datasets onto the disk: all or nothing, marked as demo data, in parallel.  shots -> [raw]"""

from __future__ import annotations

import fcntl
import functools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.errors import PipelineError
from pipeline.processes import Failed, ordered_map
from pipeline.raw.stand_in import MARKER, read_marker
from pipeline.synthetic.body import body
from pipeline.synthetic.layouts.layout import Layout, Request
from pipeline.synthetic.scene.scene import Shot, Take

VERSION: Final = 1  # raised by hand whenever the same seed would give other files
BODY_WHAT: Final = "A procedural body in SMPL's file format, with no measured person in it: for the embedded data only."


def marker(layout: Layout, request: Request) -> dict[str, Any]:
    """The content of a dataset's marker file: all that its files depend on."""
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
    """The content of the body's marker file. The body is the same for every seed."""
    return {"stand_in": True, "what": BODY_WHAT, "seed": None, "version": VERSION, "body_version": body.VERSION}


def record_dataset(layout: Layout, folder: Path, request: Request, *, workers: int = 1) -> Iterator[Take]:
    """Write a dataset's folder; yield what was played, shot by shot. Replaces demo data, refuses anything else.

    The folder is in its place once the last one was taken.
    """
    shots = layout.shots(request)
    with new_folder(folder, marker(layout, request)) as partial:
        yield from _record_all(layout, shots, partial, workers)
        if layout.finish is not None:
            layout.finish(partial, shots)


def write_body(folder: Path) -> None:
    """Write the procedural body's folder, likewise."""
    with new_folder(folder, body_marker()) as partial:
        body.write(partial)


@contextmanager
def new_folder(folder: Path, content: dict[str, Any]) -> Iterator[Path]:
    """Fill a folder beside `folder`; then it is marked and put in its place.

    A kill leaves the old folder, the new one or none; an error the old one. `content` is the marker's. Raises
    PipelineError when `folder` holds something that is not marked as demo data.
    """
    folder = folder.absolute()
    refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "replaced"))
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other writers wait; the system releases it when its holder is killed
        for left_over in (partial, replaced):  # of a killed run
            shutil.rmtree(left_over, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / MARKER).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)


def refuse_foreign(folder: Path) -> None:
    """Raise PipelineError when `folder` holds files that are not demo data."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    found = read_marker(folder)
    if found is None or found.get("stand_in") is not True:
        raise PipelineError(
            f"{folder}: expected no folder, or demo data with its {MARKER}; found other files, which stay as they are. "
            "Choose another --out, or switch the demo data off ([embedded] enabled = false)."
        )


def _record_all(layout: Layout, shots: list[Shot], folder: Path, workers: int) -> Iterator[Take]:
    record = functools.partial(_record, layout, folder)
    if workers == 1 or len(shots) == 1:
        yield from map(record, shots)
        return
    for shot, take in zip(shots, ordered_map(record, shots, workers, preload=body.procedural), strict=True):
        if isinstance(take, Failed):
            raise PipelineError(f"{layout.name}: the process that wrote {shot.name} {take.message}")
        yield take


def _record(layout: Layout, folder: Path, shot: Shot) -> Take:
    return layout.record(shot, folder)
