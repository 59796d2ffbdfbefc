"""The section [pose_embedding] of luigi.cfg: the training of Pr-VIPE.  [settings] -> training"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

from pipeline.settings.sections import Declared, Settings
from vibe_extensions.part_dynamics.pr_vipe.config import PR_VIPE, PrVIPEConfig
from vibe_model.sections import other_settings, other_values


def pr_vipe_settings(s: Settings, seed: int = -1) -> PrVIPEConfig:
    """[pose_embedding] with the paths; `seed` overrides its seed unless negative. Raises ConfigError."""
    config = cast("PrVIPEConfig", other_settings(s, PR_VIPE))
    by_option: dict[str, Any] = {} if seed < 0 else {"seed": seed}
    return replace(config, cache=s.paths.cache, runs=s.paths.runs, body=s.paths.body, **by_option)


def _check(s: Settings) -> None:
    other_settings(s, PR_VIPE)


# Part dynamics checks the shared splits.
SECTIONS: Final = Declared(_check, lambda s: other_values(s, PR_VIPE), lambda _: None)
