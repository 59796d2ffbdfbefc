"""Names, folders and files of runs, without torch.  features -> windows -> [training,
evaluation]

A run is one training, with its results, in the folder `<runs>/<name>-<fingerprint>`, such as
runs/vibe-3f0c92d1a7b4e856. The fingerprint is a digest of the settings and of all data that the run
reads (`fingerprint`), so equal runs share a folder, and a run whose settings or data have changed
gets a new one.

`open_splits` opens the data of a configuration, `run_folder` names its folder, and `is_finished`
says whether anything is left to do. `training.loop` writes the folder's files, and evaluations add
theirs.

A run has a pin (cache/format/pins.py) of the data that it began with, until the command that it is
the result of has ended (`close`). Until then, each command with the same settings goes on with it
(`open_run`), whatever is committed meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cache
from cache.format.pins import PIN, is_live, write_pin
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


def _missing(config: RunConfig, pin: Path | None = None) -> list[str]:
    """Names of the data that the configuration reads and the cache, or a pin, does not have.

    A split is named `dataset/split`; a stream of an existing split `dataset/split/features/stream`.
    """
    if not cache.store_at(config.cache).exists("zarr.json"):
        return list(config.splits)
    opened = cache.open(config.cache, config.at, pin)
    absent = [name for name in config.splits if name not in opened.splits]
    absent_streams = list[str]()
    for name, streams in config.streams.items():
        if name not in absent:
            present = opened[name].streams
            absent_streams += [f"{name}/features/{key}" for key in streams if key not in present]
    return absent + absent_streams


def open_splits(config: RunConfig, pin: Path | None = None) -> dict[str, Split]:
    """Open the configuration's splits, by name; those of a pin if it is given. Raises DataError for
    a missing split or stream.
    """
    absent = _missing(config, pin)
    opened = cache.open(config.cache, config.at, pin)
    if absent:
        present = ", ".join(opened.splits) or "none"
        raise DataError(
            f"{config.cache}: expected {', '.join(absent)}, found splits {present}. Convert "
            "and extract them, or name others in the settings."
        )
    return {name: opened[name] for name in config.splits}


def _decisive(config: RunConfig) -> dict[str, Any]:
    """What decides a run's numbers beside its inputs: the model's VERSION, and all settings that
    are not NEUTRAL, of those ADDED later the ones that change something.
    """
    settings = drop_neutral(config.as_dict(), config.ADDED)
    decisive = {name: value for name, value in settings.items() if name not in config.NEUTRAL}
    return {**config.VERSION, "settings": decisive}


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(config: RunConfig, splits: Mapping[str, Split]) -> str:
    """16 hex digits that are equal for runs that must give the same numbers. They depend on what is
    decisive in the settings, and on `RunConfig.inputs`.
    """
    return _digest({**_decisive(config), "inputs": config.inputs(splits)})


def run_folder(config: RunConfig, splits: Mapping[str, Split] | None = None) -> Path:
    """The folder of a configuration's run: `<runs>/<name>-<fingerprint>`, which may not exist yet.

    Without `splits`, it is that of the run that a command goes on with, else that of the current
    data. Raises as `open_splits` does.
    """
    return config.runs / f"{config.name}-{fingerprint(config, splits or open_run(config))}"


def open_run(config: RunConfig) -> dict[str, Split]:
    """Open the data of the run that a command with these settings goes on with, else the current
    data. Raises as `open_splits` does.
    """
    return open_splits(config, _find_pin(config))


def _find_pin(config: RunConfig) -> Path | None:
    """The pin of the newest run with these settings whose command has not ended, if it has saved a
    state and is not too old.
    """
    for pin in _pins(config):
        folder = pin.parent
        # checkpoints that the run reads may have changed, too
        if (
            is_live(pin)
            and (folder / LAST).is_file()
            and run_folder(config, open_splits(config, pin)) == folder
        ):
            return pin
    return None


def _pins(config: RunConfig) -> list[Path]:
    """The pins of runs with these settings, the newest first."""
    pins = config.runs.glob(f"*/{pin_of(config, Path()).name}")
    return sorted(pins, key=lambda pin: pin.stat().st_mtime, reverse=True)


def pin_of(config: RunConfig, folder: Path) -> Path:
    """The pin of a run in its folder. Runs with the same settings, cache and tag share its name."""
    data = {"cache": str(config.cache), "at": config.at}
    return folder / f"{PIN}{_digest({**_decisive(config), **data})}"


def old_runs(config: RunConfig) -> list[Path]:
    """Folders of unfinished runs with these settings that are too old to go on with."""
    pins = [pin for pin in _pins(config) if not is_live(pin)]
    return [pin.parent for pin in pins if not is_finished(pin.parent)]


def keep_data(config: RunConfig, splits: Mapping[str, Split], folder: Path) -> bool:
    """Write the pin of a run, unless it goes on. Returns False if there has been a commit since the
    splits were opened.
    """
    pin = pin_of(config, folder)
    if pin.is_dir() and (folder / LAST).is_file():
        return True
    commits = [split.commit for split in splits.values()]
    for name, streams in config.streams.items():
        commits += [splits[name].open_stream(stream).commit for stream in streams]
    try:
        write_pin(cache.store_at(pin), commits)
    except cache.CacheChanged:
        shutil.rmtree(pin)
        return False
    return True


def later_changes(config: RunConfig, splits: Mapping[str, Split]) -> str:
    """How the current data differ from those of a run, in words; "" if they do not. Raises
    CacheError.
    """
    names = [name for name, split in splits.items() if split.has_later_commit()]
    if config.at is not None or not names:
        return ""
    current = cache.open(config.cache)
    n_changed = 0
    for name in names:
        changed = set(_videos(splits[name])) ^ set(_videos(current[name]))
        n_changed += len({video for video, _ in changed})
    date = max(str(split.provenance.get("finished", "")) for split in splits.values())
    since = f"since {date or 'it began'}"
    return f"{', '.join(names)}: {n_changed} of the videos were added, changed or removed {since}"


def _videos(split: Split) -> Iterator[tuple[str, str]]:
    """The names and fingerprints of a split's videos."""
    return zip(split.videos.names, split.videos.fingerprints, strict=True)


def close(config: RunConfig) -> None:
    """Note that a command with these settings has ended: the next one trains on the current data,
    if they have changed.
    """
    for pin in _pins(config):
        if is_finished(pin.parent):
            shutil.rmtree(pin, ignore_errors=True)


def is_complete(config: RunConfig) -> bool:
    """Whether the run of `run_folder` is finished, and the cache has all of its splits now."""
    return not _missing(config) and is_finished(run_folder(config))


def is_finished(folder: Path) -> bool:
    """Whether a run's best.pt and metrics.json exist."""
    return (folder / METRICS).is_file() and (folder / BEST).is_file()
