"""The formats of `export`, by name: each is imported when it is used.  tracks, features -> [files of other programs]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipeline.errors import PipelineError
from pipeline.plug_ins import load


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


FORMATS: Final[Mapping[str, ExportFormat]] = {
    "vibe": ExportFormat("pipeline.exchange.vibe_db.export:export", "the database file of VIBE's and TCMR's code"),
    "parquet": ExportFormat(
        "pipeline.exchange.tables:export",
        "a folder of tables for DuckDB, pandas, polars",
        options="pipeline.exchange.tables:TableOptions",
        packages={"pyarrow": "parquet"},
    ),
    "webdataset": ExportFormat(
        "pipeline.exchange.webdataset:export",
        "a folder of tar files with crops and labels of windows",
        options="pipeline.exchange.webdataset:WindowOptions",
    ),
    "wham": ExportFormat(
        "pipeline.exchange.wham.export:export",
        "a file of WHAM's dataset/parsed_data",
        options="pipeline.exchange.wham.export:WhamOptions",
    ),
    "rerun": ExportFormat(
        "pipeline.exchange.rerun:export",
        "a recording of some tracks for Rerun's viewer",
        options="pipeline.exchange.rerun:RecordingOptions",
        packages={"rerun": "rerun"},
    ),
}
