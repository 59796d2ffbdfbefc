"""A name for everything that can change a result.  Used all along raw -> tracks -> features -> windows -> training"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the canonical JSON of `parts`: same parts, same name, on any machine, in any order.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    True

    Raises TypeError for what JSON cannot hold, and ValueError for NaN and infinity.
    """
    return hashlib.sha256(canonical(dict(parts))).hexdigest()
