"""A reader's exception in words: what it was, and where.  [raw -> tracks] -> features -> windows"""

from __future__ import annotations

import traceback
from pathlib import Path


def unexpected(error: Exception) -> str:
    """A caught exception that its reader did not foresee, for the person who mends the reader.

    >>> try:
    ...     {}["joints"]
    ... except KeyError as error:
    ...     print(unexpected(error).partition(" (at ")[0])
    KeyError: 'joints'
    """
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (at {Path(where.filename).name}:{where.lineno})"
