"""MATLAB files, by the same bytes every time.  labels -> [raw]"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

HEADER: Final = b"MATLAB 5.0 MAT-file, Platform: stand-in, Created on: Thu Jan  1 00:00:00 1970"
HEADER_73: Final = b"MATLAB 7.3 MAT-file, Platform: stand-in, Created on: Thu Jan  1 00:00:00 1970 HDF5 schema 1.00 ."
USER_BLOCK: Final = 512  # bytes before the HDF5 begins
TEXT, VERSION_73 = 116, bytes(8) + b"\x00\x02IM"  # of the header: its words' length, and what follows them


def write_mat(file: Path, variables: Mapping[str, Any], *, compressed: bool = False) -> None:
    """A MATLAB v5 file whose bytes depend on the variables only: SciPy would put the time into its header."""
    savemat(file, dict(variables), do_compression=compressed)
    with file.open("r+b") as stream:
        stream.write(HEADER.ljust(TEXT))


def write_mat73(file: Path, variables: Mapping[str, NDArray[Any]]) -> None:
    """A MATLAB 7.3 file: HDF5 behind MATLAB's header, compressed, axes in the reverse of MATLAB's order."""
    with h5py.File(file, "w", userblock_size=USER_BLOCK, libver="earliest") as stored:
        for name, values in variables.items():
            written = stored.create_dataset(name, data=values, chunks=values.shape, compression="gzip")
            written.attrs["MATLAB_class"] = np.bytes_("double" if values.dtype == np.float64 else values.dtype.name)
    with file.open("r+b") as stream:
        stream.write(HEADER_73.ljust(TEXT) + VERSION_73)
