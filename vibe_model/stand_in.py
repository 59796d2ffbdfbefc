"""Demo data are not mixed with real data: neither splits, nor bodies, nor checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.errors import StandInMixed

if TYPE_CHECKING:
    from cache import Split


def require_one_kind(
    is_demo: Mapping[str, bool], splits: Mapping[str, Split] | None = None
) -> bool:
    """Require that splits and other sources are all demo data or all real. Returns whether they are
    demo data. Raises StandInMixed.

    is_demo: Source, as named in the message -> whether it is demo data, such as {"the body":
    False}.
    """
    sources = {
        f"split {name}": bool(split.manifest.get("stand_in"))
        for name, split in (splits or {}).items()
    }
    sources |= is_demo
    demo = ", ".join(source for source, flag in sources.items() if flag)
    real = ", ".join(source for source, flag in sources.items() if not flag)
    if demo and real:
        raise StandInMixed(
            f"demo data ({demo}) cannot be used together with real data ({real}). For real data "
            "get SMPL's files "
            "([paths] body), a checkpoint trained on real data, such as VIBE's published one, "
            "and the weights of its "
            "features (spin:FILE): docs/getting-started.md#5-the-first-real-dataset. Demo data "
            "go with the demo body "
            "and a model trained on them."
        )
    return bool(demo)
