"""Names, folders and files of runs, without torch.  features -> windows -> [training,
evaluation]

A run is one training, with its results, in the folder `<runs>/<name>-<fingerprint>`, such as
runs/vibe-3f0c92d1a7b4e856. The fingerprint is a digest of the settings and of all data that the run
reads (`fingerprint`), so equal runs share a folder, and a run whose settings or data have changed
gets a new one.

`open_splits` opens the data of a configuration, `run_folder` names its folder, and `is_finished`
says whether anything is left to do. `training.loop` writes the folder's files, and evaluations add
theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cache
from pipeline.errors import DataError
from pipeline.plug_ins import drop_neutral
from vibe_model.settings import RunConfig

if TYPE_CHECKING:
    from cache import Split

# Files and folders in a run's folder.
CONFIG: Final = "config.json"  # written first
LAST: Final = "last.pt"  # the whole state
BEST: Final = "best.pt"  # the network of the best epoch
# a line for each logged step: [step, seconds of training, {tag: number}]
CURVES: Final = "curves.jsonl"
METRICS: Final = "metrics.json"  # written last: the run is finished
SEQUENCES: Final = "sequences"  # results by track, in sequences.json


def _missing(config: RunConfig) -> list[str]:
    """Names of the data that the configuration reads and the cache does not have.

    A split is named `dataset/split`; a stream of an existing split `dataset/split/features/stream`.
    """
    if not cache.store_at(config.cache).exists("zarr.json"):
        return list(config.splits)
    opened = cache.open(config.cache)
    absent = [name for name in config.splits if name not in opened.splits]
    absent_streams = list[str]()
    for name, streams in config.streams.items():
        if name not in absent:
            present = opened[name].streams
            absent_streams += [f"{name}/features/{key}" for key in streams if key not in present]
    return absent + absent_streams


def open_splits(config: RunConfig) -> dict[str, Split]:
    """Open the configuration's splits, by name. Raises DataError for a missing split or stream."""
    opened = cache.open(config.cache)
    absent = _missing(config)
    if absent:
        present = ", ".join(opened.splits) or "none"
        raise DataError(
            f"{config.cache}: expected {', '.join(absent)}, found splits {present}. Convert "
            "and extract them, or name others in the settings."
        )
    return {name: opened[name] for name in config.splits}


def fingerprint(config: RunConfig, splits: Mapping[str, Split]) -> str:
    """16 hex digits that are equal for runs that must give the same numbers.

    They depend on the model's VERSION, on all settings that are not NEUTRAL, of those ADDED later
    on the ones that change something, and on `RunConfig.inputs`.
    """
    settings = drop_neutral(config.as_dict(), config.ADDED)
    decisive = {name: value for name, value in settings.items() if name not in config.NEUTRAL}
    parts = {**config.VERSION, "settings": decisive, "inputs": config.inputs(splits)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_folder(config: RunConfig, splits: Mapping[str, Split] | None = None) -> Path:
    """The folder of a configuration's run: `<runs>/<name>-<fingerprint>`, which may not exist yet.

    Opens the cache unless `splits` are given. Raises as `open_splits` does.
    """
    if splits is None:
        splits = open_splits(config)
    return config.runs / f"{config.name}-{fingerprint(config, splits)}"


def is_complete(config: RunConfig) -> bool:
    """Whether this configuration's run on the current cache is finished."""
    return not _missing(config) and is_finished(run_folder(config))


def is_finished(folder: Path) -> bool:
    """Whether a run's best.pt and metrics.json exist."""
    return (folder / METRICS).is_file() and (folder / BEST).is_file()
