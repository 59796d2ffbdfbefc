"""The registry of datasets: ours, and what other packages add.  [raw -> tracks] -> features -> windows

A package adds one by an entry point of the group "vibe_pipeline.datasets": its name is the dataset's, its value a
`Dataset` subclass. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from pipeline.datasets.base import Dataset, RawVideo
from pipeline.errors import ConfigError, PipelineError

__all__ = ["DATASETS", "ENTRY_POINTS", "Dataset", "RawVideo", "get", "names"]

ENTRY_POINTS: Final = "vibe_pipeline.datasets"

DATASETS: Final[Mapping[str, str]] = {  # name -> module:class
    "penn_action": "pipeline.datasets.penn_action:PennAction",
    "posetrack": "pipeline.datasets.posetrack:PoseTrack",
    "insta_variety": "pipeline.datasets.insta_variety:InstaVariety",
    "kinetics": "pipeline.datasets.kinetics:Kinetics",
    "mpi_inf_3dhp": "pipeline.datasets.mpi_inf_3dhp:MpiInf3dhp",
    "h36m": "pipeline.datasets.h36m:Human36M",
    "3dpw": "pipeline.datasets.threedpw:ThreeDPW",
    "amass": "pipeline.datasets.amass:Amass",
}


def names() -> tuple[str, ...]:
    """All dataset names, ours first. Raises PipelineError when two packages claim one name."""
    return (*DATASETS, *sorted(_plug_ins()))


def get(name: str, **options: Any) -> Dataset:
    """The dataset's reader, with its options set.

    Raises PipelineError for an unknown name and for a plug-in that cannot be loaded, ConfigError for an option that the
    dataset does not have or a value that it refuses.
    """
    plug_ins = _plug_ins()
    if name in DATASETS:
        reader = _ours(DATASETS[name])
    elif name in plug_ins:
        reader = _theirs(plug_ins[name])
    else:
        raise PipelineError(f"no dataset is called {name!r}; known: {', '.join((*DATASETS, *sorted(plug_ins)))}")
    known = [field.name for field in fields(reader) if field.init]
    if unknown := sorted(options.keys() - set(known)):
        raise ConfigError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return reader(**options)


def _ours(place: str) -> type[Dataset]:
    module, _, attribute = place.partition(":")
    reader: type[Dataset] = getattr(importlib.import_module(module), attribute)
    return reader


def _plug_ins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name in DATASETS:
            raise PipelineError(f"dataset {entry.name!r} of {_package(entry)} has the name of one of ours: rename it")
        if entry.name in found:
            both = f"{_package(found[entry.name])} and {_package(entry)}"
            raise PipelineError(f"dataset {entry.name!r} comes from {both}: uninstall one of them")
        found[entry.name] = entry
    return found


def _theirs(entry: EntryPoint) -> type[Dataset]:
    try:
        reader = entry.load()
    except Exception as error:  # other people's code may fail in any way: say whose it is
        why = f"{type(error).__name__}: {error}"
        raise PipelineError(f"dataset {entry.name!r} of {_package(entry)} cannot be loaded: {why}") from error
    if not (isinstance(reader, type) and issubclass(reader, Dataset) and getattr(reader, "name", None) == entry.name):
        expected = f"a Dataset subclass whose name is {entry.name!r}"
        raise PipelineError(f"dataset {entry.name!r} of {_package(entry)}: {entry.value} is not {expected}")
    return reader


def _package(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist is not None else f"{entry.value} (of no known package)"
