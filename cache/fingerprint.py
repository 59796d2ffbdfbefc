"""Fingerprints of everything that can change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the canonical JSON of `parts`.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1})
    True

    Raises TypeError for values that JSON cannot hold, ValueError for NaN and infinity.
    """
    return hashlib.sha256(canonical(dict(parts))).hexdigest()
