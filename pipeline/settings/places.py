"""Where `luigi.cfg` lies, and where it says that everything lies.  [raw] -> tracks -> features"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cache
from pipeline.settings import sections


@dataclass(frozen=True, slots=True)
class Places:
    """Folders, and the datasets that take part."""

    file: Path
    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path
    cache: cache.Root
    datasets: tuple[str, ...]
    embedded: bool  # stand-in data are made there when there are none
    weights: str  # of the features' network, as the file says them


def settings_file() -> Path:
    """The file in LUIGI_CONFIG_PATH, or ./luigi.cfg."""
    return Path(os.environ.get("LUIGI_CONFIG_PATH", "luigi.cfg"))


def read_places(file: Path) -> Places:
    """Relative paths are below the folder of the file. Raises ConfigError as `sections.load` does."""
    do = "Run from the project's folder, set LUIGI_CONFIG_PATH, or say where the data lie: --raw DIR."
    found = sections.load(file, do)
    paths = found.paths
    weights = found.features.weights
    return Places(file, paths.raw, paths.body, paths.cache, found.data.datasets, found.embedded.enabled, weights)
