"""One variable of floating-point numbers out of a CDF file, by cdflib.  [raw] -> tracks -> features -> windows

cdflib believes what a file says of itself: a flipped bit can make it loop for hours or ask for all memory. Conversion
calls this in the processes of `pipeline.processes`, where that costs one video.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.arrays import AGAIN, reading, refuse
from pipeline.raw.files import open_regular

MAGIC: Final = (b"\xcd\xf3\x00\x01", b"\xcd\xf2\x60\x02")  # versions 3 and 2.6


def load_cdf(file: Path, key: str) -> NDArray[np.floating[Any]]:
    """The variable `key`: (records, *dimensions) float32 or float64, as stored but for the byte order.

    Raises RawDataError for a file that is no CDF or is damaged, for a missing variable, and for one that does not hold
    floating-point numbers.
    """
    import cdflib  # takes a quarter of a second, and only Human3.6M needs it

    with reading(file, "a whole CDF file", key=key):
        with open_regular(file) as stream:
            magic = stream.read(4)
        if magic not in MAGIC:
            refuse(f"a file that begins with {magic!r}")
        cdf = cdflib.CDF(file)
        info = cdf.cdf_info()
        names = [*info.zVariables, *info.rVariables]
        values = np.asarray(cdf.varget(key)) if key in names else None
    if values is None:
        raise RawDataError(file, key, expected="a variable of this name", found=f"only {names}", do=AGAIN)
    if values.dtype.kind != "f":
        raise RawDataError(file, key, expected="floating-point numbers", found=str(values.dtype), do=AGAIN)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))
