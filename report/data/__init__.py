"""The report's sections about what is in a cache.  raw -> tracks -> features -> [report]"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cache
from report.data.distributions import distributions_section
from report.data.examples import examples_section
from report.data.overview import accounting_section, overview_section
from report.data.splits import open_splits
from report.data.stream_health import stream_section
from report.page import Section


def data_sections(
    root: cache.Root, *, raw: Path | None, body: Path | None, stream: str | None, splits: Sequence[str] = ()
) -> list[Section]:
    """Datasets and splits, accounting, example tracks, distributions, and the health of a feature stream.

    Args:
        root: of the cache.
        raw: the folder that holds the datasets' raw folders, <raw>/<dataset>; None: each is where it was at conversion.
        body: the folder of a body model, which poses tracks that have SMPL parameters but no 3D joints; None: they are
            not drawn.
        stream: whose health is examined; None: none's.
        splits: names, <dataset>/<split>; none: all of the cache.

    Raises cache.CacheError when there is no cache. What cannot be read of a split is reported in the sections.
    """
    opened = open_splits(root, splits)
    return [
        overview_section(opened),
        accounting_section(opened),
        examples_section(opened, raw=raw, body=body),
        distributions_section(opened),
        stream_section(opened, stream),
    ]
