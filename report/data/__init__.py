"""The report's sections about what is in a cache.  raw -> tracks -> features -> [report]"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from report.data.distributions import distributions_section
from report.data.examples import examples_section
from report.data.overview import accounting_section, overview_section
from report.data.splits import Opened
from report.data.stream_health import stream_section
from report.page import Section


def data_sections(
    opened: Opened, *, raw: Path | None, body: Path | None, stream: str | None, used: Mapping[str, str] | None = None
) -> list[Section]:
    """Datasets and splits, accounting, example tracks, distributions, and the health of a feature stream.

    Args:
        opened: the splits. What cannot be read of one is reported in the sections.
        raw: the folder that holds the datasets' raw folders, <raw>/<dataset>; None: each is where it was at conversion.
        body: the folder of a body model, which poses tracks that have SMPL parameters but no 3D joints.
        stream: whose health is examined; None: none's.
        used: what the runs shown use each split for; None: there is none.
    """
    return [
        overview_section(opened, used),
        accounting_section(opened),
        examples_section(opened, raw=raw, body=body),
        distributions_section(opened),
        stream_section(opened, stream),
    ]
