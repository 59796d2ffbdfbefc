"""`python -m pipeline synthesize`: the demo data, small datasets in their official layouts, from
rendered bodies, and a demo body.

    motion -> pixels and labels -> raw, and then like any download: raw -> tracks -> features ->
    windows

`body` is a procedural body in SMPL's format, `motion` moves it, `scene` renders it with labels,
`layouts` writes each dataset's files. The marker file STAND_IN.json identifies demo data:

    {"stand_in": true, "what": "Rendered people in ...", "seed": 0, "version": 4, "size": "tiny",
     ..., "files": {"labels/0001.mat": "<SHA-256>", ...}}

`files` lists all files that were written. A folder with any other file is never replaced or
deleted, except for files of `detect` (`_find_foreign`).
"""

from __future__ import annotations

import argparse
import functools
import json
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import sparse

from cache import GENDERS
from cache.storage.durable import sync_folder, sync_tree
from cache.storage.writer_lock import WriterLock
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out, plain
from pipeline.cli.progress import Progress, bar
from pipeline.clips import files as clips
from pipeline.datasets import MODULES, WITH_DEMO_DATA
from pipeline.errors import ConfigError, PipelineError
from pipeline.extras.demo import body as procedural_body
from pipeline.extras.demo import layouts
from pipeline.extras.demo.layouts import ReleaseLayout, Request
from pipeline.extras.demo.scene import Take
from pipeline.extras.demo.smplx_body import procedural_smplx
from pipeline.files.raw import MARKER
from pipeline.files.raw.files import whole_file_digest
from pipeline.people.smpl_files import MEAN_PARAMS, REGRESSOR_EXTRA, REGRESSOR_H36M
from pipeline.plug_ins import load
from pipeline.processes import Failed, cores
from pipeline.processes.ordered import ordered_map

# in the order in which they are written
LAYOUTS: Final[Mapping[str, ReleaseLayout]] = {
    name: load(f"{layouts.__name__}.{MODULES[name]}:LAYOUT") for name in WITH_DEMO_DATA
}
# files of `detect` besides keypoints: its lock, signs of running parts, reasons for missing files,
# those of killed processes
_RECORD: Final = re.compile(
    rf"{re.escape(clips.KEYPOINTS)}/(.+/)?"
    rf"{re.escape(clips.RECORDS)}/(lock|running-\d+-of-\d+|[0-9a-f]{{64}}|\..+\.tmp)"
)
FILES: Final = "files"  # in the marker: SHA-256 of each written file, by its path
VERSION: Final = 4  # raised whenever the same seed would give different files
_VERSIONS: Final = {"version": VERSION, "body_version": procedural_body.VERSION}
_BODY_MARKER: Final[Mapping[str, Any]] = {
    "stand_in": True,
    "what": "A procedural body in SMPL's file format, with no measured person in it: for the "
    "embedded data only.",
    "seed": None,
    "models": ["smpl", "smplx"],
    **_VERSIONS,
}


def _run(args: argparse.Namespace) -> int:
    """Write the demo data and the demo body."""
    with bar("synthesize", err, unit="video") as progress:
        synthesize(
            args.out / "raw",
            args.out / "body",
            request=Request(args.seed, args.size),
            workers=args.workers,
            progress=progress,
        )
    out.print(plain(f"demo data in {args.out / 'raw'}, demo body in {args.out / 'body'}"))
    return 0


def synthesize(
    raw: Path,
    body: Path,
    datasets: Iterable[str] = tuple(LAYOUTS),
    *,
    request: Request,
    workers: int,
    progress: Progress,
) -> None:
    """Write `raw/<dataset>/` for each dataset, and the procedural body's files into `body/`.

    The same request gives the same bytes for any number of `workers` (processes; 0: one per
    core). Replaces demo data of another request or version; each folder appears when it is
    complete. Progress counts videos. Raises PipelineError, before writing, if a folder to replace
    contains other files.
    """
    missing = _missing_layouts(raw, datasets, request)
    has_body = _is_marked(body, _BODY_MARKER)
    for layout in missing:
        _refuse_foreign(raw / layout.name)
    if not has_body:
        _refuse_foreign(body)
    total = sum(len(list(layout.plan(request))) for layout in missing)
    if not has_body:
        write_body(body)
    n_written = 0
    for layout in missing:
        for take in _record(layout, raw / layout.name, request, cores(workers)):
            n_written += 1
            progress(n_written, total, f"{layout.name} {take.shot.name}")


def is_current(raw: Path, body: Path, datasets: Iterable[str], request: Request) -> bool:
    """Whether `synthesize` would have nothing to do. Reads the marker files only."""
    missing = _missing_layouts(raw, datasets, request)
    return not missing and _is_marked(body, _BODY_MARKER)


def _missing_layouts(raw: Path, datasets: Iterable[str], request: Request) -> list[ReleaseLayout]:
    """The layouts of the datasets whose folder is missing, or has other demo data."""
    missing = []
    for layout in map(_layout, dict.fromkeys(datasets)):
        if not _is_marked(raw / layout.name, _marker(layout, request)):
            missing.append(layout)
    return missing


def write_dataset(name: str, folder: Path, request: Request, *, workers: int = 1) -> list[Take]:
    """Write one dataset into `folder` (such as `raw/penn_action`), and return the ground truth of
    every video.

    Always writes. A `Take` has the shot (split, name, fps, image size), the camera, and for every
    person pose, betas, trans in the world (AMASS: its own, z up) and the 49 projected joints, with
    pixel centres at integers from 0.

    Raises PipelineError if the folder contains a file that was not written here.
    """
    return list(_record(_layout(name), folder, request, workers))


