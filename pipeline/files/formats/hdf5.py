"""Read numbers from HDF5 files, which MATLAB 7.3 files are, too, by h5py.  [raw] -> tracks ->
features -> windows

The numbers of an HDF5 dataset can be in other files (external storage, links, virtual datasets), or
need filters that are loaded as libraries. No release uses these, so they are refused before
reading. Conversion reads in the processes of `pipeline.processes`, so a crash of the library costs
one video.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cache.arrays import Doubles
from pipeline.files.formats.arrays import Shape, matches_shape, reading, refuse
from pipeline.files.formats.names import shown_names
from pipeline.files.formats.other_formats import HDF5, other_format
from pipeline.files.raw.files import open_regular

if TYPE_CHECKING:
    import h5py

MAX_NUMBERS: Final = 1 << 24  # in one array: 128 MB. MPI-INF-3DHP's largest has 0.3 * 10^6
FILTERS: Final = frozenset({1, 2, 3})  # deflate, shuffle, Fletcher32: as `filters_of` gives them


def load_hdf5(file: Path, shapes: Mapping[str, Collection[Shape]]) -> dict[str, Doubles]:
    """Read arrays of numbers by name.

    shapes: the names of the arrays, and the allowed shapes of each (None: any length).

    MATLAB stores axes in reverse: a 3 x 17 x 1 x N array is (N, 1, 17, 3) here. Raises RawDataError
    for another file, a missing or other array, and numbers that are not in the file itself.
    """
    import h5py

    with reading(file, "a MATLAB 7.3 (HDF5) file"):
        if not file.is_file():  # a pipe would never end
            refuse("no file")
        with open_regular(file) as stream:
            actual = other_format(stream.read(16))
        if actual not in (None, HDF5):
            refuse(actual)
        with h5py.File(file, "r", locking=False) as stored:  # raw folders may be read-only
            return {key: _read(file, stored, key, allowed) for key, allowed in shapes.items()}


def _read(file: Path, stored: h5py.File, key: str, shapes: Collection[Shape]) -> Doubles:
    """Read one array, after all checks. Raises RawDataError."""
    import h5py

    expected = f"numbers of shape {' or '.join(map(str, shapes))}".replace("None", "any")
    with reading(file, expected, key=key):
        dataset = own_object(stored, key)
        if not isinstance(dataset, h5py.Dataset):
            refuse(f"a {type(dataset).__name__}")
        shape = dataset.shape
        has_shape = any(matches_shape(shape or (), allowed) for allowed in shapes)
        if not has_shape or dataset.dtype.kind not in "biuf":
            refuse(f"{shape} {dataset.dtype}")
        filters = filters_of(dataset)
        if not FILTERS.issuperset(filters):
            refuse(f"the filters {filters}")
        chunks = dataset.chunks
        if max(math.prod(shape), math.prod(chunks or ())) > MAX_NUMBERS:
            refuse(f"{shape} in chunks of {chunks}, over {MAX_NUMBERS} numbers")
        return np.asarray(dataset[()], np.float64)


def own_object(stored: h5py.File, key: str) -> Any:
    """The dataset or group of this name. Raises, for a `reading` block, if there is none, or if it
    is in another file.
    """
    import h5py

    link = stored.get(key, getlink=True)
    if link is None:
        refuse(f"only {shown_names(stored)}")
    actual: Any = link
    is_elsewhere = not isinstance(link, h5py.HardLink)
    if not is_elsewhere:
        actual = stored[key]
    if isinstance(actual, h5py.Dataset):
        is_elsewhere = actual.is_virtual or actual.external
    if is_elsewhere:
        refuse(f"a {type(actual).__name__} whose numbers are not in this file itself")
    return actual


def filters_of(dataset: h5py.Dataset) -> list[int]:
    """The numbers by which HDF5 knows a dataset's filters."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
