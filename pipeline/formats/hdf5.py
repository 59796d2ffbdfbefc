"""Numbers out of HDF5 files of strangers, MATLAB 7.3 among them.  [raw] -> tracks -> features -> windows

A dataset in HDF5 can lie in another file (external storage, external and soft links, virtual datasets), ask for filters
that are loaded as libraries, and claim any shape. None of that occurs in a release: it is refused before a number is
read.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError

Shape = tuple[int | None, ...]  # None: any length

MAX_NUMBERS: Final = 1 << 24  # of one array: 128 MB. MPI-INF-3DHP's largest has 0.3 * 10^6
FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
CHECKSUM: Final = 4  # bytes, where it is taken before a piece is deflated
LEAST: Final = 4096  # bytes; deflating makes small pieces larger
AGAIN: Final = "Unpack the download again."


def load_hdf5(
    file: Path, shapes: Mapping[str, Collection[Shape]], optional: Collection[str] = ()
) -> dict[str, NDArray[np.float64]]:
    """The named arrays of numbers, each in one of the shapes given for it; of `optional` those that are there.

    MATLAB stores its axes in reverse: a 3 x 17 x 1 x N array is (N, 1, 17, 3) here. Raises RawDataError for a file that
    is no HDF5, for a missing key, and for anything but numbers in the file itself.
    """
    if not file.is_file():  # a pipe would never end
        raise RawDataError(file, "file", expected="an HDF5 file", found="no file", do=AGAIN)
    try:
        with h5py.File(file, "r", locking=False) as stored:  # raw folders may be read-only
            present = [key for key in shapes if key not in optional or key in stored]
            return {key: _read(file, stored, key, shapes[key]) for key in present}
    except RawDataError:
        raise
    except Exception as error:  # the library raises a dozen types on damaged files, none of them documented
        found = f"{type(error).__name__}: {error}"
        raise RawDataError(file, "file", expected="a MATLAB 7.3 (HDF5) file", found=found, do=AGAIN) from error


def _read(file: Path, stored: h5py.File, key: str, shapes: Collection[Shape]) -> NDArray[np.float64]:
    wanted = f"numbers of shape {' or '.join(map(_text, shapes))}"

    def refused(found: str) -> RawDataError:
        return RawDataError(file, key, expected=wanted, found=found, do=AGAIN)

    link = stored.get(key, getlink=True)
    if link is None:
        raise refused(f"only {sorted(stored)[:20]}")
    if not isinstance(link, h5py.HardLink):
        raise refused(f"a link to elsewhere ({type(link).__name__})")
    dataset: Any = stored[key]
    if not isinstance(dataset, h5py.Dataset):
        raise refused(f"a {type(dataset).__name__}")
    if dataset.is_virtual or dataset.external:
        raise refused("numbers that lie in another file")
    if dataset.dtype.kind not in "biuf" or not any(_fits(dataset.shape, shape) for shape in shapes):
        raise refused(f"{dataset.shape} {dataset.dtype}")
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if len(set(filters)) < len(filters) or not FILTERS.issuperset(filters):
        raise refused(f"the filters {filters}")
    if max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) > MAX_NUMBERS:
        raise refused(f"{dataset.shape} in pieces of {dataset.chunks}, over {MAX_NUMBERS} numbers")
    if h5py.h5z.FILTER_DEFLATE in filters and not _fit_when_inflated(dataset, filters):
        raise refused("pieces that inflate to more than they hold")
    return np.asarray(dataset[()], np.float64)


def _fit_when_inflated(dataset: Any, filters: list[int]) -> bool:
    """Does every stored piece inflate to its own size at most? The library would inflate it whatever comes out."""
    n_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize + CHECKSUM
    skipped = 1 << filters.index(h5py.h5z.FILTER_DEFLATE)  # the bit of a piece that was stored as it is
    for i in range(dataset.id.get_num_chunks()):
        piece = dataset.id.get_chunk_info(i)
        if piece.size > 2 * n_bytes + LEAST:
            return False
        mask, packed = dataset.id.read_direct_chunk(piece.chunk_offset)
        if not mask & skipped and len(zlib.decompressobj().decompress(packed, n_bytes + 1)) > n_bytes:
            return False
    return True


def _fits(found: tuple[int, ...] | None, shape: Shape) -> bool:
    return (
        found is not None
        and len(found) == len(shape)
        and all(w in (None, f) for f, w in zip(found, shape, strict=True))
    )


def _text(shape: Shape) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
