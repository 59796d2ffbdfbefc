"""The registry of datasets: ours, and those of other packages.  [raw -> tracks] -> features ->
windows

Packages add one by an entry point of the group "vibe_pipeline.datasets": the dataset's name -> a
`Dataset` subclass.
"""

from __future__ import annotations

from typing import Final

import cache
from pipeline import smplx
from pipeline.datasets.base import Dataset
from pipeline.files.raw import RawVideo
from pipeline.plug_ins import Registry

__all__ = [
    "ENTRY_POINTS",
    "OWN_CLIPS",
    "RELEASES",
    "WITH_DEMO_DATA",
    "Dataset",
    "RawVideo",
    "broken",
    "find_installed",
    "get",
    "mirror_of",
    "names",
    "not_installed",
    "unknown",
]

ENTRY_POINTS: Final = "vibe_pipeline.datasets"

RELEASES: Final = (  # that demo data imitate
    "penn_action",
    "posetrack",
    "insta_variety",
    "kinetics",
    "mpi_inf_3dhp",
    "h36m",
    "3dpw",
    "emdb",
    "bedlam",
    "amass",
)
OWN_CLIPS: Final = ("videos",)  # which no release is
WITH_DEMO_DATA: Final = (*RELEASES, *OWN_CLIPS)

_REGISTRY: Final[Registry[Dataset]] = Registry("dataset", ENTRY_POINTS, Dataset, "name")
names = _REGISTRY.names
get = _REGISTRY.get
broken = _REGISTRY.broken
unknown = _REGISTRY.unknown
not_installed = _REGISTRY.not_installed


def mirror_of(name: str, column: str) -> cache.Mirror | None:
    """The mirror function of a dataset's extra column; None if the dataset is not installed or
    declares none.
    """
    declared: list[cache.ExtraColumn] = []
    reader = find_installed(name)
    if reader is not None:
        for split in reader.splits:
            declared += reader.extra_columns(split, body=True)
    # SMPL-X's, which `extra_columns` has only where the raw folder has its files
    declared += smplx.columns("", trans=True)
    for extra in declared:
        if extra.name == column and callable(extra.mirror):
            return extra.mirror
    return None


# the cache knows no datasets: it asks here how their extra columns are mirrored
cache.find_mirrors_by(mirror_of)


def find_installed(name: str) -> Dataset | None:
    """The dataset's reader; None if its package is missing or broken."""
    if name not in names() or broken([name]):
        return None
    return get(name)
