"""Whether a command may create the cache of luigi.cfg: [paths] new_cache.  tracks

A cache whose disk is not mounted must not be created again in its mount point.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cache
from pipeline.errors import ConfigError
from pipeline.files.places import require_writable
from pipeline.settings.sections import Settings


def refuse_place_in_cache(root: Path) -> None:
    """Raise ConfigError if a new cache would be in another one."""
    above = [folder for folder in root.resolve().parents if (folder / "zarr.json").is_file()]
    if above:
        raise ConfigError(
            f"{root}: it is in the cache {above[-1]}, which must hold nothing else. Name that one, "
            "or a folder beside it."
        )


def check_new_cache(s: Settings, root: cache.Root) -> bool:
    """Raise ConfigError if there is no cache at `root` yet, `root` is [paths] cache, and [paths]
    new_cache forbids creating it. Returns whether there is no cache yet.

    Also raises ConfigError for a folder in a cache, and PipelineError for one that cannot be made.
    """
    if isinstance(root, Path) and root.is_file():
        raise NotADirectoryError(errno.ENOTDIR, "", str(root))
    has_splits = bool(cache.FeatureCache(root))
    if isinstance(root, Path) and not has_splits:
        refuse_place_in_cache(root)
    if has_splits or cache.store_at(root).exists("zarr.json"):
        return False
    if isinstance(root, Path):
        require_writable(root, "Name another folder for the cache.")
    paths = s.named_paths
    if paths is None or paths.new_cache == "yes":
        return True
    if os.path.realpath(root) == os.path.realpath(paths.cache):  # a URL stays what it is
        where = s.source.where("paths", "new_cache")
        problem = f"{root} has no cache. Is its disk mounted?"
        raise ConfigError(f"{where} = no: {problem} To create one: --set paths.new_cache=yes")
    return True
