"""Short names for NumPy array types, for annotations.  [cache]"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Flags = NDArray[np.uint8]
Keys = NDArray[np.uint64]
