"""Formats of `export`, imported on use; an export appears when it is complete.  tracks, features ->
[other files]

--help reads the formats, so what writes files is imported by the functions that write.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipeline.errors import PipelineError, missing_package
from pipeline.plug_ins import Registry, load

PROVENANCE: Final = "provenance.json"


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export."""

    file: Path  # or folder
    rows: int
    summary: str  # "12 rows of 3 segments"
    absent: Mapping[str, str]  # field that other code may read -> why it is missing
    left_out: Mapping[str, int]  # missing value -> number of rows not exported
    stand_in: bool


@dataclass(frozen=True)
class ExportFormat:
    """A format of `export`."""

    name: str
    # "module:function": (root, name, out, *, stream, progress[, options]) -> Exported
    export: str
    about: str
    # "module:class": a frozen pydantic dataclass, whose fields are set by --option NAME=VALUE
    options: str = ""
    # for hubs: a folder with a card. The function also takes `more`, names of further splits, and
    # `public`
    has_card: bool = False
    # required package -> the extra that installs it
    packages: Mapping[str, str] = field(default_factory=dict)

    def function(self) -> Callable[..., Exported]:
        """Load the exporting function. Raises PipelineError for a missing package, with the command
        to install it.
        """
        for package, extra in self.packages.items():
            if find_spec(package) is None:
                raise missing_package("this format", package, extra)
        function: Callable[..., Exported] = load(self.export)
        return function

    def options_class(self) -> type[Any] | None:
        """Load the class of its options; None if it has none."""
        if not self.options:
            return None
        options: type[Any] = load(self.options)
        return options


VIBE: Final = ExportFormat(
    "vibe",
    "pipeline.extras.exchange.vibe_db.export:export",
    "the database file of VIBE's and TCMR's code",
)
PARQUET: Final = ExportFormat(
    "parquet",
    "pipeline.extras.exchange.tables:export",
    "a folder of tables of one or several splits, for DuckDB, pandas, polars, Hugging Face",
    options="pipeline.extras.exchange.tables:TableOptions",
    has_card=True,
    packages={"pyarrow": "exchange"},
)
WHAM: Final = ExportFormat(
    "wham",
    "pipeline.extras.exchange.wham.export:export",
    "a file of WHAM's dataset/parsed_data",
    options="pipeline.extras.exchange.wham.export:WhamOptions",
)
GVHMR: Final = ExportFormat(
    "gvhmr",
    "pipeline.extras.exchange.gvhmr:export",
    "a folder hmr4d_support of GVHMR, of AMASS or BEDLAM with SMPL-X labels",
    options="pipeline.extras.exchange.gvhmr:GvhmrOptions",
)
RERUN: Final = ExportFormat(
    "rerun",
    "pipeline.extras.exchange.rerun:export",
    "a recording of some tracks for Rerun's viewer",
    options="pipeline.extras.exchange.rerun:RecordingOptions",
    packages={"rerun": "exchange"},
)


FORMATS: Final[Registry[ExportFormat]] = Registry(
    "export format", "vibe_pipeline.exports", ExportFormat, "name"
)


def provenance_path(file: Path) -> Path:
    """Path of the provenance of a single exported file."""
    return file.with_name(f"{file.name}.{PROVENANCE}")


def require_new_file(file: Path) -> None:
    """Raise PipelineError if the folder of `file` is missing, or if `file` exists."""
    from pipeline.files.places import require_parent

    require_parent(file)
    if file.exists() or file.is_symlink():  # also a dangling link
        raise PipelineError(f"--out {file}: already exists. Choose another file, or delete it.")


def publish_with_provenance(
    file: Path, write: Callable[[Path], None], provenance: Mapping[str, Any]
) -> None:
    """Write a file by `write(path)`, and its provenance; the file gets its name when it is
    complete.
    """
    from pipeline.files.places import write_aside
    from pipeline.files.raw.files import whole_file_digest

    with write_aside(file) as part:
        write(part)
        content = {**provenance, "file": file.name, "sha256": whole_file_digest(part)}
        # before the file gets its name, so that a file always has its provenance
        _write_provenance(provenance_path(file), content)


@contextmanager
def new_folder(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a temporary folder and a dict for its PROVENANCE; the folder becomes `out` at the end.

    PROVENANCE also gets the time (`written`) and each file's SHA-256 (`files`). After an error or a
    kill there is no `out`. Raises PipelineError unless `out` is new or empty.
    """
    from cache.storage.durable import publish, sync_tree
    from pipeline.files.places import require_parent
    from pipeline.files.raw.files import whole_file_digest

    out = out.resolve()
    require_parent(out)
    if out.exists() and not out.is_dir():
        raise PipelineError(
            f"--out {out}: is a file, but this format is a folder. Choose another name."
        )
    if out.exists() and any(out.iterdir()):
        raise PipelineError(f"--out {out}: already exists. Choose another folder, or delete it.")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed run
    temporary.mkdir()
    try:
        provenance: dict[str, Any] = {}
        yield temporary, provenance
        files = {}
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                files[file.relative_to(temporary).as_posix()] = whole_file_digest(file)
        _write_provenance(temporary / PROVENANCE, {**provenance, "files": files})
        sync_tree(temporary)
        publish(temporary, out)  # also replaces an empty folder
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_provenance(file: Path, content: Mapping[str, Any]) -> None:
    """Write the content and the time atomically."""
    from cache.storage.durable import write_atomic

    whole = {**content, "written": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomic(file, (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode())
