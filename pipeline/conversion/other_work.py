"""Report uncommitted work that was made with other code or options, and so is not used.  raw ->
[tracks -> features]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cache
from cache.write.parts import find_other_work
from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.text import count
from pipeline.conversion.identity import find_differences


def report_other_work(
    root: cache.Root, split: str, stream: str | None, plan: Mapping[str, Any]
) -> None:
    """Print a line if the split or stream has uncommitted work of another plan (`staging_plan`).
    Such work is computed again, since all rows of a commit must come from the same code.
    """
    other = find_other_work(root, split, stream, plan)
    if other is None:
        return
    before = other.plan if isinstance(other.plan, Mapping) else {}
    software = find_differences(before.get("software", {}), plan["software"])
    why = "; ".join(map(str, software)) or "other options or another reader"
    pieces = count(other.pieces, "piece")
    name = split if stream is None else f"{split}, {stream}"
    host = other.host or "an unknown machine"
    text = f"{name}: unfinished work of {host} is computed again ({pieces}: {why})"
    err.print(f"{DOUBT} {plain(text)}")