def write_body(folder: Path) -> None:
    """Write the procedural body's folder, which does not depend on the seed. Raises as
    `write_dataset`.
    """
    with new_folder(folder, _BODY_MARKER) as partial:
        _write_body_files(partial)


def _write_body_files(folder: Path) -> None:
    """Write all files of an SMPL folder, for three genders, and SMPL-X for two."""
    for gender in GENDERS:
        arrays = procedural_body.procedural(gender)
        kintree = np.stack([arrays.parents, np.arange(len(arrays.parents))])
        content = {  # the keys and types of SMPL's own pickles
            "v_template": arrays.v_template,
            "shapedirs": arrays.shapedirs,
            "posedirs": arrays.posedirs,
            "J_regressor": sparse.csc_matrix(arrays.J_regressor),
            "J": arrays.J_regressor @ arrays.v_template,
            "weights": arrays.weights,
            # the root's parent, -1, is 4294967295
            "kintree_table": (kintree % 2**32).astype(np.uint32),
            "f": arrays.faces.astype(np.uint32),
            "bs_type": "lrotmin",
            "bs_style": "lbs",
            "stand_in": True,
        }
        (folder / f"SMPL_{gender.upper()}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    for gender in GENDERS[1:]:
        file = folder / f"SMPLX_{gender.upper()}.npz"
        np.savez_compressed(file, allow_pickle=False, **procedural_smplx(gender))
    neutral = procedural_body.procedural()
    np.save(folder / REGRESSOR_EXTRA, neutral.J_regressor_extra)
    np.save(folder / REGRESSOR_H36M, neutral.J_regressor_h36m)
    np.savez(
        folder / MEAN_PARAMS, pose=neutral.mean_pose, shape=neutral.mean_shape, cam=neutral.mean_cam
    )


@contextmanager
def new_folder(folder: Path, marker: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; then mark it as demo data, with a list of its files, and
    replace `folder`.

    A kill or a power cut leaves the old folder, the new one or none; an error the old one. Raises
    PipelineError if `folder` contains files that this function did not write, CacheError while
    another process writes it.
    """
    folder = folder.absolute()
    _refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    writing = folder.with_name(f".{folder.name}.writing")
    partial = writing / "partial"
    replaced = writing / "replaced"
    with WriterLock(writing / "lock"):
        _refuse_foreign(replaced)
        for left_over in (partial, replaced):  # by a killed run
            shutil.rmtree(left_over, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            files = {file: whole_file_digest(partial / file) for file in _list_files(partial)}
            text = json.dumps({**marker, FILES: files}, indent=2)
            (partial / MARKER).write_text(text + "\n", encoding="utf-8")
            sync_tree(partial)
            _refuse_foreign(folder)  # it may have changed meanwhile
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def _find_foreign(folder: Path) -> str | None:
    """Find a file that neither `new_folder` nor `detect` in demo clips wrote; None without one.

    A marker file alone proves nothing: people mark their own made-up data, too.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return "a link or a file"
    paths = _list_files(folder)
    if not paths:
        return None
    written = _read_marker(folder).get(FILES)
    if not isinstance(written, dict):
        return f"{MARKER} without a list of files" if MARKER in paths else paths[0]
    for path in paths:
        if path == MARKER:
            continue
        file = folder / path
        if file.is_symlink() or not file.is_file():
            return path
        is_unchanged = whole_file_digest(file) == written.get(path)
        if not is_unchanged and not _is_by_detect(file, path):
            return path
    return None


def _refuse_foreign(folder: Path) -> None:
    """Raise PipelineError unless the folder is missing, empty, or has only files as `new_folder`
    wrote them.
    """
    foreign = _find_foreign(folder)
    if foreign is not None:
        raise PipelineError(
            f"{folder}: expected no folder, or demo data as this program wrote them; found "
            f"other files, which are not changed: {foreign}. If you need nothing in it, delete "
            "the folder. Otherwise move it, choose another --out, or disable demo data "
            "([embedded] enabled = false)."
        )


def _list_files(folder: Path) -> list[str]:
    """Paths of all files and links below a folder, sorted; none if it does not exist."""

    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _is_by_detect(file: Path, path: str) -> bool:
    """Whether `detect` has written a file into `keypoints`: by its content, or a record's name.

    path: of the file, below the dataset's folder.
    """
    if not path.startswith(f"{clips.KEYPOINTS}/"):
        return False
    is_keypoints = clips.read_detection(file) is not None
    return is_keypoints or _RECORD.fullmatch(path) is not None


def _read_marker(folder: Path) -> dict[str, Any]:
    """The marker's content (seed, version, ...); empty if missing or unreadable."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _is_marked(folder: Path, marker: Mapping[str, Any]) -> bool:
    """Whether a folder's marker has this content, beside its list of files."""
    return {key: value for key, value in _read_marker(folder).items() if key != FILES} == marker


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
                raise PipelineError(
                    f"{layout.name}: the process that wrote {shot.name} {take.message}"
                )
            yield take
        if layout.finish is not None:
            layout.finish(partial, shots)


def _marker(layout: ReleaseLayout, request: Request) -> dict[str, Any]:
    """Content of a dataset's marker file."""
    amount = {"size": request.size, "n_videos": request.n_videos, "n_frames": request.n_frames}
    return {"stand_in": True, "what": layout.what, "seed": request.seed, **_VERSIONS, **amount}


def _layout(name: str) -> ReleaseLayout:
    if name not in LAYOUTS:
        raise ConfigError(
            f"no demo data for {name!r}; supported: {', '.join(LAYOUTS)}. Remove it from the "
            "list of datasets, or use the official download and disable demo data ([embedded] "
            "enabled = false)."
        )
    return LAYOUTS[name]


COMMAND: Final = Command(_run)
