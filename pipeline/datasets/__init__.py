"""A reader for each dataset, and their registry.  [raw -> tracks] ->
features -> windows

A package adds a dataset by an entry point of the group "vibe_pipeline.datasets". The entry point's
name is the dataset's name, and its value is a `Dataset` subclass.
"""

from __future__ import annotations

import re
from typing import Final

import cache
from pipeline.datasets.base import Dataset
from pipeline.datasets.shared.smpl import SMPLX_MIRRORS
from pipeline.plug_ins import DATASETS, ClassRegistry, PlugInError
from pipeline.table import OWN

ENTRY_POINTS: Final = DATASETS

OWN_CLIPS: Final = ("videos",)  # datasets of the user's own clips, not published ones
# dataset -> the file or folder of its reader in this folder, and of its demo layout
MODULES: Final = {name: re.split("[.:]", path)[2] for name, path in OWN[ENTRY_POINTS].items()}
_FIRST: Final = {module: name for name, module in reversed(MODULES.items())}
# the first of a file's datasets: the others, as bedlam2, have the same layout
WITH_DEMO_DATA: Final = [name for name, module in MODULES.items() if _FIRST[module] == name]
# published datasets; demo data imitate the layout of each
RELEASES: Final = [name for name in WITH_DEMO_DATA if name not in OWN_CLIPS]

_REGISTRY: Final[ClassRegistry[Dataset]] = ClassRegistry("dataset", ENTRY_POINTS, Dataset, "name")
names = _REGISTRY.names
is_known = _REGISTRY.is_known
find = _REGISTRY.find
get = _REGISTRY.get
load_all = _REGISTRY.load_all
unknown = _REGISTRY.unknown
missing_label = _REGISTRY.missing_label


def _find_mirror(name: str, column: str) -> cache.Mirror | None:
    """Find the function that mirrors an extra column of dataset `name` when images are flipped.

    None if the dataset is not installed, or if its column has no such function.
    """
    reader = find_installed(name)
    if reader is not None:
        for split in reader.splits:
            for extra in reader.extra_columns(split, body=True):
                if extra.name == column and callable(extra.mirror):
                    return extra.mirror
    from pipeline.datasets.shared.mhr import MHR_MIRRORS  # imports readers of keypoint files

    # missing from `extra_columns` unless the raw folder has SMPL-X files; MHR's are imported
    return (SMPLX_MIRRORS | MHR_MIRRORS).get(column)


# the cache knows no datasets: it asks here how their extra columns are mirrored
cache.find_mirrors_by(_find_mirror)


def find_installed(name: str) -> Dataset | None:
    """The dataset's reader; None if its package is missing or broken."""
    if not is_known(name):
        return None
    try:
        return get(name)
    except PlugInError:
        return None
