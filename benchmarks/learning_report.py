"""What the tables of `learning.py` and `learning_mixture.py` share."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch


class Row(NamedTuple):
    """One model, trained with one seed, on one split."""

    model: str
    split: str
    seed: int
    numbers: Mapping[str, Any]  # of metrics.json


def by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """In the order in which models come first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.model, []).append(row)
    return found


def mean_and_spread(values: Sequence[float]) -> str:
    """
    >>> mean_and_spread([70.0, 72.0]), mean_and_spread([70.0])
    ('71.0 ± 1.4', '70.0')
    """
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def machine() -> str:
    """The day and the machine, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory:.0f} GiB, no GPU used"
    software = f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    return f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {cores}, {software}"
