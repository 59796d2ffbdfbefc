"""The formats of `export`, each imported when it is used; an export is under its name whole, or not there.

tracks, features -> [files of other programs]. With each comes where it is from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from cache.storage.atomic import naming, publish, sync_folder, write_atomic
from pipeline.errors import PipelineError
from pipeline.files.formats.json_files import load_json
from pipeline.files.raw.files import whole_file_digest
from pipeline.plug_ins import EXPORTS, load, load_records

PROVENANCE: Final = "provenance.json"  # in a folder


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    file: Path  # or the folder of several files
    rows: int
    summary: str  # "12 rows under 3 names"
    absent: Mapping[str, str]  # field that existing code may look for -> why it is absent
    left_out: Mapping[str, int]  # what rows lack -> how many were left out for it
    stand_in: bool

    @property
    def n_bytes(self) -> int:
        """Bytes of the file, or of all files in the folder."""
        files = self.file.rglob("*") if self.file.is_dir() else [self.file]
        return sum(file.stat().st_size for file in files if file.is_file())


@dataclass(frozen=True)
class ExportFormat:
    """A format of `export`."""

    # "module:function": (root, name, out, *, stream, replace, progress) -> Exported, as that of VIBE's databases; with
    # `options`, an object of that class, too
    export: str
    about: str
    options: str = ""  # "module:class": a frozen pydantic dataclass, whose fields are NAME=VALUE of --set
    packages: Mapping[str, str] = field(default_factory=dict)  # that it imports -> our extra that brings it

    def function(self) -> Callable[..., Exported]:
        """The function that exports. Raises PipelineError, with the command that installs it, where a package is
        missing."""
        for package, extra in self.packages.items():
            if find_spec(package) is None:
                do = f"pip install 'vibe-pipeline[{extra}]', in a clone .venv/bin/pip install -e '.[{extra}]'"
                raise PipelineError(f"this format needs the package {package}: {do}")
        function: Callable[..., Exported] = load(self.export)
        return function

    def options_class(self) -> type[Any] | None:
        """The class of its options; None: it has none."""
        return load(self.options) if self.options else None


VIBE: Final = ExportFormat(
    "vibe_extensions.exchange.vibe_db.export:export", "the database file of VIBE's and TCMR's code"
)
PARQUET: Final = ExportFormat(
    "vibe_extensions.exchange.tables:export",
    "a folder of tables for DuckDB, pandas, polars",
    options="vibe_extensions.exchange.tables:TableOptions",
    packages={"pyarrow": "exchange"},
)
WEBDATASET: Final = ExportFormat(
    "vibe_extensions.exchange.webdataset:export",
    "a folder of tar files with crops and labels of windows",
    options="vibe_extensions.exchange.webdataset:WindowOptions",
)
RERUN: Final = ExportFormat(
    "vibe_extensions.exchange.rerun:export",
    "a recording of some tracks for Rerun's viewer",
    options="vibe_extensions.exchange.rerun:RecordingOptions",
    packages={"rerun": "exchange"},
)


def export_formats() -> dict[str, ExportFormat]:
    """All formats by name, those of other packages last. Raises PlugInError for one that cannot be loaded."""
    return load_records(EXPORTS, ExportFormat)


def beside(file: Path) -> Path:
    """The path of the provenance of an export that is one file."""
    return file.with_name(f"{file.name}.{PROVENANCE}")


def require_new_file(file: Path, *, replace: bool) -> None:
    """Raise PipelineError where the folder of `file` is not there, and where `file` is, without `replace`."""
    _require_parent(file)
    if not replace and (file.exists() or file.is_symlink()):  # a link that leads nowhere, too
        raise PipelineError(f"--out {file}: exists already. Name another file, or add --replace.")


def publish_with_provenance(file: Path, write: Callable[[Path], str], provenance: Mapping[str, Any]) -> None:
    """Write a file that has its name only when it is complete, with its provenance beside it.

    write: writes to the path that it is given, and returns the sha256 of what it wrote.
    """
    temporary = file.with_name(f".{file.name}.part")
    try:
        digest = write(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _write_provenance(beside(file), {**provenance, "file": file.name, "sha256": digest})
    publish(temporary, file)  # last: a file of this name always has its provenance


@contextmanager
def new_folder(out: Path, *, replace: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A temporary folder to write files into, and what its PROVENANCE is to say: at the end, it gets the name `out`.

    PROVENANCE also has the time (`written`) and each file's sha256 (`files`). After an error, or a kill, `out` is as
    it was. Raises PipelineError where `out` is no new or empty folder, unless `replace` and all in it is an export's.
    """
    out = out.resolve()
    _require_parent(out)
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
        _write_provenance(temporary / PROVENANCE, {**provenance, "files": files})
        sync_folder(temporary)
        if there:
            out.rename(old)
        publish(temporary, out)  # also in the place of an empty folder
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _require_parent(out: Path) -> None:
    if not out.parent.is_dir():
        raise PipelineError(f"--out {out}: there is no folder {out.parent}. Create it, or name another.")


def _write_provenance(file: Path, content: Mapping[str, Any]) -> None:
    """Write it atomically, with the time."""
    whole = {**content, "written": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomic(file, (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode())


def _exported(folder: Path) -> set[str]:
    """The names of the files of an export, by its PROVENANCE; none where there is none."""
    if not (folder / PROVENANCE).is_file():
        return set()
    content = load_json(folder / PROVENANCE, do="Name a new folder.")
    files = content.get("files") if isinstance(content, dict) else None
    return {PROVENANCE, *files} if isinstance(files, dict) else set()
