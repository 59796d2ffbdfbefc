"""What holds for the settings of every training.  features -> windows -> [training] -> evaluation

All raise ConfigError with the setting's name, what was expected and what was found. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vibe_model.errors import ConfigError


def require_positive(config: Any, names: Iterable[str]) -> None:
    """Numbers above 0; neither NaN nor infinity."""
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ConfigError(f"{name}: expected more than 0, found {getattr(config, name)}")


def require_not_negative(config: Any, names: Iterable[str]) -> None:
    """Numbers from 0 on; neither NaN nor infinity."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ConfigError(f"{name}: expected 0 or more, found {getattr(config, name)}")


def require_share(config: Any, names: Iterable[str]) -> None:
    """Numbers from 0 on and below 1."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{name}: expected 0 or more and less than 1, found {getattr(config, name)}")


def require_positive_by_split(config: Any, names: Iterable[str]) -> None:
    """Mappings by split whose values are above 0."""
    for name in names:
        for split, value in getattr(config, name).items():
            if not value > 0:
                raise ConfigError(f"{name}: expected more than 0 for {split}, found {value}")


def require_words(config: Any, words: Mapping[str, Iterable[str]]) -> None:
    """By setting, the words that it may be."""
    for name, allowed in words.items():
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name}: expected one of {', '.join(allowed)}, found {getattr(config, name)!r}")


def require_folder_name(config: Any) -> None:
    """`name` names a folder below `runs`, and nothing outside it."""
    if config.name in ("", "..") or Path(config.name).name != config.name:
        raise ConfigError(f"name: expected the name of a folder, found {config.name!r}")
