"""Where `luigi.cfg` says that everything lies, for commands that need no more of it.  [raw] -> tracks -> features

`tasks.settings` reads and checks the whole file; this reads [paths], [data], [features] weights, and whether
embedded data are made.
"""

from __future__ import annotations

import os
from configparser import ConfigParser, Error
from dataclasses import dataclass
from pathlib import Path

import cache
from pipeline.errors import ConfigError


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


def root_below(base: Path, text: str) -> cache.Root:
    """A cache as a settings file names it: a URL, or a path, taken from the folder `base` where it is relative.

    >>> root_below(Path("/home/me"), "data/cache"), root_below(Path("/home/me"), "s3://bucket/cache")
    (PosixPath('/home/me/data/cache'), 's3://bucket/cache')
    """
    place = cache.place_of(text)
    return place if isinstance(place, str) else base / place.expanduser()


def read_places(file: Path) -> Places:
    """Relative paths are below the folder of the file. Raises ConfigError where it is missing or cannot be read."""
    cfg = ConfigParser(interpolation=None)
    try:
        with file.open(encoding="utf-8") as stream:
            cfg.read_file(stream)
        paths, base = cfg["paths"], file.resolve().parent
        raw, body = (base / Path(paths[key]).expanduser() for key in ("raw", "body"))
        embedded = cfg.getboolean("embedded", "enabled", fallback=False)
        weights = cfg.get("features", "weights", fallback="untrained:0").strip()
        root, names = root_below(base, paths["cache"]), tuple(cfg["data"]["datasets"].split())
        return Places(file, raw, body, root, names, embedded, weights)
    except FileNotFoundError as error:
        do = "Run from the project's folder, set LUIGI_CONFIG_PATH, or say where the data lie: --raw DIR."
        raise ConfigError(f"{file.resolve()}: there is no such file. {do}") from error
    except KeyError as error:
        raise ConfigError(f"{file}: {error} is missing: [paths] raw, body and cache, and [data] datasets") from error
    except (Error, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{file}: {error}") from error
