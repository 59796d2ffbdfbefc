"""An export that is a folder of files: whole under its name, or not there.  tracks, features -> [files]"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cache.storage.atomic import naming, publish, sync_folder, write_atomic
from pipeline.errors import PipelineError
from pipeline.files.formats.json_files import load_json
from pipeline.files.raw.files import whole_file_digest

PROVENANCE: Final = "provenance.json"


@contextmanager
def new_folder(out: Path, *, replace: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A temporary folder to write files into, and what its PROVENANCE is to say: at the end, it gets the name `out`.

    PROVENANCE also has the time (`written`) and each file's sha256 (`files`). After an error, or a kill, `out` is as
    it was. Raises PipelineError where `out` is no new or empty folder, unless `replace` and all in it is an export's.
    """
    out = out.resolve()
    if not out.parent.is_dir():
        raise PipelineError(f"--out {out}: there is no folder {out.parent}. Create it, or name another.")
    if out.exists() and not out.is_dir():
        raise PipelineError(f"--out {out}: is a file; this format is a folder of files. Name another.")
    if there := sorted(file.name for file in out.iterdir()) if out.exists() else []:
        strange = sorted({*there} - _exported(out))
        if strange:
            raise PipelineError(f"--out {out}: holds {strange[0]}, which is of no export. Name a new folder.")
        if not replace:
            raise PipelineError(f"--out {out}: exists already. Name another folder, or add --replace.")
    temporary, old = (out.with_name(f".{out.name}.{kind}") for kind in ("part", "old"))
    for folder in (temporary, old):  # of a killed run
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    try:
        provenance: dict[str, Any] = {}
        yield temporary, provenance
        files = {}
        for file in sorted(temporary.iterdir()):
            with naming(file), file.open("rb") as stream:
                os.fsync(stream.fileno())
            files[file.name] = whole_file_digest(file)
        content = {**provenance, "written": datetime.now(UTC).isoformat(timespec="seconds"), "files": files}
        write_atomic(temporary / PROVENANCE, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
        sync_folder(temporary)
        if there:
            out.rename(old)
        publish(temporary, out)  # also in the place of an empty folder
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exported(folder: Path) -> set[str]:
    """The names of the files of an export, by its PROVENANCE; none where there is none."""
    if not (folder / PROVENANCE).is_file():
        return set()
    content = load_json(folder / PROVENANCE, do="Name a new folder.")
    files = content.get("files") if isinstance(content, dict) else None
    return {PROVENANCE, *files} if isinstance(files, dict) else set()
