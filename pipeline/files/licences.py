"""Texts about the licence of weights, which may be fetched or the user's own."""

from __future__ import annotations

from typing import Final

DATA_TERMS: Final = "trained on data with other terms"
NOT_KNOWN: Final = "not known"
