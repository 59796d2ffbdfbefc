"""Access to the demo data, which an extension makes.  [raw] -> tracks -> features"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.plug_ins import load, load_records

if TYPE_CHECKING:
    from pipeline.files.formats.smpl_files import SmplArrays

GROUP: Final = "vibe_pipeline.demo"  # of entry points; there is one


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """Functions that make demo data: "module:function" each, imported on use because rendering imports slowly."""

    datasets: tuple[str, ...]  # whose layouts it imitates
    is_current: str  # (raw, body, datasets, *, seed, size) -> bool
    synthesize: str  # the same arguments, and workers, progress: writes what is not current
    body: str  # gender -> the arrays of the procedural body
    calibration_crops: str  # n -> (n, 224, 224, 3) uint8: rendered people


@functools.cache
def demo_data() -> DemoData:
    """The record of the installed extension. Raises PipelineError if there is none."""
    records = load_records(GROUP, DemoData)
    if not records:
        raise PipelineError("no demo data: the entry point of vibe_extensions.demo is missing. Run `make setup` again.")
    return next(iter(records.values()))


def has_demo_data(dataset: str) -> bool:
    """Whether demo data exists in this dataset's layout."""
    return dataset in demo_data().datasets


def is_current(raw: Path, body: Path, datasets: tuple[str, ...], *, seed: int, size: str) -> bool:
    """Whether `synthesize` has nothing to do, by marker files."""
    return bool(load(demo_data().is_current)(raw, body, datasets, seed=seed, size=size))


def synthesize(raw: Path, body: Path, datasets: tuple[str, ...], **options: Any) -> None:
    """Write `raw/<dataset>/` for each dataset, and the procedural body into `body/`.

    Raises PipelineError, before writing, if a folder holds anything but demo data.
    """
    load(demo_data().synthesize)(raw, body, datasets, **options)


def procedural_body(gender: str) -> SmplArrays:
    """The arrays of the procedural body."""
    arrays: SmplArrays = load(demo_data().body)(gender)
    return arrays


def calibration_crops(n: int) -> NDArray[np.uint8]:
    """Rendered people: n crops (n, 224, 224, 3) uint8 RGB, equal in all processes."""
    crops: NDArray[np.uint8] = load(demo_data().calibration_crops)(n)
    return crops
